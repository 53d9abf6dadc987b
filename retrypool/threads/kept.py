"""Tasks that are kept when they have ended, for whoever asks for them later: bounded by number and by age."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from retrypool.checks import Duration, as_id, optional_seconds
from retrypool.ctrl_c import shielded
from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.completion import Reporter
from retrypool.model.task import Task

__all__ = ["Kept"]

AnyTask = Task[Any, Any]


class Kept:
    """The tasks of one pool: all that have not ended, and the last that have."""

    # All under _lock. A task is added before anybody can run it, and reports its end on any thread. What is
    # kept no more is let go of after the lock: its data may call anything when it ends, also this.
    def __init__(self, limit: float, age: float, monotonic: Callable[[], float]) -> None:
        self._limit = limit
        self._age = age
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._tasks: dict[int, AnyTask] = {}
        self._ended: deque[tuple[float, AnyTask]] = deque()  # when, the first first

    @classmethod
    def make(cls, number: object, age: Duration | None, monotonic: Callable[[], float]) -> Kept | None:
        """Return what keeps as many as `keep_results` and `keep_for` say; None for none at all."""
        if isinstance(number, bool) or not isinstance(number, int):
            if not isinstance(number, bool):
                raise InvalidType("keep_results", number, "True or False, or how many tasks")
            limit = inf if number else 0
        elif number < 0:
            raise InvalidValue("keep_results", number, "True or False, or how many tasks")
        else:
            limit = number
        longest = optional_seconds("keep_for", age, positive=True)
        if limit == 0:
            if longest is not None:
                raise InvalidValue("keep_for", age, "left out without keep_results=")
            return None
        return cls(limit, inf if longest is None else longest, monotonic)

    def reporter(self, other: Reporter | None) -> Reporter:
        """Return what hears of the end of a task that is to be added, and tells `other` of it."""

        def report(task: AnyTask) -> None:
            if other is not None:
                other.report(task)
            with self._lock:
                self._ended.append((self._monotonic(), task))
                dropped = self._drop()
            del dropped

        return Reporter(report)

    def add(self, task: AnyTask) -> AnyTask | None:
        """Keep a task. Return the one of the same id, which was requeued: it is kept no more."""
        with self._lock:
            before = self._tasks.get(task.id)
            self._tasks[task.id] = task
        return before

    @shielded
    def find(self, task_id: object) -> AnyTask | None:
        """Return the task of this id, if it is kept."""
        id_ = as_id(task_id)
        with self._lock:
            dropped = self._drop()
            found = None if id_ is None else self._tasks.get(id_)
        del dropped
        return found

    @shielded
    def in_order(self) -> list[AnyTask]:
        """Return all that are kept, in the order of their ids."""
        with self._lock:
            dropped = self._drop()
            tasks = [task for _, task in sorted(self._tasks.items())]
        del dropped
        return tasks

    def _drop(self) -> list[AnyTask]:
        """Keep no more than is to be kept; return what the caller is to let go of, outside the lock."""
        oldest = self._monotonic() - self._age
        dropped: list[AnyTask] = []
        while self._ended and (len(self._ended) > self._limit or self._ended[0][0] <= oldest):
            _, task = self._ended.popleft()
            dropped.append(task)
            if self._tasks.get(task.id) is task:
                del self._tasks[task.id]
        return dropped
