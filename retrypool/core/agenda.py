"""What is to be done when: the one place for delays, deadlines, cool-downs and schedules."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any
from weakref import ref

from retrypool.task import Task

__all__ = ["Agenda"]

Action = Callable[[Any, float], None]
"""Called as `action(subject, now)` once its moment has come."""


class Agenda:
    """A heap of appointments. An action looks for itself whether its subject still wants it.

    Adding one and taking one cost the logarithm of what is held. Appointments whose task has ended are
    swept out whenever the heap has doubled, so that it holds at most twice what is alive.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._number = itertools.count().__next__
        self._sweep_at = 1024

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, action: Action, subject: Any) -> None:
        """Have `action(subject, now)` called at `when`. A weak reference is passed on as one."""
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        heappush(self._heap, (when, self._number(), action, subject))

    def earliest(self) -> float | None:
        """Return the moment of the next appointment."""
        return self._heap[0][0] if self._heap else None

    def keep(self, now: float) -> None:
        """Keep all appointments that are due, in their order."""
        heap = self._heap  # the same list for good: an action may add to it, and have it swept
        while heap and heap[0][0] <= now:
            _, _, action, subject = heappop(heap)
            action(subject, now)

    def subjects(self, action: Action) -> list[Any]:
        """Return what `action` is to be called with, the earliest first."""
        return [entry[3] for entry in sorted(self._heap) if entry[2] == action]

    def _sweep(self) -> None:
        self._heap[:] = [entry for entry in self._heap if not _is_past(entry[3])]
        heapify(self._heap)
        self._sweep_at = max(1024, 2 * len(self._heap))


def _is_past(subject: Any) -> bool:
    if isinstance(subject, ref):
        subject = subject()
        if subject is None:
            return True
    return isinstance(subject, Task) and subject.state.ended
