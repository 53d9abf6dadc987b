"""The clock that a pool lives by."""

import threading
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where a pool gets its time from, and how its threads wait for a time to come."""

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

    @staticmethod
    def acquire(lock: threading.Lock, timeout: float | None) -> bool:
        """Acquire `lock`, waiting `timeout` seconds at the most (None: as long as it takes)."""
        if timeout is None:
            return lock.acquire()
        return lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))

    def __repr__(self) -> str:
        return "SystemClock()"
