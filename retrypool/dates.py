"""Dates, checked where they are passed, and made where they are shown."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from retrypool.errors import InvalidType, InvalidValue

__all__ = ["date", "timestamp", "zone"]


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
