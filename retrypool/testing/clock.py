"""A clock that moves when told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from typing_extensions import override

from retrypool.checks import Duration, seconds
from retrypool.clock import Clock

__all__ = ["FakeClock"]


class FakeClock(Clock):
    """A clock that stands still until `advance` is called. Good for `Pool(clock=…)` and `ManualPool`.

    >>> clock = FakeClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic()
    2.5
    """

    def __init__(self, *, start: float = 0.0, time: float = 1_700_000_000.0) -> None:
        self._now = start
        self._offset = time - start
        self._lock = threading.Lock()  # guards what follows
        self._sleepers: list[_Sleeper] = []
        self._followers: list[Callable[[], object]] = []

    @override
    def monotonic(self) -> float:
        return self._now

    @override
    def time(self) -> float:
        return self._now + self._offset

    def set_time(self, time: float) -> None:
        """Set the wall clock, which `monotonic` takes no notice of."""
        self._offset = time - self._now

    def advance(self, duration: Duration) -> None:
        """Let so many seconds pass: wake who has waited long enough, then tell who follows."""
        with self._lock:
            self._now += seconds("duration", duration)
            for sleeper in self._sleepers:
                if sleeper.until <= self._now:
                    sleeper.late = True
                    with suppress(RuntimeError):  # somebody else has just released it
                        sleeper.lock.release()
            followers = list(self._followers)
        for follower in followers:
            follower()

    def follow(self, follower: Callable[[], object]) -> None:
        """Have `follower()` called after each `advance`."""
        self._followers.append(follower)

    @override
    def acquire(self, lock: threading.Lock, timeout: float | None) -> bool:
        if timeout is None:
            return lock.acquire()
        sleeper = _Sleeper(lock, self._now + timeout)
        with self._lock:
            if sleeper.until <= self._now:
                return lock.acquire(blocking=False)
            self._sleepers.append(sleeper)
        lock.acquire()
        with self._lock:
            self._sleepers.remove(sleeper)
        return not sleeper.late

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g}>"


class _Sleeper:
    def __init__(self, lock: threading.Lock, until: float) -> None:
        self.lock = lock
        self.until = until
        self.late = False
