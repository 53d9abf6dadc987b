"""Seconds, checked where they are passed."""

import math
import threading
from datetime import timedelta
from typing import overload

from retrypool.errors import InvalidType, InvalidValue

__all__ = ["Duration", "optional_seconds", "patience", "seconds"]

Duration = float | timedelta
"""A number of seconds, or a `timedelta`."""


def seconds(what: str, value: Duration, *, positive: bool = False) -> float:
    """Return `value` as a finite number of seconds, or say what is wrong with it.

    `what` names the argument in the message. Raises `InvalidType` for what is no number (a `bool` is
    none) and `InvalidValue` for NaN, infinity, and a negative value (or zero, if `positive`).
    """
    expected = "a positive number of seconds" if positive else "a number of seconds, 0 or more"
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            result = float(value)
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
