"""Retries beyond the budget are postponed, and none is dropped."""

import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool import Budget, InvalidType, InvalidValue, Pool, RetryPolicy, Throttled
from retrypool.policy.budget import RetryBudget
from retrypool.testing import ManualPool

from ..core.fleets import Echo, claim_all, claimed, fleet

TWICE = RetryPolicy(attempts=2, delay=0)


def due(pool: ManualPool[Any, Any], seconds: float, step: float = 0.5) -> list[float]:
    """The moments at which retries are made, by workers that succeed."""
    moments = []
    until = pool.clock.monotonic() + seconds
    while pool.clock.monotonic() <= until:
        while attempt := pool.claim():
            moments.append(pool.clock.monotonic())
            attempt.finish(None)
        pool.clock.advance(step)
    return moments


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"ratio": -0.1}, InvalidValue),
        ({"ratio": math.nan}, InvalidValue),
        ({"ratio": math.inf}, InvalidValue),
        ({"ratio": "1"}, InvalidType),
        ({"per_second": True}, InvalidType),
        ({"per_second": 0}, InvalidValue),
        ({"per_second": -1}, InvalidValue),
    ],
)
def test_budget_that_makes_no_sense_is_refused(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Budget(**wrong)


@pytest.mark.parametrize("budget", [0.2, {"ratio": 0.2}, Budget])
def test_pool_takes_nothing_else_for_a_budget(budget: Any) -> None:
    with pytest.raises(InvalidType, match="retry_budget"):
        Pool(retry_budget=budget)


def test_what_is_over_budget_is_postponed_and_comes() -> None:
    pool = fleet("a", concurrency=20, retry=TWICE, retry_budget=Budget(ratio=0, per_second=1))
    tasks = pool.dispatch_many(range(20))
    for attempt in claim_all(pool):
        attempt.fail(OSError())
    moments = due(pool, 20)
    assert all(task.done() and not task.exception() for task in tasks)
    assert moments == [0.0] * 10 + [float(n) for n in range(1, 11)]  # ten saved up, then one a second


def test_delay_of_the_policy_is_not_added_to() -> None:
    policy = RetryPolicy(attempts=2, delay=7)
    pool = fleet("a", concurrency=12, retry=policy, retry_budget=Budget(ratio=0, per_second=1))
    pool.dispatch_many(range(12))
    for attempt in claim_all(pool):
        attempt.fail(OSError())
    assert set(due(pool, 20)) == {7.0}


def test_every_first_attempt_earns_its_part_although_its_task_has_not_ended() -> None:
    """With a ratio of 1 there is a retry for each task that fails the first time, also in an outage."""
    policy = RetryPolicy(attempts=2, delay=7)
    pool = fleet("a", retry=policy, retry_budget=Budget(ratio=1.0, per_second=0.001))
    for number in range(20):
        pool.dispatch(number)
        claimed(pool).fail(OSError())
    assert due(pool, 10) == [7.0] * 20


def test_success_at_the_first_attempt_earns_as_well() -> None:
    pool = fleet("a", retry=TWICE, retry_budget=Budget(ratio=0.5, per_second=0.001))
    for _ in range(5):
        for good in pool.dispatch_many(["good"] * 2):
            claimed(pool).finish("good")
            assert good.done()
        pool.dispatch("bad")
        claimed(pool).fail(OSError())
        assert due(pool, 0) == [pool.clock.monotonic() - 0.5]


def test_worker_that_leaves_does_not_take_the_earnings_of_the_others_with_it() -> None:
    pool = fleet("a", "b", retry=TWICE, retry_budget=Budget(ratio=1.0, per_second=0.001))
    for _ in range(200):
        pool.dispatch("good", worker=1)
        claimed(pool, 1).finish("good")
    pool.dispatch("bad", worker=0)
    claimed(pool, 0).fail(OSError())
    claimed(pool, 0).finish("good")
    pool.remove_worker(1)
    for _ in range(20):
        pool.dispatch("good")
        claimed(pool, 0).finish("good")
        task = pool.dispatch("bad")
        claimed(pool, 0).fail(OSError())
        claimed(pool, 0).finish("good")
        assert task.done()


def test_throttled_task_is_a_retry_too_and_comes_all_the_same() -> None:
    pool = fleet("a", "b", retry_budget=Budget(ratio=0, per_second=0.1))
    tasks = pool.dispatch_many(range(2))
    for attempt in claim_all(pool):
        attempt.fail(Throttled(retry_after=1))
    due(pool, 60)
    assert all(task.done() and not task.exception() for task in tasks)


@given(
    st.floats(0.1, 100),
    st.lists(st.one_of(st.just(0.0), st.floats(0, 30)), min_size=1, max_size=80),
)
def test_no_window_has_more_retries_than_was_saved_up_and_earned(rate: float, gaps: list[float]) -> None:
    retry_budget, now, starts = RetryBudget(Budget(ratio=0, per_second=rate)), 0.0, []
    for gap in gaps:
        now += gap
        starts.append(now + retry_budget.spend(now, 0))
    starts.sort()
    saved = max(1.0, 10 * rate)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            assert last - first + 1 <= saved + (starts[last] - starts[first]) * rate + 1 + 1e-6


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), max_size=50))
def test_retry_is_never_put_off_for_longer_than_all_that_wait_need(story: list[tuple[float, int]]) -> None:
    retry_budget, now, firsts = RetryBudget(Budget(ratio=0.2, per_second=2)), 0.0, 0
    for retries, (gap, made) in enumerate(story, 1):
        now, firsts = now + gap, firsts + made
        assert 0 <= retry_budget.spend(now, firsts) <= retries / 2


def test_budget_is_shared_by_all_workers() -> None:
    pool: ManualPool[Any, Any] = ManualPool(
        [Echo()] * 4, retry=TWICE, retry_budget=Budget(ratio=0, per_second=0.1)
    )
    pool.dispatch_many(range(4))
    for attempt in claim_all(pool):
        attempt.fail(OSError())
    assert due(pool, 40, step=10) == [0.0, 10.0, 20.0, 30.0]
