"""Delays: their units, their growth, and no overflow however often a task has failed."""

import math
import sys
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool.errors import InvalidType, InvalidValue
from retrypool.policy.delays import as_delay, combine, exponential, fixed, linear, random_between
from retrypool.policy.failure import Failure

LENGTHS = st.floats(0, 1e12)


def after(attempt: int, chance: float = 0.5) -> Failure:
    return Failure(error=OSError(), attempt=attempt, random=lambda: chance)


def test_delays_of_the_first_attempts() -> None:
    numbers = (1, 2, 3, 4)
    assert [fixed(2)(after(n)) for n in numbers] == [2, 2, 2, 2]
    assert [linear(0.5)(after(n)) for n in numbers] == [0.5, 1.0, 1.5, 2.0]
    assert [exponential(0.5)(after(n)) for n in numbers] == [0.5, 1.0, 2.0, 4.0]
    assert [exponential(1, factor=3)(after(n)) for n in numbers] == [1, 3, 9, 27]
    assert [exponential(1, factor=1)(after(n)) for n in numbers] == [1, 1, 1, 1]


@pytest.mark.parametrize("make", [fixed, linear, exponential, lambda delay: random_between(delay, delay)])
def test_seconds_may_be_a_timedelta(make: Any) -> None:
    assert make(timedelta(milliseconds=1500))(after(1)) == make(1.5)(after(1)) == 1.5


@pytest.mark.parametrize("attempt", [1_100, 10_000, 10**9, 10**18])
def test_exponential_does_not_overflow(attempt: int) -> None:
    assert exponential(0.1)(after(attempt)) == sys.float_info.max
    assert exponential(1e300, factor=1e300)(after(attempt)) == sys.float_info.max
    assert exponential(0)(after(attempt)) == 0.0
    assert exponential(sys.float_info.max, factor=1)(after(attempt)) == sys.float_info.max


@given(attempt=st.integers(1, 10**9), base=LENGTHS, factor=st.floats(1, 1e9))
def test_exponential_never_shrinks_and_stays_finite(attempt: int, base: float, factor: float) -> None:
    delay = exponential(base, factor=factor)
    assert base <= delay(after(attempt)) <= delay(after(attempt + 1)) < math.inf


@given(low=LENGTHS, width=LENGTHS, chance=st.floats(0, 1, exclude_max=True))
def test_random_between_keeps_within_its_bounds(low: float, width: float, chance: float) -> None:
    high = low + width
    delay = random_between(low, high)(after(1, chance))
    assert low <= delay <= high or math.isclose(delay, high)


def test_random_between_asks_for_chance_each_time() -> None:
    delay = random_between(1, 3)
    assert [delay(after(1, chance)) for chance in (0.0, 0.5, 0.75)] == [1.0, 2.0, 2.5]


def test_combine_adds_delays_functions_and_numbers() -> None:
    total = combine(exponential(1), lambda failure: 10 * failure.attempt, 0.5, timedelta(seconds=100))
    assert total(after(3)) == 4 + 30 + 0.5 + 100


@pytest.mark.parametrize(
    ("delay", "shown"),
    [
        (fixed(2), "fixed(2)"),
        (linear(0.5), "linear(0.5)"),
        (exponential(0.1), "exponential(0.1, factor=2)"),
        (random_between(1, 2), "random_between(1, 2)"),
        (combine(fixed(1), linear(2)), "combine(fixed(1), linear(2))"),
    ],
)
def test_delay_shows_how_it_was_made(delay: object, shown: str) -> None:
    assert repr(delay) == shown


def test_delays_made_alike_are_equal() -> None:
    assert exponential(1) == exponential(timedelta(seconds=1)) != exponential(2)
    assert fixed(1) != linear(1)


@pytest.mark.parametrize("bad", [-1, -0.001, math.nan, math.inf, timedelta(seconds=-1), 10**400])
@pytest.mark.parametrize(
    "make", [fixed, linear, exponential, combine, as_delay, lambda bad: random_between(bad, bad)]
)
def test_delay_that_is_no_time_is_refused(make: Any, bad: Any) -> None:
    with pytest.raises(InvalidValue, match="0 or more"):
        make(bad)


@pytest.mark.parametrize("bad", ["1", None, True, 1j, [1]])
@pytest.mark.parametrize("make", [fixed, linear, exponential, combine, as_delay])
def test_delay_that_is_no_number_is_refused(make: Any, bad: Any) -> None:
    with pytest.raises(InvalidType, match="a number of seconds, 0 or more, or a timedelta"):
        make(bad)


@pytest.mark.parametrize(
    ("factor", "kind"),
    [
        (0.5, InvalidValue),
        (math.nan, InvalidValue),
        (math.inf, InvalidValue),
        ("2", InvalidType),
        (True, InvalidType),
    ],
)
def test_factor_that_makes_no_sense_is_refused(factor: Any, kind: type[BaseException]) -> None:
    with pytest.raises(kind, match=f"factor is {factor!r}"):
        exponential(1, factor=factor)


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(InvalidValue, match="high is 1: it must be at least low, which is 2"):
        random_between(2, 1)


def test_sum_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidValue, match="at least one delay"):
        combine()
