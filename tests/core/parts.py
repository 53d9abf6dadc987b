"""What the tests of the core are made of: tasks, seats, and a scheduler with a few workers."""

from typing import Any

from retrypool.core.scheduler import Scheduler
from retrypool.core.seat import Seat
from retrypool.core.settings import TaskSettings
from retrypool.task import Attempt, DeadTask, Outcome, Task, TaskState

Seats = dict[str, Seat]


class Owner:
    """What a task needs of its pool, and does not use here."""

    def cancel_waiting(self, task: Task[Any, Any]) -> bool:
        raise NotImplementedError

    def settle(self, seat: Seat, ctx: Any, actual: float) -> None:
        raise NotImplementedError


def make_task(
    scheduler: Scheduler, now: float = 0.0, *, like: DeadTask[Any] | None = None, **wanted: Any
) -> Task[Any, Any]:
    """A task that has not been submitted, or the one that a dead one is requeued as."""
    if like is not None:
        return Task(like.id, like.data, like.settings, Owner(), now)
    task: Task[Any, Any] = Task(
        scheduler.backlog.next_seq(), None, TaskSettings().having(wanted), Owner(), now
    )
    scheduler.prepare(task)
    return task


def submit(scheduler: Scheduler, now: float = 0.0, **wanted: Any) -> Task[Any, Any]:
    task = make_task(scheduler, now, **wanted)
    scheduler.submit(task, now)
    return task


def seat_workers(scheduler: Scheduler, *names: str) -> Seats:
    """Workers called "A" or "A2": the letter is the group, and they are not parked yet."""
    seats = {}
    for number, name in enumerate(names):
        seat = seats[name] = Seat(number, name, scheduler.staff.group(name[0], None))
        scheduler.add(seat)
        seat.idle = False
    return seats


def claim(scheduler: Scheduler, seat: Seat, now: float = 0.0) -> Task[Any, Any] | None:
    """As a thread that has just been woken does."""
    scheduler.staff.unpark(seat)
    seat.idle = False
    task = scheduler.claim(seat, now)
    if task is not None:
        task._phase = TaskState.RUNNING
    return task


def fail(
    scheduler: Scheduler,
    seat: Seat,
    task: Task[Any, Any],
    now: float = 0.0,
    outcome: Outcome = Outcome.FAILED,
) -> None:
    """End an attempt, up to the decision what becomes of the task."""
    record = task._record
    number = 1 if record is None else record.entries + 1
    error = OSError(f"attempt {number}")
    attempt = Attempt(number, seat.id, seat.group.name, now, now, outcome, error)
    scheduler.tried(task, attempt, seat.group)


def fail_and_retry(
    scheduler: Scheduler, seat: Seat, task: Task[Any, Any], now: float = 0.0, delay: float = 0.0
) -> None:
    fail(scheduler, seat, task, now)
    scheduler.retry(task, delay, now)


def sleep_on(scheduler: Scheduler, seats: Seats, *names: str, now: float = 0.0) -> list[str]:
    """Let these workers find nothing and sleep; return the list of those called from then on."""
    called: list[str] = []
    for name in names:
        seats[name].wake = lambda name=name: called.append(name)  # type: ignore[misc]
        assert claim(scheduler, seats[name], now) is None
    return called
