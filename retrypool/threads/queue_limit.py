"""The bound of a queue, and those who wait for a place in it."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from retrypool.ctrl_c import STRETCH
from retrypool.errors import QueueFull

if TYPE_CHECKING:
    from retrypool.model.settings import TaskSettings
    from retrypool.threads.engine import Engine

__all__ = ["QueueLimit"]


class QueueLimit:
    """Room for so many waiting tasks. Dispatchers take a place before they put a task there.

    Retries need none: they put back what was let in before. So the queue holds `limit` tasks at the
    most, and those that come back to it besides.
    """

    # All of it under the engine's lock.
    def __init__(self, engine: Engine[Any, Any], limit: int, *, patient: bool) -> None:
        self._engine = engine
        self._limit = limit
        self._patient = patient  # whether a dispatcher that says nothing waits
        self._changed = threading.Condition(engine.lock)  # there is room, or no hope for it
        self._blocked = 0  # dispatchers that wait
        self.taken = 0  # places that belong to tasks on their way

    def reserve(self, settings: TaskSettings) -> None:
        """Take a place, waiting for it if need be. Raises `QueueFull`, and what the pool refuses with."""
        with self._engine.lock:
            try:
                self._wait(settings)
            except BaseException:
                # Whatever ended the wait, a Ctrl-C too: a call that may have been meant for this thread
                # goes to another.
                self.call()
                raise
            self.taken += 1

    def give_back(self) -> None:
        """Give back a place that no task comes for."""
        with self._engine.lock:
            self.taken -= 1
            self.call()

    def call(self) -> None:
        """Call one of those who wait, if there is room; it calls the next. All, if there is no hope."""
        if self._blocked:
            if self._engine.refusal() is not None:
                self._changed.notify_all()
            elif self._free():
                self._changed.notify()

    def _wait(self, settings: TaskSettings) -> None:
        patience = self._patience(settings.block_timeout)
        until = time.monotonic() + patience
        while not self._free():
            left = until - time.monotonic()
            if left <= 0:
                raise QueueFull(self._limit)
            self._blocked += 1
            try:
                self._changed.wait(min(left, STRETCH))
            finally:
                self._blocked -= 1
            if refusal := self._engine.refusal(settings):
                raise refusal

    def _free(self) -> bool:
        scheduler = self._engine.scheduler
        return len(scheduler.backlog) + scheduler.delayed + self.taken < self._limit

    def _patience(self, block_timeout: float | None) -> float:
        """Return how many seconds the calling thread waits for room.

        The pool's own threads make the room, so they do not wait for it unless they say how long.
        """
        if block_timeout is not None:
            return block_timeout
        engine = self._engine
        if not self._patient or engine.here or engine.watchdog.is_current() or not engine.threaded:
            return 0.0
        return math.inf
