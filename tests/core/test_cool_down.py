"""A group that was told to wait is given nothing, exactly for so long; its tasks go to the others."""

import pytest

from retrypool import Budget, DeadReason, Rate, RetryPolicy, TaskState, Throttled, WorkerFault, WorkerSpec
from retrypool.events import GroupCooling, GroupOpened
from retrypool.testing import ManualPool

from .fleets import AT_ONCE, Echo, claim_all, claimed, echo, fleet, heard, states


def test_task_flows_to_another_group_with_no_delay() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(attempts=1, delay=60))
    task = pool.dispatch(1)
    claimed(pool, 0).fail(Throttled(retry_after=100))
    claimed(pool, 1).finish("done")
    assert (task.result(), pool.clock.monotonic()) == ("done", 0.0)


def test_nothing_is_claimed_for_a_cooling_group_until_the_very_moment() -> None:
    pool = fleet("a", concurrency=3)
    pool.dispatch_many(range(5))
    claimed(pool).fail(Throttled(retry_after=7.5))
    pool.clock.advance(7.4999)
    assert pool.claim() is None
    pool.clock.advance(0.0001)
    assert pool.claim() is not None


@pytest.mark.parametrize(("first", "second", "end"), [(10, 3, 10), (3, 10, 11), (10, 9, 10), (5, None, 5)])
def test_later_word_prolongs_and_never_shortens(first: float, second: float | None, end: float) -> None:
    """The second one comes a second later, from a call that was under way."""
    pool = fleet("a", concurrency=2)
    pool.dispatch_many(range(2))
    one, two = claim_all(pool)
    one.fail(Throttled(retry_after=first))
    pool.clock.advance(1)
    two.fail(Throttled(retry_after=second))
    assert pool.workers()[0].until == end


def test_wave_of_refusals_counts_once() -> None:
    """Ten calls under way that are all refused say no more than one: the wait is not doubled for each."""
    pool = fleet("a", concurrency=10)
    pool.dispatch_many(range(10))
    for attempt in claim_all(pool):
        attempt.fail(Throttled())
    assert pool.workers()[0].until == 1.0


def test_untold_wait_doubles_with_each_probe_that_is_refused() -> None:
    pool = fleet("a", concurrency=2)
    pool.dispatch_many(range(2))
    waits = []
    for _ in range(8):
        claimed(pool).fail(Throttled())
        until = pool.workers()[0].until
        assert until is not None
        waits.append(until - pool.clock.monotonic())
        pool.clock.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_one_probe_and_then_open() -> None:
    pool = fleet("a", concurrency=3)
    pool.dispatch_many(range(10))
    under_way = claim_all(pool)
    under_way[0].fail(Throttled(retry_after=5))
    pool.clock.advance(5)
    probe = claimed(pool)
    assert pool.claim() is None
    under_way[1].finish("from before the cool-down, and so no probe")
    assert pool.claim() is None
    probe.finish("open")
    assert len(claim_all(pool)) == 2


@pytest.mark.parametrize("error", [OSError(), WorkerFault("x")])
def test_probe_that_fails_otherwise_opens_it_too(error: BaseException) -> None:
    """It was not told to wait, and that was all that was asked."""
    pool = fleet("a", "b", concurrency=2)
    pool.dispatch_many(range(4), worker=0)
    claimed(pool).fail(Throttled(retry_after=5))
    pool.clock.advance(5)
    claimed(pool).fail(error)
    assert len(claim_all(pool)) == 2


def test_probe_does_not_whitewash_an_ill_group() -> None:
    """Faults in a row stay in a row when the group was told to wait in between."""
    pool = fleet("a", "b")
    for number in range(5):
        pool.dispatch(number, worker=0)
        claimed(pool, 0).fail(WorkerFault("ill"))
        if number == 2:
            claimed(pool, 0).fail(Throttled(retry_after=1))
            pool.clock.advance(1)
    assert states(pool)["a"] == "ejected"


def test_probe_that_is_taken_away_lets_another_worker_try() -> None:
    pool: ManualPool[int, int] = ManualPool(
        [WorkerSpec(Echo(), group="g"), WorkerSpec(Echo(), group="g")], retry=AT_ONCE
    )
    pool.dispatch_many(range(3))
    claimed(pool, 0).fail(Throttled(retry_after=5))
    pool.clock.advance(5)
    claimed(pool, 0)
    assert pool.claim(1) is None
    pool.interrupt_worker(0, then="pause")
    assert pool.claim(1) is not None


def test_probe_whose_task_is_cancelled_lets_another_worker_try() -> None:
    pool = fleet("a", concurrency=2)
    pool.dispatch_many(range(3))
    claimed(pool).fail(Throttled(retry_after=5))
    pool.clock.advance(5)
    probe = claimed(pool)
    assert pool.cancel_task(probe.task)  # and its thread does not come back
    assert pool.claim() is not None


def test_all_cooling_means_that_tasks_wait() -> None:
    pool = fleet("a", "b")
    task = pool.dispatch(1)
    claimed(pool, 0).fail(Throttled(retry_after=10))
    claimed(pool, 1).fail(Throttled(retry_after=20))
    assert pool.claim() is None
    assert task.state is TaskState.QUEUED
    pool.clock.advance(10)
    claimed(pool).finish("done")
    assert task.history[-1].group == "a"


@pytest.mark.parametrize(("deadline", "dies"), [(9, True), (10, True), (10.5, False), (30, False)])
def test_task_that_can_not_be_begun_before_its_deadline_dies_at_once(deadline: float, dies: bool) -> None:
    pool = fleet("a", "b")
    waiting = pool.dispatch("waits", deadline=deadline)
    pool.dispatch_many(range(2), priority=1)
    first, second = claim_all(pool)
    first.fail(Throttled(retry_after=10))
    assert not waiting.done()
    second.fail(Throttled(retry_after=20))
    assert waiting.done() is dies
    later = pool.dispatch("comes later", deadline=deadline)
    assert later.done() is dies
    if dies:
        assert {dead.reason for dead in pool.dead_tasks()} == {DeadReason.DEADLINE}


def test_task_for_one_worker_dies_at_once_when_that_one_cools_too_long() -> None:
    """That others could work is of no use to it."""
    pool = fleet("a", "b")
    pool.dispatch("refused", worker=0)
    waiting = pool.dispatch("waits", worker=0, deadline=10)
    claimed(pool, 0).fail(Throttled(retry_after=20))
    assert waiting.done()


def test_task_waits_on_a_pace_no_longer_than_its_deadline() -> None:
    """A pool that is so far in debt that no call comes in time says so at once."""
    from retrypool import Rate

    pool = fleet("a", rate=Rate(1, per=10))
    pool.dispatch("big", cost=5)
    claimed(pool).finish(None)
    assert pool.dispatch("small", deadline=20).done()
    assert not pool.dispatch("small", deadline=60).done()


def test_what_happened_is_told() -> None:
    events, listen = heard((GroupCooling, GroupOpened))
    pool = fleet("a", "b", listeners=[listen])
    pool.dispatch_many(range(2), worker=0)
    pool.clock.advance(2)
    claimed(pool, 0).fail(Throttled(retry_after=5))
    assert states(pool) == {"a": "cooling", "b": "active"}
    pool.clock.advance(5)
    probe = claimed(pool, 0)
    assert states(pool) == {"a": "probing", "b": "active"}
    pool.clock.advance(1)
    probe.finish(None)
    assert states(pool) == {"a": "active", "b": "active"}
    assert events == [GroupCooling(2.0, "a", 7.0), GroupOpened(8.0, "a")]


def test_told_no_time_at_all_it_waits_for_none() -> None:
    """However often: never longer than told. What keeps this from going on for ever is the cap."""
    pool = fleet("a")
    task = pool.dispatch(1)
    calls = 0
    while (attempt := pool.claim()) is not None:
        attempt.fail(Throttled(retry_after=0))
        calls += 1
    assert task.done()
    assert calls == 50


def test_group_whose_workers_are_exchanged_waits_on() -> None:
    """The other side knows the token, and not who holds it here."""
    pool = fleet("a", "b")
    token = pool.add_worker(Echo(), group="token")
    pool.dispatch(1, worker=token)
    claimed(pool, token).fail(Throttled(retry_after=100))
    pool.remove_worker(token)
    token = pool.add_worker(Echo(), group="token")
    pool.dispatch(2, worker=token)
    assert pool.claim(token) is None
    pool.clock.advance(99)
    assert pool.claim(token) is None
    pool.clock.advance(1)
    claimed(pool, token).finish(2)
    pool.remove_worker(token)
    assert pool._engine.scheduler.fleet._former == {}


def test_rate_of_a_group_whose_workers_are_exchanged_is_kept() -> None:
    rate = Rate(1, per=60)
    pool = fleet("b")
    token = pool.add_worker(Echo(), group="token", rate=rate)
    pool.dispatch(1, worker=token)
    claimed(pool, token).finish(1)
    pool.remove_worker(token)
    token = pool.add_worker(Echo(), group="token", rate=rate)
    pool.dispatch(2, worker=token)
    assert pool.claim(token) is None
    pool.clock.advance(60)
    claimed(pool, token).finish(2)


def test_new_resource_for_one_of_a_group_changes_nothing_for_the_others() -> None:
    pool = fleet("b")
    first, second = (pool.add_worker(Echo(), group="token") for _ in range(2))
    pool.dispatch(1, worker=first)
    claimed(pool, first).fail(Throttled(retry_after=100))
    pool.replace_worker(second, echo)
    pool.dispatch(2, worker=first)
    assert pool.claim(first) is None


def test_task_that_waits_for_its_moment_is_too_late_too() -> None:
    pool = fleet("a")
    pool.dispatch(1)
    claimed(pool).fail(Throttled(retry_after=60))
    assert pool.dispatch(2, deadline=30, delay=1).done()


def test_task_is_too_late_once_the_last_open_group_is_parked() -> None:
    pool = fleet("a", "b")
    pool.dispatch(1)
    claimed(pool, 0).fail(Throttled(retry_after=60))
    task = pool.dispatch(2, deadline=30)
    pool.cordon_worker(1, "revoked")
    assert task.done()


def test_retry_that_the_budget_puts_off_past_the_deadline_dies_at_once() -> None:
    pool = fleet("a", retry=RetryPolicy(attempts=9, delay=0), retry_budget=Budget(ratio=0, per_second=0.1))
    pool.dispatch(1)
    claimed(pool).fail(ValueError())
    claimed(pool).fail(ValueError())
    task = pool.dispatch(2, deadline=3, priority=5)
    claimed(pool).fail(ValueError())
    assert task.done()
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.DEADLINE]
