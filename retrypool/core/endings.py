"""How tasks end without a result, and the dead ones that are kept.

Pure, and under the pool's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retrypool.core.failures import Failures
from retrypool.core.history import History
from retrypool.core.queue import Backlog
from retrypool.events import Event, TaskCancelled, TaskDead
from retrypool.model.task import DeadTask, Task
from retrypool.states import DeadReason, TaskState

__all__ = ["Endings"]

AnyTask = Task[Any, Any]

# Bound once: looking a member up in its enum costs more than what is done with it.
_QUEUED, _CANCELLED = TaskState.QUEUED, TaskState.CANCELLED


class Endings:
    """Tasks that are dead or cancelled: ended, counted and reported here alone."""

    def __init__(
        self,
        failures: Failures,
        backlog: Backlog,
        history: History,
        report: Callable[[Event], None],
        dropped: list[object],
        *,
        dead_limit: int | None,
    ) -> None:
        self._failures = failures
        self._backlog = backlog
        self._history = history
        self._remember = history.entries.append
        self._report = report
        self._dropped = dropped
        self.dead_limit = dead_limit
        self.dead: dict[int, DeadTask[Any]] = {}  # oldest first
        self.dead_dropped = 0  # those that dead_limit pushed out
        self.died = 0  # since the pool was made
        self.cancelled = 0
        self.tells_cancelled = True  # whether anybody wants to hear of each task that is cancelled

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
            task._told,
        )
        task._slot = None
        self._failures.ended(task, now)
        self.died += 1
        self._dropped.append(self.dead.get(task.id))
        self.dead[task.id] = dead
        if self.dead_limit is not None and len(self.dead) > self.dead_limit:
            self._dropped.append(self.dead.pop(next(iter(self.dead))))
            self.dead_dropped += 1
        if not task._settings.keep_data:
            self._dropped.append(task.data)
            task.data = None  # the dead task still has it, to be requeued with
        task._outcome = error
        self._history.ended(task, TaskState.DEAD, now)
        task._phase = TaskState.DEAD
        self._report(TaskDead(now, task, dead))

    def cancel(self, task: AnyTask, reason: str | None, now: float) -> None:
        """End a task without result or failure."""
        task._slot = None
        self._failures.ended(task, now)
        self.cancelled += 1
        if not task._settings.keep_data:
            self._dropped.append(task.data)
            task.data = None
        task._outcome = reason
        self._history.ended(task, _CANCELLED, now)
        task._phase = _CANCELLED
        if self.tells_cancelled or task._completion is not None:  # handshake H6
            self._report(TaskCancelled(now, task, reason))

    def cancel_plain(self, task: AnyTask, reason: str, now: float) -> bool:
        """Withdraw and cancel a task in the queue that nobody has tried; return whether that was done.

        The steps of `Scheduler.withdraw` and `cancel`. None but the last is a call, so no Ctrl-C comes
        between them. Whoever calls this holds the task's data until the lock is left.
        """
        if task._phase is not _QUEUED or task._withdrawn or task._record is not None or self.tells_cancelled:
            return False
        entry = (task.id, task._dispatched, None, now, _CANCELLED, 0)
        task._withdrawn = True  # handshake H3
        if task._slot is not None:
            task._withdrawn = False
            return False
        self._backlog.tombstones += 1
        self.cancelled += 1
        if not task._settings.keep_data:
            task.data = None
        task._outcome = reason
        task._phase = _CANCELLED
        self._remember(entry)
        return True
