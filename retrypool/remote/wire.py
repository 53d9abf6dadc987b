"""The messages between head and far side, and how they are packed.

Engines carry bytes and plain values only. So a value that can't be pickled or unpickled fails here, and not
in the middle of an engine; and whatever an engine raises is about the engine.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
import traceback
from contextlib import suppress
from typing import Any, NamedTuple

from retrypool.errors import RemoteError, Throttled, Unrecoverable, WorkerFault

__all__ = [
    "PYTHON",
    "WIRE",
    "Failed",
    "Order",
    "Result",
    "Said",
    "Started",
    "dump",
    "failed",
    "load",
    "open_error",
]

WIRE = 1
"""The version of all that is below. Head and host must agree on it."""

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""Functions that travel by value are bytecode: they run on this version of Python only."""


class Order(NamedTuple):
    """The part of an attempt that goes to the far side: what `ctx` tells there, and the data."""

    call: int  # the number of the call, among those of its hand
    task_id: int
    attempt: int
    name: str | None
    worker_id: int
    group: str
    seconds: float | None  # that the attempt may take; None: no limit
    remaining: float | None  # of these, when the order was written
    options: dict[str, object]
    idempotency_key: str
    has_drain: bool
    data: Any


class Started(NamedTuple):
    """A hand is ready for calls."""

    host: str
    hooks: tuple[str, ...]  # that its worker defines


class Said(NamedTuple):
    """What a call has said to its context, for the head to hear when it has ended."""

    sent: bytes | None = None  # a list of what it gave to `ctx.send`
    cost: float | None = None  # what it gave to `ctx.settle`
    restart: bool = False  # whether it called `ctx.restart`


NOTHING_SAID = Said()


class Result(NamedTuple):
    """A call has returned."""

    packed: bytes
    said: Said = NOTHING_SAID


class Failed(NamedTuple):
    """A call has raised. The error itself is `packed`, if it can be sent; the texts can always be."""

    packed: bytes | None
    kind: str
    message: str
    traceback: str
    verdict: str | None  # the error of this package whose meaning it has
    retry_after: Any
    restart: bool  # what a `WorkerFault` says of it
    said: Said = NOTHING_SAID


def dump(value: object) -> bytes:
    """Pickle a value; functions and classes that the far side can't import go by value.

    Most values need no cloudpickle, which is ten times as slow.
    """
    known = sys.modules.get("cloudpickle")
    if known is not None and known.list_registry_pickle_by_value():
        return dump_by_value(value)
    try:
        packed = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        if importlib.util.find_spec("cloudpickle") is None:
            raise
        return dump_by_value(value)  # a lambda, for one; cloudpickle has the last word
    # Pickled by its name in the head's script, where no other process finds it.
    return dump_by_value(value) if b"__main__" in packed else packed


def dump_by_value(value: object) -> bytes:
    """Pickle a value with cloudpickle, which comes with every engine."""
    try:
        from cloudpickle import dumps
    except ImportError:
        from pickle import dumps
    packed: bytes = dumps(value, pickle.HIGHEST_PROTOCOL)
    return packed


def load(packed: bytes) -> Any:
    """Unpickle what `dump` has made."""
    return pickle.loads(packed)


class RemoteTraceback(Exception):
    """The cause of an error that was raised in another process: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


_VERDICTS: tuple[type[Exception], ...] = (Throttled, Unrecoverable, WorkerFault)


def failed(error: BaseException, said: Said = NOTHING_SAID) -> Failed:
    """Return any error in a form that can be sent."""
    try:
        packed: bytes | None = dump(error)
        load(packed or b"")  # many errors pickle and can't be unpickled: their arguments are not `args`
    except BaseException:  # noqa: BLE001 - it may be of any kind; the texts go instead
        packed = None
    kind = type(error)
    try:
        message = str(error)
    except BaseException as broken:  # noqa: BLE001
        message = f"its message can't be told: {type(broken).__name__}"
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001
        text = f"{kind.__qualname__}: {message}\n"
    verdict = next((each.__name__ for each in _VERDICTS if isinstance(error, each)), None)
    retry_after = None
    if verdict == "Throttled":
        with suppress(Exception):
            retry_after = load(dump(getattr(error, "retry_after", None)))
    restart = verdict == "WorkerFault" and getattr(error, "restart", False) is True
    name = f"{kind.__module__}.{kind.__qualname__}"
    return Failed(packed, name, message, text, verdict, retry_after, restart, said)


def open_error(failed: Failed, host: str) -> BaseException:
    """Return the error that was raised there, or what stands for it, with its traceback as the cause."""
    error: BaseException | None = None
    if failed.packed is not None:
        try:
            error = load(failed.packed)
        except BaseException:  # noqa: BLE001 - of a type that there is only on the far side
            error = None
    if not isinstance(error, BaseException):
        error = _substitute(failed, host)
    with suppress(Exception):  # an error may refuse new attributes
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(failed.traceback))
        BaseException.add_note(error, f"raised on {host}")
    return error


def _substitute(failed: Failed, host: str) -> BaseException:
    plain = RemoteError(failed.kind, failed.message, host)
    match failed.verdict:
        case "Throttled":
            return Throttled(str(plain), retry_after=failed.retry_after)
        case "Unrecoverable":
            return Unrecoverable(str(plain))
        case "WorkerFault":
            return WorkerFault(plain, restart=failed.restart)
    return plain
