"""The tasks that could be claimed now, in the order in which they should be.

There are two places. The *injector queue* is made of deques, one for each priority: dispatchers append to
them and workers pop from them, each in one atomic operation, without a lock. What can't be served from there,
because it is not for all workers, or because it was popped by one that may not take it, waits in *subqueues*:
one for each combination of priority and constraints, so that a worker that may take nothing of 100,000
tasks learns it from a handful of subqueues. Subqueues are touched under the pool's lock only.

Tasks carry a sequence number, given when they enter the queue; within a priority, the smallest one of
all the subqueues and the injector goes first.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any

from retrypool.model.constraints import Constraints
from retrypool.model.record import GONE

if TYPE_CHECKING:
    from retrypool.model.slots import Slot
    from retrypool.model.task import Task

__all__ = ["Backlog", "InjectorQueue", "Subqueue", "SubqueueEntry", "rank_of", "seq_of"]


Rank = tuple[int, int]
"""Where a subqueue stands among the others: (-priority, 0 or 1).

0 is for immediate retries and for those that bring the verdict on a suspect, 1 for the rest.
"""

Place = tuple[int, int, int]
"""Where a task stands among all: its subqueue's rank, and its sequence number. Smaller goes first."""

SubqueueEntry = tuple[Place, int, "Subqueue"]
"""An entry in a slot's heap of subqueues: the head's place when entered, its number, itself."""

MOST_LINES = 16

SWEPT_AT = 8
"""Tombstones are swept out when there is more than one for so many tasks."""


def seq_of(task: Task[Any, Any]) -> int:
    """Return the sequence number of a task."""
    record = task._record
    return task.id if record is None else record.seq


def rank_of(task: Task[Any, Any]) -> Rank:
    """Return the rank of a task."""
    record, settings = task._record, task._settings
    first = record is not None and record.entries and (settings.immediate or record.urgent)
    return (-settings.priority, 0 if first else 1)


class Subqueue:
    """Tasks of one rank and one constraints, in the order of their sequence numbers."""

    __slots__ = ("constraints", "listed", "number", "rank", "shown", "tasks", "timed")

    def __init__(self, number: int, rank: Rank, constraints: Constraints) -> None:
        self.number = number
        self.rank = rank
        self.constraints = constraints
        # A heap of (sequence number, since when it waits here, task). Most come in order; what starts
        # afresh, or has waited long enough for an untried worker, comes back to the place that it had.
        self.tasks: list[tuple[int, float, Task[Any, Any]]] = []
        self.listed: set[Slot] = set()  # the slots in whose heap it is
        self.shown = False  # whether these are all that may take from it
        self.timed = False  # whether the timers holds the end of its head's wait for an untried worker

    def __repr__(self) -> str:
        tried = [group.name for group in self.constraints.tried]
        return f"<Subqueue {self.rank} tried by {tried}: {len(self.tasks)}>"


Line = deque[Any]
"""Tasks of one priority that any worker may take which has not tried them, in their order."""


class InjectorQueue:
    """The lines. Anybody may append to them and pop from them.

    Lines are made under the pool's lock, and never taken away: somebody may be about to append to one.
    So there are so many at the most; tasks of other priorities wait in subqueues.
    """

    __slots__ = ("_by_priority", "_in_order", "_lines", "_make_line", "line", "several", "usual")

    def __init__(self, make_line: Callable[[], Line] = deque) -> None:
        self._make_line = make_line
        self.usual: Line = make_line()  # for the priority 0
        self.several = False  # whether there is any other, which is not taken back
        self._by_priority = {0: self.usual}
        # Returns the line for a priority, or None if there is none. Needs no lock.
        self.line: Callable[[int], Line | None] = self._by_priority.get
        # The highest priority first. Replaced as a whole, for those who iterate over them meanwhile.
        self._lines: tuple[tuple[int, Line], ...] = ((0, self.usual),)
        self._in_order: tuple[Line, ...] = (self.usual,)

    def open_line(self, priority: int) -> Line | None:
        """Return the line for `priority`, a new one if need be; None if there are too many."""
        line = self._by_priority.get(priority)
        if line is None and len(self._lines) < MOST_LINES:
            line = self._make_line()
            self._lines = tuple(sorted((*self._lines, (priority, line)), key=lambda e: -e[0]))
            self._in_order = tuple(line for _, line in self._lines)
            self._by_priority[priority] = line
            # Last: who sees it, sees the line. A dispatcher gets the line from here, so it appends after
            # this and looks for parked workers after that.
            self.several = True
        return line

    def lines(self) -> list[Line]:
        """Return all the lines."""
        return [line for _, line in self._lines]

    def popleft(self) -> Task[Any, Any]:
        """Take the first task of the highest priority. Raises `IndexError` if there is none."""
        for line in filter(None, self._in_order):  # the empty ones are passed over in C
            try:
                task: Task[Any, Any] = line.popleft()
            except IndexError:  # another worker was quicker
                continue
            return task
        raise IndexError

    def popleft_before(self, place: Place | None) -> Task[Any, Any] | None:
        """Take the first task, if it stands before `place` (None: wherever it stands)."""
        for priority, line in self._lines:
            if not line:
                continue
            try:
                if place is not None and place < (-priority, 1, seq_of(line[0])):
                    return None
                task: Task[Any, Any] = line.popleft()
            except IndexError:
                continue
            return task
        return None

    def __bool__(self) -> bool:
        return any(self._in_order)

    def __len__(self) -> int:
        return sum(map(len, self._in_order))

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        """Iterate over a copy."""
        for _, line in self._lines:
            yield from line.copy()


class Backlog:
    """The injector and the subqueues."""

    def __init__(self, dropped: list[object] | None = None, injector: InjectorQueue | None = None) -> None:
        self.injector = InjectorQueue() if injector is None else injector
        self.filed = 0  # tasks in subqueues, tombstones included
        self._dropped = [] if dropped is None else dropped  # what is let go of; see `Scheduler.dropped`
        self.subqueues: dict[tuple[Rank, Constraints], Subqueue] = {}
        self.next_seq = itertools.count(1).__next__
        self.tombstones = 0  # withdrawn tasks that are still in a queue, in both places
        self.sweep_at = 0  # fewer than so many need not be swept out; 0 if that is to be seen anew
        self._next_subqueue = itertools.count(1).__next__

    def __len__(self) -> int:
        """The tasks that wait here. Exact while nobody dispatches or claims."""
        # A worker may have a tombstone in hand already, which is not counted out yet.
        return max(0, len(self.injector) + self.filed - self.tombstones)

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        """Iterate over a copy of what waits, subqueues first."""
        for task in self._all():
            if not task._withdrawn:
                yield task

    def _all(self) -> list[Task[Any, Any]]:
        """Return a copy of all that is held, subqueues first, tombstones too."""
        filed = [entry[2] for subqueue in self.subqueues.values() for entry in tuple(subqueue.tasks)]
        copy = [*filed, *self.injector]
        self._dropped.append(copy)  # workers take and end tasks meanwhile: it may be the last to hold one
        return copy

    def file(
        self, task: Task[Any, Any], seq: int, rank: Rank, constraints: Constraints, now: float
    ) -> Subqueue:
        """Put `task` into the subqueue for its rank and constraints, and return the subqueue."""
        subqueue = self.subqueues.get((rank, constraints))
        if subqueue is None:
            subqueue = Subqueue(self._next_subqueue(), rank, constraints)
            self.subqueues[rank, constraints] = subqueue
        heappush(subqueue.tasks, (seq, now, task))
        self.filed += 1
        if subqueue.tasks[0][0] == seq:
            subqueue.listed.clear()  # its head has moved forward: slots have to be shown it again
            subqueue.shown = False
        return subqueue

    def show(self, subqueue: Subqueue, slots: Iterable[Slot]) -> None:
        """Show `subqueue` to all who may take from it. `slots` are all that there are.

        New slots look at all subqueues by themselves (`review`).
        """
        if not subqueue.shown:
            self.enlist(subqueue, slots)
            subqueue.shown = True

    def enlist(self, subqueue: Subqueue, slots: Iterable[Slot]) -> None:
        """Show `subqueue` to those of `slots` who may take from it.

        A subqueue stays in a slot's heap until it is at the top and empty. When its head moves
        back, the entry is too early, and is put right when it surfaces; when its head moves forward, the
        subqueue is listed a second time, which does no harm.
        """
        place = self.head(subqueue)
        if place is None:
            return
        for slot in slots:
            if slot not in subqueue.listed and subqueue.constraints.admits(slot):
                if len(slot.subqueues) > 2 * len(self.subqueues) + 64:
                    self.review(slot)  # a slot that claims nothing for long drops nothing either
                subqueue.listed.add(slot)
                heappush(slot.subqueues, (place, subqueue.number, subqueue))
                slot.direct = False

    def review(self, slot: Slot) -> None:
        """Rebuild the heap of `slot` from the present subqueues."""
        for _, _, subqueue in slot.subqueues:
            subqueue.listed.discard(slot)
        slot.subqueues.clear()
        for subqueue in list(self.subqueues.values()):
            self.enlist(subqueue, (slot,))

    def best(self, slot: Slot) -> Subqueue | None:
        """Return the subqueue whose first task should go to `slot`, or None if no subqueue has one for it."""
        subqueues = slot.subqueues
        while subqueues:
            subqueue: Subqueue
            place, number, subqueue = subqueues[0]
            head = self.head(subqueue)
            if head == place:
                return subqueue
            if head is None:
                heappop(subqueues)
                subqueue.listed.discard(slot)
            else:
                heapreplace(subqueues, (head, number, subqueue))
        return None

    def ahead(self, task: Task[Any, Any]) -> int:
        """Return how many tasks go before `task`, whoever may take them. Costs a look at all of them."""
        place = (*rank_of(task), seq_of(task))
        filed = [
            (*subqueue.rank, entry[0])
            for subqueue in self.subqueues.values()
            for entry in tuple(subqueue.tasks)
        ]
        copy = list(self.injector)
        self._dropped.append(copy)
        arrived = [(*rank_of(other), seq_of(other)) for other in copy if not other._withdrawn]
        return sum(other < place for other in filed + arrived)

    def since(self, task: Task[Any, Any]) -> float | None:
        """Return since when `task` waits in its subqueue; None if it is in none."""
        for subqueue in self.subqueues.values():
            for _, since, other in subqueue.tasks:
                if other is task:
                    return since
        return None

    def take(self, subqueue: Subqueue) -> Task[Any, Any]:
        """Take the first task of `subqueue`, which `best` has just returned."""
        task = self.pop(subqueue)
        if not subqueue.tasks:
            self.close(subqueue)
        return task

    def pop(self, subqueue: Subqueue) -> Task[Any, Any]:
        """Take the first task of `subqueue`, which stays open."""
        self.filed -= 1
        return heappop(subqueue.tasks)[2]

    def take_out(self, subqueue: Subqueue, task: Task[Any, Any]) -> bool:
        """Take `task` out of `subqueue`, wherever it stands; return whether it was there."""
        tasks = subqueue.tasks
        for index, entry in enumerate(tasks):
            if entry[2] is task:
                tasks[index] = tasks[-1]
                tasks.pop()
                heapify(tasks)
                self.filed -= 1
                if not tasks:
                    self.close(subqueue)
                return True
        return False

    def empty(self, subqueue: Subqueue) -> list[tuple[int, float, Task[Any, Any]]]:
        """Take all entries of `subqueue`, which is closed."""
        entries, subqueue.tasks = subqueue.tasks, []
        self.filed -= len(entries)
        self.close(subqueue)
        return entries

    # -- tombstones ------------------------------------------------------------------------------

    def bury(self, task: Task[Any, Any]) -> None:
        """Discount a tombstone that was taken out of its queue."""
        if task._withdrawn is True:
            self.tombstones -= 1
            self.sweep_at = 0
            task._withdrawn = GONE
        self._dropped.append(task)

    def bury_unless_held(self, task: Task[Any, Any]) -> None:
        """Count out a withdrawn task that may never have come in. Costs a look at all that waits.

        A worker that has it in hand comes to `bury` with it later, and finds it GONE.
        """
        if task._withdrawn is True and not any(other is task for other in self._all()):
            self.bury(task)

    def sweep_if_due(self) -> bool:
        """Remove tombstones if they are more than one in SWEPT_AT tasks; return whether so.

        One in SWEPT_AT keeps the cost of a cancellation flat, and the memory of cancelled tasks small.
        """
        self.sweep_at = (len(self.injector) + self.filed) // SWEPT_AT + 1
        if (many := self.tombstones) < self.sweep_at:
            return False
        for line in self.injector.lines():
            self._sweep_head(line)
        if self.tombstones * 2 > many:
            self.sweep()
        return True

    def _sweep_head(self, line: Line) -> None:
        """Remove the tombstones at the head of a line, where they are if the oldest are cancelled first.

        A worker that takes one waits for the lock: if a living task is out for a moment, it is for that one.
        """
        with suppress(IndexError):
            while line[0]._withdrawn:
                task = line.popleft()
                (self.bury if task._withdrawn else line.appendleft)(task)

    def sweep(self) -> None:
        """Remove all tombstones. Whoever calls this wakes somebody afterwards: see `_sweep_line`."""
        for subqueue in list(self.subqueues.values()):
            entries = subqueue.tasks
            living = [entry for entry in entries if not entry[2]._withdrawn]
            if len(living) < len(entries):
                self.filed -= len(entries) - len(living)
                for _, _, task in entries:
                    if task._withdrawn:
                        self.bury(task)
                self._dropped.append(entries)
                heapify(living)
                subqueue.tasks = living
                if not living:
                    self.close(subqueue)
        for line in self.injector.lines():
            self._sweep_line(line)

    def _sweep_line(self, line: Line) -> None:
        """Remove the tombstones from a line, to whose end a dispatcher may be appending.

        The living are out of it for a moment, in which a worker that looks finds nothing, and is parked: so
        whoever calls this wakes somebody afterwards (H1). All are taken out by one call into C, so that no
        worker takes one from the middle meanwhile.
        """
        taken: list[Task[Any, Any]] = []
        with suppress(IndexError):  # workers take as well
            taken.extend(map(deque.popleft, itertools.repeat(line, len(line))))
        line.extendleft(reversed([task for task in taken if not task._withdrawn]))
        for task in taken:
            if task._withdrawn:
                self.bury(task)

    def head(self, subqueue: Subqueue) -> Place | None:
        """Return the place of the first task of `subqueue`, having dropped those that were withdrawn."""
        tasks = subqueue.tasks
        while tasks and tasks[0][2]._withdrawn:
            self.bury(self.pop(subqueue))
        if tasks:
            return (*subqueue.rank, tasks[0][0])
        self.close(subqueue)
        return None

    def close(self, subqueue: Subqueue) -> None:
        """Forget an empty subqueue. Slots that still list it drop it when it is at the top of their heap."""
        if self.subqueues.get((subqueue.rank, subqueue.constraints)) is subqueue:
            del self.subqueues[subqueue.rank, subqueue.constraints]
