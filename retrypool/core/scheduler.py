"""The state of a pool, and every change that it can go through: one object, made of parts.

Pure: time comes in as `now`, and what happened goes out through `take_happened`. All methods are called
under the pool's lock, except `admits` and `retry_at_once`, which say why they need none.

The life of a task: `submit` → (`_due`) → `claim` → `retry` → … → `bury`, `cancel`, or a success, which
the worker that has the task in hand settles itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retrypool.core.assignment import AnyTask, Assignment
from retrypool.core.deadlines import Deadlines
from retrypool.core.endings import Endings
from retrypool.core.failures import Failures
from retrypool.core.fleet import Fleet
from retrypool.core.history import History
from retrypool.core.queue import InjectorQueue
from retrypool.core.quick_retry import QuickRetry
from retrypool.core.schedules import Schedules
from retrypool.core.shortage import Shortage
from retrypool.core.timers import Entry, Moment, Timers
from retrypool.events import Event
from retrypool.model.slots import Slot
from retrypool.model.task import Attempt, DeadTask, Record
from retrypool.policy.blame import Scope
from retrypool.policy.budget import Budget, RetryBudget
from retrypool.policy.deadline import misses
from retrypool.policy.health import HealthPolicy
from retrypool.policy.rates import Pace
from retrypool.states import DeadReason, TaskState

__all__ = ["Scheduler"]

CLOSED_BY_FORCE = "the pool was closed by force"

# Bound once: looking a member up in its enum costs more than what is done with it.
_QUEUED, _SCHEDULED, _RETRYING = TaskState.QUEUED, TaskState.SCHEDULED, TaskState.RETRYING
_THROTTLED = Scope.THROTTLED


class Scheduler:
    """The state of a pool. See the module's text for who may call what."""

    def __init__(
        self,
        *,
        affinity_wait: float = 5.0,
        dead_limit: int | None = None,
        history_limit: int = 10_000,
        health: HealthPolicy | None = None,
        pace: Pace | None = None,
        budget: Budget | None = None,
        injector: InjectorQueue | None = None,
        parked: dict[Slot, None] | None = None,
    ) -> None:
        # `injector` and `parked` are where threads meet without the lock. Tests give their own.
        self.timers = timers = Timers()
        # References dropped under the lock. Each may be the last to an object of the user's, whose finalizer
        # may call anything. So they are released after the lock: whoever leaves it takes this list out.
        self.dropped: list[object] = timers.dropped
        self.fleet = fleet = Fleet(timers, self.report, health=health, pace=pace, parked=parked)
        self.affinity_wait = affinity_wait
        self.assignment = assignment = Assignment(
            timers,
            fleet,
            affinity_wait=affinity_wait,
            counts_firsts=budget is not None,
            refuses=self._refuses,
            injector=injector,
        )
        self.backlog = assignment.backlog
        self.over = False  # closed by force: what is put back is cancelled
        self.undecided = 0  # attempts that were taken over, and whose task's fate is being decided
        self.delayed = 0  # tasks in the timers, waiting for their moment
        self._delays: dict[AnyTask, Entry] = {}  # of those that wait for a time, so that it can be dropped
        self.retried = 0  # but for those that slots count themselves
        self._happened: list[Event] = []
        self.schedules = Schedules(timers, fleet, self.report)
        self.history = History(history_limit)
        self.retry_budget = None if budget is None else RetryBudget(budget)
        self.failures = Failures(assignment, self.history, self._count_delayed, self._pull_forward)
        self.endings = Endings(
            self.failures, self.backlog, self.history, self.report, self.dropped, dead_limit=dead_limit
        )
        self.deadlines = Deadlines(timers, fleet, self.endings, self.withdraw)
        self.shortage = Shortage(fleet)
        # What its parts do alone is called through here, without another call in between.
        self.claim = assignment.claim
        self.give_back = assignment.give_back
        self.admits = assignment.admits
        self.suits_all = assignment.suits_all
        self.rouse = assignment.rouse
        self.running_at = assignment.running_at
        self.clear_tombstones = assignment.clear_tombstones
        self.probe_not_made = assignment.probe_not_made
        self.forgive = assignment.forgive
        self.add = assignment.add
        self.retire = assignment.retire
        self.bar = assignment.bar
        self.remove = assignment.remove
        self.bury = self.endings.bury
        self.cancel, self.cancel_plain = self.endings.cancel, self.endings.cancel_plain
        self.retry_at_once = QuickRetry(fleet, self.backlog, allowed=budget is None).take

    # -- tasks -----------------------------------------------------------------------------------

    def submit(self, task: AnyTask, now: float, wall: float = 0.0) -> None:
        """Accept a prepared task that is not plain, or whose pool has something to do for it.

        `wall` is what the wall clock shows; who has no date need not tell.
        """
        settings = task._settings
        if task._withdrawn:  # cancelled by who was told of it before it came in: it is no tombstone anywhere
            self.backlog.bury(task)
            return
        self.deadlines.watch(task)
        if settings.delay > 0:
            if self.deadlines.is_too_late(task, now):
                self.deadlines.expire(task, now)
            else:
                self._defer(task, TaskState.SCHEDULED, now + settings.delay)
        elif settings.at is not None and settings.at > wall:
            task._phase = TaskState.SCHEDULED
            self.delayed += 1
            self.timers.add_date(settings.at, self._due, task, now=now, wall=wall)
        else:
            self._enqueue(task, now)

    def retry(self, task: AnyTask, delay: float, now: float) -> None:
        """Put a task back whose attempt is over, to be claimed again in `delay` seconds.

        Unless it was cancelled in the meantime, or would miss its deadline.
        """
        record = task._record
        assert record is not None
        record.deciding = False
        if record.cancelled or self.over:
            self.cancel(task, "cancelled" if record.cancelled else CLOSED_BY_FORCE, now)
            return
        task._slot = None
        if self.retry_budget is not None:
            delay = max(delay, self.retry_budget.spend(now, self.assignment.firsts))
        # Again: the budget adds to the delay, and callbacks have taken their time since the policy asked.
        if task._settings.deadline is not None and misses(task._deadline, now + delay):
            self.deadlines.expire(task, now)
            return
        self.retried += 1
        if delay > 0:
            self._defer(task, TaskState.RETRYING, now + delay)
            return
        task._phase = _QUEUED
        if not record.keeps_place:
            self._enqueue(task, now)
        elif self.deadlines.is_too_late(task, now):
            self.deadlines.expire(task, now)
        elif self.shortage.concerns(task):
            self._strand(task, now)
        else:
            self.assignment.put_in_place(task, now)

    def _pull_forward(self, task: AnyTask, now: float) -> None:
        """End the delay of a task that waits within its round."""
        if task._withdrawn or self.deadlines.is_too_late(task, now):
            return
        self.timers.drop(self._delays.pop(task))
        self.delayed -= 1
        task._phase = _QUEUED
        self.assignment.put_in_place(task, now)

    def withdraw(self, task: AnyTask) -> bool:
        """Withdraw a waiting task, so that nobody will run it; return False if it does not wait.

        It stays in its queue as a tombstone, and is dropped by whoever takes it from there. Handshake H3:
        write `_withdrawn`, then read `_slot`.
        """
        phase = task._phase
        waits = phase is _QUEUED or phase is _SCHEDULED or phase is _RETRYING
        if not waits or task._withdrawn:
            return False
        task._withdrawn = True
        if task._slot is not None:
            task._withdrawn = False
            return False
        if phase is _QUEUED:
            self.backlog.tombstones += 1
        else:
            self._delays.pop(task, None)
            self.delayed -= 1
            self.timers.tombstones += 1
        return True

    def waiting(self) -> Iterator[AnyTask]:
        """Iterate over the tasks that wait: in the backlog, then for their moment."""
        yield from self.backlog
        for task in self.timers.subjects(self._due):
            if not task._withdrawn:
                yield task

    def _refuses(self, task: AnyTask, now: float) -> bool:
        """Cancel a task that a worker puts back into a pool that is over; return whether it is."""
        if self.over:
            self.cancel(task, CLOSED_BY_FORCE, now)
        return self.over

    def cancel_waiting(self, reason: str, now: float, *, scheduled: bool = False) -> list[AnyTask]:
        """Cancel all tasks that wait, or those that never were due; return them in the order of ids."""
        chosen = (t for t in self.waiting() if not scheduled or t._phase is TaskState.SCHEDULED)
        tasks = sorted((task for task in chosen if self.withdraw(task)), key=lambda task: task.id)
        for task in tasks:
            self.cancel(task, reason, now)
        return tasks

    def first_due(self) -> Moment | None:
        """Return when the first of the delays is over; of those with a date, if there are no others."""
        return self.timers.first(self._due, lambda task: not task._withdrawn)

    def due(self, task: AnyTask) -> Moment | None:
        """Return when the delay of a task is over; None if it waits out none."""
        return self.timers.moment(self._due, task)

    # -- dead tasks ------------------------------------------------------------------------------

    def resurrect(self, task: AnyTask, dead: DeadTask[Any], now: float, wall: float = 0.0) -> None:
        """Accept `task`, made from a dead one and prepared: fresh attempts, the old history."""
        record = task._record
        if record is None:
            task._record = record = Record(task.id, task._settings.retry_plain)
        record.history = list(dead.history)
        record.inherited = len(record.history)
        self.submit(task, now, wall)

    def restore(self, task: AnyTask, delay: float, now: float) -> None:
        """Accept a prepared task again that another process had accepted, due in `delay` seconds."""
        record = task._record
        self.deadlines.watch(task)
        if delay > 0:
            again = record is not None and record.entries
            self._defer(task, TaskState.RETRYING if again else TaskState.SCHEDULED, now + delay)
        else:
            self._enqueue(task, now)

    # -- time ------------------------------------------------------------------------------------

    def advance(self, now: float, wall: float | None = None) -> None:
        """Do what is due; what has a date only if `wall`, the wall clock's time, is given."""
        if wall is not None:
            self.schedules.read(now, wall)
        self.timers.keep(now, wall)
        self.rouse()

    def next_wakeup(self) -> float | None:
        """Return the moment at which `advance` has something to do; None: not before something else."""
        return self.timers.earliest()

    def report(self, event: Event) -> None:
        """Record an event, for `take_happened`."""
        self._happened.append(event)

    def take_happened(self) -> list[Event]:
        """Return what has happened since the last call, for the pool to tell once it has left the lock."""
        happened, self._happened = self._happened, []
        return happened

    def take_dropped(self) -> list[object]:
        """Return the references dropped since the last call, to be released after the lock."""
        dropped = self.dropped.copy()
        self.dropped.clear()
        return dropped

    # -- workers ---------------------------------------------------------------------------------

    def failed(
        self,
        slot: Slot,
        task: AnyTask,
        error: BaseException,
        scope: Scope,
        span: tuple[int, float, float],
        now: float,
        pause: float | None = None,
    ) -> tuple[Attempt, Scope]:
        """Record a failed attempt, and act on it; see `Failures.enter`.

        If its group cools, tasks that can't be begun before their deadline any more are dead.
        """
        entered = self.failures.enter(slot, task, error, scope, span, now, pause)
        if scope is _THROTTLED:
            self.deadlines.expire_the_late(now)
        self.rouse()
        return entered

    def succeeded(self, slot: Slot, task: AnyTask, now: float) -> None:
        """Weigh a success as evidence; see `Failures.succeeded`."""
        self.failures.succeeded(slot, task, now)
        self.rouse()

    def could_not_start(self, error: BaseException, reason: str, now: float) -> None:
        """Bury the tasks that no worker is left for, as the last one could not be started, for `reason`."""
        self.shortage.could_not_start(error, reason)
        for task in list(self.waiting()):
            if (
                task._phase is not TaskState.SCHEDULED
                and self.shortage.concerns(task)
                and self.withdraw(task)
            ):
                self._strand(task, now)

    # -- counting --------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Return whether no task waits or runs.

        Handshake H11: read the backlog, then the slots.
        """
        if len(self.backlog) or self.delayed or self.undecided:
            return False
        return all(slot.idle or slot.stuck is not None for slot in self.fleet)

    def is_stranded(self) -> bool:
        """Return whether tasks wait, and no present worker can ever take one.

        Handshake H11: read the injector queue, then the slots.
        """
        backlog = self.backlog
        arrived, waits = bool(backlog.injector), len(backlog) > 0
        if (
            self.undecided
            or not (waits or self.delayed)
            or not all(slot.idle or slot.stuck for slot in self.fleet)
        ):
            return False
        usable = [slot for slot in self.fleet if self.fleet.usable(slot)]
        if self.fleet.returning:
            return False
        if not usable:
            return True
        return backlog.filed > 0 and not (
            self.delayed
            or arrived
            or any(
                subqueue.tasks and any(map(subqueue.constraints.suits, usable))
                for subqueue in backlog.subqueues.values()
            )
        )

    def _count_delayed(self) -> int:
        return self.delayed

    # -- steps -----------------------------------------------------------------------------------

    def _strand(self, task: AnyTask, now: float) -> None:
        self.bury(task, DeadReason.NO_WORKERS, self.shortage.error(task._settings), now)

    def _defer(self, task: AnyTask, phase: TaskState, when: float) -> None:
        task._phase = phase
        self.delayed += 1
        self._delays[task] = self.timers.add(when, self._due, task)

    def _due(self, task: AnyTask, now: float) -> None:
        """The delay of a task is over."""
        if task._withdrawn:
            self.timers.tombstones = max(0, self.timers.tombstones - 1)
            return
        self._delays.pop(task, None)
        self.delayed -= 1
        task._phase = _QUEUED
        self._enqueue(task, now)

    def _enqueue(self, task: AnyTask, now: float) -> None:
        """Append a task to the queue, unless it is too late for it or no worker is left."""
        if self.deadlines.is_too_late(task, now):
            self.deadlines.expire(task, now)
        elif self.shortage.concerns(task):
            self._strand(task, now)
        else:
            self.assignment.enqueue(task, now)
