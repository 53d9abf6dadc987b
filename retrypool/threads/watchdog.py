"""One thread for all that happens by the clock: delays, deadlines, cool-downs, attempts out of time."""

from __future__ import annotations

import logging
import threading
import time
from math import inf

from retrypool.callbacks import log_broken
from retrypool.clock import SystemClock
from retrypool.ctrl_c import is_ctrl_c, join, shielded
from retrypool.threads.parker import Parker
from retrypool.threads.works import Works

__all__ = ["Watchdog"]

log = logging.getLogger("retrypool")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds before what could not be done is tried again: at first, and at the most."""


class Watchdog:
    """Sleeps until the earliest moment at which something is due. Started when there first is one.

    No wake-up is missed (handshake H9): it sets `wakes_at` to infinity before it looks at what is due;
    whoever arms something enters it before reading `wakes_at`.
    """

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self._parker = Parker(engine.clock)
        self._thread: threading.Thread | None = None
        # So that there is one thread and no second. Nobody waits for it: whoever finds it taken relies on
        # the one who has it, who may be in the garbage collector, which may wait for the pool's lock.
        self._starting = threading.Lock()
        self._stopped = False
        self.short = False  # the system gave no thread for it: who has nothing to do stands by
        self._try_again_at = -inf  # on the system's clock
        self._pause = FIRST_PAUSE  # before the next try
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
        self._stopped = True
        self.short = False
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
        if time.monotonic() < self._try_again_at or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None and not self._stopped and self._engine.threaded:
                self._try_to_start()
        finally:
            self._starting.release()

    def _try_to_start(self) -> None:
        thread = threading.Thread(target=self._watch, name=f"{self._engine.name}-watchdog", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            log.warning(
                "%s can't be started: idle workers stand in for it meanwhile", thread.name, exc_info=True
            )
            self._try_again_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self.short = True
            for slot in list(self._engine.scheduler.fleet.slots):
                slot.wake()  # who sleeps without end looks up, and sleeps in stretches from now on
        else:
            self._thread = thread
            self.short = False
            self._pause = FIRST_PAUSE

    def stand_by(self) -> None:
        """Do what is due, if the watchdog has no thread, and try again to start one. For who only waits."""
        if self.short:
            self._start()
            if self.short:
                self._catch_up_whatever_comes()

    def _watch(self) -> None:
        monotonic = self._engine.clock.monotonic
        pause = FIRST_PAUSE
        while not self._stopped:
            self.wakes_at = inf
            wakes_at = self._catch_up_whatever_comes()
            if wakes_at is None:
                self._parker.park(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            # What it was called for may be over already. It wakes up for that all the same: for nothing,
            # but once in the time of a timeout, and not for each attempt that finds it without a plan.
            if monotonic() < self._asked < wakes_at:
                wakes_at = self._asked
            self.wakes_at = wakes_at
            self._parker.park(None if wakes_at == inf else wakes_at - monotonic())

    def _catch_up_whatever_comes(self) -> float | None:
        """Do all that is due, and return as `catch_up` does; None if that met an error, which is logged."""
        try:
            return self.catch_up()
        except BaseException as broken:
            if is_ctrl_c(broken):
                raise
            log_broken("the watchdog of %s goes on after an error", self._engine.name)
            return None

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

    @shielded
    def catch_up(self) -> float:
        """Do all that is due; return when something is due next, infinity for never."""
        engine = self._engine
        with engine.lock:
            now = engine.monotonic()
            engine.scheduler.advance(now, engine.clock.time())
            expiry: float
            overdue, expiry = engine.takeovers.take_overdue(now)
            wakeup = engine.scheduler.next_wakeup()
            engine.settle_waiters()
            happened = engine.take_happened()
        engine.act(happened)
        for slot, ctx in overdue:
            engine.takeovers.timed_out(slot, ctx, now)
        return expiry if wakeup is None else min(expiry, wakeup)
