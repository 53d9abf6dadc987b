"""A thread that refreshes a display until that is closed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from retrypool.callbacks import call_guarded

__all__ = ["Ticker", "per_second"]

PATIENCE = 2.0
"""Seconds that `stop` waits for the thread. It may not come: see there."""


def per_second(rate: float) -> str:
    """Return a rate as people write it: with three digits, and those of large numbers in threes."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


class Ticker:
    """Calls `draw()` now and every `interval` seconds, and `finish()` at the end, on a thread of its own."""

    def __init__(
        self, name: str, interval: float, draw: Callable[[], object], finish: Callable[[], object]
    ) -> None:
        self._interval = interval
        self._draw = draw
        self._finish = finish
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-display", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            call_guarded("a display", self._draw)
            if self._stop.wait(self._interval):
                break
        call_guarded("a display", self._finish)

    def stop(self) -> None:
        """Have it finish, and wait for that.

        Not for good: the garbage collector may close a display, on a thread that has the pool's lock, which
        this one waits for.
        """
        self._stop.set()
        # With the interpreter go all threads that are daemons: there is nobody to wait for.
        if self._thread is not threading.current_thread() and not sys.is_finalizing():
            self._thread.join(PATIENCE)
