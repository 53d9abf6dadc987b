"""Where a thread sleeps until it is called."""

from __future__ import annotations

import threading

from retrypool.clock import Clock

__all__ = ["Parker"]


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
