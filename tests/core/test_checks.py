"""Seconds are checked where they are passed."""

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool.checks import optional_seconds, seconds
from retrypool.errors import InvalidType, InvalidValue


@given(st.floats(0, allow_nan=False, allow_infinity=False) | st.integers(0, 10**300))
def test_number_of_seconds_comes_through(value: float) -> None:
    result = seconds("timeout", value)
    assert result == float(value)
    assert type(result) is float


@given(st.timedeltas(min_value=timedelta(0)))
def test_timedelta_becomes_seconds(value: timedelta) -> None:
    assert seconds("timeout", value) == value.total_seconds()


@pytest.mark.parametrize(
    "value", [-1, -1e-300, math.nan, math.inf, -math.inf, timedelta(microseconds=-1), 10**400]
)
def test_value_that_is_no_duration_is_a_value_error(value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        seconds("timeout", value)
    message = str(caught.value)
    assert message.startswith(f"timeout is {value!r}"[:100])
    assert message.endswith(": it must be a number of seconds, 0 or more")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", ["5", b"5", None, True, False, 1j, Decimal(5), [5], object])
def test_value_that_is_no_number_is_a_type_error(value: Any) -> None:
    with pytest.raises(InvalidType) as caught:
        seconds("timeout", value)
    assert f"timeout is {value!r} ({type(value).__name__})" in str(caught.value)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [0, 0.0, -0.0, timedelta(0)])
def test_zero_is_a_duration_unless_it_has_to_be_positive(value: Any) -> None:
    assert seconds("delay", value) == 0
    with pytest.raises(InvalidValue, match=r"timeout is .*: it must be a positive number of seconds"):
        seconds("timeout", value, positive=True)


def test_none_stays_none_where_it_may() -> None:
    assert optional_seconds("timeout", None, positive=True) is None
    assert optional_seconds("timeout", 5) == 5.0
    with pytest.raises(InvalidValue):
        optional_seconds("timeout", -5)
