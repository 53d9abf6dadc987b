"""A claim costs the same however long the backlog is: counted in lanes and tasks looked at, not in time."""

import itertools
from collections import Counter
from typing import Any

import pytest

from retrypool.core.queue import Audience, Backlog
from retrypool.core.scheduler import Scheduler
from retrypool.core.seat import Seat
from retrypool.core.settings import TaskSettings
from retrypool.task import Record, Task

SHORT, LONG = 1_000, 20_000


class Owner:
    def cancel_waiting(self, task: Task[Any, Any]) -> bool:
        raise NotImplementedError

    def settle(self, seat: Seat, ctx: Any, actual: float) -> None:
        raise NotImplementedError

    def monotonic(self) -> float:
        raise NotImplementedError


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many lanes and audiences were looked at."""
    counted: Counter[str] = Counter()
    head, admits = Backlog._head, Audience.admits

    def counting_head(self: Backlog, lane: Any) -> Any:
        counted["lanes"] += 1
        return head(self, lane)

    def counting_admits(self: Audience, seat: Seat) -> bool:
        counted["audiences"] += 1
        return admits(self, seat)

    monkeypatch.setattr(Backlog, "_head", counting_head)
    monkeypatch.setattr(Audience, "admits", counting_admits)
    return counted


def pool_of(groups: int) -> tuple[Scheduler, list[Seat]]:
    scheduler = Scheduler(affinity_wait=1e9)
    seats = []
    for number in range(groups):
        seat = Seat(number, f"w{number}", scheduler.staff.group(f"g{number}", None))
        scheduler.add(seat)
        seat.idle = False
        seats.append(seat)
    return scheduler, seats


def fill(scheduler: Scheduler, tried: list[frozenset[Any]], count: int) -> None:
    settings = TaskSettings()
    for number in range(count):
        task: Task[Any, Any] = Task(scheduler.backlog.next_seq(), None, settings, Owner(), 0.0)
        task._record = record = Record(task.id)
        record.plain = False
        record.tried = tried[number % len(tried)]
        scheduler.enqueue(task, 0.0)


def claims(scheduler: Scheduler, seat: Seat, count: int) -> int:
    found = 0
    for _ in range(count):
        scheduler.staff.unpark(seat)
        seat.idle = False
        found += scheduler.claim(seat, 0.0) is not None
    return found


def tried_sets(seats: list[Seat], count: int) -> list[frozenset[Any]]:
    """So many distinct sets, none of which has the first seat's group in it."""
    pairs = itertools.combinations([seat.group for seat in seats[1:]], 2)
    return [frozenset(pair) for pair in itertools.islice(pairs, count)]


def cost(looks: Counter[str], backlog: int, groups: int, sets: int, *, all_tried: bool) -> float:
    """Lanes and audiences looked at per claim."""
    scheduler, seats = pool_of(groups)
    tried = [seats[0].group.alone] if all_tried else tried_sets(seats, sets)
    fill(scheduler, tried, backlog)
    looks.clear()
    many = 500
    assert claims(scheduler, seats[0], many) == (0 if all_tried else many)
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
