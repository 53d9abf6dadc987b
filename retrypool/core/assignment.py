"""Which worker gets which task, and when: tasks are queued here, and claimed.

Pure, and under the pool's lock, except for `admits`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any
from weakref import ref

from retrypool.core.filing import Filing
from retrypool.core.fleet import Fleet
from retrypool.core.outage import Outage
from retrypool.core.queue import Backlog, InjectorQueue
from retrypool.core.timers import Timers
from retrypool.model.constraints import Constraints
from retrypool.model.context import attempts_at
from retrypool.model.slots import Group, Slot
from retrypool.model.task import Record, Task
from retrypool.states import TaskState

__all__ = ["AnyTask", "Assignment"]

AnyTask = Task[Any, Any]


class Assignment:
    """Tasks that can be claimed, and workers that can claim them."""

    def __init__(
        self,
        timers: Timers,
        fleet: Fleet,
        *,
        affinity_wait: float,
        counts_firsts: bool,
        refuses: Callable[[AnyTask, float], bool],
        injector: InjectorQueue | None = None,
    ) -> None:
        self.timers = timers
        self.fleet = fleet
        # References dropped under the lock. Each may be the last to an object of the user's, whose finalizer
        # may call anything. So they are released after the lock: whoever leaves it takes this list out.
        self.dropped: list[object] = timers.dropped
        self.backlog = Backlog(self.dropped, injector)
        self.filing = Filing(timers, fleet, self.backlog, affinity_wait=affinity_wait)
        self._file = self.filing.file  # bound once, for the hot paths
        self._refuses = refuses  # whether a task that a worker puts back has ended instead
        self.counts_firsts = counts_firsts  # whether all claims come this way, so that they can be counted
        self.firsts = 0  # claims of tasks that nobody has tried, while that is counted

    # -- tasks in, tasks out ---------------------------------------------------------------------

    def enqueue(self, task: AnyTask, now: float) -> None:
        """Append a task to the queue, behind those of its rank."""
        record = task._record
        if record is not None:
            record.seq = self.backlog.next_seq()
        line = self.backlog.injector.open_line(task._settings.priority)
        if line is not None and (record is None or (record.plain and not record.tried)):
            line.append(task)
        else:
            if record is None:
                task._record = record = Record(task.id)
            self._file(task, record, now)
        self.rouse()

    def put_in_place(self, task: AnyTask, now: float) -> None:
        """Put a task back into the queue at the place that it had."""
        record = task._record
        assert record is not None
        self._file(task, record, now)
        self.rouse()

    def claim(self, slot: Slot, now: float, handed: AnyTask | None = None) -> AnyTask | None:
        """Return the task that `slot` is to run now, or park it and return None.

        `handed` is a task that the worker took from the injector and may not simply run: because the
        slot is not `direct`, or because the task is not for it.
        """
        # It may be among the parked again: let in after it had been woken, before it ran.
        self.fleet.unpark(slot)
        if handed is not None:
            self._take_back(handed, slot, now)
        if self.fleet.barred(slot, now):
            task = None
        elif self.fleet.quarantine.outage is not None:
            task = self._next_to_probe(slot, now)
        else:
            task = self._next_for(slot, now)
        if task is None:
            self._park(slot, now)
        else:
            self._slot_at(slot, task, now)
        self.rouse()
        return task

    def give_back(self, slot: Slot, task: AnyTask, now: float) -> None:
        """Undo a claim, before anything came of it."""
        task._phase = TaskState.QUEUED
        record = task._record
        self.firsts -= record is None or not record.entries
        self.fleet.undo(slot, 1.0 if record is None else record.cost, now)
        self.fleet.quarantine.probe_not_made(slot, now)
        self._take_back(task, slot, now)
        self.rouse()

    def admits(self, slot: Slot, task: AnyTask) -> bool:
        """Return whether `slot` may run `task`, which it has just taken from the injector."""
        record = task._record
        if record is None:
            return True
        if not record.plain and not task._settings.constraints.suits(slot):
            return False
        if record.tried_waived:
            return True
        return slot.group not in record.tried and slot.id != record.avoid

    def suits_all(self, constraints: Constraints) -> bool:
        """Return whether there are workers, and each of them could take tasks of these constraints."""
        present = [slot for slot in self.fleet if self.fleet.present(slot)]
        return bool(present) and all(map(constraints.suits, present))

    # -- workers ---------------------------------------------------------------------------------

    def add(self, slot: Slot) -> None:
        """Add a worker. If nothing waits that it would have to ask for, it need not claim its first task."""
        self.fleet.add(slot)
        self.backlog.review(slot)
        # Where it may help itself, the time is of no matter.
        slot.direct = slot.go = self._may_be_direct(slot) and not self.fleet.barred(slot, inf)

    def retire(self, slot: Slot, now: float) -> None:
        """Give `slot` nothing any more. If its group goes with it, what all others tried starts afresh."""
        before = self.fleet.live
        self.fleet.retire(slot, now)
        self._left(before)

    def _left(self, before: frozenset[Group]) -> None:
        if not self.fleet.live >= before:
            self.filing.review_live()
        self.filing.review_tried(inf)  # if one of a group leaves: whenever the others can be back
        self.rouse()  # a probe that left may have let others in

    def probe_not_made(self, slot: Slot, now: float) -> None:
        """Give the probe to another worker; see `Quarantine.probe_not_made`."""
        self.fleet.quarantine.probe_not_made(slot, now)
        self.rouse()

    def forgive(self, group: Group, now: float) -> None:
        """Open a group, whatever is known against it."""
        self.fleet.quarantine.forgive(group, now)
        self.rouse()

    def bar(self, slot: Slot, reason: str) -> None:
        """Give `slot` nothing for good."""
        before = self.fleet.live
        self.fleet.bar(slot, reason)
        self._left(before)

    def review_tried(self, now: float) -> None:
        """Let any worker take the tasks whose untried workers can't be back in time."""
        self.filing.review_tried(now)
        self.rouse()

    def remove(self, slot: Slot) -> None:
        """Forget a retired worker."""
        self.fleet.slots.pop(slot, None)
        slot.subqueues.clear()

    # -- claiming --------------------------------------------------------------------------------

    def _take_back(self, task: AnyTask, slot: Slot, now: float) -> None:
        """Undo a worker's taking of a task: it goes back to where it was."""
        task._slot = None
        record = task._record
        if task._withdrawn:
            self.backlog.bury(task)
            return
        if self._refuses(task, now):
            return
        line = self.backlog.injector.line(task._settings.priority)
        if line is not None and (record is None or (record.plain and self.admits(slot, task))):
            line.appendleft(task)
        else:
            assert record is not None
            self._file(task, record, now)

    def _next_to_probe(self, slot: Slot, now: float) -> AnyTask | None:
        """Take a task to probe an outage with, whichever groups have tried it.

        Alternates between one task that was tried, the same each time, and the first untried one: one of
        the two kinds may never succeed.
        """
        backlog, outage = self.backlog, self.fleet.quarantine.outage
        assert outage is not None
        if outage.probes % 2 == 0:
            task = self._take_again(slot, outage) or self._take_tried(slot)
            if task is not None:
                outage.tried = ref(task)
                return task
        while (task := backlog.injector.popleft_before(None)) is not None:
            if task._withdrawn:
                backlog.bury(task)
            elif task._record is None or task._settings.constraints.suits(slot):
                return task
            else:
                self._file(task, task._record, now)
        return self._take_tried(slot)

    def _take_again(self, slot: Slot, outage: Outage) -> AnyTask | None:
        """Take the task of the previous probe of this outage, if it waits."""
        task = None if outage.tried is None else outage.tried()
        if task is None or task._withdrawn or task._phase is not TaskState.QUEUED:
            return None
        for subqueue in list(self.backlog.subqueues.values()):
            if subqueue.constraints.suits(slot) and self.backlog.take_out(subqueue, task):
                return task
        return None

    def _take_tried(self, slot: Slot) -> AnyTask | None:
        """Take the first task of the subqueues, whichever groups have tried it."""
        suited = [q for q in self.backlog.subqueues.values() if q.constraints.suits(slot)]
        placed = [(place, q) for q in suited if (place := self.backlog.head(q)) is not None]
        return self.backlog.take(min(placed, key=lambda pair: pair[0])[1]) if placed else None

    def _next_for(self, slot: Slot, now: float) -> AnyTask | None:
        """Take the task that is first in order among those that `slot` may run."""
        while (task := self._first(slot)) is not None:
            if task._withdrawn:
                self.backlog.bury(task)
            elif not self.admits(slot, task):
                assert task._record is not None
                self._file(task, task._record, now)
            else:
                return task
        return None

    def _first(self, slot: Slot) -> AnyTask | None:
        """Take the first task in order from the slot's subqueues or the injector; None if there is none."""
        backlog = self.backlog
        subqueue = backlog.best(slot)
        place = None if subqueue is None else slot.subqueues[0][0]
        task = backlog.injector.popleft_before(place)
        if task is None and subqueue is not None:
            return backlog.take(subqueue)
        return task

    def _slot_at(self, slot: Slot, task: AnyTask, now: float) -> None:
        """Assign `task` to `slot`, and decide whether the slot may pop from the injector queue next time."""
        task._slot = slot
        slot.go = True
        fleet = self.fleet
        if slot.group.until is not None or fleet.quarantine.outage is not None:
            fleet.quarantine.start_probe(slot)
        slot.direct = self._may_be_direct(slot)
        record = task._record
        self.firsts += record is None or not record.entries
        if slot.group.pace is not None or fleet.pace is not None:
            if fleet.is_measured(slot):
                if record is None:
                    task._record = record = Record(task.id, task._settings.retry_plain)
                record.wrapped = True  # its data is looked at before it is run
            fleet.charge(slot, 1.0 if record is None else record.cost, now)

    def _may_be_direct(self, slot: Slot) -> bool:
        if self.counts_firsts or not self.fleet.may_help_itself(slot):
            return False
        return self.backlog.best(slot) is None

    def _park(self, slot: Slot, now: float) -> None:
        """Park `slot`.

        Handshake H1: whoever calls this reads the injector queue once more after it.
        """
        slot.direct = self._may_be_direct(slot)
        self.fleet.park(slot, now)

    def running_at(self, slot: Slot) -> list[Any]:
        """Return the context of what runs at `slot`, if anything does.

        To be asked in place of the box itself, where an attempt may stand without one.
        """
        return attempts_at(slot, self.dropped)

    def clear_tombstones(self) -> None:
        """Remove the tombstones, if they are more than a few."""
        self.timers.sweep_if_due()
        if self.backlog.sweep_if_due():
            self.rouse()

    def rouse(self) -> None:
        """Call one parked worker that has a task to claim; it will call the next.

        Called at the end of whatever may have left work for somebody who sleeps.
        """
        parked = self.fleet.parked
        if not parked:
            return
        if self.backlog.subqueues:
            holds = self.fleet.quarantine.outage is not None
            for slot in reversed(list(parked)) if holds else list(parked):
                if self._has_probe_for(slot) if holds else self.backlog.best(slot) is not None:
                    parked.pop(slot, None)
                    self.fleet.called.append(slot)
                    return
        if self.backlog.injector:
            with suppress(KeyError):  # dispatchers may be quicker
                slot, _ = parked.popitem()
                self.fleet.called.append(slot)

    def _has_probe_for(self, slot: Slot) -> bool:
        return any(q.tasks and q.constraints.suits(slot) for q in self.backlog.subqueues.values())
