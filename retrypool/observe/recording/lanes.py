"""What is kept of the attempts of a run: one by one while they are few, in bundles when they are many."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

__all__ = ["Bar", "Lane", "Lanes"]


class Bar(NamedTuple):
    """One attempt, or a bundle of short ones that followed each other on one thread.

    Times are seconds on the pool's clock.
    """

    start: float
    end: float
    outcome: str  # the most frequent one in a bundle
    number: int  # of the attempt, 1 is the first
    task_id: int
    label: str
    error: str  # of a bundle, that of the last attempt that failed
    # Of a bundle only: how many attempts by outcome, and for how many seconds something ran.
    outcomes: tuple[tuple[str, int], ...] = ()
    busy: float = 0.0

    @property
    def calls(self) -> int:
        """How many attempts it stands for."""
        return sum(count for _, count in self.outcomes) or 1

    @property
    def seconds(self) -> float:
        """For how many seconds something ran."""
        return self.busy if self.outcomes else self.end - self.start


class Lane:
    """One thread of a worker, and its attempts in the order of time, which do not overlap."""

    __slots__ = ("bars", "group", "name", "row", "worker_id")

    def __init__(self, worker_id: int, name: str, group: str, row: int) -> None:
        self.worker_id = worker_id
        self.name = name
        self.group = group
        self.row = row  # which of the worker's threads, as far as can be told
        self.bars: list[Bar] = []

    def copy(self) -> Lane:
        """Return another with the same bars."""
        other = Lane(self.worker_id, self.name, self.group, self.row)
        other.bars = self.bars.copy()
        return other

    def coarsen(self, grain: float) -> None:
        """Bundle those shorter than `grain` that start in the same cell of a grid that fine."""
        bars: list[Bar] = []
        bundle: list[Bar] = []
        cell = 0.0
        for bar in self.bars:
            small = bar.end - bar.start < grain
            if bundle and not (small and bar.start // grain == cell):
                bars.append(_bundled(bundle))
                bundle = []
            if small:
                bundle.append(bar)
                cell = bar.start // grain
            else:
                bars.append(bar)
        if bundle:
            bars.append(_bundled(bundle))
        self.bars = bars


def _bundled(bars: list[Bar]) -> Bar:
    if len(bars) == 1:
        return bars[0]
    outcomes: dict[str, int] = {}
    busy, error = 0.0, ""
    for bar in bars:
        if bar.outcomes:
            busy += bar.busy
            for outcome, count in bar.outcomes:
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        else:
            busy += bar.end - bar.start
            outcomes[bar.outcome] = outcomes.get(bar.outcome, 0) + 1
        error = bar.error or error
    most = max(outcomes, key=outcomes.__getitem__)
    return Bar(bars[0].start, bars[-1].end, most, 0, 0, "", error, tuple(sorted(outcomes.items())), busy)


class Lanes:
    """All lanes of a run, with `limit` bars between them, or a few for each if that is more.

    When there are more, the shortest are bundled: long attempts stay as they are. One lane after the other,
    so that whoever adds one too many is not held up for long; then with a coarser grain. Workers beyond the
    first `lane_limit` threads get no lane.
    """

    def __init__(self, limit: int, lane_limit: int = 1000) -> None:
        self.grain = 0.0  # seconds; shorter attempts have been bundled
        self.left_out = 0  # attempts of workers without a lane
        self._limit = limit
        self._lane_limit = lane_limit
        self._bars = 0
        self._turn = 0  # which lane is to be coarsened next
        self._lanes: list[Lane] = []
        self._of_worker: dict[int, list[Lane]] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    def open(self, worker_id: int, name: str, group: str) -> None:
        """Make a lane for a worker that has none."""
        if worker_id not in self._of_worker and len(self._lanes) < self._lane_limit:
            self._of_worker[worker_id] = []
            self._add_row(worker_id, name, group)

    def add(self, worker_id: int, bar: Bar) -> None:
        """Add an attempt. Those of one worker come in the order in which they ended."""
        rows = self._of_worker.get(worker_id)
        if not rows:
            self.left_out += 1
            return
        lane = rows[0]
        if len(rows) > 1 or (lane.bars and lane.bars[-1].end > bar.start):
            found = self._free_row(rows, bar.start)
            if found is None:
                self.left_out += 1
                return
            lane = found
        lane.bars.append(bar)
        self._bars += 1
        if self._bars > self._limit:
            self._make_room()

    def copy(self) -> list[Lane]:
        """Return all lanes, those of one worker together, for a look at them as they are now."""
        return [lane.copy() for rows in self._of_worker.values() for lane in rows]

    def _add_row(self, worker_id: int, name: str, group: str) -> Lane:
        rows = self._of_worker[worker_id]
        lane = Lane(worker_id, name, group, len(rows))
        rows.append(lane)
        self._lanes.append(lane)
        return lane

    def _free_row(self, rows: list[Lane], start: float) -> Lane | None:
        """Return the thread of a worker that has been idle for the shortest time, or a new one."""
        free = [lane for lane in rows if not lane.bars or lane.bars[-1].end <= start]
        if free:
            return max(free, key=lambda lane: lane.bars[-1].end if lane.bars else -inf)
        if len(self._lanes) < self._lane_limit:
            return self._add_row(rows[0].worker_id, rows[0].name, rows[0].group)
        return None

    def _make_room(self) -> None:
        # However coarse the grain is, each lane can have a bar on both sides of a line of its grid.
        limit = max(self._limit, 8 * len(self._lanes))
        while self._bars > limit:
            if self._turn >= len(self._lanes):
                self._turn = 0
                self.grain *= 2
            lane = self._lanes[self._turn]
            self._turn += 1
            self.grain = self.grain or self._first_grain()
            before = len(lane.bars)
            lane.coarsen(self.grain)
            self._bars += len(lane.bars) - before

    def _first_grain(self) -> float:
        """Return how long the cells are if there are half as many of them as bars may be kept."""
        spans = [(lane.bars[0].start, lane.bars[-1].end) for lane in self._lanes if lane.bars]
        length = sum(end - start for start, end in spans)
        return max(2 * length / self._limit, 1e-6)
