"""A claim costs the same however long the backlog is: subqueues and tasks are counted, not time."""

import itertools
from collections import Counter
from typing import Any

import pytest

from retrypool.core.queue import Backlog
from retrypool.core.scheduler import Scheduler
from retrypool.model.constraints import Constraints
from retrypool.model.preparing import new_task
from retrypool.model.settings import TaskSettings
from retrypool.model.slots import Slot
from retrypool.model.task import Record, Task

SHORT, LONG = 1_000, 20_000


class Owner:
    def cancel_waiting(self, task: Task[Any, Any]) -> bool:
        raise NotImplementedError

    def settle(self, slot: Slot, ctx: Any, actual: float) -> None:
        raise NotImplementedError

    def monotonic(self) -> float:
        raise NotImplementedError


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many subqueues and audiences were looked at."""
    counted: Counter[str] = Counter()
    head, admits = Backlog.head, Constraints.admits

    def counting_head(self: Backlog, subqueue: Any) -> Any:
        counted["subqueues"] += 1
        return head(self, subqueue)

    def counting_admits(self: Constraints, slot: Slot) -> bool:
        counted["audiences"] += 1
        return admits(self, slot)

    monkeypatch.setattr(Backlog, "head", counting_head)
    monkeypatch.setattr(Constraints, "admits", counting_admits)
    return counted


def pool_of(groups: int) -> tuple[Scheduler, list[Slot]]:
    scheduler = Scheduler(affinity_wait=1e9)
    slots = []
    for number in range(groups):
        slot = Slot(number, f"w{number}", scheduler.fleet.group(f"g{number}", None))
        scheduler.add(slot)
        slot.idle = False
        slots.append(slot)
    return scheduler, slots


def fill(scheduler: Scheduler, tried: list[frozenset[Any]], count: int) -> None:
    settings = TaskSettings()
    for number in range(count):
        task: Task[Any, Any] = new_task(scheduler.backlog.next_seq(), None, settings, Owner(), 0.0)
        task._record = record = Record(task.id)
        record.plain = False
        record.tried = tried[number % len(tried)]
        scheduler.assignment.enqueue(task, 0.0)


def claims(scheduler: Scheduler, slot: Slot, count: int) -> int:
    found = 0
    for _ in range(count):
        scheduler.fleet.unpark(slot)
        slot.idle = False
        found += scheduler.claim(slot, 0.0) is not None
    return found


def tried_sets(slots: list[Slot], count: int) -> list[frozenset[Any]]:
    """So many distinct sets, none of which has the first slot's group in it."""
    pairs = itertools.combinations([slot.group for slot in slots[1:]], 2)
    return [frozenset(pair) for pair in itertools.islice(pairs, count)]


def cost(looks: Counter[str], backlog: int, groups: int, sets: int, *, all_tried: bool) -> float:
    """Lanes and audiences looked at per claim."""
    scheduler, slots = pool_of(groups)
    tried = [slots[0].group.alone] if all_tried else tried_sets(slots, sets)
    fill(scheduler, tried, backlog)
    looks.clear()
    many = 500
    assert claims(scheduler, slots[0], many) == (0 if all_tried else many)
    return sum(looks.values()) / many


def test_group_that_has_tried_everything_learns_it_at_one_look(looks: Counter[str]) -> None:
    short = cost(looks, SHORT, 3, 1, all_tried=True)
    assert cost(looks, LONG, 3, 1, all_tried=True) <= 1.5 * short
    assert short <= 5


@pytest.mark.parametrize(("groups", "sets"), [(60, 1_000), (200, 1_000)])
def test_many_tried_sets_and_groups_cost_no_more_with_a_long_backlog(
    looks: Counter[str], groups: int, sets: int
) -> None:
    short = cost(looks, SHORT, groups, sets, all_tried=False)
    assert cost(looks, LONG, groups, sets, all_tried=False) <= 1.5 * short
    assert short <= 8
