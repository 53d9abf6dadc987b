"""Whether a worker can be called as a pool calls it: known when it is given, not when its task fails."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from math import inf
from typing import Any

from retrypool.errors import InvalidType

__all__ = ["check_factory", "check_run", "is_stateful"]

# inspect.CO_*, without the import
_VARIADIC, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x20, 0x80, 0x200


def check_run(worker: object, run: Callable[..., Any], *, takes_context: bool) -> None:
    """Raise `InvalidType` if `run` of a worker returns before it has done anything, or can't be called so."""
    flags = _flags(run)
    if flags & (_COROUTINE | _ASYNC_GENERATOR):
        raise InvalidType(
            "a worker",
            worker,
            "one whose call returns the result: this is `async def`, and a thread has nobody to await it. "
            "Call asyncio.run() in it, or a library that is not asynchronous",
        )
    if flags & _GENERATOR:
        raise InvalidType(
            "a worker",
            worker,
            "one whose call returns the result: this is a generator function, and nobody would iterate over "
            "what it returns. Return a list, or send the values to a Drain with ctx.send()",
        )
    names = ("ctx", "data") if takes_context else ("data",)
    if not _can_be_called_with(run, names):
        called = f"{'run' if takes_context else 'it'}({', '.join(names)})"
        raise InvalidType("a worker", worker, f"one that can be called as {called}{_hint(run, names)}")


def check_factory(factory: Callable[..., Any]) -> None:
    """Raise `InvalidType` if `factory` can't be called without arguments, or returns before it is done."""
    if _flags(factory) & (_COROUTINE | _ASYNC_GENERATOR | _GENERATOR):
        raise InvalidType(
            "factory", factory, "a function that returns a worker, not `async def`, no generator"
        )
    if not _can_be_called_with(factory, ()):
        raise InvalidType("factory", factory, "a function that makes a worker, called without arguments")


def is_stateful(worker: object) -> bool:
    """Return whether `worker` is an object with `run` and a state of its own, for threads to mix up."""
    if not callable(getattr(worker, "run", None)):
        return False
    return bool(getattr(worker, "__dict__", None)) or any(
        hasattr(worker, name)
        for kind in type(worker).__mro__
        for name in _slots(kind)
        if name not in ("__dict__", "__weakref__")
    )


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _flags(function: object) -> int:
    """Return the flags of the code that a call of `function` runs, 0 if that is not known."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):
        return 0
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:  # an object that can be called
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004
    flags = getattr(code, "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def _can_be_called_with(function: Callable[..., Any], names: tuple[str, ...]) -> bool:
    """Return whether `function` takes so many arguments by position. If nobody knows, it does."""
    count, plain = len(names), function
    if type(function) is types.MethodType:
        count, plain = count + 1, function.__func__  # pyright: ignore[reportFunctionMemberAccess]
    if type(plain) is types.FunctionType:  # nearly always; `inspect` takes ten times as long
        code = plain.__code__
        least = code.co_argcount - len(plain.__defaults__ or ())
        most = inf if code.co_flags & _VARIADIC else code.co_argcount
        named = code.co_kwonlyargcount - len(plain.__kwdefaults__ or ())
        return least <= count <= most and named == 0
    import inspect

    try:
        # Not that of what it wraps: a decorator may bring in arguments.
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - what is written in C has none, and that of a proxy may do anything
        return True
    try:
        signature.bind(*names)
    except TypeError:
        return False
    return True


def _hint(run: Callable[..., Any], names: tuple[str, ...]) -> str:
    """Suggest what its author may have meant."""
    if len(names) == 2 and _can_be_called_with(run, names[1:]):
        return ": the context comes first, as in def run(self, ctx, data)"
    if len(names) == 1 and _can_be_called_with(run, ("ctx", "data")):
        return ": a plain function gets the data alone, and has the context from current_context()"
    return ""
