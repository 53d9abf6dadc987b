"""Which attempts count as stragglers, and how many second attempts there may be: the pure part."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrypool.core.hedging import SHORTEST, Hedging
from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.slots import Group
from retrypool.policy.hedge import LATEST, Hedge, as_hedge

A, B = Group("a"), Group("b")


def hedging(*durations: float, **options: Any) -> Hedging:
    found = Hedging(Hedge(**options))
    for duration in durations:
        found.succeeded(A, duration)
    return found


def test_nothing_is_a_straggler_before_there_is_a_sample() -> None:
    assert hedging(*[1.0] * 9).limit() is None
    assert hedging(*[1.0] * 10).limit() == 3.0


def test_limit_is_a_multiple_of_a_quantile() -> None:
    durations = [number / 10 for number in range(1, 11)]
    assert hedging(*durations, after=2, quantile=0.5).limit() == 1.0
    assert hedging(*durations, after=2, quantile=1.0).limit() == 2.0


def test_one_straggler_among_many_does_not_raise_the_limit() -> None:
    assert hedging(*[1.0] * 19, 1000.0).limit() == 3.0


def test_limit_is_never_within_a_switch_of_threads() -> None:
    assert hedging(*[1e-6] * 10).limit() == SHORTEST


def test_what_is_long_ago_is_forgotten() -> None:
    found = hedging(*[100.0] * LATEST)
    for _ in range(LATEST):
        found.succeeded(B, 1.0)
    assert found.limit() == 3.0


@given(attempts=st.integers(0, 10_000), share=st.floats(0.001, 1.0))
def test_share_is_kept_after_every_attempt(attempts: int, share: float) -> None:
    found = hedging(share=share)
    for total in range(min(attempts, 300)):
        if found.allows_another(total + found.hedged):
            found.hedged += 1
        assert found.hedged <= share * (total + found.hedged + 1)


def test_one_in_twenty_allows_the_first_with_the_twentieth_attempt() -> None:
    assert not hedging().allows_another(18)
    assert hedging().allows_another(19)


def test_group_that_was_slow_the_last_time_is_no_help() -> None:
    found = hedging(0.1)
    found.succeeded(B, 2.0)
    assert found.is_slow(B, 1.0)
    assert not found.is_slow(A, 1.0)
    assert not found.is_slow(Group("new"), 1.0)
    found.succeeded(B, 0.1)
    assert not found.is_slow(B, 1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"after": 0.5},
        {"after": float("inf")},
        {"after": 10**400},
        {"after": float("nan")},
        {"quantile": 0},
        {"quantile": 1.1},
        {"share": 0},
        {"share": float("nan")},
        {"sample": 0},
        {"sample": 101},
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(options))):
        Hedge(**options)


@pytest.mark.parametrize("options", [{"after": "3"}, {"share": True}, {"sample": 2.5}, {"quantile": None}])
def test_what_is_no_number_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidType, match=next(iter(options))):
        Hedge(**options)


def test_option_is_true_or_a_hedge_or_nothing() -> None:
    policy = Hedge(after=2)
    assert as_hedge(policy) is policy
    assert as_hedge(True) == Hedge()
    assert as_hedge(False) is as_hedge(None) is None
    with pytest.raises(InvalidType, match="hedge"):
        as_hedge(3)  # type: ignore[arg-type]
