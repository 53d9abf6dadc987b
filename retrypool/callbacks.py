"""Calling what users passed in, and showing it, where an error must not get out.

An object of the user's may raise from anything that it can define: `__repr__`, `__class__`, an attribute.
So whoever has to come through asks for its type by `type`, not by `isinstance`, and shows it by `shown`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from retrypool.ctrl_c import MainGate, here, is_ctrl_c, main_gate

__all__ = [
    "call_each",
    "call_guarded",
    "call_ours",
    "described",
    "is_a",
    "log_broken",
    "log_safely",
    "shown",
    "text_of",
    "traceback_of",
]

log = logging.getLogger("retrypool")

T = TypeVar("T")

LONGEST_TEXT = 500


def call_guarded(what: str, function: Callable[..., Any], *args: object) -> Any:
    """Return `function(*args)`; log what it raises, whatever it is, and return None then.

    A Ctrl-C gets through: it is meant for the program, and only the main thread gets one. If that is
    shielded, it comes through when the shield is lifted.
    """
    gate = main_gate()
    if gate is not None:  # in the middle of something: a Ctrl-C ends the call, and is raised afterwards
        return gate.call(call_ours, what, function, *args)
    return call_ours(what, function, *args)


def call_each(what: str, functions: Iterable[Callable[[T], object]], value: T) -> None:
    """Do as `call_guarded` does with each of `functions`, which are called for everything that happens."""
    gate = here.gate
    if type(gate) is MainGate and gate.barred:
        for function in functions:
            gate.call(call_ours, what, function, value)
        return
    for function in functions:
        try:
            function(value)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            log_broken("%s %s raised", what, shown(function))


def call_ours(what: str, function: Callable[..., Any], *args: object) -> Any:
    """The same for what is not the user's: nothing may strike it half way."""
    try:
        return function(*args)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        log_broken("%s %s raised", what, shown(function))
        return None


def log_broken(message: str, *args: object, extra: dict[str, object] | None = None) -> None:
    """Log the error that is being handled, with its traceback if that can be made.

    `args` and `extra` must be safe to show. A Ctrl-C that comes meanwhile gets through.
    """
    try:
        log.exception(message, *args, extra=extra)  # noqa: LOG004 - an error is being handled
    except BaseException as error:  # it raises also while it is shown, in a formatter or a handler
        if is_ctrl_c(error):
            raise
        try:
            log.error(message, *args, extra=extra)
        except (
            BaseException
        ) as again:  # a handler of the user's that always raises: there is nowhere to report to
            if is_ctrl_c(again):
                raise


def log_safely(level: int, message: str, *args: object, extra: dict[str, object] | None = None) -> None:
    """Log a line, whatever the handlers of the program do about it. A Ctrl-C gets through."""
    try:
        log.log(level, message, *args, extra=extra)
    except BaseException as error:
        if is_ctrl_c(error):
            raise


def shown(value: object) -> str:
    """Return `repr(value)`, cut to a length that can be read, or what can be said of it if that raises."""
    try:
        text = repr(value)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        text = f"<a {_name_of(value)} that can't be shown>"
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def described(error: BaseException) -> str:
    """Return the type and the text of an error, the text cut short if it is long."""
    text, name = text_of(error), _name_of(error)
    return f"{name}: {text}" if text else name


def text_of(value: object) -> str:
    """Return `str(value)`, cut short if it is long, or what can be said of it if that raises."""
    try:
        text = str(value)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        return "its text could not be made"
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def is_a(error: BaseException, kinds: type | tuple[type, ...]) -> bool:
    """Return whether `error` is of one of these types, which are ours, without asking the error."""
    return issubclass(type(error), kinds)


def traceback_of(error: BaseException) -> Any:
    """Return the traceback of an error, without asking the error."""
    return _TRACEBACK.__get__(error)


# Past whatever the type, or its metaclass, has put in their place.
_TRACEBACK = BaseException.__dict__["__traceback__"]
_NAME = type.__dict__["__name__"]


def _name_of(value: object) -> str:
    kind = type(value)
    if type(kind) is type:  # there is no metaclass: this is quicker
        return kind.__name__
    name: str = _NAME.__get__(kind)
    return name
