"""What tasks may still wait for, once a worker could not be started.

Pure.
"""

from __future__ import annotations

from typing import Any

from retrypool.core.fleet import Fleet
from retrypool.errors import NoWorkers
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task

__all__ = ["Shortage"]


class Shortage:
    """Whether workers are left, and why not."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.pool_name = "the pool"
        self.waits_for_workers = False  # tasks wait for those that are to come
        self._error: BaseException | None = None  # of the last worker that could not be started
        self._reason = ""  # what it says

    def could_not_start(self, error: BaseException, reason: str) -> None:
        """Remember why the last worker could not be started."""
        self._error, self._reason = error, reason

    def concerns(self, task: Task[Any, Any]) -> bool:
        """Return whether no worker may ever take a task, because of one that could not be started."""
        settings = task._settings
        if self._error is None or self.waits_for_workers or settings.wait_for_worker:
            return False
        if not settings.picky:
            return not self._fleet.live and not self._fleet.returning
        suits, fleet = settings.constraints.suits, self._fleet
        return not any(suits(slot) for slot in [*filter(fleet.present, fleet), *fleet.returning])

    def error(self, settings: TaskSettings | None = None) -> NoWorkers:
        """Return the error that says that no worker is left, and why."""
        cause = self._error if not self._fleet.live else None
        if settings is not None and settings.picky:
            cause = self._error
        wants = "" if settings is None else settings.wants
        error = NoWorkers(self.pool_name, wants, "" if cause is None else self._reason)
        error.__cause__ = cause
        return error
