"""What the tests of the core are made of: tasks, slots, and a scheduler with a few workers."""

from collections import deque
from typing import Any

from retrypool.core.records import ended_early
from retrypool.core.scheduler import Scheduler
from retrypool.model.preparing import new_task, prepare
from retrypool.model.settings import TaskSettings
from retrypool.model.slots import Slot
from retrypool.model.task import Attempt, DeadTask, Task
from retrypool.policy.blame import Scope
from retrypool.states import Outcome, TaskState

Slots = dict[str, Slot]


class AtOnce(deque[Slot]):
    """Those whom a scheduler calls are woken at once, as if the lock had just been left."""

    def append(self, slot: Slot) -> None:
        slot.wake()


class Owner:
    """What a task needs of its pool, and does not use here."""

    def cancel_waiting(self, task: Task[Any, Any]) -> bool:
        raise NotImplementedError

    def settle(self, slot: Slot, ctx: Any, actual: float) -> None:
        raise NotImplementedError


def make_task(
    scheduler: Scheduler, now: float = 0.0, *, like: DeadTask[Any] | None = None, **wanted: Any
) -> Task[Any, Any]:
    """A task that has not been submitted, or the one that a dead one is requeued as."""
    if like is not None:
        return new_task(like.id, like.data, like.settings, Owner(), now)
    task: Task[Any, Any] = new_task(
        scheduler.backlog.next_seq(), None, TaskSettings().having(wanted), Owner(), now
    )
    prepare(task, False)
    return task


def submit(scheduler: Scheduler, now: float = 0.0, **wanted: Any) -> Task[Any, Any]:
    task = make_task(scheduler, now, **wanted)
    scheduler.submit(task, now)
    return task


def slot_workers(scheduler: Scheduler, *names: str) -> Slots:
    """Workers called "A" or "A2": the letter is the group, and they are not parked yet."""
    slots = {}
    for number, name in enumerate(names):
        slot = slots[name] = Slot(number, name, scheduler.fleet.group(name[0], None))
        scheduler.add(slot)
        slot.idle = False
    return slots


def claim(scheduler: Scheduler, slot: Slot, now: float = 0.0) -> Task[Any, Any] | None:
    """As a thread that has just been woken does."""
    scheduler.fleet.unpark(slot)
    slot.idle = False
    task = scheduler.claim(slot, now)
    if task is not None:
        task._phase = TaskState.RUNNING
    return task


def fail(
    scheduler: Scheduler,
    slot: Slot,
    task: Task[Any, Any],
    now: float = 0.0,
    scope: Scope = Scope.TASK,
    pause: float | None = None,
) -> None:
    """End an attempt, up to the decision what becomes of the task."""
    record = task._record
    number = 1 if record is None else record.entries + 1
    error = OSError(f"attempt {number}")
    scheduler.failed(slot, task, error, scope, (number, now, now), now, pause)


def end_early(scheduler: Scheduler, slot: Slot, task: Task[Any, Any], now: float = 0.0) -> None:
    """Take an attempt away from its worker."""
    attempt = Attempt(1, slot.id, slot.group.name, now, now, Outcome.WITHDRAWN)
    ended_early(task, attempt)


def fail_and_retry(
    scheduler: Scheduler, slot: Slot, task: Task[Any, Any], now: float = 0.0, delay: float = 0.0
) -> None:
    fail(scheduler, slot, task, now)
    scheduler.retry(task, delay, now)


def sleep_on(scheduler: Scheduler, slots: Slots, *names: str, now: float = 0.0) -> list[str]:
    """Let these workers find nothing and sleep; return the list of those called from then on."""
    called: list[str] = []
    scheduler.fleet.called = AtOnce()
    for name in names:
        slots[name].wake = lambda name=name: called.append(name)  # type: ignore[misc]
        assert claim(scheduler, slots[name], now) is None
    return called
