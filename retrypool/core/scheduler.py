"""Who does what next: the state of a pool, and every change that it can go through.

Pure: time comes in as `now`, what happened goes out through `happened`. All methods are called under
the pool's lock, except `admits` and those under *Without the lock*, which say why they need none.

The life of a task: `submit` → (`_due`) → `claim` → `retry` → … → `bury`, `cancel`, or a success, which
the worker that has the task in hand settles itself.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Iterator
from typing import Any
from weakref import ref

from retrypool.core.assignment import AnyTask, Matching
from retrypool.core.beliefs import UNLIKELY
from retrypool.core.failures import Failures
from retrypool.core.fleet import Fleet
from retrypool.core.history import History
from retrypool.core.schedules import Schedules
from retrypool.core.timers import Moment, Timers
from retrypool.errors import AttemptTimeout, NoWorkers, TaskNotFound
from retrypool.events import (
    Event,
    TaskCancelled,
    TaskDead,
)
from retrypool.model.settings import TaskSettings
from retrypool.model.slots import Slot
from retrypool.model.task import Attempt, DeadTask, Record
from retrypool.policy.blame import Scope
from retrypool.policy.budget import Budget, RetryBudget
from retrypool.policy.health import HealthPolicy
from retrypool.policy.rates import Pace
from retrypool.states import DeadReason, Outcome, TaskState

__all__ = ["Scheduler"]

CLOSED_BY_FORCE = "the pool was closed by force"

FEW = 3
"""Failures in a row that are never looked at, where there is one group alone."""

# Bound once: looking a member up in its enum costs more than what is done with it.
_QUEUED, _SCHEDULED, _RETRYING = TaskState.QUEUED, TaskState.SCHEDULED, TaskState.RETRYING
_THROTTLED = Scope.THROTTLED


class Scheduler(Matching):
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
    ) -> None:
        timers = Timers()
        fleet = Fleet(timers, self.report, health=health, pace=pace)
        super().__init__(timers, fleet, affinity_wait=affinity_wait)
        self.pool_name = "the pool"
        self.waits_for_workers = False  # tasks wait for those that are to come
        self.dead_limit = dead_limit
        self.over = False  # closed by force: what is put back is cancelled
        self.journaled = False  # whether a storage is told of each task; set before there is any
        self.undecided = 0  # attempts that were taken over, and whose task's fate is being decided
        self.delayed = 0  # tasks in the timers, waiting for their moment
        self.dead: dict[int, DeadTask[Any]] = {}  # oldest first
        self.dead_dropped = 0  # those that dead_limit pushed out
        self.died = 0  # since the pool was made
        self.cancelled = 0
        self.tells_cancelled = True  # whether anybody wants to hear of each task that is cancelled
        self.retried = 0  # but for those that slots count themselves
        self._happened: list[Event] = []
        self.start_error: BaseException | None = None  # of the last worker that could not be started
        self.start_reason = ""  # what it says
        self.schedules = Schedules(timers, fleet, self.report)
        self.history = History(history_limit)
        self.retry_budget = None if budget is None else RetryBudget(budget)
        self.counts_firsts = budget is not None
        self.failures = Failures(self, self.history, self._owned, self._pull_forward)

    # -- tasks -----------------------------------------------------------------------------------

    def prepare(self, task: AnyTask) -> None:
        """Give a new task the record that it needs, if it is not plain.

        Without the lock: it calls the user's cost function, and raises what that raises.
        """
        if self.journaled or not task._settings.plain:
            task._record = self._record(task)

    def submit(self, task: AnyTask, now: float, wall: float = 0.0) -> None:
        """Accept a prepared task that is not plain, or whose pool has something to do for it.

        `wall` is what the wall clock shows; who has no date need not tell.
        """
        settings = task._settings
        if task._withdrawn:  # cancelled by who was told of it before it came in: it is no tombstone anywhere
            self.backlog.tombstones -= 1
            return
        if settings.deadline is not None:
            self.timers.add(now + settings.deadline, self.meet_deadline, ref(task))
        if settings.delay > 0:
            if self._is_too_late(task, now):
                self._expire(task, now)
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

        Unless it was cancelled in the meantime.
        """
        record = task._record
        assert record is not None
        record.deciding = False
        if record.cancelled or self.over:
            self.cancel(task, "cancelled" if record.cancelled else CLOSED_BY_FORCE, now)
            return
        task._slot = None
        self.retried += 1
        if self.retry_budget is not None:
            delay = max(delay, self.retry_budget.spend(now, self.firsts))
            deadline = task._settings.deadline
            if deadline is not None and now + delay >= task._dispatched + deadline:
                self._expire(task, now)
                return
        if delay > 0:
            self._defer(task, TaskState.RETRYING, now + delay)
            return
        task._phase = _QUEUED
        if not record.keeps_place:
            self._enqueue(task, now)
        elif self._is_too_late(task, now):
            self._expire(task, now)
        elif self._has_no_workers(task):
            self._strand(task, now)
        else:
            self.put_in_place(task, now)

    def _pull_forward(self, task: AnyTask, now: float) -> None:
        """Let a task be claimed at once that waits out a delay within its round."""
        if task._withdrawn or self._is_too_late(task, now):
            return
        self.timers.drop(self._due, task)
        self.delayed -= 1
        task._phase = _QUEUED
        self.put_in_place(task, now)

    def bury(self, task: AnyTask, reason: DeadReason, error: BaseException | None, now: float) -> None:
        """End a task for good, and keep it."""
        dead = DeadTask(
            task.id,
            task.name,
            task.data,
            reason,
            error,
            tuple(task.history),
            task.options,
            task._told,
        )
        task._slot = None
        self.failures.ended(task, now)
        self.died += 1
        self.dropped.append(self.dead.get(task.id))
        self.dead[task.id] = dead
        if self.dead_limit is not None and len(self.dead) > self.dead_limit:
            self.dropped.append(self.dead.pop(next(iter(self.dead))))
            self.dead_dropped += 1
        if not task._settings.keep_data:
            self.dropped.append(task.data)
            task.data = None  # the dead task still has it, to be requeued with
        task._outcome = error
        self.history.ended(task, TaskState.DEAD, now)
        task._phase = TaskState.DEAD
        self.report(TaskDead(now, task, dead))

    def cancel(self, task: AnyTask, reason: str | None, now: float) -> None:
        """End a task without result or failure."""
        task._slot = None
        self.failures.ended(task, now)
        self.cancelled += 1
        if not task._settings.keep_data:
            self.dropped.append(task.data)
            task.data = None
        task._outcome = reason
        self.history.ended(task, TaskState.CANCELLED, now)
        task._phase = TaskState.CANCELLED
        if self.tells_cancelled or task._completion is not None:  # handshake H6
            self.report(TaskCancelled(now, task, reason))

    def withdraw(self, task: AnyTask) -> bool:
        """Take a waiting task out, so that nobody will run it; False if it does not wait.

        It stays where it is as a tombstone, and is dropped when somebody comes upon it. Handshake H3: write
        `_withdrawn`, then read `_slot`.
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
            self.delayed -= 1
            self.timers.tombstones += 1
        return True

    def waiting(self) -> Iterator[AnyTask]:
        """Iterate over the tasks that wait: in the backlog, then for their moment."""
        yield from self.backlog
        for task in self.timers.subjects(self._due):
            if not task._withdrawn:
                yield task

    def _take_back(self, task: AnyTask, slot: Slot, now: float) -> None:
        if self.over and not task._withdrawn:
            self.cancel(task, CLOSED_BY_FORCE, now)
        else:
            super()._take_back(task, slot, now)

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

    def pull_dead(self, task_id: int) -> DeadTask[Any]:
        """Take a dead task out and return it. Raises `TaskNotFound`."""
        try:
            return self.dead.pop(task_id)
        except (KeyError, TypeError):
            raise TaskNotFound(task_id, "among the dead tasks") from None

    def resurrect(self, task: AnyTask, dead: DeadTask[Any], now: float, wall: float = 0.0) -> None:
        """Accept `task`, made from a dead one and prepared: fresh attempts, the old history."""
        record = task._record
        if record is None:
            task._record = record = self._record(task)
        record.history = list(dead.history)
        record.inherited = len(record.history)
        self.submit(task, now, wall)

    def restore(self, task: AnyTask, delay: float, now: float) -> None:
        """Take a prepared task up again that was accepted in another process, due in `delay` seconds."""
        record, deadline = task._record, task._settings.deadline
        if deadline is not None:
            self.timers.add(task._dispatched + deadline, self.meet_deadline, ref(task))
        if delay > 0:
            again = record is not None and record.entries
            self._defer(task, TaskState.RETRYING if again else TaskState.SCHEDULED, now + delay)
        else:
            self._enqueue(task, now)

    # -- time ------------------------------------------------------------------------------------

    def advance(self, now: float, wall: float | None = None) -> None:
        """Do what is due; what has a date, only if told what the wall clock shows."""
        if wall is not None:
            self.schedules.read(now, wall)
        self.timers.keep(now, wall)
        self._rouse()

    def next_wakeup(self) -> float | None:
        """Return the moment at which `advance` has something to do; None: not before something else."""
        return self.timers.earliest()

    def report(self, event: Event) -> None:
        """Enter something that has happened."""
        self._happened.append(event)

    def take_happened(self) -> list[Event]:
        """Return what has happened since the last call, for the pool to tell once it has left the lock."""
        happened, self._happened = self._happened, []
        return happened

    def take_dropped(self) -> list[object]:
        """Return what was let go of since the last call, to be let go of once the lock is left."""
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
        """Enter a failed attempt, and do what it calls for; see `Failures.enter`.

        Tasks that can't be begun before their deadline then are dead.
        """
        entered = self.failures.enter(slot, task, error, scope, span, now, pause)
        if scope is _THROTTLED:
            self.expire_the_late(now)
        self._rouse()
        return entered

    def succeeded(self, slot: Slot, task: AnyTask, now: float) -> None:
        """Let a success speak for its group, and against others; see `Failures.succeeded`."""
        self.failures.succeeded(slot, task, now)
        self._rouse()

    def waiting_for_time(self) -> int:
        """Return how many tasks wait for their moment."""
        return self.delayed

    def could_not_start(self, error: BaseException, reason: str, now: float) -> None:
        """Let tasks be dead that no worker is left for: the last one could not be started, for `reason`."""
        self.start_error, self.start_reason = error, reason
        for task in list(self.waiting()):
            if task._phase is not TaskState.SCHEDULED and self._has_no_workers(task) and self.withdraw(task):
                self._strand(task, now)

    def _has_no_workers(self, task: AnyTask) -> bool:
        """Return whether no worker may ever take a task, because of one that could not be started."""
        settings = task._settings
        if self.start_error is None or self.waits_for_workers or settings.wait_for_worker:
            return False
        if not settings.picky:
            return not self.fleet.live and not self.fleet.returning
        suits, fleet = settings.constraints.suits, self.fleet
        return not any(suits(slot) for slot in [*filter(fleet.present, fleet), *fleet.returning])

    def _strand(self, task: AnyTask, now: float) -> None:
        error = self.no_workers(task._settings)
        self.bury(task, DeadReason.NO_WORKERS, error, now)

    def no_workers(self, settings: TaskSettings | None = None) -> NoWorkers:
        """Return the error that says that no worker is left, and why."""
        cause = self.start_error if not self.fleet.live else None
        if settings is not None and settings.picky:
            cause = self.start_error
        wants = "" if settings is None else settings.wants
        error = NoWorkers(self.pool_name, wants, "" if cause is None else self.start_reason)
        error.__cause__ = cause
        return error

    # -- counting --------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Return whether no task waits or runs.

        Handshake H11: read the backlog, then the slots.
        """
        if len(self.backlog) or self.delayed or self.undecided:
            return False
        return all(slot.idle or slot.stuck is not None for slot in self.fleet)

    def is_stranded(self) -> bool:
        """Return whether tasks wait, and no worker is left that could ever take one, as things stand."""
        waits = len(self.backlog) > 0
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
        return not (
            self.delayed
            or self.backlog.injector
            or any(
                subqueue.tasks and any(map(subqueue.constraints.suits, usable))
                for subqueue in self.backlog.subqueues.values()
            )
        )

    # -- without the lock ------------------------------------------------------------------------

    def take_in_hand(self, task: AnyTask) -> Record:
        """Say that an attempt is over, and its owner, who calls this, finds out what becomes of the task."""
        record = task._record
        if record is None:
            task._record = record = self._record(task)
        record.deciding = True
        return record

    def ended_early(self, task: AnyTask, attempt: Attempt) -> Record:
        """Enter an attempt that was ended from outside. Called by the one who owns the task."""
        record = self._owned(task)
        record.history.append(attempt)
        record.entries += 1
        record.uncharged += 1
        record.running_time += attempt.ended - attempt.started
        record.tried_waived = record.urgent = False
        record.keeps_place = True
        # It goes to another worker, if there is one.
        record.avoid = attempt.worker_id if attempt.outcome is Outcome.WITHDRAWN else None
        return record

    def _owned(self, task: AnyTask) -> Record:
        """Return the record of a task whose attempt is over."""
        record = task._record
        return record if record is not None and record.deciding else self.take_in_hand(task)

    def retry_at_once(self, slot: Slot, task: AnyTask, attempt: Attempt) -> bool:
        """Enter a failure that says nothing, and put the task back without the lock; if it may be so.

        That is where there is one group alone, so that each failure begins a new round, and where no more has
        failed in a row than is usual. The caller owns the task, and puts it back (handshake H12): the append
        comes last, and from then on whoever takes the task sees the rest.
        """
        record, settings, group, fleet = task._record, task._settings, slot.group, self.fleet
        assert record is not None
        line = self.backlog.injector.line(settings.priority)
        if (
            fleet.live != group.alone
            or line is None
            or not record.plain
            or record.tried
            or slot.attentive
            or slot.retired
            or group.until is not None
            or fleet.quarantine.outage is not None
            or self.retry_budget is not None
            or self.over
            or settings.span is None
            or self._is_unusual(slot)
        ):
            return False
        if settings.retry.decide_at_once(record.charged + 1, record.uncharged) and not record.cancelled:
            record.history.append(attempt)
            record.entries += 1
            record.charged += 1
            record.round += 1
            record.seq = self.backlog.next_seq()
            record.deciding = False  # H7: written, then `cancelled` is read
            if record.cancelled:
                record.deciding = True
                self._take_out_again(record)
                return False
            record.running_time += attempt.ended - attempt.started
            record.tried_waived = record.urgent = record.keeps_place = record.elsewhere = False
            record.avoid = None
            task._slot = None
            task._phase = _QUEUED
            line.append(task)
            return True
        return False

    def _take_out_again(self, record: Record) -> None:
        record.history.pop()
        record.entries -= 1
        record.charged -= 1
        record.round -= 1

    def _is_unusual(self, slot: Slot) -> bool:
        """Count a failure at `slot`; return whether so many in a row are worth a look under the lock."""
        if slot.succeeded != slot.row_mark:
            slot.row_mark, slot.row = slot.succeeded, 0
        slot.row += 1
        if slot.row < FEW or not slot.succeeded:
            return False
        share = (slot.failed + 1) / (slot.failed + slot.succeeded + 4)
        return share**slot.row < UNLIKELY

    # -- steps -----------------------------------------------------------------------------------

    def _record(self, task: AnyTask) -> Record:
        settings: TaskSettings = task._settings
        record = Record(task.id, settings.retry_plain)
        if settings.cost != 1.0:
            record.cost = settings.cost_of(task.data)
        if settings.copy_context:
            record.context = contextvars.copy_context()
        if self.journaled or settings.copy_context or settings.wraps_up:
            record.wrapped = True
        return record

    def _defer(self, task: AnyTask, phase: TaskState, when: float) -> None:
        task._phase = phase
        self.delayed += 1
        self.timers.add(when, self._due, task)

    def _due(self, task: AnyTask, now: float) -> None:
        """The delay of a task is over."""
        if task._withdrawn:
            self.timers.tombstones = max(0, self.timers.tombstones - 1)
            return
        self.delayed -= 1
        task._phase = _QUEUED
        self._enqueue(task, now)

    def _enqueue(self, task: AnyTask, now: float) -> None:
        """Let a task be claimed from now on, behind those of its rank that already can be."""
        if self._is_too_late(task, now):
            self._expire(task, now)
        elif self._has_no_workers(task):
            self._strand(task, now)
        else:
            self.enqueue(task, now)

    def _is_too_late(self, task: AnyTask, now: float) -> bool:
        """Return whether no worker will be given anything before the deadline of `task`."""
        deadline = task._settings.deadline
        if deadline is None:
            return False
        constraints = task._settings.constraints
        opens_at = self.fleet.opens_at((slot for slot in self.fleet if constraints.suits(slot)), now)
        return math.inf > opens_at >= task._dispatched + deadline

    def expire_the_late(self, now: float) -> None:
        """Let tasks be dead that can't be begun before their deadline, as things have come to stand."""
        for task_ref in self.timers.subjects(self.meet_deadline):
            task = task_ref()
            self.dropped.append(task)  # nobody else may hold it by now
            if task is not None:
                self.expire_if_late(task, now)

    def expire_if_late(self, task: AnyTask, now: float) -> None:
        """Let a task be dead that waits, and can't be begun before its deadline, as things stand."""
        if self._is_too_late(task, now) and self.withdraw(task):
            self._expire(task, now)

    def meet_deadline(self, task_ref: ref[AnyTask], now: float) -> None:
        """The deadline of a task has come. If it runs, its attempt ends by itself, at this moment."""
        task = task_ref()
        self.dropped.append(task)  # nobody else may hold it by now
        if task is not None and self.withdraw(task):
            self._expire(task, now)

    def _expire(self, task: AnyTask, now: float) -> None:
        deadline = task._settings.deadline
        assert deadline is not None
        errors = task.errors
        error = errors[-1] if errors else AttemptTimeout(deadline, "deadline")
        self.bury(task, DeadReason.DEADLINE, error, now)
