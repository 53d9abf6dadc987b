"""The record of a task whose attempt is over.

Pure, and without the lock: called by whoever owns the task.
"""

from __future__ import annotations

from typing import Any

from retrypool.model.task import Attempt, Record, Task
from retrypool.states import Outcome

__all__ = ["ended_early", "owned", "take_in_hand"]

AnyTask = Task[Any, Any]


def take_in_hand(task: AnyTask) -> Record:
    """Mark an attempt as over, its task's fate as undecided. Called by the owner, who decides it."""
    record = task._record
    if record is None:
        task._record = record = Record(task.id, task._settings.retry_plain)
    record.deciding = True
    return record


def owned(task: AnyTask) -> Record:
    """Return the record of a task whose attempt is over."""
    record = task._record
    return record if record is not None and record.deciding else take_in_hand(task)


def ended_early(task: AnyTask, attempt: Attempt) -> Record:
    """Record an attempt that was ended from outside."""
    record = owned(task)
    record.history.append(attempt)
    record.entries += 1
    record.uncharged += 1
    record.number = None
    record.running_time += attempt.ended - attempt.started
    record.tried_waived = record.urgent = False
    record.keeps_place = True
    # It goes to another worker, if there is one.
    record.avoid = attempt.worker_id if attempt.outcome is Outcome.WITHDRAWN else None
    return record
