"""The end of an attempt that has succeeded: recorded, and told. The hot loop takes the same steps itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retrypool.events import attempt_ended, task_succeeded
from retrypool.model.context import Context
from retrypool.model.slots import Slot
from retrypool.model.task import Record, Task
from retrypool.states import TaskState
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.works import Works

__all__ = ["Successes"]


class Successes:
    """What a success brings with it. Called outside the pool's lock, by the owner of the attempt."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._observers = engine.observers
        self._monotonic = engine.clock.monotonic
        self.remember: Callable[[Task[Any, Any], Record], None] = engine.scheduler.history.succeeded
        if engine.journal is not None:
            self.remember = engine.journal.before(self.remember)
        if engine.races is not None:
            self.remember = engine.races.before(self.remember)

    def finish(self, slot: Slot, ctx: Context, result: object) -> None:
        """End a task with a result. The hot loop takes the same steps, without the calls.

        But for the first one: what is left to do before anybody can know of the success.
        """
        task, races = ctx._task, self._engine.races
        if races is not None and not races.wins(slot, ctx):
            return
        record = task._record or Record(task.id)
        if task._settings.wraps_up:
            _wrap_up(task, ctx)
        task._started = ctx._started
        task._ended = self._monotonic()
        task._outcome = result
        self.remember(task, record)
        slot.succeeded += 1
        task._phase = TaskState.SUCCEEDED
        task._announce()
        self.tell(slot, task)

    def tell(self, slot: Slot, task: Task[Any, Any]) -> None:
        """Tell of a success, when somebody wants to know."""
        record = task._record
        if slot.attentive or (record is not None and record.accused):
            self._tell_health(slot, task)
        observers = self._observers
        if observers.on_success is not None:
            observers.succeeded(task)
        if observers.wants_ended:
            observers.tell(attempt_ended(task._ended, task, task._success(slot)))
        if observers.wants_succeeded:
            observers.tell(task_succeeded(task._ended, task))

    def _tell_health(self, slot: Slot, task: Task[Any, Any]) -> None:
        """Let a success speak for its group, and against those that failed the task before."""
        engine = self._engine
        spin_while_held(engine.lock)
        with engine.step:
            self._scheduler.succeeded(slot, task, self._monotonic())


def _wrap_up(task: Task[Any, Any], ctx: Context) -> None:
    """Hand over what a successful attempt has sent, and let go of what the task does not keep."""
    settings = task._settings
    if settings.drain is not None and settings.drain.withholds:
        settings.drain._extend(ctx._withheld)
    ctx._let_go()  # the slot's gate remembers it until the next such task
    if not settings.keep_data:
        task.data = None
        record = task._record
        if record is not None and not record.history:
            task._record = None  # there is nothing in it that is to be told
