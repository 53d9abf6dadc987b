"""Where a task waits that not every worker may take: which subqueue, and for how long.

Pure, and under the pool's lock. A task that some groups have tried waits for one that has not. It stops
waiting when all have tried it, when no untried one can be back in time, or after `affinity_wait` seconds.
"""

from __future__ import annotations

from heapq import heapify
from typing import Any

from retrypool.core.fleet import Fleet
from retrypool.core.queue import Backlog, Subqueue, rank_of
from retrypool.core.timers import Timers
from retrypool.model.constraints import Constraints
from retrypool.model.record import NO_GROUPS
from retrypool.model.slots import Group
from retrypool.model.task import Record, Task

__all__ = ["Filing"]

AnyTask = Task[Any, Any]

_ANYBODY = Constraints()

EARLY = 0.01
"""The share of `affinity_wait` by which a wait for an untried worker may end early."""


class Filing:
    """Puts tasks into the subqueues that they belong to, and moves them when that changes."""

    def __init__(self, timers: Timers, fleet: Fleet, backlog: Backlog, *, affinity_wait: float) -> None:
        self._timers = timers
        self._fleet = fleet
        self._backlog = backlog
        self._affinity_wait = affinity_wait

    def refile(self, task: AnyTask, now: float) -> None:
        """Give a task that waits in a subqueue the place that it has by now."""
        for subqueue in list(self._backlog.subqueues.values()):
            if self._backlog.take_out(subqueue, task):
                assert task._record is not None
                self.file(task, task._record, now)
                return

    def file(self, task: AnyTask, record: Record, now: float) -> None:
        """Put a task into the subqueue that it belongs to."""
        constraints = task._settings.constraints
        # While there is no group at all, nothing can be said: those that are to come may be new to it.
        tried, avoid = record.tried, record.avoid
        if tried and (live := self.live_for(constraints)) and tried >= live:
            record.tried = tried = NO_GROUPS
        if (tried or avoid is not None) and not record.tried_waived:
            if self._is_in_vain(constraints, tried, avoid, now):
                record.tried_waived = True
            else:
                exclude = constraints.exclude if avoid is None else constraints.exclude | {avoid}
                constraints = Constraints(tried, constraints.require, constraints.worker, exclude)
        subqueue = self._backlog.file(task, record.seq, rank_of(task), constraints, now)
        self._backlog.show(subqueue, self._fleet)
        self._time(subqueue, waits=not record.tried_waived and bool(tried or avoid is not None))

    def within_reach(self, constraints: Constraints, now: float) -> frozenset[Group]:
        """Return the groups that may take such a task and can be back in time: those of a round.

        If none can, it is all that are live.
        """
        live = self.live_for(constraints)
        for group in live:
            if group.until is not None:
                break
        else:
            return live
        near = [group for group in live if self._is_near(group, now)]
        return live if not near or len(near) == len(live) else frozenset(near)

    def _is_near(self, group: Group, now: float) -> bool:
        """Return whether a group is worth waiting for: one that is ill is not, however soon its probe is."""
        if group.until is None:
            return True
        return not group.ejected and group.until <= now + self._affinity_wait

    def _is_in_vain(
        self, constraints: Constraints, tried: frozenset[Group], avoid: int | None, now: float
    ) -> bool:
        """Return whether no untried worker can be back in time, so that waiting for one is useless."""
        if not self._fleet.live:
            return False
        if avoid is None and constraints == _ANYBODY:
            return not any(group not in tried and self._is_near(group, now) for group in self._fleet.live)
        return not any(
            slot.group not in tried
            and slot.id != avoid
            and self._fleet.present(slot)
            and constraints.suits(slot)
            and self._is_near(slot.group, now)
            for slot in self._fleet
        )

    def review_tried(self, now: float) -> None:
        """Let any worker take the tasks whose untried workers can't be back in time."""
        for subqueue in list(self._backlog.subqueues.values()):
            constraints = subqueue.constraints
            waits = constraints.tried or constraints.exclude  # of which one may have been taken from it
            if waits and self._is_in_vain(constraints, constraints.tried, None, now):
                for _, since, task in self._backlog.empty(subqueue):
                    self._refile(task, since, waive_tried=True)

    def live_for(self, constraints: Constraints) -> frozenset[Group]:
        """Return the live groups that a task with these requirements could go to."""
        live = self._fleet.live
        if constraints == _ANYBODY:
            return live
        fit = (slot for slot in self._fleet if self._fleet.present(slot) and constraints.suits(slot))
        return frozenset(slot.group for slot in fit)

    def _time(self, subqueue: Subqueue, *, waits: bool) -> None:
        """Set the timer that limits how long the tasks of `subqueue` wait for an untried worker."""
        if waits and subqueue.tasks and not subqueue.timed:
            subqueue.timed = True
            first = min(entry[1] for entry in subqueue.tasks)
            self._timers.add(first + self._affinity_wait, self._waive_tried, subqueue)

    def _waive_tried(self, subqueue: Subqueue, now: float) -> None:
        """Let any worker take the tasks of `subqueue` that have waited long enough for an untried one.

        A little early, so that it need not be looked through for each of them.
        """
        subqueue.timed = False
        soon = now + EARLY * self._affinity_wait - self._affinity_wait
        due = [entry for entry in subqueue.tasks if entry[1] <= soon]
        if due:
            subqueue.tasks = [entry for entry in subqueue.tasks if entry[1] > soon]
            heapify(subqueue.tasks)
            self._backlog.filed -= len(due)
            for _, _, task in sorted(due, key=lambda entry: entry[0]):
                self._refile(task, now, waive_tried=True)
        if subqueue.tasks:
            self._time(subqueue, waits=True)
        else:
            self._backlog.close(subqueue)

    def _refile(self, task: AnyTask, now: float, *, waive_tried: bool) -> None:
        """File a task again that has just been taken out of its subqueue."""
        if task._withdrawn:
            self._backlog.bury(task)
            return
        record = task._record
        assert record is not None
        record.tried_waived = waive_tried
        self.file(task, record, now)

    def review_live(self) -> None:
        """Refile what every group that is left has tried. For when a group is live no more."""
        for subqueue in list(self._backlog.subqueues.values()):
            tried = subqueue.constraints.tried
            if tried and tried >= self.live_for(subqueue.constraints):
                for _, since, task in self._backlog.empty(subqueue):
                    self._refile(task, since, waive_tried=False)
