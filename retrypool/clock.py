"""The clock that a pool lives by."""

import threading
import time
from typing import Protocol

from retrypool.ctrl_c import acquire

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where a pool gets its time from, and how its threads wait for a time to come.

    `monotonic` and `time` are also called with the pool's lock held: they answer at once, raise nothing, and
    wait for no other thread.
    """

    def monotonic(self) -> float:
        """Return seconds since some fixed moment. Never goes back; all durations are measured by it."""
        ...

    def time(self) -> float:
        """Return the wall time in seconds since the epoch. Read only where dates come in or go out."""
        ...

    def acquire(self, lock: threading.Lock, timeout: float | None) -> bool:
        """Acquire `lock` and return True, or return False once `timeout` seconds have passed."""
        ...


class SystemClock:
    """`time.monotonic` and `time.time`."""

    # Static methods, so that a pool that binds one calls straight into C.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    acquire = staticmethod(acquire)

    def __repr__(self) -> str:
        return "SystemClock()"
