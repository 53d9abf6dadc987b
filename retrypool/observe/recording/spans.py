"""Times in which a group, a worker or the whole pool was given nothing."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import NamedTuple

__all__ = ["Span", "Spans"]


class Span(NamedTuple):
    """A time, of what kind, of whom (a group's name, a worker's id, or "" for all), and why."""

    start: float
    end: float  # infinite while nobody knows
    kind: str
    who: str | int
    why: str = ""
    times: int = 1  # how many have become one


class Spans:
    """Spans of each kind and owner, which do not overlap; `limit` of them at the most.

    When there are more, those that lie closest together become one; when there are too many owners, the one
    that was the first to have a span is forgotten. `counts` says how many there were.
    """

    def __init__(self, limit: int = 4000) -> None:
        self.counts: Counter[tuple[str, str | int]] = Counter()
        self._limit = limit
        self._kept: dict[tuple[str, str | int], list[Span]] = {}
        self._size = 0
        self._grain = 0.0

    def begin(self, kind: str, who: str | int, start: float, end: float = inf, why: str = "") -> None:
        """Open a span that will end at `end`, unless it is said to end otherwise."""
        if (kind, who) not in self._kept and len(self._kept) >= self._limit // 2:
            self._forget_oldest_owner()
        spans = self._kept.setdefault((kind, who), [])
        self.counts[kind, who] += 1
        if spans and spans[-1].end >= start:
            last = spans[-1]
            spans[-1] = last._replace(end=max(last.end, end), why=why or last.why, times=last.times + 1)
            return
        spans.append(Span(start, end, kind, who, why))
        self._size += 1
        if self._size > self._limit:
            self._coarsen()

    def finish(self, kind: str, who: str | int, end: float, *, extend: bool = False) -> None:
        """End the last span of this kind, if it lasts; with `extend`, also let it last until `end`."""
        spans = self._kept.get((kind, who))
        if spans and (extend or spans[-1].end > end):
            spans[-1] = spans[-1]._replace(end=max(end, spans[-1].start))

    def last(self, kind: str, who: str | int) -> Span | None:
        """Return the last span of this kind, if there was one."""
        spans = self._kept.get((kind, who))
        return spans[-1] if spans else None

    def until(self, now: float) -> list[Span]:
        """Return all spans in the order of time, as far as they lie before `now`."""
        cut = [
            span._replace(end=min(span.end, now))
            for spans in self._kept.values()
            for span in spans
            if span.start <= now
        ]
        return sorted(cut, key=lambda span: span.start)

    def _forget_oldest_owner(self) -> None:
        oldest = next(iter(self._kept))
        self._size -= len(self._kept.pop(oldest))
        self.counts.pop(oldest)

    def _coarsen(self) -> None:
        while self._size > self._limit * 3 // 4:
            self._grain = self._grain * 2 or 0.01
            for key, spans in self._kept.items():
                merged = spans[:1]
                for span in spans[1:]:
                    if span.start - merged[-1].end < self._grain:
                        times = merged[-1].times + span.times
                        merged[-1] = span._replace(start=merged[-1].start, times=times)
                    else:
                        merged.append(span)
                self._kept[key] = merged
            self._size = sum(map(len, self._kept.values()))
