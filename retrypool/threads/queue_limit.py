"""The bound of a queue, and those who wait for a place in it."""

from __future__ import annotations

import math
import time

from retrypool.ctrl_c import STRETCH
from retrypool.errors import QueueFull
from retrypool.model.settings import TaskSettings
from retrypool.threads.parker import Bell
from retrypool.threads.works import Works

__all__ = ["QueueLimit"]


class QueueLimit:
    """Room for so many waiting tasks. Dispatchers take a place before they put a task there.

    Retries need none: they put back what was let in before. So the queue holds `limit` tasks at the
    most, and those that come back to it besides.
    """

    # All of it under the engine's lock.
    def __init__(self, engine: Works, limit: int, *, patient: bool) -> None:
        self._engine = engine
        self._limit = limit
        self._patient = patient  # whether a dispatcher that says nothing waits
        self.waiting: dict[Bell, None] = {}  # those of dispatchers that wait, the first one first
        self.taken = 0  # places that belong to tasks on their way

    def reserve(self, settings: TaskSettings) -> None:
        """Take a place, waiting for it if need be. Raises `QueueFull`, and what the pool refuses with."""
        engine = self._engine
        with engine.lock:
            if self._free() or self._free_but_for_stranded(settings):
                self.taken += 1
                return
        until = time.monotonic() + self._patience(settings.block_timeout)
        bell = Bell()
        try:
            while True:
                with engine.lock:
                    if refusal := engine.refusal(settings):
                        raise refusal
                    if self._free() or self._free_but_for_stranded(settings):
                        self.taken += 1
                        return
                    left = until - time.monotonic()
                    if left <= 0:
                        raise QueueFull(self._limit)
                    self.waiting[bell] = None
                bell.wait(min(left, STRETCH), engine.stand_by)
        finally:
            with engine.lock:
                self.waiting.pop(bell, None)
                # There may be room for one more. And a call that was meant for this thread goes to another
                # one, if a Ctrl-C ended the wait.
                self.call()

    def give_back(self) -> None:
        """Give back a place that no task comes for."""
        with self._engine.lock:
            self.taken -= 1
            self.call()

    def call(self) -> None:
        """Call the first of those who wait, if there is room; it calls the next. All, if there is no hope."""
        if self.waiting:
            if self._engine.refusal() is not None:
                for bell in self.waiting:
                    bell.ring()
            elif self._free():
                next(iter(self.waiting)).ring()

    def _free(self) -> bool:
        scheduler = self._engine.scheduler
        return len(scheduler.backlog) + scheduler.delayed + self.taken < self._limit

    def _free_but_for_stranded(self, settings: TaskSettings) -> bool:
        """Return whether there is room if those don't count that no worker can take who is there.

        They were let in to wait for one (`wait_for_worker`), and must not keep out what can be run. They
        have so many places of their own. Costs a look at every subqueue, so only a full queue asks.
        """
        scheduler = self._engine.scheduler
        fleet = scheduler.fleet
        present = [slot for slot in fleet if fleet.present(slot)]
        if not any(map(settings.constraints.suits, present)):
            return False
        stranded = sum(
            len(subqueue.tasks)
            for subqueue in scheduler.backlog.subqueues.values()
            if not any(map(subqueue.constraints.suits, present))
        )
        return len(scheduler.backlog) + scheduler.delayed + self.taken - stranded < self._limit

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
