"""Blame by evidence: what the others made of a task tells who was at fault."""

from typing import Any

import pytest

from retrypool import RetryPolicy, Unrecoverable, WorkerFault
from retrypool.testing import FakeClock, ManualAttempt, ManualPool

from .parts import STUBBORN, claimed, fleet, outcomes, states


def fails_on_first_and_succeeds_on_second(pool: ManualPool[Any, Any], times: int) -> None:
    for number in range(times):
        pool.dispatch(number)
        claimed(pool, 0).fail(OSError())
        claimed(pool, 1).finish(number)


def test_group_that_failed_three_tasks_which_succeeded_elsewhere_is_ejected() -> None:
    pool = fleet("a", "b")
    fails_on_first_and_succeeds_on_second(pool, 2)
    assert states(pool)["a"] == "active"
    fails_on_first_and_succeeds_on_second(pool, 1)
    assert states(pool)["a"] == "ejected"


def runs_on_first(pool: ManualPool[Any, Any], succeeded: int, failed: int) -> None:
    """Let the first group do so much by itself, and end with a success."""
    for number in range(succeeded + failed):
        pool.dispatch(number, worker=0, retry=RetryPolicy(attempts=1))
        attempt = claimed(pool, 0)
        attempt.fail(OSError()) if number < failed else attempt.finish(number)


@pytest.mark.parametrize(
    ("succeeded", "failed", "wanted"),
    [
        (80, 20, 6),  # 0.2 ** 5 is more than one in 10,000
        (1, 99, 14),  # as for a half
        (500, 0, 3),
        (500, 1, 3),
        (9, 10, 3),  # too few to tell its share by
    ],
)
def test_group_is_ejected_when_it_fails_more_in_a_row_than_its_own_share_explains(
    succeeded: int, failed: int, wanted: int
) -> None:
    pool = fleet("a", "b")
    runs_on_first(pool, succeeded, failed)
    fails_on_first_and_succeeds_on_second(pool, wanted - 1)
    assert states(pool)["a"] == "active"
    fails_on_first_and_succeeds_on_second(pool, 1)
    assert states(pool)["a"] == "ejected"


def test_failure_of_a_worker_that_was_removed_does_not_count_below_nothing() -> None:
    """It is not counted with its group any more, and ends what it runs."""
    pool = fleet("a", "b")
    pool.add_worker(str, name="leaving", group="a")
    pool.dispatch("last", worker=2)
    last = claimed(pool, 2)
    runs_on_first(pool, succeeded=30, failed=0)
    pool._engine.scheduler.retire(next(s for s in pool._engine.scheduler.fleet if s.id == 2), 0.0)
    last.fail(OSError())
    fails_on_first_and_succeeds_on_second(pool, 3)
    assert states(pool)["a"] == "ejected"


def test_success_of_its_own_meanwhile_clears_it() -> None:
    pool = fleet("a", "b")
    for number in range(5):
        fails_on_first_and_succeeds_on_second(pool, 2)
        pool.dispatch(number)
        claimed(pool, 0).finish(number)
    assert states(pool)["a"] == "active"


def test_success_between_the_failure_and_the_others_success_clears_it_too() -> None:
    pool = fleet("a", "b")
    for number in range(5):
        pool.dispatch("failed by the first")
        claimed(pool, 0).fail(OSError())
        pool.dispatch(number, worker=0)
        claimed(pool, 0).finish(number)
        claimed(pool, 1).finish("and not by the second")
    assert states(pool)["a"] == "active"


def suspected_at_work(clock: FakeClock) -> tuple[ManualPool[Any, Any], ManualAttempt[Any, Any]]:
    """The first group has failed three tasks that then succeeded elsewhere, and is busy with another."""
    pool = fleet("a", "b", clock=clock)
    tasks = [pool.dispatch(number) for number in range(3)]
    for _ in tasks:
        claimed(pool, 0).fail(OSError())
    pool.dispatch("under way")
    under_way = claimed(pool, 0)
    clock.advance(1)
    for _ in tasks:
        claimed(pool, 1).finish("well")
    assert states(pool)["a"] == "active"
    return pool, under_way


def test_group_at_work_is_not_ejected_before_that_has_told_something() -> None:
    """In a burst each fails many and then succeeds with many: who was slower must not be blamed."""
    pool, under_way = suspected_at_work(FakeClock())
    under_way.finish("well")
    assert states(pool)["a"] == "active"
    fails_on_first_and_succeeds_on_second(pool, 2)
    assert states(pool)["a"] == "active"


def test_group_at_work_is_ejected_once_it_rests() -> None:
    pool, under_way = suspected_at_work(FakeClock())
    under_way.fail(OSError())
    assert pool.claim(0) is None
    assert states(pool)["a"] == "ejected"


def test_group_at_work_is_ejected_once_it_fails_what_it_has_begun_since() -> None:
    clock = FakeClock()
    pool, under_way = suspected_at_work(clock)
    pool.dispatch("begun since")
    under_way.fail(OSError())
    later = claimed(pool, 0)
    clock.advance(1)
    claimed(pool, 1).finish("under way at the time: no news")
    assert states(pool)["a"] == "active"
    pool.dispatch("the next")
    later.fail(OSError())
    claimed(pool, 0)
    claimed(pool, 1).finish("begun since")
    assert states(pool)["a"] == "ejected"


def test_one_task_is_one_witness_however_often_it_was_failed() -> None:
    """The first group failed one task three times, when all had tried it and it went round again."""
    pool = fleet("a", "b", retry=STUBBORN)
    pool.dispatch("hard")
    for _ in range(4):
        claimed(pool, 0).fail(OSError())
        claimed(pool, 1).fail(OSError())
    claimed(pool, 0).fail(OSError())
    claimed(pool, 1).finish("at last")
    assert states(pool) == {"a": "active", "b": "active"}


def test_tasks_that_succeeded_nowhere_are_no_evidence() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(attempts=2, delay=0))
    for number in range(10):
        pool.dispatch(number)
        claimed(pool, 0).fail(OSError())
        claimed(pool, 1).fail(OSError())
    pool.dispatch("good")
    claimed(pool, 1).finish("good")
    assert states(pool) == {"a": "active", "b": "active"}


def test_unrecoverable_elsewhere_is_no_success() -> None:
    pool = fleet("a", "b")
    for number in range(10):
        pool.dispatch(number)
        claimed(pool, 0).fail(OSError())
        claimed(pool, 1).fail(Unrecoverable())
    assert states(pool)["a"] == "active"


def test_task_that_failed_on_three_healthy_groups_is_the_culprit() -> None:
    """Up to there it was not charged; from the fourth on it is, and the groups are not."""
    pool = fleet("a", "b", "c", "d", "e", "f", retry=RetryPolicy(attempts=2, delay=0))
    task = pool.dispatch("poison")
    for worker in range(5):
        assert not task.done()
        claimed(pool, worker).fail(WorkerFault("broke me"))
    assert [outcome for _, outcome in outcomes(task)] == ["worker_fault"] * 3 + ["failed"] * 2
    assert task.done()


def test_culprit_does_not_make_groups_ill() -> None:
    pool = fleet(*"abcdef", retry=STUBBORN)
    pool.dispatch("poison")
    for _ in range(10):
        for worker in range(6):
            claimed(pool, worker).fail(WorkerFault("broke me"))
    assert set(states(pool).values()) == {"active"}


def test_same_group_three_times_is_no_evidence_against_the_task() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(attempts=1, delay=0))
    task = pool.dispatch(1)
    for worker in (0, 1, 0, 1):
        claimed(pool, worker).fail(WorkerFault("ill"))
    assert not task.done()


def test_groups_that_are_ill_are_no_witnesses_against_a_task() -> None:
    """In an outage every group fails every task; that is no task's fault."""
    pool = fleet(*"abcd", retry=RetryPolicy(attempts=1, delay=0))
    for worker in range(3):
        for _ in range(3):
            pool.dispatch("lost", worker=worker, retry=RetryPolicy(attempts=1))
            claimed(pool, worker).fail(WorkerFault("outage"))
    for waiting in pool.tasks():
        waiting.cancel()
    task = pool.dispatch("innocent")
    for worker in (0, 1, 2, 3):
        claimed(pool, worker).fail(WorkerFault("outage"))
    assert not task.done()


def test_memory_of_a_task_that_fails_for_ever_does_not_grow_with_its_suspects() -> None:
    pool = fleet("a", "b", retry=STUBBORN)
    task = pool.dispatch(1)
    for _ in range(20):
        claimed(pool, 0).fail(OSError())
        claimed(pool, 1).fail(OSError())
    record = task._record
    assert record is not None
    assert len(record.suspects) <= 2
