"""Who does what next: the state of a pool, and every change that it can go through.

Pure: time comes in as `now`, what happened goes out through `happened`. All methods are called under
the pool's lock, except the three under *Without the lock*, which say why they need none.

The life of a task: `submit` → (`_due`) → `claim` → `retry` → … → `bury`, `cancel`, or a success, which
the worker that has the task in hand settles itself.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from weakref import ref

from retrypool.core.agenda import Agenda
from retrypool.core.health import Group
from retrypool.core.queue import ARRIVALS, Audience, Backlog, Lane, Rank
from retrypool.core.seat import Seat
from retrypool.core.settings import TaskSettings
from retrypool.core.staff import Staff
from retrypool.errors import AttemptTimeout, TaskNotFound
from retrypool.events import (
    Event,
    TaskCancelled,
    TaskDead,
)
from retrypool.task import Attempt, DeadReason, DeadTask, Outcome, Record, Task, TaskState

__all__ = ["Scheduler"]

AnyTask = Task[Any, Any]

_ANYBODY = Audience(frozenset())


class Scheduler:
    """The state of a pool. See the module's text for who may call what."""

    def __init__(self, *, affinity_wait: float = 5.0, dead_limit: int | None = None) -> None:
        self.affinity_wait = affinity_wait
        self.dead_limit = dead_limit
        self.backlog = Backlog()
        self.agenda = Agenda()
        self.delayed = 0  # tasks in the agenda, waiting for their moment
        self.dead: dict[int, DeadTask[Any]] = {}  # oldest first
        self.dead_dropped = 0  # those that dead_limit pushed out
        self.died = 0  # since the pool was made
        self.cancelled = 0
        self.retried = 0  # but for those that seats count themselves
        self._happened: list[Event] = []
        self.staff = Staff(self.agenda, self.report)

    # -- tasks -----------------------------------------------------------------------------------

    def submit(self, task: AnyTask, now: float) -> None:
        """Accept a task that is not plain, or whose pool has something to do for it."""
        settings = task._settings
        if not settings.plain and task._record is None:
            task._record = self._record(task)
        if settings.deadline is not None:
            self.agenda.add(now + settings.deadline, self._deadline, ref(task))
        if settings.delay > 0:
            self._defer(task, TaskState.SCHEDULED, now + settings.delay)
        else:
            self._enqueue(task, now)

    def claim(self, seat: Seat, now: float, handed: AnyTask | None = None) -> AnyTask | None:
        """Return the task that `seat` is to run now, or park it and return None.

        `handed` is a task that the worker took from the arrivals and may not simply run: because the
        seat is not `direct`, or because the task is not for it.
        """
        if handed is not None:
            self._take_back(handed, seat, now)
        task = None if self.staff.barred(seat, now) else self._next_for(seat, now)
        if task is None:
            self._park(seat, now)
        else:
            self._seat_at(seat, task)
        self._rouse()
        return task

    def retry(self, task: AnyTask, delay: float, now: float) -> None:
        """Put a task back whose attempt is over, to be claimed again in `delay` seconds.

        Unless it was cancelled in the meantime.
        """
        record = task._record
        assert record is not None
        record.deciding = False
        if record.cancelled:
            self.cancel(task, "cancelled", now)
            return
        task._seat = None
        self.retried += 1
        if delay > 0:
            self._defer(task, TaskState.RETRYING, now + delay)
        else:
            task._phase = TaskState.QUEUED
            self._enqueue(task, now)

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
            task._settings,
        )
        task._seat = None
        self.died += 1
        self.dead[task.id] = dead
        if self.dead_limit is not None and len(self.dead) > self.dead_limit:
            del self.dead[next(iter(self.dead))]
            self.dead_dropped += 1
        task._outcome = error
        task._phase = TaskState.DEAD
        self.report(TaskDead(now, task, dead))

    def cancel(self, task: AnyTask, reason: str | None, now: float) -> None:
        """End a task without result or failure."""
        task._seat = None
        self.cancelled += 1
        task._outcome = reason
        task._phase = TaskState.CANCELLED
        self.report(TaskCancelled(now, task, reason))

    def withdraw(self, task: AnyTask) -> bool:
        """Take a waiting task out, so that nobody will run it; False if it does not wait.

        It stays where it is as a ghost, and is dropped when somebody comes upon it. A worker that
        takes it from the arrivals at this moment writes `_seat` and then reads `_withdrawn`; here it
        is the other way about, so at least one of the two notices. If both do, the worker asks
        `claim`, which waits for the lock and then finds that it may have the task after all.
        """
        phase = task._phase
        if phase.ended or phase is TaskState.RUNNING or task._withdrawn:
            return False
        task._withdrawn = True
        if task._seat is not None:
            task._withdrawn = False
            return False
        if phase is TaskState.QUEUED:
            self.backlog.ghosts += 1
        else:
            self.delayed -= 1
        return True

    def waiting(self) -> Iterator[AnyTask]:
        """Iterate over the tasks that wait: in the backlog, then for their moment."""
        yield from self.backlog
        for task in self.agenda.subjects(self._due):
            if not task._withdrawn:
                yield task

    def cancel_waiting(self, reason: str, now: float) -> list[AnyTask]:
        """Cancel every task that waits, and return them in the order of their ids."""
        tasks = sorted((task for task in self.waiting() if self.withdraw(task)), key=lambda task: task.id)
        for task in tasks:
            self.cancel(task, reason, now)
        return tasks

    # -- dead tasks ------------------------------------------------------------------------------

    def pull_dead(self, task_id: int) -> DeadTask[Any]:
        """Take a dead task out and return it. Raises `TaskNotFound`."""
        try:
            return self.dead.pop(task_id)
        except (KeyError, TypeError):
            raise TaskNotFound(task_id, "among the dead tasks") from None

    def resurrect(self, task: AnyTask, dead: DeadTask[Any], now: float) -> None:
        """Accept `task`, made from a dead one: fresh attempts, the old history."""
        task._record = record = self._record(task)
        record.history = list(dead.history)
        record.inherited = len(record.history)
        self.submit(task, now)

    # -- time ------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Do what is due."""
        self.agenda.keep(now)
        self._rouse()

    def next_wakeup(self) -> float | None:
        """Return the moment at which `advance` has something to do; None: not before something else."""
        return self.agenda.earliest()

    def report(self, event: Event) -> None:
        """Enter something that has happened."""
        self._happened.append(event)

    def take_happened(self) -> list[Event]:
        """Return what has happened since the last call, for the pool to tell once it has left the lock."""
        happened, self._happened = self._happened, []
        return happened

    # -- workers ---------------------------------------------------------------------------------

    def add(self, seat: Seat) -> None:
        """Add a worker."""
        self.staff.add(seat)
        self.backlog.review(seat)

    def retire(self, seat: Seat, now: float) -> None:
        """Give `seat` nothing any more. If its group goes with it, what the others tried starts afresh."""
        if self.staff.retire(seat, now):
            self._start_afresh()
            self._rouse()

    def remove(self, seat: Seat) -> None:
        """Forget a retired worker."""
        self.staff.seats.pop(seat.id, None)
        seat.standings.clear()

    # -- counting --------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Return whether no task waits or runs.

        The order matters: a worker first says that it is not idle and then takes a task, and it
        becomes idle under the lock. So if the backlog is looked at first, a task that is on its way
        from one to the other is seen in one of them.
        """
        if len(self.backlog) or self.delayed:
            return False
        return all(seat.idle or seat.stuck is not None for seat in self.staff)

    # -- without the lock ------------------------------------------------------------------------

    def tried(self, task: AnyTask, attempt: Attempt, group: Group) -> Record:
        """Enter a failed attempt into the task's record. Called by the one who owns the task."""
        record = task._record
        if record is None:
            task._record = record = self._record(task)
        record.deciding = True
        record.history.append(attempt)
        record.entries += 1
        record.running_time += attempt.duration
        record.parole = False
        match attempt.outcome:
            case Outcome.THROTTLED:
                record.throttles += 1
            case Outcome.WITHDRAWN | Outcome.CANCELLED:
                pass
            case Outcome.WORKER_FAULT if self.staff.live - group.alone:
                record.faults += 1
                record.tried = self._and_tried(record.tried, group)
            case _:
                record.charged += 1
                record.tried = self._and_tried(record.tried, group)
        return record

    def retry_at_once(self, task: AnyTask) -> bool:
        """Put a plain task back without the lock, if it may go that way.

        The caller owns the task. Once it is in the arrivals it owns it no more, so the append comes
        last. A withdrawal can't come in between: it finds `_seat` set, or the phase `RUNNING`, until
        the task is as good as queued, and from then on whoever takes the task sees it.
        """
        record = task._record
        assert record is not None
        if not record.plain:
            return False
        record.seq = self.backlog.next_seq()
        record.deciding = False
        task._seat = None
        task._phase = TaskState.QUEUED
        self.backlog.arrivals.append(task)
        return True

    def admits(self, seat: Seat, task: AnyTask) -> bool:
        """Return whether `seat` may run `task`, which it has just taken from the arrivals."""
        record = task._record
        return record is None or record.parole or seat.group not in record.tried

    # -- steps -----------------------------------------------------------------------------------

    def _record(self, task: AnyTask) -> Record:
        settings: TaskSettings = task._settings
        record = Record(task.id)
        record.plain = settings.priority == 0 and not settings.retry.immediate
        if settings.copy_context:
            record.context = contextvars.copy_context()
        return record

    def _and_tried(self, tried: frozenset[Group], group: Group) -> frozenset[Group]:
        """Return `tried` with `group` in it, or nothing at all once every live group is in it."""
        union = tried | group.alone if tried else group.alone
        return frozenset() if union >= self.staff.live else union

    def _defer(self, task: AnyTask, phase: TaskState, when: float) -> None:
        task._phase = phase
        self.delayed += 1
        self.agenda.add(when, self._due, task)

    def _due(self, task: AnyTask, now: float) -> None:
        """The delay of a task is over."""
        if task._withdrawn:
            return
        self.delayed -= 1
        task._phase = TaskState.QUEUED
        self._enqueue(task, now)

    def _enqueue(self, task: AnyTask, now: float) -> None:
        """Let a task be claimed from now on, behind those of its rank that already can be."""
        record = task._record
        if record is None:
            self.backlog.arrivals.append(task)
        else:
            record.seq = self.backlog.next_seq()
            if record.plain:
                self.backlog.arrivals.append(task)
            else:
                self._file(task, record, now)
        self._rouse()

    def _file(self, task: AnyTask, record: Record, now: float) -> None:
        """Put a task into the lane that it belongs to."""
        if record.tried >= self.staff.live:
            record.tried = frozenset()
        audience = _ANYBODY if record.parole else Audience(record.tried)
        lane = self.backlog.file(task, record.seq, _rank(task, record), audience, now)
        self.backlog.enlist(lane, self.staff)
        self._time(lane)

    def _time(self, lane: Lane) -> None:
        """See to it that no task of `lane` waits longer than `affinity_wait` for an untried worker."""
        if lane.audience.tried and lane.tasks and not lane.timed:
            lane.timed = True
            self.agenda.add(lane.tasks[0][1] + self.affinity_wait, self._parole, lane)

    def _parole(self, lane: Lane, now: float) -> None:
        """Let any worker take the tasks of `lane` that have waited long enough for an untried one."""
        lane.timed = False
        tasks = lane.tasks
        while tasks and tasks[0][1] + self.affinity_wait <= now:
            _, _, task = tasks.popleft()
            self._refile(task, now, parole=True)
        if tasks:
            self._time(lane)
        else:
            self.backlog.close(lane)

    def _refile(self, task: AnyTask, now: float, *, parole: bool) -> None:
        """File a task anew that has just been taken out of its lane."""
        if task._withdrawn:
            self.backlog.ghosts -= 1
            return
        record = task._record
        assert record is not None
        record.parole = parole
        self._file(task, record, now)

    def _start_afresh(self) -> None:
        """Refile what every group that is left has tried."""
        for lane in list(self.backlog.lanes.values()):
            if lane.audience.tried and lane.audience.tried >= self.staff.live:
                tasks = list(lane.tasks)
                lane.tasks.clear()
                self.backlog.close(lane)
                for _, since, task in tasks:
                    self._refile(task, since, parole=False)

    def _take_back(self, task: AnyTask, seat: Seat, now: float) -> None:
        """Undo a worker's taking of a task from the head of the arrivals."""
        task._seat = None
        if task._withdrawn:
            self.backlog.ghosts -= 1
        elif self.admits(seat, task):
            self.backlog.arrivals.appendleft(task)
        else:
            assert task._record is not None
            self._file(task, task._record, now)

    def _next_for(self, seat: Seat, now: float) -> AnyTask | None:
        """Take the task that is first in order among those that `seat` may run."""
        while (task := self._first(seat)) is not None:
            if task._withdrawn:
                self.backlog.ghosts -= 1
            elif not self.admits(seat, task):
                assert task._record is not None
                self._file(task, task._record, now)
            else:
                return task
        return None

    def _first(self, seat: Seat) -> AnyTask | None:
        """Take the first task in order from the seat's lanes or the arrivals; None if there is none."""
        arrivals = self.backlog.arrivals
        lane = self.backlog.best(seat)
        if lane is None:
            return _popleft(arrivals)
        if lane.rank == ARRIVALS:
            try:
                lane_first = lane.tasks[0][0] < _seq(arrivals[0])
            except IndexError:
                lane_first = True
        else:
            lane_first = lane.rank < ARRIVALS
        if not lane_first and (task := _popleft(arrivals)) is not None:
            return task
        return self.backlog.take(lane)

    def _seat_at(self, seat: Seat, task: AnyTask) -> None:
        """Let `seat` have `task`, and say whether it may help itself next time."""
        task._seat = seat
        if seat.group.until is not None:
            self.staff.start_probe(seat)
        else:
            seat.direct = self._may_be_direct(seat)

    def _may_be_direct(self, seat: Seat) -> bool:
        lane = self.backlog.best(seat)
        return (lane is None or lane.rank > ARRIVALS) and seat.group.until is None

    def _park(self, seat: Seat, now: float) -> None:
        """Let `seat` wait; among the parked if it may be given anything.

        Whoever calls this looks at the arrivals once more *after* it: a dispatcher appends and then
        looks for parked seats.
        """
        seat.idle = True
        if self.staff.barred(seat, now):
            seat.direct = False
        else:
            seat.direct = self._may_be_direct(seat)
            self.staff.parked[seat] = None

    def _rouse(self) -> None:
        """Wake one parked worker that something waits for; it will wake the next.

        Called at the end of whatever may have left work for somebody who sleeps.
        """
        parked = self.staff.parked
        if not parked:
            return
        if self.backlog.lanes:
            for seat in list(parked):
                if self.backlog.best(seat) is not None:
                    parked.pop(seat, None)
                    seat.wake()
                    return
        if self.backlog.arrivals:
            with suppress(KeyError):  # dispatchers may be quicker
                seat, _ = parked.popitem()
                seat.wake()

    def _deadline(self, task_ref: ref[AnyTask], now: float) -> None:
        """The deadline of a task has come. If it runs, its attempt ends by itself, at this moment."""
        task = task_ref()
        if task is not None and self.withdraw(task):
            self._expire(task, now)

    def _expire(self, task: AnyTask, now: float) -> None:
        deadline = task._settings.deadline
        assert deadline is not None
        errors = task.errors
        error = errors[-1] if errors else AttemptTimeout(deadline, "deadline")
        self.bury(task, DeadReason.DEADLINE, error, now)


def _seq(task: AnyTask) -> int:
    record = task._record
    return task.id if record is None else record.seq


def _rank(task: AnyTask, record: Record) -> Rank:
    settings = task._settings
    return (-settings.priority, 0 if record.entries and settings.retry.immediate else 1)


def _popleft(arrivals: Any) -> AnyTask | None:
    try:
        task: AnyTask = arrivals.popleft()
    except IndexError:
        return None
    return task
