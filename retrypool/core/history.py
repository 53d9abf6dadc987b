"""What is known of tasks that have ended: as little as tells how it went, and nothing of theirs."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from retrypool.callbacks import described
from retrypool.model.task import Attempt, Record, Task
from retrypool.states import Outcome, TaskState

__all__ = ["Ended", "History", "LastError", "last_error", "tried_by"]

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
    last_error: LastError | None = None


class LastError:
    """What can be told of the error that a task has met last.

    Made under the pool's lock, where the error can't be asked: it may take its time, or ask the pool.
    `text` asks it, and must be called outside; from then on the error is not held any more.
    """

    __slots__ = ("_error", "_text")

    def __init__(self, error: BaseException) -> None:
        self._error: BaseException | None = error
        self._text = ""

    def text(self) -> str:
        """Return its type and its text."""
        error = self._error
        if error is not None:  # two may find it so; they write the same
            self._text = described(error)
            self._error = None
        return self._text


class History:
    """The last so many tasks that have ended, the oldest forgotten first.

    Neither data nor result nor errors are kept alive by it: of an error it has the type and the text. A
    task that succeeds at once is entered by its worker without a lock, as the first four of what `Ended`
    has, in one atomic append: a tuple of what there is anyway is all that it costs.
    """

    def __init__(self, limit: int) -> None:
        self.entries: deque[tuple[Any, ...]] = deque(maxlen=limit)
        # Appended under the lock; whoever has left it takes them out, see `describe`.
        self.undescribed: deque[LastError] = deque()

    def succeeded(self, task: Task[Any, Any], record: Record) -> None:
        """Enter a task that has succeeded, but is more than plain. Outside the lock."""
        history = record.history
        if not history:
            self.entries.append((task.id, task._dispatched, task._started, task._ended))
            return
        tried, error = tried_by(history), last_error(history)
        if error is not None:
            error.text()
        attempts = len(history) + 1
        self.entries.append(
            (task.id, task._dispatched, task._started, task._ended, _SUCCEEDED, attempts, tried, error)
        )

    def ended(self, task: Task[Any, Any], state: TaskState, now: float) -> None:
        """Enter a task that has ended without a result. Under the lock; `describe` does the rest."""
        record = task._record
        if record is None or not record.history:
            self.entries.append((task.id, task._dispatched, None, now, state, 0))
            return
        history, error = record.history, last_error(record.history)
        entry = (task.id, task._dispatched, history[-1].started, now, state)
        self.entries.append((*entry, len(history), tried_by(history), error))
        if error is not None:
            self.undescribed.append(error)

    def describe(self) -> None:
        """Ask the errors of tasks that have ended what they are, and let go of them. Outside the lock."""
        while True:
            try:
                error = self.undescribed.popleft()
            except IndexError:
                return
            error.text()

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


def last_error(history: list[Attempt]) -> LastError | None:
    """Return what was raised last."""
    error = history[-1].error if history else None
    if error is None:  # its worker was taken away from it
        error = next((attempt.error for attempt in reversed(history) if attempt.error is not None), None)
        if error is None:
            return None
    return LastError(error)
