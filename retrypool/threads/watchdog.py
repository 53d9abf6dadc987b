"""One thread for all that happens by the clock: delays, deadlines, cool-downs, attempts out of time."""

from __future__ import annotations

import logging
import threading
from math import inf
from typing import TYPE_CHECKING, Any

from retrypool.clock import SystemClock
from retrypool.ctrl_c import join
from retrypool.threads.parker import Parker

if TYPE_CHECKING:
    from retrypool.threads.engine import Engine

__all__ = ["Watchdog"]

log = logging.getLogger("retrypool")


class Watchdog:
    """Sleeps until the earliest moment at which something is due. Started when there first is one.

    No wake-up is missed (handshake H9): it sets `wakes_at` to infinity before it looks at what is due;
    whoever arms something enters it before reading `wakes_at`.
    """

    def __init__(self, engine: Engine[Any, Any]) -> None:
        self._engine = engine
        self._parker = Parker(engine.clock)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # so that there is one thread and no second
        self._stopped = False
        self.stands_in = False  # the main thread does its work, while the interpreter exits
        self.wakes_at = inf  # written by its own thread; read by whoever arms something
        self._asked = inf  # what it was called for last; a hint, so of two writers either will do

    def expect(self, when: float) -> None:
        """See to it that the watchdog is awake at `when`."""
        if when < self.wakes_at and not self._stopped:
            self._asked = when
            if self._thread is None:
                self._start()
            self._parker.call()

    def stop(self) -> None:
        """End the thread, if there is one. It may be in a callback, and is not waited for."""
        with self._starting:
            self._stopped = True
        self._parker.call()

    def join(self, timeout: float | None) -> None:
        """Wait for the thread to end."""
        thread = self._thread
        if thread is not None and not self.is_current():
            join(thread, timeout)

    def is_current(self) -> bool:
        """Return whether it is the watchdog that asks."""
        return self._thread is threading.current_thread()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stopped and self._engine.threaded:
                thread = threading.Thread(
                    target=self._watch, name=f"{self._engine.name}-watchdog", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # no more threads; it is tried again when the next thing is armed
                    log.exception("%s could not be started: nothing happens in time", thread.name)
                else:
                    self._thread = thread

    def _watch(self) -> None:
        monotonic = self._engine.clock.monotonic
        while not self._stopped:
            self.wakes_at = inf
            wakes_at = self.catch_up()
            # What it was called for may be over already. It wakes up for that all the same: for nothing,
            # but once in the time of a timeout, and not for each attempt that finds it without a plan.
            if monotonic() < self._asked < wakes_at:
                wakes_at = self._asked
            self.wakes_at = wakes_at
            self._parker.park(None if wakes_at == inf else wakes_at - monotonic())

    def stand_in(self) -> bool:
        """Let the calling thread be the watchdog if there is none yet; return whether it is.

        At the exit of the interpreter no thread can be started any more (from Python 3.12 on), and the
        main thread has nothing to do but to wait.
        """
        with self._starting:
            if self._thread is None and isinstance(self._engine.clock, SystemClock):
                self._thread = threading.current_thread()
                self.stands_in = True
        return self.stands_in and self.is_current()

    def watch(self, timeout: float | None) -> None:
        """Do what is due, and sleep until there is more to do, or for `timeout` seconds."""
        self.wakes_at = inf
        self.wakes_at = wakes_at = self.catch_up()
        left = wakes_at - self._engine.clock.monotonic()
        if timeout is not None:
            left = min(left, timeout)
        self._parker.park(None if left == inf else left)

    def nudge(self) -> None:
        """Wake it, because what the main thread waits for may have come."""
        self._parker.call()

    def catch_up(self) -> float:
        """Do all that is due; return when something is due next, infinity for never."""
        engine = self._engine
        with engine.lock:
            now = engine.monotonic()
            engine.scheduler.advance(now, engine.clock.time())
            overdue, expiry = engine.attempts.take_overdue(now)
            wakeup = engine.scheduler.next_wakeup()
            engine.settle_waiters()
            happened = engine.scheduler.take_happened()
        engine.act(happened)
        for slot, ctx in overdue:
            engine.attempts.timed_out(slot, ctx, now)
        return expiry if wakeup is None else min(expiry, wakeup)
