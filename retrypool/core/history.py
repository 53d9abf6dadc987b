"""What is known of tasks that have ended: as little as tells how it went, and nothing of theirs."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from retrypool.model.task import Attempt, Record, Task
from retrypool.states import Outcome, TaskState

__all__ = ["Ended", "History", "last_error", "text_of", "tried_by"]

LONGEST_TEXT = 500

_SUCCEEDED = TaskState.SUCCEEDED
_WAS_TRIED = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.WORKER_FAULT)


class Ended(NamedTuple):
    """How a task ended. Times are seconds on the pool's clock."""

    id: int
    dispatched: float
    started: float | None  # its last attempt
    ended: float
    state: TaskState = TaskState.SUCCEEDED
    attempts: int = 1
    tried: tuple[str, ...] = ()
    last_error: tuple[type, str] | None = None


class History:
    """The last so many tasks that have ended, the oldest forgotten first.

    Neither data nor result nor errors are kept alive by it: of an error it has the type and the text. A
    task that succeeds at once is entered by its worker without a lock, as the first four of what `Ended`
    has, in one atomic append: a tuple of what there is anyway is all that it costs.
    """

    def __init__(self, limit: int) -> None:
        self.entries: deque[tuple[Any, ...]] = deque(maxlen=limit)

    def succeeded(self, task: Task[Any, Any], record: Record) -> None:
        """Enter a task that has succeeded, but is more than plain."""
        history = record.history
        if not history:
            self.entries.append((task.id, task._dispatched, task._started, task._ended))
            return
        tried, error = tried_by(history), last_error(history)
        attempts = len(history) + 1
        self.entries.append(
            (task.id, task._dispatched, task._started, task._ended, _SUCCEEDED, attempts, tried, error)
        )

    def ended(self, task: Task[Any, Any], state: TaskState, now: float) -> None:
        """Enter a task that has ended without a result."""
        record = task._record
        if record is None or not record.history:
            self.entries.append((task.id, task._dispatched, None, now, state, 0))
            return
        history = record.history
        entry = (task.id, task._dispatched, history[-1].started, now, state)
        self.entries.append((*entry, len(history), tried_by(history), last_error(history)))

    def find(self, task_id: object) -> Ended | None:
        """Return how the task of this id has ended, the last time if it was requeued."""
        for entry in reversed(self.entries.copy()):  # deque.copy is atomic
            if entry[0] == task_id:
                return Ended(*entry)
        return None


def tried_by(history: list[Attempt]) -> tuple[str, ...]:
    """Return the names of the groups that have failed a task, each once, in that order."""
    tried: tuple[str, ...] = ()
    if len(history) == 1:  # nearly always
        return (history[0].group,) if history[0].outcome in _WAS_TRIED else tried
    for attempt in history:
        if attempt.group not in tried and attempt.outcome in _WAS_TRIED:
            tried += (attempt.group,)
    return tried


def last_error(history: list[Attempt]) -> tuple[type, str] | None:
    """Return the type of what was raised last, and what it says, cut short if that is long."""
    error = history[-1].error if history else None
    if error is None:  # its worker was taken away from it
        error = next((attempt.error for attempt in reversed(history) if attempt.error is not None), None)
        if error is None:
            return None
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error that can't say what it is, is still an error
        text = "its text could not be made"
    return type(error), text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def text_of(error: tuple[type, str] | None) -> str | None:
    """Return what `last_error` found as one text."""
    if error is None:
        return None
    kind, text = error
    return f"{kind.__name__}: {text}" if text else kind.__name__
