"""A told rate is kept to, in every window, and reached."""

import math
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool import InvalidType, InvalidValue, Rate, RetryPolicy, Throttled, WorkerSpec
from retrypool.policy.rates import Bucket, as_pace
from retrypool.testing import ManualPool

from ..core.fleets import AT_ONCE, Echo, claim_all, claimed

RATES = st.builds(
    Rate, st.floats(0.1, 1000), per=st.floats(0.1, 3600), burst=st.one_of(st.just(1), st.integers(1, 50))
)
GAPS = st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 500))


def paced(*specs: WorkerSpec[Any, Any], **options: Any) -> ManualPool[Any, Any]:
    return ManualPool(specs, retry=AT_ONCE, **options)


def slot(name: str, rate: Any = None, *, slots: int = 1, group: str | None = None) -> WorkerSpec[Any, Any]:
    return WorkerSpec(Echo(), name=name, group=group, concurrency=slots, rate=rate)


def calls_until(pool: ManualPool[Any, Any], end: float, step: float) -> list[float]:
    """The moments at which calls are made by workers that take whatever they are given."""
    moments = []
    while pool.clock.monotonic() < end:
        for attempt in claim_all(pool):
            moments.append(pool.clock.monotonic())
            attempt.finish(None)
        pool.clock.advance(step)
    return moments


# -- the bucket ------------------------------------------------------------------------------------


@given(RATES, st.lists(GAPS, min_size=1, max_size=60))
def test_no_window_has_more_than_burst_and_what_the_rate_allows(rate: Rate, gaps: list[float]) -> None:
    """Calls that come as early as they may after random rests; every window between two of them."""
    bucket, now, calls = Bucket(rate), 0.0, []
    for gap in gaps:
        now = max(now + gap, bucket.ready_at(now))
        bucket.take(now, 1.0)
        calls.append(now)
    for first in range(len(calls)):
        for last in range(first, len(calls)):
            allowed = rate.burst + (calls[last] - calls[first]) / rate.interval
            assert last - first + 1 <= allowed * (1 + 1e-9) + 1e-6


@given(RATES, st.lists(st.floats(0, 20), min_size=1, max_size=60))
def test_costs_are_kept_to_up_to_the_last_call(rate: Rate, costs: list[float]) -> None:
    """A call may start when there is room for one: what it costs beyond is a debt for the next."""
    bucket, now, taken = Bucket(rate), 0.0, 0.0
    for cost in costs:
        now = max(now, bucket.ready_at(now))
        assert taken <= rate.burst - 1 + now / rate.interval + 1e-6 * (1 + taken)
        bucket.take(now, cost)
        taken += cost


@given(RATES, st.integers(2, 200))
def test_full_rate_is_reached(rate: Rate, calls: int) -> None:
    bucket, now = Bucket(rate), 0.0
    for _ in range(calls):
        now = max(now, bucket.ready_at(now))
        bucket.take(now, 1.0)
    assert now == pytest.approx(max(0.0, calls - rate.burst) * rate.interval, abs=1e-6)


@given(RATES, st.lists(st.tuples(GAPS, st.floats(0, 5), st.floats(-5, 5)), max_size=30))
def test_ready_at_never_says_now_before_its_moment(
    rate: Rate, story: list[tuple[float, float, float]]
) -> None:
    """At the moment that it names there is room: whoever sleeps until then need not sleep again."""
    bucket, now = Bucket(rate), 0.0
    for gap, cost, settled in story:
        now += gap
        when = max(now, bucket.ready_at(now))
        assert bucket.ready_at(when) <= when
        bucket.take(when, cost)
        bucket.settle(max(settled, -cost))
        now = when


def test_time_that_runs_late_is_not_made_up_for_beyond_the_burst() -> None:
    bucket = Bucket(Rate(10, burst=3))
    bucket.take(0.0, 1.0)
    at_once = 0
    while bucket.ready_at(1000.0) <= 1000.0:
        bucket.take(1000.0, 1.0)
        at_once += 1
    assert at_once == 3


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"limit": 0}, InvalidValue),
        ({"limit": -1}, InvalidValue),
        ({"limit": math.inf}, InvalidValue),
        ({"limit": math.nan}, InvalidValue),
        ({"limit": True}, InvalidType),
        ({"limit": "10"}, InvalidType),
        ({"limit": 1, "per": 0}, InvalidValue),
        ({"limit": 1, "per": None}, InvalidType),
        ({"limit": 1, "burst": 0}, InvalidValue),
        ({"limit": 1, "burst": 0.5}, InvalidValue),
        ({"limit": 1, "burst": math.inf}, InvalidValue),
    ],
)
def test_rate_that_makes_no_sense_is_refused(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Rate(**wrong)


def test_rate_takes_a_timedelta_and_says_what_it_is() -> None:
    assert Rate(60, per=timedelta(minutes=1)) == Rate(60, 60.0)
    assert repr(Rate(600, per=60)) == "Rate(limit=600, per=60.0, burst=1)"
    assert Rate(600, per=60).interval == 0.1


@pytest.mark.parametrize("rate", [5, "slow", True, (10, 1.0), Rate])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    for refused in (as_pace, lambda it: WorkerSpec(Echo(), rate=it), lambda it: paced(rate=it)):
        with pytest.raises(InvalidType):
            refused(rate)


# -- in a pool -------------------------------------------------------------------------------------


def test_slots_of_one_group_share_one_rate() -> None:
    pool = paced(slot("a", Rate(1, burst=2), slots=3))
    pool.dispatch_many(range(100))
    calls = calls_until(pool, 10, 0.25)
    assert calls == [0, 0, *range(1, 10)]


def test_workers_of_one_group_share_one_rate() -> None:
    pool = paced(slot("a1", Rate(2), group="a"), slot("a2", group="a"), slot("b"))
    assert [worker.rate for worker in pool.workers()] == [2.0, 2.0, None]
    pool.pause_worker(2)
    pool.dispatch_many(range(100))
    assert len(calls_until(pool, 10, 0.25)) == 20


def test_group_has_one_rate_and_a_second_one_is_refused() -> None:
    pool = paced(slot("a1", Rate(2), group="a"))
    with pytest.raises(InvalidValue, match="group 'a'"):
        pool.add_worker(Echo(), group="a", rate=Rate(3))
    assert pool.add_worker(Echo(), group="a", rate=Rate(2)) in [worker.id for worker in pool.workers()]


def test_rate_of_the_pool_holds_for_all_groups_together() -> None:
    pool = paced(slot("a", slots=2), slot("b"), rate=Rate(2, burst=3))
    pool.dispatch_many(range(100))
    assert len(calls_until(pool, 10, 0.25)) == 3 + 2 * 10 - 1


def test_both_rates_hold() -> None:
    pool = paced(slot("a", Rate(1)), slot("b", Rate(1)), slot("c", Rate(1)), rate=Rate(2))
    tasks = pool.dispatch_many(range(100))
    assert len(calls_until(pool, 20, 0.25)) == 40
    by_group = [task.history[0].group for task in tasks if task.done()]
    assert all(by_group.count(name) <= 20 for name in "abc")


def test_cost_is_a_number_or_a_function_of_the_data() -> None:
    pool = paced(slot("a", Rate(1)))
    pool.dispatch_many([1, 2], cost=2)
    pool.dispatch_many([3, 1, 1], cost=float)
    assert calls_until(pool, 20, 0.5) == [0, 2, 4, 7, 8]


@pytest.mark.parametrize("cost", [-1, math.nan, math.inf, "1", True, None])
def test_cost_that_makes_no_sense_is_refused_at_dispatch(cost: Any) -> None:
    pool = paced(slot("a", Rate(1)))
    with pytest.raises((InvalidType, InvalidValue)):
        pool.dispatch(1, cost=cost)
    with pytest.raises((InvalidType, InvalidValue)):
        pool.dispatch(1, cost=lambda _: cost)
    assert pool.queue_size == 0


def test_cost_function_that_raises_raises_at_dispatch() -> None:
    pool = paced(slot("a", Rate(1)))
    with pytest.raises(ZeroDivisionError):
        pool.dispatch(0, cost=lambda n: 1 / n)
    assert pool.queue_size == 0


def test_dead_task_whose_cost_can_not_be_told_again_is_not_lost() -> None:
    costs = iter([1.0])
    pool = paced(slot("a", Rate(1)))
    task = pool.dispatch(1, cost=lambda _: next(costs))
    attempt = claimed(pool)
    pool.interrupt_worker(0, task="dead")
    attempt.finish(None)
    with pytest.raises(StopIteration):
        pool.requeue_dead_task(task.id)
    assert [dead.id for dead in pool.dead_tasks()] == [task.id]


def test_settling_up_makes_the_next_one_wait() -> None:
    pool = paced(slot("a", Rate(1)))
    pool.dispatch_many(range(2))
    attempt = claimed(pool)
    attempt.context.settle(5)
    attempt.finish(None)
    assert calls_until(pool, 10, 0.5) == [5]


def test_last_word_in_settling_holds() -> None:
    pool = paced(slot("a", Rate(1)))
    pool.dispatch_many(range(2), cost=3)
    attempt = claimed(pool)
    for actual in (10, 0, 2):
        attempt.context.settle(actual)
    attempt.finish(None)
    assert calls_until(pool, 10, 0.5) == [2]


def test_settling_down_wakes_who_sleeps_for_the_pace() -> None:
    """One worker asks for ten and takes one; the other need not sleep until ten are paid."""
    pool = paced(slot("a", Rate(1), slots=2))
    pool.dispatch_many(range(2), cost=10)
    first = claimed(pool)
    assert pool.claim() is None
    sleeper = next(runner.slot for runner in pool._workers if not runner.slot.running)
    woken: list[float] = []
    sleeper.wake = lambda: woken.append(pool.clock.monotonic())
    pool.clock.advance(1)
    first.context.settle(1)
    pool.clock.advance(0)  # the watchdog is up at once
    assert woken == [1.0]


def test_settling_is_checked() -> None:
    pool = paced(slot("a"))
    pool.dispatch(1)
    attempt = claimed(pool)
    with pytest.raises(InvalidValue, match="actual"):
        attempt.context.settle(-1)
    with pytest.raises(InvalidType, match="actual"):
        attempt.context.settle("many")  # type: ignore[arg-type]
    attempt.context.settle(3)  # of no consequence where nothing is paced


def tokens(text: str) -> int:
    return len(text)


def test_all_rates_of_a_group_are_kept() -> None:
    """Ten calls at once by the first, but only six tokens a second by the second."""
    pool = paced(slot("a", [Rate(10, burst=10), Rate(6, burst=6, cost=tokens)]))
    pool.dispatch_many(["abc"] * 4)
    started = []
    for _ in range(8):
        while (attempt := pool.claim()) is not None:
            started.append(pool.clock.monotonic())
            attempt.finish(None)
        pool.clock.advance(0.25)
    assert started == [0.0, 0.0, 0.25, 0.75]


def test_rate_with_a_fixed_cost_takes_no_notice_of_that_of_the_task() -> None:
    pool = paced(slot("a", [Rate(100, burst=100), Rate(4, cost=2)]))
    pool.dispatch_many(range(2), cost=50)
    claimed(pool).finish(None)
    assert pool.claim() is None
    pool.clock.advance(0.5)
    claimed(pool).finish(None)


def test_settling_is_for_the_rate_with_a_cost_of_its_own() -> None:
    pool = paced(slot("a", [Rate(10, burst=10), Rate(1, cost=tokens)]))
    pool.dispatch_many(["a", "a"])
    attempt = claimed(pool)
    attempt.context.settle(7)
    attempt.finish(None)
    assert calls_until(pool, 10, 0.5) == [7]


def test_settling_says_which_of_several_rates() -> None:
    words, letters = Rate(10, burst=10, cost=1), Rate(1, cost=tokens)
    pool = paced(slot("a", [words, letters]))
    pool.dispatch_many(["a", "a"])
    attempt = claimed(pool)
    with pytest.raises(InvalidValue, match="each has a cost of its own"):
        attempt.context.settle(3)
    with pytest.raises(InvalidValue, match="rate"):
        attempt.context.settle(3, Rate(99))
    attempt.context.settle(4, letters)
    attempt.context.settle(3, letters)
    attempt.finish(None)
    assert calls_until(pool, 10, 0.5) == [3]


def test_cost_function_that_raises_fails_the_attempt(stage: Any) -> None:
    def broken(data: str) -> float:
        raise KeyError(data)

    pool = stage.pool([slot("a", Rate(1000, cost=broken))], retry=RetryPolicy(attempts=1))
    assert isinstance(pool.dispatch("x").exception(stage.within), KeyError)
    assert pool.workers()[0].state == "active"


def test_cost_function_is_called_outside_the_lock(stage: Any) -> None:
    pool = stage.pool([slot("a", Rate(1000, cost=lambda data: pool.queue_size))])
    assert pool.dispatch("x").result(stage.within) == "x"


@pytest.mark.parametrize("rate", [[], [Rate(1), 3], [None]])
def test_what_is_no_list_of_rates_is_refused(rate: Any) -> None:
    with pytest.raises((InvalidType, InvalidValue), match="rate"):
        WorkerSpec(Echo(), rate=rate)


@pytest.mark.parametrize("cost", [-1, float("nan"), "x", True])
def test_cost_of_a_rate_is_checked(cost: Any) -> None:
    with pytest.raises((InvalidType, InvalidValue), match="cost"):
        Rate(1, cost=cost)


def test_probe_is_paced_too() -> None:
    pool = paced(slot("a", Rate(1, per=10), slots=2))
    pool.dispatch_many(range(5))
    claimed(pool).fail(Throttled(retry_after=4))
    assert calls_until(pool, 45, 0.5) == [10, 20, 30, 40]
