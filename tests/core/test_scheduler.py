"""What the scheduler owes to single cases; test_scheduler_machine.py takes them in any order."""

from typing import Any

import pytest

from retrypool.core.scheduler import Scheduler
from retrypool.events import TaskDead
from retrypool.policy.blame import Scope
from retrypool.policy.retry import RetryPolicy
from retrypool.states import DeadReason, TaskState

from .parts import claim, end_early, fail, fail_and_retry, make_task, sleep_on, slot_workers, submit


def test_tasks_go_by_priority_then_immediate_retries_then_first_in_first_out() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    retried = submit(scheduler, retry=RetryPolicy(immediate=True))
    assert claim(scheduler, slots["A"]) is retried
    first, second = submit(scheduler), submit(scheduler)
    low, high = submit(scheduler, priority=-1), submit(scheduler, priority=1)
    fail_and_retry(scheduler, slots["A"], retried)
    order = [claim(scheduler, slots["B"]) for _ in range(5)]
    assert order == [high, retried, first, second, low]


def test_task_that_a_worker_takes_just_then_is_not_stranded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers take from the injector queue without the lock, also while somebody looks who has it."""
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    assert claim(scheduler, slot) is None
    slot.idle = True
    submit(scheduler)
    usable = scheduler.fleet.usable

    def take(slot: Any) -> bool:
        slot.idle = False
        scheduler.backlog.injector.popleft()._slot = slot
        return usable(slot)

    monkeypatch.setattr(scheduler.fleet, "usable", take)
    assert not scheduler.is_stranded()


def test_retry_waits_for_a_group_that_has_not_tried() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2", "B")
    task = submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    fail_and_retry(scheduler, slots["A"], task)
    assert claim(scheduler, slots["A"]) is None
    assert claim(scheduler, slots["A2"]) is None
    assert claim(scheduler, slots["B"]) is task


def test_tried_set_starts_afresh_once_every_live_group_is_in_it() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    task = submit(scheduler)
    for name in "ABAB":
        assert claim(scheduler, slots[name]) is task
        fail_and_retry(scheduler, slots[name], task)


def test_any_worker_may_after_affinity_wait() -> None:
    scheduler = Scheduler(affinity_wait=5.0)
    slots = slot_workers(scheduler, "A", "B")
    task = submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    fail_and_retry(scheduler, slots["A"], task, now=10.0)
    assert claim(scheduler, slots["A"], now=10.0) is None
    assert scheduler.next_wakeup() == 15.0
    scheduler.advance(14.9)
    assert claim(scheduler, slots["A"], now=14.9) is None
    scheduler.advance(15.0)
    assert claim(scheduler, slots["A"], now=15.0) is task


def test_group_that_leaves_lets_the_others_try_again() -> None:
    """What A has tried waits for B. B goes, so that A is all there is."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    task = submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    fail_and_retry(scheduler, slots["A"], task)
    assert claim(scheduler, slots["A"]) is None
    scheduler.retire(slots["B"], now=0.0)
    assert claim(scheduler, slots["A"]) is task


def test_group_of_the_same_name_that_comes_later_has_tried_nothing() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B", "C")
    task = submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    fail_and_retry(scheduler, slots["A"], task)
    scheduler.retire(slots["A"], now=0.0)
    scheduler.remove(slots["A"])
    newcomer = slot_workers(scheduler, "A")["A"]
    assert claim(scheduler, newcomer) is task


@pytest.mark.parametrize("throttled", [True, False])
def test_attempt_that_says_nothing_of_the_worker_leaves_it_untried_and_uncharged(throttled: bool) -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    task = submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    if throttled:
        fail(scheduler, slots["A"], task, scope=Scope.THROTTLED)
    else:
        end_early(scheduler, slots["A"], task)
    assert task._record is not None
    assert (task._record.tried, task._record.charged, task._record.entries) == (frozenset(), 0, 1)


def test_worker_fault_is_charged_only_if_no_other_group_is_live() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    task = submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    fail(scheduler, slots["A"], task, scope=Scope.GROUP)
    assert task._record is not None
    assert task._record.charged == 0
    scheduler.retire(slots["B"], now=0.0)
    fail(scheduler, slots["A"], task, scope=Scope.GROUP)
    assert task._record.charged == 1


def test_retry_within_a_round_keeps_its_place_and_a_new_round_goes_to_the_back() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    first, second, third = (submit(scheduler) for _ in range(3))
    assert claim(scheduler, slots["A"]) is first
    fail_and_retry(scheduler, slots["A"], first)
    assert claim(scheduler, slots["B"]) is first
    fail_and_retry(scheduler, slots["B"], first)
    assert first._record is not None
    assert first._record.round == 2
    assert [claim(scheduler, slots["B"]) for _ in range(3)] == [second, third, first]


def test_retry_that_has_waited_out_a_delay_goes_to_the_back() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    first, second = submit(scheduler), submit(scheduler)
    assert claim(scheduler, slots["A"]) is first
    fail_and_retry(scheduler, slots["A"], first, delay=1.0)
    scheduler.advance(1.0)
    assert [claim(scheduler, slots["B"], now=1.0) for _ in range(2)] == [second, first]


def test_task_taken_away_from_a_worker_goes_to_another_of_its_group() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2")
    task = submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    end_early(scheduler, slots["A"], task)
    scheduler.retry(task, 0.0, 0.0)
    assert claim(scheduler, slots["A"]) is None
    assert claim(scheduler, slots["A2"]) is task


def test_task_taken_away_from_the_only_worker_goes_back_to_it() -> None:
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    task = submit(scheduler)
    assert claim(scheduler, slot) is task
    end_early(scheduler, slot, task)
    scheduler.retry(task, 0.0, 0.0)
    assert claim(scheduler, slot) is task


@pytest.mark.parametrize(("pause", "waits"), [(60.0, False), (3.0, True)])
def test_nobody_waits_for_an_untried_group_that_cannot_be_back_in_time(pause: float, waits: bool) -> None:
    scheduler = Scheduler(affinity_wait=5.0)
    slots = slot_workers(scheduler, "A", "B")
    task, other = submit(scheduler), submit(scheduler)
    assert claim(scheduler, slots["A"]) is task
    assert claim(scheduler, slots["B"]) is other
    fail_and_retry(scheduler, slots["A"], task)
    fail(scheduler, slots["B"], other, scope=Scope.THROTTLED, pause=pause)
    assert claim(scheduler, slots["A"]) is (None if waits else task)


def test_one_task_wakes_one_worker_and_it_is_one_that_may_take_it() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2", "A3", "B")
    task = submit(scheduler, retry=RetryPolicy(immediate=True))
    assert claim(scheduler, slots["A"]) is task
    called = sleep_on(scheduler, slots, "A2", "A3", "B")
    fail_and_retry(scheduler, slots["A"], task)
    assert called == ["B"]


def test_cancelled_task_is_never_claimed_nor_counted() -> None:
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    gone, stays = submit(scheduler), submit(scheduler)
    assert scheduler.withdraw(gone)
    scheduler.cancel(gone, "test", 0.0)
    assert len(scheduler.backlog) == 1
    assert claim(scheduler, slot) is stays
    assert claim(scheduler, slot) is None
    assert gone.state is TaskState.CANCELLED


def test_task_that_a_worker_has_in_hand_cannot_be_withdrawn() -> None:
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    task = submit(scheduler)
    task._slot = slot
    assert not scheduler.withdraw(task)
    assert not task._withdrawn


def test_backlog_counts_while_a_worker_holds_a_cancelled_task() -> None:
    """Between taking it from the injector and writing its name on it, somebody cancels the task.

    `cancel`, `stats` and `wait` count the backlog at such a moment.
    """
    scheduler = Scheduler()
    task = submit(scheduler)
    assert scheduler.backlog.injector.popleft() is task
    assert scheduler.withdraw(task)
    assert len(scheduler.backlog) == 0
    assert scheduler.idle()


def test_task_that_starts_afresh_keeps_its_place_in_the_injector() -> None:
    """A finds in the injector what only A has tried, and A is all that is left: then A may have it."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    first = submit(scheduler)
    assert claim(scheduler, slots["A"]) is first
    fail_and_retry(scheduler, slots["A"], first)
    later = submit(scheduler, delay=1.0, retry=RetryPolicy(immediate=True))
    scheduler.retire(slots["B"], now=0.0)
    scheduler.advance(1.0)
    assert [claim(scheduler, slots["A"], now=1.0) for _ in range(2)] == [first, later]


def test_tasks_that_start_afresh_keep_their_place_among_those_of_their_priority() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    first = submit(scheduler, priority=1)
    assert claim(scheduler, slots["A"]) is first
    fail_and_retry(scheduler, slots["A"], first)
    later = submit(scheduler, priority=1)
    scheduler.retire(slots["B"], now=0.0)
    assert [claim(scheduler, slots["A"]) for _ in range(2)] == [first, later]


def test_task_that_starts_afresh_goes_before_later_ones_in_other_subqueues() -> None:
    """It comes to the head of a subqueue that A knows already, and that was behind another one."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B", "C")
    first, mid = submit(scheduler, priority=1), submit(scheduler, priority=1)
    assert claim(scheduler, slots["A"]) is first
    assert claim(scheduler, slots["B"]) is mid
    fail_and_retry(scheduler, slots["A"], first)
    assert claim(scheduler, slots["B"]) is first
    fail_and_retry(scheduler, slots["B"], first)  # waits for C
    fail_and_retry(scheduler, slots["B"], mid)  # waits for A or C
    late = submit(scheduler, priority=1)
    scheduler.retire(slots["C"], now=0.0)
    assert [claim(scheduler, slots["A"]) for _ in range(3)] == [first, mid, late]


def test_task_whose_deadline_passes_while_it_waits_is_dead_with_its_last_error() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A")
    task = submit(scheduler, deadline=5.0)
    assert claim(scheduler, slots["A"]) is task
    fail_and_retry(scheduler, slots["A"], task, now=1.0, delay=10.0)
    scheduler.advance(5.0)
    assert task.state is TaskState.DEAD
    assert scheduler.endings.dead[task.id].reason is DeadReason.DEADLINE
    assert scheduler.endings.dead[task.id].error is task.errors[-1]
    assert scheduler.delayed == 0
    assert [type(event) for event in scheduler.take_happened()] == [TaskDead]


def test_task_put_back_after_its_deadline_does_not_wait_any_longer() -> None:
    """A callback takes its time between the failure and the retry, and the deadline passes meanwhile."""
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    task = submit(scheduler, deadline=5.0)
    assert claim(scheduler, slot) is task
    fail(scheduler, slot, task, now=4.0)
    scheduler.advance(5.0)
    scheduler.retry(task, 0.0, 6.0)
    scheduler.advance(6.0)
    assert task.state is TaskState.DEAD


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (2, 2), (None, 3)])
def test_dead_limit_drops_the_oldest_and_counts_them(limit: int | None, kept: int) -> None:
    scheduler = Scheduler(dead_limit=limit)
    tasks = [make_task(scheduler) for _ in range(3)]
    for task in tasks:
        scheduler.bury(task, DeadReason.ATTEMPTS, OSError(), 0.0)
    assert list(scheduler.endings.dead) == [task.id for task in tasks[3 - kept :]]
    assert (scheduler.endings.died, scheduler.endings.dead_dropped) == (3, 3 - kept)


def test_all_that_waits_is_cancelled_in_the_order_of_ids() -> None:
    scheduler = Scheduler()
    tasks = [submit(scheduler, **wanted) for wanted in ({}, {"priority": 1}, {"delay": 5.0}, {})]
    assert scheduler.cancel_waiting("test", 0.0) == tasks
    assert scheduler.idle()
    assert scheduler.cancel_waiting("test", 0.0) == []


def test_task_cancelled_while_it_was_decided_about_is_not_retried() -> None:
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    task = submit(scheduler)
    assert claim(scheduler, slot) is task
    fail(scheduler, slot, task)
    assert task._record is not None
    assert task._record.deciding
    task._record.cancelled = True
    scheduler.retry(task, 0.0, 0.0)
    assert task.state is TaskState.CANCELLED
    assert len(scheduler.backlog) == 0


def test_new_worker_takes_its_first_task_without_a_claim() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    assert all(slot.direct and slot.go for slot in slots.values())


def test_new_worker_asks_for_its_first_task_where_others_would_have_to() -> None:
    """The pool is paused, a task waits that is not for everybody, its group is to wait."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    submit(scheduler)
    task = claim(scheduler, slots["A"])
    assert task is not None
    fail_and_retry(scheduler, slots["A"], task)
    assert not slot_workers(scheduler, "C")["C"].direct
    assert slot_workers(scheduler, "A2")["A2"].direct

    scheduler = Scheduler()
    scheduler.fleet.pause_all()
    assert not slot_workers(scheduler, "A")["A"].go

    scheduler = Scheduler()
    slot_workers(scheduler, "A")["A"].group.cool(0.0, 10.0)
    late = slot_workers(scheduler, "A2")["A2"]
    assert (late.direct, late.go) == (False, False)
