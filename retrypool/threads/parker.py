"""Where a thread sleeps until it is called."""

from __future__ import annotations

import threading
from collections.abc import Callable

from retrypool.clock import Clock
from retrypool.ctrl_c import acquire

__all__ = ["Bell", "Parker"]


class Parker:
    """One thread parks, any thread may call it: a semaphore that counts to one.

    A call that comes first makes the next `park` return at once. Whoever parks looks for itself why it
    was called, so that a call too many does no harm, and none is lost.
    """

    __slots__ = ("_clock", "_lock")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # free when there is a call to take
        self._lock.acquire()

    def park(self, timeout: float | None = None) -> bool:
        """Wait for a call, `timeout` seconds at the most; return whether there was one."""
        return self._clock.acquire(self._lock, timeout)

    def call(self) -> None:
        """End the present or the next `park`."""
        # Of two calls at once, one finds the lock free already: there is a call to take, as it wants.
        try:
            self._lock.release()
        except RuntimeError:
            pass


class Bell:
    """One thread waits for it, in real time, and any thread may ring it; a ring too many does no harm.

    In place of a condition on the pool's lock: `with condition` enters through a function of Python's own,
    and so does its `wait`. What strikes the thread in there, a Ctrl-C or an interrupt, leaves the lock taken
    for good, or lets go of it once too often. Nobody who waits for a bell holds a lock.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()  # free when it was rung
        self._lock.acquire()

    def wait(self, timeout: float | None, look_up: Callable[[], object] | None = None) -> bool:
        """Wait until it is rung, and return True, or False once `timeout` seconds have passed."""
        return acquire(self._lock, timeout, look_up)

    def ring(self) -> None:
        """End the present or the next `wait`."""
        try:
            self._lock.release()
        except RuntimeError:
            pass
