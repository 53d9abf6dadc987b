"""Deadlines: a task that can't be begun before its own is dead at once.

Pure, and under the pool's lock. A task that runs when its deadline comes is ended by its attempt's limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from retrypool.core.endings import Endings
from retrypool.core.fleet import Fleet
from retrypool.core.timers import Timers
from retrypool.errors import AttemptTimeout
from retrypool.model.task import Task
from retrypool.policy.deadline import misses
from retrypool.states import DeadReason

__all__ = ["Deadlines"]

AnyTask = Task[Any, Any]


class Deadlines:
    """Watches the deadlines of tasks that wait."""

    def __init__(
        self, timers: Timers, fleet: Fleet, endings: Endings, withdraw: Callable[[AnyTask], bool]
    ) -> None:
        self._timers = timers
        self._fleet = fleet
        self._endings = endings
        self._withdraw = withdraw  # take a waiting task out; False if it does not wait
        self._dropped = timers.dropped

    def watch(self, task: AnyTask) -> None:
        """Set the timer that expires a task at its deadline, if it has one."""
        deadline = task._deadline
        if deadline is not None:
            self._timers.add(deadline, self.meet, ref(task))

    def is_too_late(self, task: AnyTask, now: float) -> bool:
        """Return whether no worker will be given anything before the deadline of `task`."""
        if task._settings.deadline is None:
            return False
        constraints = task._settings.constraints
        opens_at = self._fleet.opens_at((slot for slot in self._fleet if constraints.suits(slot)), now)
        return misses(task._deadline, opens_at)

    def expire_the_late(self, now: float) -> None:
        """Bury the waiting tasks that can no longer be begun before their deadline."""
        for task_ref in self._timers.subjects(self.meet):
            task = task_ref()
            self._dropped.append(task)  # nobody else may hold it by now
            if task is not None:
                self.expire_if_late(task, now)

    def expire_if_late(self, task: AnyTask, now: float) -> None:
        """Bury a waiting task if it can no longer be begun before its deadline."""
        if self.is_too_late(task, now) and self._withdraw(task):
            self.expire(task, now)

    def meet(self, task_ref: ref[AnyTask], now: float) -> None:
        """The deadline of a task has come. If it runs, its attempt ends by itself, at this moment."""
        task = task_ref()
        self._dropped.append(task)  # nobody else may hold it by now
        if task is not None and self._withdraw(task):
            self.expire(task, now)

    def expire(self, task: AnyTask, now: float) -> None:
        """Bury a task whose deadline has passed, or can't be met."""
        deadline = task._settings.deadline
        assert deadline is not None
        errors = task.errors
        error = errors[-1] if errors else AttemptTimeout(deadline, "deadline")
        self._endings.bury(task, DeadReason.DEADLINE, error, now)
