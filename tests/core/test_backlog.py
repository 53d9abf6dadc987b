"""Claiming stays flat: counted in lanes that are touched, not in time."""

from typing import Any

import pytest

from retrypool.core import queue
from retrypool.core.queue import MOST_LINES, Arrivals, Audience, Backlog, Lane
from retrypool.core.scheduler import Scheduler

from .parts import claim, fail_and_retry, seat_workers, submit

MANY = 10_000
NOBODY = {99}  # a task that excludes anybody waits in a lane


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    """Every lane that was looked at, one entry for each look."""
    seen: list[Lane] = []
    look = Backlog._head

    def counting(self: Backlog, lane: Lane) -> Any:
        seen.append(lane)
        return look(self, lane)

    monkeypatch.setattr(queue.Backlog, "_head", counting)
    return seen


@pytest.mark.parametrize("priority", [0, 1])
def test_worker_that_has_tried_everything_finds_out_from_a_handful_of_lanes(
    heads: list[Lane], priority: int
) -> None:
    scheduler = Scheduler()
    seats = seat_workers(scheduler, "A", "B")
    for _ in range(MANY):
        submit(scheduler, priority=priority)
    tasks = []
    while (task := claim(scheduler, seats["A"])) is not None:
        tasks.append(task)
    for task in tasks:
        fail_and_retry(scheduler, seats["A"], task)
    assert claim(scheduler, seats["A"]) is None  # files those that are in the arrivals
    assert len(scheduler.backlog) == MANY
    heads.clear()
    assert claim(scheduler, seats["A"]) is None
    assert len(heads) <= 5
    assert len(scheduler.backlog.lanes) == 1


def test_each_of_many_claims_from_lanes_touches_a_handful(heads: list[Lane]) -> None:
    scheduler = Scheduler()
    seat = seat_workers(scheduler, "A")["A"]
    for number in range(MANY):
        submit(scheduler, priority=number % 3 - 1, exclude=NOBODY)
    heads.clear()
    for _ in range(MANY):
        assert claim(scheduler, seat) is not None
    assert len(heads) <= 8 * MANY


def test_tasks_that_share_a_tried_set_share_a_lane() -> None:
    scheduler = Scheduler()
    seats = seat_workers(scheduler, "A", "B", "C")
    for _ in range(4):
        submit(scheduler, exclude=NOBODY)
    for name, count in (("A", 4), ("B", 2)):
        tasks = [claim(scheduler, seats[name]) for _ in range(count)]
        for task in tasks:
            assert task is not None
            fail_and_retry(scheduler, seats[name], task)
    a, b = seats["A"].group, seats["B"].group
    lanes = {lane.audience.tried: len(lane.tasks) for lane in scheduler.backlog.lanes.values()}
    assert lanes == {frozenset({a}): 2, frozenset({a, b}): 2}


def test_empty_lane_is_forgotten() -> None:
    scheduler = Scheduler()
    seat = seat_workers(scheduler, "A")["A"]
    submit(scheduler, exclude=NOBODY)
    assert claim(scheduler, seat) is not None
    assert claim(scheduler, seat) is None
    assert scheduler.backlog.lanes == {}
    assert seat.standings == []


def test_withdrawn_tasks_are_dropped_when_come_upon() -> None:
    scheduler = Scheduler()
    seat = seat_workers(scheduler, "A")["A"]
    tasks = [submit(scheduler, exclude=NOBODY) for _ in range(3)]
    for task in tasks[:2]:
        assert scheduler.withdraw(task)
    assert (len(scheduler.backlog), scheduler.backlog.ghosts) == (1, 2)
    assert list(scheduler.backlog) == [tasks[2]]
    assert claim(scheduler, seat) is tasks[2]
    assert scheduler.backlog.ghosts == 0


def test_seat_that_never_claims_does_not_pile_up_lanes() -> None:
    """Lanes come and go; B takes from all of them, and A, which is busy, from none."""
    scheduler = Scheduler()
    seats = seat_workers(scheduler, "A", "B")
    for priority in range(1, 2_000):
        submit(scheduler, priority=priority)
        assert claim(scheduler, seats["B"]) is not None
    assert len(seats["A"].standings) < 200


def test_newcomer_sees_the_lanes_that_are_there() -> None:
    scheduler = Scheduler()
    task = submit(scheduler, exclude=NOBODY)
    seat = seat_workers(scheduler, "A")["A"]
    assert claim(scheduler, seat) is task


def test_audience_admits_who_has_not_tried() -> None:
    scheduler = Scheduler()
    seats = seat_workers(scheduler, "A", "A2", "B")
    audience = Audience(tried=seats["A"].group.alone)
    assert [audience.admits(seat) for seat in seats.values()] == [False, False, True]


def test_lanes_and_arrivals_are_one_queue() -> None:
    scheduler = Scheduler()
    seats = seat_workers(scheduler, "A", "B")
    tried = submit(scheduler)
    assert claim(scheduler, seats["A"]) is tried
    early = submit(scheduler)
    fail_and_retry(scheduler, seats["A"], tried)
    late = submit(scheduler)
    assert [claim(scheduler, seats["A"]) for _ in range(2)] == [early, late]
    assert claim(scheduler, seats["A"]) is None  # `tried` is in a lane now
    last = submit(scheduler)
    assert [claim(scheduler, seats["B"]) for _ in range(2)] == [tried, last]


def test_priorities_go_first_however_many_there_are() -> None:
    """The first few have a line each, the others wait in lanes; who claims sees no difference."""
    scheduler = Scheduler()
    seat = seat_workers(scheduler, "A")["A"]
    priorities = [number * 7 % 50 - 25 for number in range(100)]
    tasks = [submit(scheduler, priority=priority) for priority in priorities]
    assert len(scheduler.backlog) == 100
    assert len(scheduler.backlog.lanes) == 50 - MOST_LINES
    claimed = [claim(scheduler, seat) for _ in tasks]
    assert claimed == sorted(tasks, key=lambda task: (-task.priority, task.id))


def test_line_is_never_taken_away() -> None:
    """Somebody may be about to append to it."""
    arrivals = Arrivals()
    line = arrivals.open_line(5)
    assert line is not None
    for priority in range(100):
        arrivals.open_line(priority)
    assert arrivals.line(5) is line
    assert arrivals.line(99) is None
    line.append("late")
    assert arrivals.popleft() == "late"
