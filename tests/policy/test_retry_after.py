"""`parse_retry_after` makes sense of what servers write, and never raises."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool import parse_retry_after

MOMENT = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
A_MINUTE_BEFORE = MOMENT.timestamp() - 60


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (0, 0.0),
        (120, 120.0),
        (1.5, 1.5),
        (-3, 0.0),
        (timedelta(minutes=2), 120.0),
        (timedelta(seconds=-2), 0.0),
        ("120", 120.0),
        ("  120  ", 120.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("1500ms", 1.5),
        ("1500 MS", 1.5),
    ],
)
def test_number_of_seconds(value: Any, parsed: float) -> None:
    assert parse_retry_after(value) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 09:49:37 +0100",
        "Sun, 06 Nov 1994 08:49:37 -0000",
    ],
)
def test_date_in_each_form_that_http_knows(text: str) -> None:
    """RFC 9110, section 5.6.7: the last two forms of an HTTP date are obsolete, and to be accepted."""
    assert parse_retry_after(text, now=A_MINUTE_BEFORE) == 60.0


def test_date_in_the_past_means_now() -> None:
    assert parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0


@given(st.datetimes(MOMENT.replace(year=1971, tzinfo=None)), st.floats(0, 4e9))
def test_date_is_measured_against_now(moment: datetime, now: float) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    parsed = parse_retry_after(format_datetime(moment, usegmt=True), now=now)
    assert parsed == max(0.0, moment.timestamp() - now)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "ms",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1_000",
        "Sun, 31 Feb 2025 08:00:00 GMT",
        "Sun, 06 Nov 1994 25:00:00 GMT",
        True,
        math.nan,
        math.inf,
        10**400,
        b"120",
        [120],
        object(),
        1j,
    ],
)
def test_what_makes_no_sense_is_none(value: Any) -> None:
    assert parse_retry_after(value) is None


TEXTS = st.one_of(
    st.text(),
    st.from_regex(r"[A-Z][a-z]{2}, \d{1,4} [A-Z][a-z]{2} \d{1,9} \d{1,3}:\d{1,3}:\d{1,3} ?[-+A-Z\d]{0,12}"),
    st.from_regex(r"[-+]?\d{0,500}\.?\d{0,9}(e\d{1,5})?(ms)?"),
)
ANYTHING = st.one_of(
    TEXTS,
    st.floats(),
    st.integers(),
    st.timedeltas(),
    st.none(),
    st.booleans(),
    st.binary(),
    st.complex_numbers(),
)


@given(ANYTHING, st.floats(-1e12, 1e12))
def test_nothing_makes_it_raise(value: Any, now: float) -> None:
    parsed = parse_retry_after(value, now=now)
    assert parsed is None or (0.0 <= parsed < math.inf)


class Broken:
    """Looks like a mapping of headers, and is none."""

    def items(self) -> list[str]:
        raise OSError


@pytest.mark.parametrize("value", [dict, Broken(), Broken], ids=["dict", "instance", "class"])
def test_what_only_looks_like_a_mapping_is_none(value: object) -> None:
    assert parse_retry_after(value) is None


@pytest.mark.parametrize(
    ("headers", "parsed"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"RETRY-AFTER": 2}, 2.0),
        ({"Retry-After": "2", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "2", "Retry-After-Ms": "soon"}, 2.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 60.0),
        ({1: 2}, None),
    ],
)
def test_mapping_of_headers(headers: dict[object, object], parsed: float | None) -> None:
    assert parse_retry_after(headers, now=A_MINUTE_BEFORE) == parsed


def test_value_that_can_not_be_read_says_nothing() -> None:
    class Broken(str):
        __slots__ = ()

        def strip(self, chars: str | None = None, /) -> str:
            raise OSError(chars)

    assert parse_retry_after(Broken("3")) is None
    assert parse_retry_after({"retry-after": Broken("3")}) is None
