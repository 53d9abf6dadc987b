"""What is passed in, checked where it is passed.

A subclass of a number or a string may compare, hash and show itself in its own way. What the pool works with
under its lock must not: so it keeps the plain value of it (`exact`).
"""

import dataclasses
import math
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, TypeVar, overload

from retrypool.errors import InvalidType, InvalidValue

__all__ = [
    "Duration",
    "as_id",
    "checked_timeout",
    "count",
    "date",
    "exact",
    "flag",
    "optional_count",
    "optional_seconds",
    "patience",
    "plain",
    "seconds",
    "timestamp",
    "unknown_option",
    "zone",
]

T = TypeVar("T")

Duration = float | timedelta
"""A number of seconds, or a `timedelta`."""


def seconds(what: str, value: Duration, *, positive: bool = False) -> float:
    """Return `value` as a finite number of seconds, or say what is wrong with it.

    `what` names the argument in the message. Raises `InvalidType` for what is no number (a `bool` is
    none) and `InvalidValue` for NaN, infinity, and a negative value (or zero, if `positive`).
    """
    expected = "a positive number of seconds" if positive else "a number of seconds, 0 or more"
    if isinstance(value, timedelta):
        result = timedelta.total_seconds(value)  # its own, whatever a subclass has in its place
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            result = float(exact(value))
        except OverflowError:
            raise InvalidValue(what, value, expected) from None
    else:
        raise InvalidType(what, value, f"{expected}, or a timedelta")
    if not math.isfinite(result) or result < 0 or (positive and result == 0):
        raise InvalidValue(what, value, expected)
    return result


@overload
def optional_seconds(what: str, value: None, *, positive: bool = False) -> None: ...
@overload
def optional_seconds(what: str, value: Duration | None, *, positive: bool = False) -> float | None: ...
def optional_seconds(what: str, value: Duration | None, *, positive: bool = False) -> float | None:
    """Like `seconds`, and None stays None: no limit."""
    return None if value is None else seconds(what, value, positive=positive)


def patience(what: str, value: Duration | None) -> float | None:
    """Like `optional_seconds`, for how long a thread is to wait: no longer than a thread can.

    That is `threading.TIMEOUT_MAX`, a few hundred years at the most.
    """
    limit = optional_seconds(what, value)
    return None if limit is None else min(limit, threading.TIMEOUT_MAX)


def checked_timeout(timeout: object) -> float:
    """Return what a thread can wait. As for any future, a negative time is no error: it is over."""
    if isinstance(timeout, timedelta):
        return min(timeout.total_seconds(), threading.TIMEOUT_MAX)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidType("timeout", timeout, "a number of seconds, a timedelta or None")
    if timeout != timeout:  # noqa: PLR0124 - it is not a number
        raise InvalidValue("timeout", timeout, "a number of seconds")
    return float(max(-threading.TIMEOUT_MAX, min(timeout, threading.TIMEOUT_MAX)))


def timestamp(what: str, value: object) -> float:
    """Return an aware `datetime` as seconds since the epoch, or say what is wrong with it.

    `what` names the argument in the message. Raises `InvalidType` for what is no datetime, and
    `InvalidValue` for a naive one: it would mean another moment on another machine.
    """
    if not isinstance(value, datetime):
        raise InvalidType(what, value, "a datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidValue(
            what,
            value,
            "a datetime with a time zone, such as datetime.now(UTC): "
            "a naive one does not say which moment it means",
        )
    return value.timestamp()


def date(timestamp: float, tz: tzinfo = UTC) -> datetime:
    """Return a time on the wall clock as an aware `datetime`; what lies past the year 9999 as its end."""
    try:
        return datetime.fromtimestamp(timestamp, tz)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=tz)


def zone(what: str, value: object) -> tzinfo:
    """Return a time zone that is given as such, or by its name.

    Raises `InvalidType` for what is neither, and `InvalidValue` for a name that is not known here.
    """
    if isinstance(value, tzinfo):
        return value
    if not isinstance(value, str):
        raise InvalidType(what, value, "a time zone, such as ZoneInfo('Europe/Oslo'), or its name")
    from zoneinfo import ZoneInfo  # imported when first needed, as it costs more than all of this

    try:
        return ZoneInfo(value)
    except (ValueError, OSError, LookupError):
        expected = "the name of a time zone known here (pip install tzdata, if the system has none)"
        raise InvalidValue(what, value, expected) from None


def count(what: str, value: object, *, least: int = 0) -> int:
    """Return `value`, a whole number of `least` or more. Raises `InvalidType` or `InvalidValue`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(what, value, f"a whole number, {least} or more")
    value = exact(value)
    if value < least:
        raise InvalidValue(what, value, f"{least} or more")
    return value


def optional_count(what: str, value: object, *, least: int = 0) -> int | None:
    """Like `count`, and None stays None: no limit."""
    return None if value is None else count(what, value, least=least)


def flag(what: str, value: object) -> bool:
    """Return `value`, which is True or False. Raises `InvalidType`."""
    if not isinstance(value, bool):
        raise InvalidType(what, value, "True or False")
    return value


def unknown_option(option: str, known: Iterable[str]) -> InvalidType:
    """Return the error for an option that there is not, with the one that was perhaps meant."""
    import difflib  # when it is needed: it costs more than all of this

    names = tuple(known)
    meant = next(iter(difflib.get_close_matches(option, names, n=1)), None)
    hint = "" if meant is None else f"another. Did you mean {meant!r}? It is "
    return InvalidType("an option", option, f"{hint}one of: {', '.join(names)}")


def exact(value: T) -> T:
    """Return a string or a number as one of Python's own types, and anything else as it is."""
    kind = type(value)
    if kind in (str, int, float, bool):
        return value
    own: Any = value
    if issubclass(kind, str):
        own = str.__str__(own)
    elif issubclass(kind, int):
        own = int.__add__(own, 0)
    elif issubclass(kind, float):
        own = float.__add__(own, 0.0)
    plain: T = own
    return plain


def plain(kind: type[T], value: T) -> T:
    """Return `value`, a frozen dataclass of `kind` or derived from it, as exactly that."""
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    names = [field.name for field in fields if field.init]
    given = {name: object.__getattribute__(value, name) for name in names}
    if type(value) is kind and all(exact(each) is each for each in given.values()):
        return value
    return kind(**{name: exact(each) for name, each in given.items()})


def as_id(value: object) -> int | None:
    """Return what was given as an id as a plain number; None for what can be no id."""
    return exact(value) if isinstance(value, int) else None
