"""Deadlines, in the one place where one is compared with a moment: everybody else asks here."""

from __future__ import annotations

__all__ = ["misses"]


def misses(deadline: float | None, start: float) -> bool:
    """Return whether an attempt that can't begin before `start` comes too late for a deadline.

    It does also at that moment itself: there would be no time left for it. Both are moments on the pool's
    clock; None is no deadline, and an infinite start one of which nothing is known.
    """
    return deadline is not None and deadline <= start < _UNKNOWN


_UNKNOWN = float("inf")
