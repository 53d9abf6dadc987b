"""Levels and counts over time, in a bounded number of buckets.

A bucket is as wide as it has to be for the whole run to fit: whenever it does not, neighbours become one.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise

__all__ = ["Series"]

FIRST_WIDTH = 0.005


class Series:
    """Named levels (how many were there at a time) and named counts (how many happened) since `origin`.

    Adding costs the same however long the run and the interval are: a level is kept as its changes.
    """

    def __init__(
        self, origin: float, *, levels: Iterable[str] = (), counts: Iterable[str] = (), limit: int = 2048
    ) -> None:
        self.origin = origin
        self.width = FIRST_WIDTH  # seconds
        self._limit = limit
        self._levels = frozenset(levels)
        # One more than there are buckets: what ends in the last one changes the level after it.
        self._changes = {name: [0.0] * (limit + 1) for name in (*self._levels, *counts)}
        self._used = 0

    def add_span(self, name: str, start: float, end: float) -> None:
        """Raise the level of `name` by 1 between two moments. What lies before the origin is left out."""
        # Written out: this is most of what it costs to record an attempt.
        origin = self.origin
        start = max(start, origin)
        if end <= start:
            return
        last = self._place(end)  # first of all: it may widen the buckets
        first = (start - origin) / self.width
        changes = self._changes[name]
        index = int(first)
        fraction = first - index
        changes[index] += 1.0 - fraction
        changes[index + 1] += fraction
        index = int(last)
        fraction = last - index
        changes[index] -= 1.0 - fraction
        changes[index + 1] -= fraction

    def add_point(self, name: str, moment: float) -> None:
        """Count one that happened at `moment`."""
        index = int(self._place(max(moment, self.origin)))
        changes = self._changes[name]
        changes[index] += 1.0
        changes[index + 1] -= 1.0

    def values(self, name: str) -> list[float]:
        """Return for each bucket the mean level, or the count, up to the last bucket that was used.

        >>> series = Series(0.0, levels=["queue"])
        >>> series.add_span("queue", 0.0, 0.0125)
        >>> series.values("queue")
        [1.0, 1.0, 0.5]
        """
        return [max(0.0, round(value, 9)) for value in accumulate(self._changes[name][: self._used])]

    def copy(self) -> Series:
        """Return another with the same content."""
        other = Series(self.origin, levels=self._levels, limit=self._limit)
        other.width, other._used = self.width, self._used
        other._changes = {name: changes.copy() for name, changes in self._changes.items()}
        return other

    def _place(self, moment: float) -> float:
        """Return in which bucket a moment lies, and how far into it, as one number."""
        place = (moment - self.origin) / self.width
        while place >= self._limit:
            self._widen()
            place = (moment - self.origin) / self.width
        if place >= self._used:
            self._used = int(place) + 1
        return place

    def _widen(self) -> None:
        self.width *= 2
        for name, changes in self._changes.items():
            levels = list(accumulate(changes))
            # Of a level the mean, of a count the sum.
            share = 0.5 if name in self._levels else 1.0
            pairs = [share * (a + b) for a, b in zip(levels[:-1:2], levels[1::2], strict=True)]
            half = len(pairs)
            new = [pairs[0], *(after - before for before, after in pairwise(pairs))]
            self._changes[name] = [*new, -pairs[-1], *[0.0] * (self._limit - half)]
        self._used = (self._used + 1) // 2
