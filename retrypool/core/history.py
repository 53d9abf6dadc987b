"""What is known of tasks that have ended: as little as tells how it went, and nothing of theirs."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from retrypool.callbacks import described
from retrypool.model.task import Attempt, Record, Task
from retrypool.states import Outcome, TaskState

__all__ = ["Ended", "History", "LastError", "last_error", "tried_by"]

LATEST = 8
"""How many entries are looked at for what has happened last."""

AT_ONCE = 4
"""The length of an entry of a task that has succeeded at once."""

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
    last_error: LastError | str | None = None


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
        self._limit = limit
        # Some are kept in any case, for what the pool itself wants to know.
        self.entries: deque[tuple[Any, ...]] = deque(maxlen=max(limit, LATEST))
        # Appended under the lock; whoever has left it takes them out, see `describe`.
        self.undescribed: deque[LastError] = deque()

    def succeeded(self, task: Task[Any, Any], record: Record) -> None:
        """Record a task that has succeeded, but is more than plain. Outside the lock."""
        history = record.history
        if not history:
            self.entries.append((task.id, task._dispatched, task._started, task._ended))
            return
        error = history[-1].error  # nearly always there is one
        if error is None:
            error = _error_of(history)
        tried, attempts = tried_by(history), len(history) + 1
        text = None if error is None else described(error)
        self.entries.append(
            (task.id, task._dispatched, task._started, task._ended, _SUCCEEDED, attempts, tried, text)
        )

    def ended(self, task: Task[Any, Any], state: TaskState, now: float) -> None:
        """Record a task that has ended without a result. Under the lock; `describe` does the rest."""
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
        entries = self.entries.copy()  # which is atomic
        for entry in itertools.islice(reversed(entries), self._limit):
            if entry[0] == task_id:
                return Ended(*entry)
        return None

    def has_success_since(self, moment: float) -> bool:
        """Return whether something has succeeded since then, as the latest entries tell. Needs no lock."""
        return any(entry[3] >= moment for entry in self._latest_successes())

    def has_success_begun_since(self, moment: float) -> bool:
        """Return whether an attempt that began since then has succeeded, as the latest entries tell."""
        return any(entry[2] >= moment for entry in self._latest_successes())

    def usual_duration(self) -> float:
        """Return how many seconds an attempt that succeeds takes, as far as the latest entries tell."""
        spans = [entry[3] - entry[2] for entry in self._latest_successes()]
        return sum(spans) / len(spans) if spans else 0.0

    def _latest_successes(self) -> Iterator[tuple[Any, ...]]:
        """Yield the successes among the latest entries, the last one first."""
        entries = self.entries
        for number in range(1, LATEST + 1):
            try:
                entry = entries[-number]  # others may append meanwhile
            except IndexError:
                return
            if len(entry) == AT_ONCE or entry[4] is _SUCCEEDED:
                yield entry


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
    """Return what can be told of the error that was raised last."""
    error = _error_of(history)
    return None if error is None else LastError(error)


def _error_of(history: list[Attempt]) -> BaseException | None:
    """Return what was raised last, unless the workers were taken away from all attempts."""
    for attempt in reversed(history):
        if attempt.error is not None:
            return attempt.error
    return None
