"""Making a task, and what it needs before it comes into the queue. Without the lock: user code is called."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, TypeVar

from retrypool.model.task import Record, Task
from retrypool.states import TaskState

if TYPE_CHECKING:
    from retrypool.model.settings import TaskSettings
    from retrypool.model.task import TaskOwner

__all__ = ["new_task", "prepare"]

T = TypeVar("T")

_QUEUED = TaskState.QUEUED


def new_task(id: int, data: T, settings: TaskSettings, owner: TaskOwner, dispatched: float) -> Task[T, Any]:
    """Return a task that nobody else knows yet.

    In place of an `__init__`: Python calls a function, and a class that has none, in less time than that.
    """
    task: Task[T, Any] = Task()
    task.id = id
    task.data = data
    task._settings = settings
    task._owner = owner
    task._dispatched = dispatched
    task._phase = _QUEUED
    task._slot = task._record = task._labels = task._completion = None
    task._withdrawn = False
    return task


def prepare(task: Task[Any, Any], journaled: bool, hedged: bool = False) -> None:
    """Give a new task the record that it needs, if it is not plain or a storage is told of it.

    Raises what the user's cost function raises.
    """
    settings = task._settings
    if settings.plain and not (journaled or hedged):
        return
    task._record = record = Record(task.id, settings.retry_plain)
    if settings.cost != 1.0:
        record.cost = settings.cost_of(task.data)
    if settings.copy_context:
        record.context = contextvars.copy_context()
    if journaled or settings.copy_context or settings.wraps_up:
        record.wrapped = True
