"""Claiming stays flat: counted in subqueues that are touched, not in time."""

from collections import deque
from typing import Any

import pytest

from retrypool.core import queue
from retrypool.core.queue import MOST_LINES, Backlog, InjectorQueue, Subqueue
from retrypool.core.scheduler import Scheduler
from retrypool.model.constraints import Constraints

from .parts import claim, fail_and_retry, slot_workers, submit

MANY = 10_000
NOBODY = {99}  # a task that excludes anybody waits in a subqueue


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[Subqueue]:
    """Every subqueue that was looked at, one entry for each look."""
    seen: list[Subqueue] = []
    look = Backlog.head

    def counting(self: Backlog, subqueue: Subqueue) -> Any:
        seen.append(subqueue)
        return look(self, subqueue)

    monkeypatch.setattr(queue.Backlog, "head", counting)
    return seen


@pytest.mark.parametrize("priority", [0, 1])
def test_worker_that_has_tried_everything_finds_out_from_a_handful_of_subqueues(
    heads: list[Subqueue], priority: int
) -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    for _ in range(MANY):
        submit(scheduler, priority=priority)
    tasks = []
    while (task := claim(scheduler, slots["A"])) is not None:
        tasks.append(task)
    for task in tasks:
        fail_and_retry(scheduler, slots["A"], task)
    assert claim(scheduler, slots["A"]) is None
    assert len(scheduler.backlog) == MANY
    heads.clear()
    assert claim(scheduler, slots["A"]) is None
    assert len(heads) <= 5
    assert len(scheduler.backlog.subqueues) == 1


def test_each_of_many_claims_from_subqueues_touches_a_handful(heads: list[Subqueue]) -> None:
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    for number in range(MANY):
        submit(scheduler, priority=number % 3 - 1, exclude=NOBODY)
    heads.clear()
    for _ in range(MANY):
        assert claim(scheduler, slot) is not None
    assert len(heads) <= 8 * MANY


def test_tasks_that_share_a_tried_set_share_a_subqueue() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B", "C")
    for _ in range(4):
        submit(scheduler, exclude=NOBODY)
    for name, count in (("A", 4), ("B", 2)):
        tasks = [claim(scheduler, slots[name]) for _ in range(count)]
        for task in tasks:
            assert task is not None
            fail_and_retry(scheduler, slots[name], task)
    a, b = slots["A"].group, slots["B"].group
    subqueues = {
        subqueue.constraints.tried: len(subqueue.tasks) for subqueue in scheduler.backlog.subqueues.values()
    }
    assert subqueues == {frozenset({a}): 2, frozenset({a, b}): 2}


def test_empty_subqueue_is_forgotten() -> None:
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    submit(scheduler, exclude=NOBODY)
    assert claim(scheduler, slot) is not None
    assert claim(scheduler, slot) is None
    assert scheduler.backlog.subqueues == {}
    assert slot.subqueues == []


def test_withdrawn_tasks_are_dropped_when_come_upon() -> None:
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    tasks = [submit(scheduler, exclude=NOBODY) for _ in range(3)]
    for task in tasks[:2]:
        assert scheduler.withdraw(task)
    assert (len(scheduler.backlog), scheduler.backlog.tombstones) == (1, 2)
    assert list(scheduler.backlog) == [tasks[2]]
    assert claim(scheduler, slot) is tasks[2]
    assert scheduler.backlog.tombstones == 0


class Raced(deque[Any]):
    """A line of which a worker takes the first task whenever somebody has looked at that."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Any] = []

    def __getitem__(self, index: Any) -> Any:
        first = super().__getitem__(index)
        self.taken.append(self.popleft())
        return first


def test_living_task_behind_a_tombstone_that_a_worker_has_just_taken_stays_in_its_place() -> None:
    scheduler = Scheduler(injector=InjectorQueue(Raced))
    line: Any = scheduler.backlog.injector.usual
    dead, *living = [submit(scheduler) for _ in range(4)]
    assert scheduler.endings.cancel_plain(dead, "cancelled", 0.0) is False  # somebody wants to hear of it
    scheduler.endings.tells_cancelled = False
    assert scheduler.endings.cancel_plain(dead, "cancelled", 0.0) is True
    scheduler.backlog._sweep_head(line)
    assert line.taken == [dead, living[0]]  # the second look found that one at the head again
    assert list(line) == living[1:]
    assert scheduler.backlog.tombstones == 1  # until its worker says that it has it


@pytest.mark.parametrize("first", ["oldest", "newest"])
def test_sweep_costs_each_cancelled_task_a_few_looks(monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    scheduler = Scheduler()
    scheduler.endings.tells_cancelled = False
    backlog, whole = scheduler.backlog, []
    sweep = backlog.sweep
    monkeypatch.setattr(backlog, "sweep", lambda: (whole.append(len(backlog.injector)), sweep()))
    tasks = [submit(scheduler) for _ in range(MANY)]
    for task in tasks if first == "oldest" else reversed(tasks):
        assert scheduler.endings.cancel_plain(task, "cancelled", 0.0)
        if backlog.tombstones >= backlog.sweep_at:
            scheduler.clear_tombstones()
        assert backlog.tombstones * queue.SWEPT_AT <= len(backlog.injector)
    assert sum(whole) <= (0 if first == "oldest" else MANY * (queue.SWEPT_AT + 1))
    assert len(backlog) == len(backlog.injector) == backlog.tombstones == 0


def test_slot_that_never_claims_does_not_pile_up_subqueues() -> None:
    """Lanes come and go; B takes from all of them, and A, which is busy, from none."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    for priority in range(1, 2_000):
        submit(scheduler, priority=priority)
        assert claim(scheduler, slots["B"]) is not None
    assert len(slots["A"].subqueues) < 200


def test_newcomer_sees_the_subqueues_that_are_there() -> None:
    scheduler = Scheduler()
    task = submit(scheduler, exclude=NOBODY)
    slot = slot_workers(scheduler, "A")["A"]
    assert claim(scheduler, slot) is task


def test_constraints_admits_who_has_not_tried() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2", "B")
    constraints = Constraints(tried=slots["A"].group.alone)
    assert [constraints.admits(slot) for slot in slots.values()] == [False, False, True]


def test_subqueues_and_injector_are_one_queue() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "B")
    tried = submit(scheduler)
    assert claim(scheduler, slots["A"]) is tried
    early = submit(scheduler)
    fail_and_retry(scheduler, slots["A"], tried)
    late = submit(scheduler)
    assert claim(scheduler, slots["A"]) is early
    assert [claim(scheduler, slots["B"]) for _ in range(2)] == [tried, late]


def test_priorities_go_first_however_many_there_are() -> None:
    """The first few have a line each, the others wait in subqueues; who claims sees no difference."""
    scheduler = Scheduler()
    slot = slot_workers(scheduler, "A")["A"]
    priorities = [number * 7 % 50 - 25 for number in range(100)]
    tasks = [submit(scheduler, priority=priority) for priority in priorities]
    assert len(scheduler.backlog) == 100
    assert len(scheduler.backlog.subqueues) == 50 - MOST_LINES
    claimed = [claim(scheduler, slot) for _ in tasks]
    assert claimed == sorted(tasks, key=lambda task: (-task.priority, task.id))


def test_line_is_never_taken_away() -> None:
    """Somebody may be about to append to it."""
    injector = InjectorQueue()
    line = injector.open_line(5)
    assert line is not None
    for priority in range(100):
        injector.open_line(priority)
    assert injector.line(5) is line
    assert injector.line(99) is None
    line.append("late")
    assert injector.popleft() == "late"
