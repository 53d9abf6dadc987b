"""The tasks that could be claimed now, in the order in which they should be.

There are two places. The *arrivals* are deques, one for each priority: dispatchers append to them and
workers pop from them, each in one atomic operation, without a lock. What can't be served from there,
because it is not for all workers or because one that may not take it came upon it, waits in *lanes*:
one for each combination of priority and audience, so that a worker that may take nothing of 100,000
tasks learns it from a handful of lanes. Lanes are touched under the pool's lock only.

Tasks carry a sequence number, given when they enter the queue; within a priority, the smallest one of
all the lanes and the arrivals goes first.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, NamedTuple

from retrypool.errors import InvalidType

if TYPE_CHECKING:
    from retrypool.core.health import Group
    from retrypool.core.seat import Seat
    from retrypool.task import Task

__all__ = ["Arrivals", "Audience", "Backlog", "Lane", "Standing", "rank_of", "seq_of", "tag_set"]


class Audience(NamedTuple):
    """Whom a task is for. Tasks of the same audience and rank share a lane."""

    tried: frozenset[Group] = frozenset()  # groups that have failed it
    require: frozenset[str] = frozenset()  # tags that the worker must have
    worker: int | None = None  # the only worker that may
    exclude: frozenset[int | str] = frozenset()  # workers and groups that may not

    def admits(self, seat: Seat) -> bool:
        """Return whether the worker at `seat` may take these tasks."""
        return seat.group not in self.tried and self.suits(seat)

    def suits(self, seat: Seat) -> bool:
        """Return whether it could, had it not tried them."""
        return (
            self.require <= seat.tags
            and self.worker in (None, seat.id)
            and (not self.exclude or self.exclude.isdisjoint((seat.id, seat.group.name)))
        )


def tag_set(what: str, tags: Iterable[str]) -> frozenset[str]:
    """Return `tags` as a set. Raises `InvalidType`, also for a string, which would be a set of letters."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidType(what, tags, "a set of strings, such as {'premium'}")
    names = list(tags)  # no set yet: what is no string need not be hashable
    for name in names:
        if not isinstance(name, str):
            raise InvalidType(what, name, "a string")
    return frozenset(names)


Rank = tuple[int, int]
"""Where a lane stands among the others: (-priority, 0 for immediate retries and 1 for the rest)."""

Place = tuple[int, int, int]
"""Where a task stands among all: its lane's rank, and its sequence number. Smaller goes first."""

Standing = tuple[Place, int, "Lane"]
"""An entry in a seat's heap of lanes: the head's place when it was entered, the lane's number, the lane."""

MOST_LINES = 16


def seq_of(task: Task[Any, Any]) -> int:
    """Return the sequence number of a task."""
    record = task._record
    return task.id if record is None else record.seq


def rank_of(task: Task[Any, Any]) -> Rank:
    """Return the rank of a task."""
    record, settings = task._record, task._settings
    again = record is not None and record.entries
    return (-settings.priority, 0 if again and settings.retry.immediate else 1)


class Lane:
    """Tasks of one rank and one audience, in the order of their sequence numbers."""

    __slots__ = ("audience", "listed", "number", "rank", "shown", "tasks", "timed")

    def __init__(self, number: int, rank: Rank, audience: Audience) -> None:
        self.number = number
        self.rank = rank
        self.audience = audience
        # A heap of (sequence number, since when it waits here, task). Most come in order; what starts
        # afresh, or has waited long enough for an untried worker, comes back to the place that it had.
        self.tasks: list[tuple[int, float, Task[Any, Any]]] = []
        self.listed: set[Seat] = set()  # the seats in whose heap it is
        self.shown = False  # whether these are all that may take from it
        self.timed = False  # whether the agenda holds the end of its head's wait for an untried worker

    def __repr__(self) -> str:
        tried = [group.name for group in self.audience.tried]
        return f"<Lane {self.rank} tried by {tried}: {len(self.tasks)}>"


Line = deque[Any]
"""Tasks of one priority that any worker may take which has not tried them, in their order."""


class Arrivals:
    """The lines. Anybody may append to them and pop from them.

    Lines are made under the pool's lock, and never taken away: somebody may be about to append to one.
    So there are so many at the most; tasks of other priorities wait in lanes.
    """

    __slots__ = ("_by_priority", "_lines", "several", "usual")

    def __init__(self) -> None:
        self.usual: Line = deque()  # for the priority 0
        self.several = False  # whether there is any other, which is not taken back
        self._by_priority = {0: self.usual}
        # The highest priority first. Replaced as a whole, for those who iterate over it meanwhile.
        self._lines: tuple[tuple[int, Line], ...] = ((0, self.usual),)

    def line(self, priority: int) -> Line | None:
        """Return the line for `priority`, or None if there is none. Needs no lock."""
        return self._by_priority.get(priority)

    def open_line(self, priority: int) -> Line | None:
        """Return the line for `priority`, a new one if need be; None if there are too many."""
        line = self._by_priority.get(priority)
        if line is None and len(self._lines) < MOST_LINES:
            line = deque()
            self._lines = tuple(sorted((*self._lines, (priority, line)), key=lambda e: -e[0]))
            self._by_priority[priority] = line
            # Last: who sees it, sees the line. A dispatcher gets the line from here, so it appends after
            # this and looks for parked workers after that.
            self.several = True
        return line

    def popleft(self) -> Task[Any, Any]:
        """Take the first task of the highest priority. Raises `IndexError` if there is none."""
        for _, line in self._lines:
            try:
                task: Task[Any, Any] = line.popleft()
            except IndexError:
                continue
            return task
        raise IndexError

    def popleft_before(self, place: Place | None) -> Task[Any, Any] | None:
        """Take the first task, if it stands before `place` (None: wherever it stands)."""
        for priority, line in self._lines:
            try:
                if place is not None and place < (-priority, 1, seq_of(line[0])):
                    return None
                task: Task[Any, Any] = line.popleft()
            except IndexError:
                continue
            return task
        return None

    def __bool__(self) -> bool:
        return any(line for _, line in self._lines)

    def __len__(self) -> int:
        return sum(len(line) for _, line in self._lines)

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        """Iterate over a copy."""
        for _, line in self._lines:
            yield from line.copy()


class Backlog:
    """The arrivals and the lanes."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.lanes: dict[tuple[Rank, Audience], Lane] = {}
        self.next_seq = itertools.count(1).__next__
        self.ghosts = 0  # withdrawn tasks that have not been come upon yet, in both places
        self._next_lane = itertools.count(1).__next__

    def __len__(self) -> int:
        """The tasks that wait here. Exact while nobody dispatches or claims."""
        filed = sum(len(lane.tasks) for lane in self.lanes.values())
        # A worker may have a ghost in hand already, which is not counted out yet.
        return max(0, len(self.arrivals) + filed - self.ghosts)

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        """Iterate over a copy of what waits, lanes first."""
        filed = [entry[2] for lane in self.lanes.values() for entry in tuple(lane.tasks)]
        for task in [*filed, *self.arrivals]:
            if not task._withdrawn:
                yield task

    def file(self, task: Task[Any, Any], seq: int, rank: Rank, audience: Audience, now: float) -> Lane:
        """Put `task` into the lane for its rank and audience, and return the lane."""
        lane = self.lanes.get((rank, audience))
        if lane is None:
            lane = Lane(self._next_lane(), rank, audience)
            self.lanes[rank, audience] = lane
        heappush(lane.tasks, (seq, now, task))
        if lane.tasks[0][0] == seq:
            lane.listed.clear()  # its head has moved forward: seats have to be shown it anew
            lane.shown = False
        return lane

    def show(self, lane: Lane, seats: Iterable[Seat]) -> None:
        """Show `lane` to all who may take from it. `seats` are all that there are.

        New seats look at all lanes by themselves (`review`).
        """
        if not lane.shown:
            self.enlist(lane, seats)
            lane.shown = True

    def enlist(self, lane: Lane, seats: Iterable[Seat]) -> None:
        """Show `lane` to those of `seats` who may take from it.

        A lane stays in a seat's heap until the seat comes upon it and finds it empty. When its head moves
        back, the entry is too early, and is put right when it surfaces; when its head moves forward, the
        lane is listed a second time, which does no harm.
        """
        place = self._head(lane)
        if place is None:
            return
        for seat in seats:
            if seat not in lane.listed and lane.audience.admits(seat):
                if len(seat.standings) > 2 * len(self.lanes) + 64:
                    self.review(seat)  # a seat that claims nothing for long drops nothing either
                lane.listed.add(seat)
                heappush(seat.standings, (place, lane.number, lane))
                seat.direct = False

    def review(self, seat: Seat) -> None:
        """Make the heap of `seat` anew from the lanes there are."""
        for _, _, lane in seat.standings:
            lane.listed.discard(seat)
        seat.standings.clear()
        for lane in list(self.lanes.values()):
            self.enlist(lane, (seat,))

    def best(self, seat: Seat) -> Lane | None:
        """Return the lane whose first task should go to `seat`, or None if no lane has one for it."""
        standings = seat.standings
        while standings:
            place, number, lane = standings[0]
            head = self._head(lane)
            if head == place:
                return lane
            if head is None:
                heappop(standings)
                lane.listed.discard(seat)
            else:
                heapreplace(standings, (head, number, lane))
        return None

    def ahead(self, task: Task[Any, Any]) -> int:
        """Return how many tasks go before `task`, whoever may take them. Costs a look at all of them."""
        place = (*rank_of(task), seq_of(task))
        filed = [(*lane.rank, entry[0]) for lane in self.lanes.values() for entry in tuple(lane.tasks)]
        arrived = [(*rank_of(other), seq_of(other)) for other in self.arrivals if not other._withdrawn]
        return sum(other < place for other in filed + arrived)

    def since(self, task: Task[Any, Any]) -> float | None:
        """Return since when `task` waits in its lane; None if it is in none."""
        for lane in self.lanes.values():
            for _, since, other in lane.tasks:
                if other is task:
                    return since
        return None

    def take(self, lane: Lane) -> Task[Any, Any]:
        """Take the first task of `lane`, which `best` has just returned."""
        task = heappop(lane.tasks)[2]
        if not lane.tasks:
            self.close(lane)
        return task

    def _head(self, lane: Lane) -> Place | None:
        """Return the place of the first task of `lane`, having dropped those that were withdrawn."""
        tasks = lane.tasks
        while tasks and tasks[0][2]._withdrawn:
            heappop(tasks)
            self.ghosts -= 1
        if tasks:
            return (*lane.rank, tasks[0][0])
        self.close(lane)
        return None

    def close(self, lane: Lane) -> None:
        """Forget an empty lane. Seats that still list it drop it when they come upon it."""
        if self.lanes.get((lane.rank, lane.audience)) is lane:
            del self.lanes[lane.rank, lane.audience]
