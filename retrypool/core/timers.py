"""What is to be done when: the one place for delays, dates, deadlines, cool-downs and schedules."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any
from weakref import ref

from retrypool.model.task import Task

__all__ = ["Entry", "Moment", "Timers"]

SWEPT_AT = 8
"""What is past is swept out when there is more than one such appointment in so many."""

LOOK_EVERY = 60.0
"""Seconds after which the wall clock is read again while something waits for a date."""

SAME = 1e-6
"""Seconds by which two wall times may differ and be the same: a datetime, and a float of that size, tell
no finer."""

Action = Callable[[Any, float], None]
"""Called as `action(subject, now)` once its moment has come."""

Entry = list[Any]
"""A moment, a number, so that no two are alike, an action and its subject."""

Moment = tuple[float, bool]
"""A time, and whether it is one on the wall clock."""


class Timers:
    """Heaps of appointments. An action looks for itself whether its subject still wants it.

    Most are on the monotonic clock; those with a date are on the wall clock, which somebody may set: so
    it is read again once a minute while there are any. Adding one and taking one cost the logarithm of
    what is held. Appointments whose subject wants them no more are swept out whenever a heap has
    doubled, so that it holds at most twice what is alive.
    """

    def __init__(self) -> None:
        self.dropped: list[object] = []  # what is let go of; see `Scheduler.dropped`
        self.tombstones = 0  # appointments whose subject wants them no more, as far as was told
        # Entered without the lock, by `add_soon`. Whoever looks at the heap, with the lock, takes it in.
        self.incoming: deque[tuple[float, Action, Any]] = deque()
        self._heap = Heap(self.dropped)
        self._dated = Heap(self.dropped)
        self._look_at = inf  # when the wall clock is to be read next

    def sweep_if_due(self) -> None:
        """Remove obsolete appointments, if they are more than a few."""
        if self.tombstones and self.tombstones * SWEPT_AT > len(self):
            self._timed.sweep()
            self._dated.sweep()
            self.tombstones = 0

    def __len__(self) -> int:
        return len(self._timed.entries) + len(self._dated.entries)

    @property
    def _timed(self) -> Heap:
        """The heap, with what has come in since the last time."""
        while self.incoming:
            self._heap.push(*self.incoming.popleft())
        return self._heap

    def add_soon(self, when: float, action: Action, subject: Any) -> int:
        """Do as `add` does, without the lock; return how many have been entered that way."""
        self.incoming.append((when, action, subject))
        return len(self.incoming)

    def add(self, when: float, action: Action, subject: Any) -> Entry:
        """Have `action(subject, now)` called at `when`; return what `drop` takes.

        A weak reference is passed on as one.
        """
        return self._timed.push(when, action, subject)

    def add_date(self, date: float, action: Action, subject: Any, *, now: float, wall: float) -> None:
        """The same, once the wall clock, which shows `wall` at `now`, shows `date`."""
        self._dated.push(date, action, subject)
        self._look_at = min(self._look_at, _look_at(date, now, wall))

    def earliest(self) -> float | None:
        """Return the moment at which `keep` has something to do next; None: nothing is set."""
        entries = self._timed.entries
        earliest = min(entries[0][0], self._look_at) if entries else self._look_at
        return None if earliest == inf else earliest

    def keep(self, now: float, wall: float | None = None) -> None:
        """Keep all appointments that are due, in their order; dates only if told what the wall shows."""
        self._timed.keep(now, now)
        if wall is not None and self._look_at != inf:
            self._dated.keep(wall + SAME, now)
            entries = self._dated.entries
            self._look_at = _look_at(entries[0][0], now, wall) if entries else inf

    def subjects(self, action: Action) -> list[Any]:
        """Return what `action` is to be called with: at a time, then at a date, the earliest first."""
        in_order = [*sorted(self._timed.entries), *sorted(self._dated.entries)]
        return [entry[3] for entry in in_order if entry[2] == action]

    def drop(self, entry: Entry) -> None:
        """Forget an appointment. It keeps its place until its moment, or the next sweep, and does nothing."""
        entry[2:] = _do_nothing, _DROPPED

    def tasks(self) -> list[Task[Any, Any]]:
        """Return the tasks that there is an appointment for, in no order."""
        entries = itertools.chain(self._timed.entries, self._dated.entries)
        return [entry[3] for entry in entries if isinstance(entry[3], Task)]

    def first(self, action: Action, counts: Callable[[Any], bool]) -> Moment | None:
        """Return the first appointment for `action` whose subject counts: at a time, else at a date."""
        for heap, dated in ((self._timed, False), (self._dated, True)):
            times = [entry[0] for entry in heap.entries if entry[2] == action and counts(entry[3])]
            if times:
                return min(times), dated
        return None

    def moment(self, action: Action, subject: Any) -> Moment | None:
        """Return when `action` is to be called with `subject`. Costs a look at all that is held."""
        for heap, dated in ((self._timed, False), (self._dated, True)):
            for entry in heap.entries:
                if entry[3] is subject and entry[2] == action:
                    return entry[0], dated
        return None


class Heap:
    """Appointments on one clock."""

    def __init__(self, dropped: list[object]) -> None:
        self._dropped = dropped
        self.entries: list[Entry] = []  # the same list for good
        self._number: Iterator[int] = itertools.count()
        self._sweep_at = 1024

    def push(self, when: float, action: Action, subject: Any) -> Entry:
        if len(self.entries) >= self._sweep_at:
            self.sweep()
        entry = [when, next(self._number), action, subject]
        heappush(self.entries, entry)
        return entry

    def keep(self, until: float, now: float) -> None:
        entries = self.entries
        while entries and entries[0][0] <= until:
            _, _, action, subject = heappop(entries)
            self._dropped.append(subject)
            action(subject, now)

    def sweep(self) -> None:
        """Remove the appointments that their subject does not need any more."""
        before = self.entries[:]
        self._dropped.append(before)
        self.entries[:] = [entry for entry in before if not self._is_past(entry[3])]
        heapify(self.entries)
        self._sweep_at = max(1024, 2 * len(self.entries))

    def _is_past(self, subject: Any) -> bool:
        if isinstance(subject, ref):
            subject = subject()
            if subject is None:
                return True
            self._dropped.append(subject)  # nobody else may hold it by now
        if isinstance(subject, Task):
            return subject.done()
        return bool(getattr(subject, "past", False))


class _Dropped:
    """The subject of what was dropped."""

    past = True


_DROPPED = _Dropped()


def _do_nothing(_subject: object, _now: float) -> None:
    """Keep an appointment that was dropped."""


def _look_at(date: float, now: float, wall: float) -> float:
    return now + min(LOOK_EVERY, max(0.0, date - wall))
