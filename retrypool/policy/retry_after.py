"""The time that a server asks for: the HTTP `Retry-After` header and its relatives."""

from __future__ import annotations

import math
import time
from datetime import UTC, timedelta
from typing import Any

__all__ = ["parse_retry_after"]


def parse_retry_after(value: object, *, now: float | None = None) -> float | None:
    """Return the seconds that `value` asks to wait for; None if it says nothing that makes sense.

    Takes a number of seconds, a `timedelta`, and the text of a header: seconds (a fraction is
    accepted), milliseconds as `"1500ms"`, or an HTTP date (RFC 9110, section 10.2.3), which is measured
    against `now`, seconds since the epoch (default: the present). Takes also a mapping of headers, and
    looks there for `Retry-After-Ms`, then `Retry-After`. The past means 0. Never raises.

    >>> parse_retry_after("120"), parse_retry_after("1500ms"), parse_retry_after("soon")
    (120.0, 1.5, None)
    >>> parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=0)
    60.0
    >>> parse_retry_after({"Retry-After": "2", "retry-after-ms": "1500"})
    1.5
    """
    try:
        return _parse(value, now)
    except Exception:  # noqa: BLE001 - whatever it is, it says nothing of a time
        return None


def _parse(value: Any, now: float | None) -> float | None:
    if callable(getattr(value, "items", None)):  # HTTP messages have it, and are no Mapping
        headers = {str(name).lower(): text for name, text in value.items()}
        milliseconds = str(headers.get("retry-after-ms", "")).removesuffix("ms")
        exact = _parse_text(f"{milliseconds}ms", now)
        if exact is not None:
            return exact
        value = headers.get("retry-after")
    if isinstance(value, timedelta):
        return max(0.0, value.total_seconds())
    if isinstance(value, str):
        return _parse_text(value.strip(), now)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _sane(value)
    return None


def _parse_text(text: str, now: float | None) -> float | None:
    number, scale = (text[:-2], 0.001) if text.lower().endswith("ms") else (text, 1.0)
    if "_" in text:  # Python's own way to write numbers, and nobody else's
        return None
    try:
        return _sane(float(number) * scale)
    except ValueError:
        pass
    # Imported when first needed: it brings sockets and calendars with it, and few send dates.
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000", and the obsolete forms: HTTP dates are in GMT
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def _sane(number: float) -> float | None:
    number = float(number)
    return max(0.0, number) if math.isfinite(number) else None
