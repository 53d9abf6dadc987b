"""What becomes of dead tasks: pulled out, given fresh attempts, or adopted from another pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from retrypool.checks import as_id
from retrypool.ctrl_c import lowered
from retrypool.errors import RetryPoolError, TaskNotFound
from retrypool.events import TaskDead, TaskDispatched
from retrypool.model.preparing import new_task, prepare
from retrypool.model.task import DeadTask, Task
from retrypool.threads.interrupt import shielded
from retrypool.threads.works import Works

__all__ = ["DeadTasks"]

T = TypeVar("T")
R = TypeVar("R")


class DeadTasks(Generic[T, R]):
    """Takes dead tasks out of one pool, and back into it."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine

    @shielded
    def pull(self, task_id: int) -> DeadTask[T]:
        """Take a dead task out of the pool, and out of its storage."""
        engine = self._engine
        engine.steps.check("pull_dead_task()")
        dead = self._take(task_id)
        if engine.journal is not None:
            try:
                engine.journal.pulled(dead.id)
            except BaseException:
                self._put_back(dead)
                raise
        return dead

    def _take(self, task_id: int, refusal: Callable[[], RetryPoolError | None] | None = None) -> DeadTask[T]:
        """Take a dead task from among the others: it is the caller's own from here on."""
        engine, id_ = self._engine, as_id(task_id)
        with engine.lock:
            if refusal is not None and (refused := refusal()):
                raise refused
            found: DeadTask[T] | None = None if id_ is None else engine.scheduler.endings.dead.pop(id_, None)
        if found is None:
            raise TaskNotFound(task_id, "among the dead tasks")
        return found

    def _put_back(self, dead: DeadTask[T]) -> None:
        with self._engine.lock:
            self._engine.scheduler.endings.dead[dead.id] = dead

    def _revive(self, task: Task[T, R], dead: DeadTask[T]) -> None:
        """Let a task wait that goes on with the history of a dead one. Called under the lock."""
        engine = self._engine
        if engine.kept is not None:
            engine.scheduler.dropped.append(engine.kept.add(task))
        engine.scheduler.resurrect(task, dead, engine.monotonic(), engine.clock.time())

    @shielded
    def requeue(self, task_id: int) -> Task[T, R]:
        """Give a dead task fresh attempts."""
        engine = self._engine
        engine.steps.check("requeue_dead_task()")
        now = engine.monotonic()
        dead = self._take(task_id, engine.refusal)
        task: Task[T, R] = new_task(dead.id, dead.data, dead.settings, engine, now)
        told = False
        try:
            lowered(prepare, task, engine.journal is not None, engine.hedges is not None)
            if engine.journal is not None:
                engine.journal.requeued(task)
            if engine.observers.wants_dispatched:
                told = True
                engine.observers.dispatched(TaskDispatched(now, task))
            with engine.lock:
                if refusal := engine.refusal(dead.settings):
                    raise refusal
                self._revive(task, dead)
                happened = engine.decided()
        except BaseException:
            self._put_back(dead)
            if told:  # so it is dead as before
                engine.observers.tell(TaskDead(engine.monotonic(), task, dead))
            raise
        engine.act(happened)
        return task

    @shielded
    def adopt(self, dead: DeadTask[T]) -> Task[T, R]:
        """Accept a dead task of another pool: a new id, fresh attempts, the old history."""
        engine = self._engine
        engine.steps.check("adopt_dead_task()")
        settings = replace(dead.settings, delay=0.0, at=None, worker=None, cancel=None, drain=None)
        if engine.journal is not None:
            settings = engine.journal.options.without_the_unknown(settings)
        now = engine.monotonic()
        if refusal := engine.refusal(settings):
            raise refusal
        task: Task[T, R] = new_task(engine.scheduler.backlog.next_seq(), dead.data, settings, engine, now)
        prepare(task, engine.journal is not None, engine.hedges is not None)
        if engine.journal is not None:
            engine.journal.accept(task, None, later=False)
        told = engine.observers.wants_dispatched
        if told:
            engine.observers.dispatched(TaskDispatched(now, task))
        with engine.step:
            refusal = engine.refusal(settings)
            if refusal is None:
                self._revive(task, dead)
            elif told and not task.done():
                engine.scheduler.cancel(task, str(refusal), now)  # so that what was told of has an end
        if refusal is not None:
            if engine.journal is not None:
                engine.journal.take_back((task,))
            raise refusal
        return task
