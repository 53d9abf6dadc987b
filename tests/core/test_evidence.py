"""Blame by evidence: what the others made of a task tells who was at fault."""

from typing import Any

import pytest

from retrypool import RetryPolicy, TaskState, Unrecoverable, WorkerFault, between_rounds, fixed
from retrypool.events import GroupOpened, GroupSuspected
from retrypool.testing import ManualPool

from .fleets import STUBBORN, claimed, fleet, heard, outcomes, states


def fails_on_first_and_succeeds_on_second(pool: ManualPool[Any, Any], times: int) -> None:
    for number in range(times):
        pool.dispatch(number)
        claimed(pool, 0).fail(OSError())
        claimed(pool, 1).finish(number)


def works(pool: ManualPool[Any, Any], worker_id: int, times: int) -> None:
    for number in range(times):
        pool.dispatch(number, worker=worker_id)
        claimed(pool, worker_id).finish(number)


@pytest.mark.parametrize(("before", "wanted"), [(0, 9), (20, 6), (100, 4), (300, 3)])
def test_group_is_ejected_when_it_fails_too_many_tasks_that_succeed_elsewhere(
    before: int, wanted: int
) -> None:
    """The more is known of how seldom the others fail, the fewer it takes; but always three."""
    pool = fleet("a", "b")
    works(pool, 1, before)
    fails_on_first_and_succeeds_on_second(pool, wanted - 1)
    assert states(pool)["a"] == "active"
    fails_on_first_and_succeeds_on_second(pool, 1)
    assert states(pool)["a"] == "ejected"


def test_suspect_takes_nothing_until_one_of_its_tasks_was_tried_elsewhere() -> None:
    events, listen = heard((GroupSuspected, GroupOpened))
    pool = fleet("a", "b", listeners=[listen])
    pool.dispatch_many(range(10))
    for _ in range(3):
        claimed(pool, 0).fail(OSError())
    assert states(pool)["a"] == "suspect"
    assert pool.stats().suspects == 1
    assert pool.claim(0) is None
    claimed(pool, 1).fail(OSError())
    assert states(pool)["a"] == "active"
    assert [type(event) for event in events] == [GroupSuspected, GroupOpened]
    assert pool.claim(0) is not None


def test_ill_groups_do_not_hide_each_other() -> None:
    """Most are ill, and the one that is well has not answered yet."""
    pool = fleet("a", "b", "c", "d", concurrency=3)
    pool.dispatch_many(range(12))
    under_way = [[claimed(pool, worker) for _ in range(3)] for worker in range(3)]
    claimed(pool, 3)
    for attempts in under_way:
        for attempt in attempts:
            attempt.fail(OSError())
    assert [*states(pool).values()] == ["suspect", "suspect", "suspect", "active"]


def test_task_has_its_attempts_and_no_more_while_nothing_has_succeeded() -> None:
    pool = fleet("a", "b", "c", "d", "e", "f", retry=RetryPolicy(attempts=2, delay=0))
    task = pool.dispatch("bad")
    for _ in range(2):
        claimed(pool).fail(ValueError())
    assert task.state is TaskState.DEAD
    assert len(task.history) == 2


def test_tasks_of_a_suspect_go_before_all_others_without_their_delay() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(delay=between_rounds(fixed(60))))
    pool.dispatch_many("abcdefgh")
    for _ in range(3):
        pool.clock.advance(1)  # so that no success is younger than the attempt
        claimed(pool, 0).fail(OSError())
    assert [claimed(pool, 1).task.data] == ["a"]
    pool.claim(1) if pool.workers()[1].task_id is None else None
    assert sorted(task.data for task in pool.tasks() if task.state is TaskState.RETRYING) == []


def test_delay_that_was_written_down_is_kept_also_by_the_tasks_of_a_suspect() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(delay=60))
    pool.dispatch_many("abcd")
    for _ in range(3):
        claimed(pool, 0).fail(OSError())
    assert states(pool)["a"] == "suspect"
    assert claimed(pool, 1).task.data == "d"


def test_suspect_is_given_one_more_task_if_there_is_no_verdict_for_a_second() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(delay=60))
    pool.dispatch_many("abcdef")
    for _ in range(3):
        claimed(pool, 0).fail(OSError())
    assert pool.claim(0) is None
    pool.clock.advance(1)
    claimed(pool, 0).fail(OSError())
    assert states(pool)["a"] == "suspect"


def test_success_of_what_a_suspect_had_under_way_clears_it() -> None:
    pool = fleet("a", "b", concurrency=2)
    pool.dispatch_many(range(10))
    under_way = claimed(pool, 0)
    for _ in range(3):
        claimed(pool, 0).fail(OSError())
    assert states(pool)["a"] == "suspect"
    under_way.finish("well")
    assert states(pool)["a"] == "active"


def test_suspect_whose_tasks_are_cancelled_is_one_no_more() -> None:
    pool = fleet("a", "b")
    tasks = pool.dispatch_many(range(3))
    for _ in range(3):
        claimed(pool, 0).fail(OSError())
    assert states(pool)["a"] == "suspect"
    for task in tasks:
        task.cancel()
    assert states(pool)["a"] == "active"


def test_one_group_alone_is_never_suspected() -> None:
    pool = fleet("a", retry=STUBBORN)
    pool.dispatch_many(range(20))
    for _ in range(60):
        claimed(pool, 0).fail(OSError())
    assert states(pool)["a"] == "active"


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
    assert len(record.accused) <= 2


def test_memory_of_a_group_that_fails_for_ever_does_not_grow_with_its_tasks() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(attempts=1))
    works(pool, 1, 1)
    for number in range(1500):
        pool.dispatch(number, worker=0)
        claimed(pool, 0).fail(OSError())
    beliefs = pool._engine.scheduler.fleet.quarantine.beliefs
    assert beliefs is not None
    assert len(beliefs.row.tasks) <= 1000
    assert all(len(belief.streak) <= 1000 for belief in beliefs._of.values())
