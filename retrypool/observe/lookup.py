"""Finding one task in a pool, and reporting its state."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from enum import Enum
from typing import Any

from retrypool.checks import as_id, date
from retrypool.core.history import Ended, LastError, last_error, tried_by
from retrypool.core.timers import Moment
from retrypool.errors import TaskNotFound
from retrypool.model.task import DeadTask, Task
from retrypool.observe.explain import explain, explain_all
from retrypool.observe.status import TaskStatus
from retrypool.states import TaskState
from retrypool.threads.engine import Engine
from retrypool.threads.workers import Workers

__all__ = ["AnyTask", "Lookup", "Whole", "id_of"]

LOOKS = 20
"""How often a task is looked for that is not found: it may just be changing hands."""


AnyTask = Task[Any, Any] | DeadTask[Any] | TaskStatus | int
"""A task, by what stands for it or by its id."""


class Whole(Enum):
    """Stands for the whole pool. Not None, which may be meant for a task that is not there."""

    POOL = "the whole pool"


def id_of(task: AnyTask) -> int:
    """Return the id of a task, given by id or as an object. For anything else, an id that is not found."""
    return task.id if isinstance(task, (Task, DeadTask, TaskStatus)) else task


class Lookup:
    """Finds a task of one pool by its id, and reports its state and why it waits."""

    def __init__(self, engine: Engine[Any, Any], workers: Workers[Any, Any]) -> None:
        self._engine = engine
        self._workers = workers

    def status(self, task: AnyTask) -> TaskStatus:
        """Return the status of a task. See `Pool.status`."""
        engine = self._engine
        task_id = self._id_here(task)
        known = task if isinstance(task, Task) else self._find(task_id)
        if known is not None:
            there = known
            found = engine.look(lambda: None if there.done() else self._status_of(there))
            if found is not None:
                status, error = found
                return status if error is None else replace(status, last_error=error.text())
        ended = engine.scheduler.history.find(task_id)
        if ended is None:
            raise TaskNotFound(task_id)
        return self._status_of_ended(ended)

    def find(self, task: AnyTask) -> Task[Any, Any]:
        """Return a task that has not ended, or that is kept. Raises `TaskNotFound`."""
        if isinstance(task, Task):
            self._id_here(task)
            return task
        task_id = self._id_here(task)
        kept = self._engine.kept
        found = None if kept is None else kept.find(task_id)
        if found is None:
            found = self._find(task_id)
        if found is None:
            raise TaskNotFound(task_id, "that runs, waits, or is kept (keep_results=)")
        return found

    def find_waiting_or_running(self, task: AnyTask) -> Task[Any, Any] | None:
        """Return a task that may not have ended, or None for one that has. Raises `TaskNotFound`."""
        if isinstance(task, Task):
            return task
        task_id = self._id_here(task)
        found = self._find(task_id)
        if found is None and self._engine.scheduler.history.find(task_id) is None:
            raise TaskNotFound(task_id)
        return found

    def _id_here(self, task: AnyTask) -> int:
        """Return the id of a task of this pool. Raises `TaskNotFound`."""
        if isinstance(task, Task) and task._owner is not self._engine:
            raise TaskNotFound(task.id)
        id_ = as_id(id_of(task))
        if id_ is None:
            raise TaskNotFound(task)
        return id_

    def explain(self, task: AnyTask | Whole) -> str:
        """Return why a task waits, or what holds back the whole pool. See `Pool.explain`."""
        engine = self._engine
        now, wall = engine.monotonic(), engine.clock.time()
        if isinstance(task, Whole):
            parts = engine.look(lambda: explain_all(engine.scheduler, now))
        else:
            known = task if isinstance(task, Task) else self._find(self._id_here(task))
            if known is None:
                return f"has ended: {self.status(task).state.value}"
            self._id_here(known)
            there = known
            parts = engine.look(lambda: explain(engine.scheduler, there, now))
        return "".join(part if isinstance(part, str) else _time_of_day(part, now, wall) for part in parts)

    def _find(self, task_id: int | None) -> Task[Any, Any] | None:
        """Return the task of this id, if it has not ended."""
        engine = self._engine
        for look in range(LOOKS):
            found, all_seen, ended = engine.look(
                lambda: (*self._look_for(task_id), engine.scheduler.history.find(task_id))
            )
            if found is not None or ended is not None:
                return found
            # Once is not enough: a task that failed may have gone back to where was looked already.
            if all_seen and look:
                return None
            time.sleep(0)  # lets a worker take the few steps that it is from one place to the next
        return None

    def _look_for(self, task_id: int | None) -> tuple[Task[Any, Any] | None, bool]:
        """Return the task, and whether the search was reliable: whether no task can have moved past it.

        Places are looked at in the order in which tasks move on: waiting, running, being decided. From
        one to the next, and from there to the history, a task is in its worker's hands only. Such a
        worker is not idle, and its box is empty.
        """
        engine = self._engine
        scheduler = engine.scheduler
        for task in itertools.chain(scheduler.backlog, scheduler.timers.tasks()):
            if task.id == task_id:
                return task, True
        all_seen = True
        for runner in self._workers:
            slot = runner.slot
            attempts = [*scheduler.running_at(slot), *([slot.stuck] if slot.stuck is not None else [])]
            all_seen = all_seen and bool(attempts or slot.idle)
            for ctx in attempts:
                if ctx.task_id == task_id and isinstance(task := ctx._task, Task):
                    return task, True
        deciding = engine.attempts.deciding.copy()
        scheduler.dropped.append(deciding)
        for attempt in deciding:
            task = attempt if isinstance(attempt, Task) else attempt._task
            if task.id == task_id:
                if isinstance(task, Task):
                    return task, True
                all_seen = False  # it has just gone on from there
        return None, all_seen

    def _status_of(self, task: Task[Any, Any]) -> tuple[TaskStatus, LastError | None]:
        """Return where a task stands, and the error that is to be asked for its text outside the lock."""
        engine = self._engine
        scheduler = engine.scheduler
        record, state = task._record, task.state
        ahead = engine.clock.time() - engine.monotonic()
        attempts, started = 0, None
        if record is not None and record.history:
            attempts, started = len(record.history), record.history[-1].started
        slot = task._slot
        for ctx in scheduler.running_at(slot) if slot is not None else ():
            if ctx._task is task:
                attempts, started = attempts + 1, ctx._started
        due = scheduler.due(task) if state in (TaskState.SCHEDULED, TaskState.RETRYING) else None
        status = TaskStatus(
            id=task.id,
            state=state,
            attempts=attempts,
            tried=() if record is None else tried_by(record.history),
            last_error=None,
            queued_at=date(task._dispatched + ahead),
            started_at=None if started is None else date(started + ahead),
            ended_at=None,
            next_attempt_at=None if due is None else date(due[0] if due[1] else due[0] + ahead),
            position=scheduler.backlog.ahead(task) if state is TaskState.QUEUED else None,
        )
        return status, None if record is None else last_error(record.history)

    def _status_of_ended(self, ended: Ended) -> TaskStatus:
        ahead = self._engine.clock.time() - self._engine.monotonic()
        return TaskStatus(
            id=ended.id,
            state=ended.state,
            attempts=ended.attempts,
            tried=ended.tried,
            last_error=error.text() if isinstance(error := ended.last_error, LastError) else error,
            queued_at=date(ended.dispatched + ahead),
            started_at=None if ended.started is None else date(ended.started + ahead),
            ended_at=date(ended.ended + ahead),
            next_attempt_at=None,
            position=None,
        )


def _time_of_day(moment: Moment, now: float, wall: float) -> str:
    """Return a moment as people here write it, with the date unless that is today's."""
    time_, dated = moment
    then, today = (date(each).astimezone() for each in (time_ if dated else wall + (time_ - now), wall))
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M:%S}"
