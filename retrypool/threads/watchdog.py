"""One thread for all that happens by the clock: delays, deadlines, cool-downs, attempts out of time."""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING, Any

from retrypool.threads.parking import Parker

if TYPE_CHECKING:
    from retrypool.threads.engine import Engine

__all__ = ["Watchdog"]


class Watchdog:
    """Sleeps until the earliest moment at which something is due. Started when there first is one.

    No wake-up is missed: before it looks at what is due, it sets `wakes_at` to infinity, so that
    whoever arms something from then on calls it; whoever armed something before, it sees. Whoever arms
    something, first enters it and then looks at `wakes_at`.
    """

    def __init__(self, engine: Engine[Any, Any]) -> None:
        self._engine = engine
        self._parker = Parker(engine.clock)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # so that there is one thread and no second
        self._stopped = False
        self.wakes_at = inf  # written by its own thread; read by whoever arms something

    def expect(self, when: float) -> None:
        """See to it that the watchdog is awake at `when`."""
        if when < self.wakes_at and not self._stopped:
            if self._thread is None:
                self._start()
            self._parker.call()

    def stop(self) -> None:
        """End the thread, if there is one, and wait for it."""
        with self._starting:
            self._stopped = True
            thread = self._thread
        self._parker.call()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stopped and self._engine.threaded:
                self._thread = threading.Thread(
                    target=self._watch, name=f"{self._engine.name}-watchdog", daemon=True
                )
                self._thread.start()

    def _watch(self) -> None:
        monotonic = self._engine.clock.monotonic
        while not self._stopped:
            self.wakes_at = inf
            self.wakes_at = wakes_at = self.catch_up()
            self._parker.park(None if wakes_at == inf else wakes_at - monotonic())

    def catch_up(self) -> float:
        """Do all that is due; return when something is due next, infinity for never."""
        engine = self._engine
        with engine.lock:
            now = engine.monotonic()
            engine.scheduler.advance(now)
            overdue, expiry = engine.attempts.take_overdue(now)
            wakeup = engine.scheduler.next_wakeup()
            engine.settle_waiters()
            happened = engine.scheduler.take_happened()
        engine.act(happened)
        for seat, ctx in overdue:
            engine.attempts.timed_out(seat, ctx, now)
        return expiry if wakeup is None else min(expiry, wakeup)
