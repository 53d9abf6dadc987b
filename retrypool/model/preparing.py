"""What a new task needs before it comes into the queue. Without the lock: the user's code is called."""

from __future__ import annotations

import contextvars
from typing import Any

from retrypool.model.task import Record, Task

__all__ = ["prepare"]


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
