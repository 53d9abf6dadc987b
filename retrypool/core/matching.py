"""Which worker gets which task, and when: tasks are queued here, and claimed.

Pure, and under the pool's lock, except for `admits`.
"""

from __future__ import annotations

from contextlib import suppress
from heapq import heappop
from typing import Any

from retrypool.attempt import NO_GROUPS
from retrypool.core.agenda import Agenda
from retrypool.core.blame import Scope
from retrypool.core.health import Group
from retrypool.core.queue import Audience, Backlog, Lane, rank_of
from retrypool.core.seat import Seat
from retrypool.core.staff import Staff
from retrypool.task import Record, Task, TaskState

__all__ = ["AnyTask", "Matching"]

AnyTask = Task[Any, Any]

_ANYBODY = Audience()


class Matching:
    """Tasks that can be claimed, and workers that can claim them."""

    def __init__(self, agenda: Agenda, staff: Staff, *, affinity_wait: float) -> None:
        self.agenda = agenda
        self.staff = staff
        self.backlog = Backlog()
        self.affinity_wait = affinity_wait
        self.counts_firsts = False  # whether all claims come this way, so that they can be counted
        self.firsts = 0  # claims of tasks that nobody has tried, while that is counted

    # -- tasks in, tasks out ---------------------------------------------------------------------

    def enqueue(self, task: AnyTask, now: float) -> None:
        """Let a task be claimed from now on, behind those of its rank that already can be."""
        record = task._record
        if record is not None:
            record.seq = self.backlog.next_seq()
        line = self.backlog.arrivals.open_line(task._settings.priority)
        if line is not None and (record is None or record.plain):
            line.append(task)
        else:
            if record is None:
                task._record = record = Record(task.id)
            self._file(task, record, now)
        self._rouse()

    def claim(self, seat: Seat, now: float, handed: AnyTask | None = None) -> AnyTask | None:
        """Return the task that `seat` is to run now, or park it and return None.

        `handed` is a task that the worker took from the arrivals and may not simply run: because the
        seat is not `direct`, or because the task is not for it.
        """
        # It may have been let in again, while it slept, after it had already been called.
        self.staff.unpark(seat)
        if handed is not None:
            self._take_back(handed, seat, now)
        task = None if self.staff.barred(seat, now) else self._next_for(seat, now)
        if task is None:
            self._park(seat, now)
        else:
            self._seat_at(seat, task, now)
        self._rouse()
        return task

    def give_back(self, seat: Seat, task: AnyTask, now: float) -> None:
        """Undo a claim, before anything came of it."""
        task._phase = TaskState.QUEUED
        record = task._record
        self.firsts -= record is None or not record.entries
        self.staff.settle(seat, -1.0 if record is None else -record.cost, now)
        self.staff.probe_not_made(seat, now)
        self._take_back(task, seat, now)
        self._rouse()

    def admits(self, seat: Seat, task: AnyTask) -> bool:
        """Return whether `seat` may run `task`, which it has just taken from the arrivals."""
        record = task._record
        return record is None or record.parole or seat.group not in record.tried

    # -- workers ---------------------------------------------------------------------------------

    def add(self, seat: Seat) -> None:
        """Add a worker."""
        self.staff.add(seat)
        self.backlog.review(seat)

    def retire(self, seat: Seat, now: float) -> None:
        """Give `seat` nothing any more. If its group goes with it, what all others tried starts afresh."""
        before = self.staff.live
        self.staff.retire(seat, now)
        self._review_live(before)

    def attempt_over(self, seat: Seat, scope: Scope | None, now: float) -> None:
        """Let the group of `seat` answer for an attempt; see `Staff.attempt_over`."""
        self.staff.attempt_over(seat, scope, now)
        self._rouse()

    def probe_not_made(self, seat: Seat, now: float) -> None:
        """Let another worker of the group make the probe; see `Staff.probe_not_made`."""
        self.staff.probe_not_made(seat, now)
        self._rouse()

    def forgive(self, group: Group, now: float) -> None:
        """Open a group, whatever is known against it."""
        self.staff.forgive(group, now)
        self._rouse()

    def bar(self, seat: Seat, reason: str) -> None:
        """Give `seat` nothing for good."""
        before = self.staff.live
        self.staff.bar(seat, reason)
        self._review_live(before)

    def remove(self, seat: Seat) -> None:
        """Forget a retired worker."""
        self.staff.seats.pop(seat, None)
        seat.standings.clear()

    # -- lanes -----------------------------------------------------------------------------------

    def _file(self, task: AnyTask, record: Record, now: float) -> None:
        """Put a task into the lane that it belongs to."""
        audience = task._settings.audience
        if record.tried and record.tried >= self._live_for(audience):
            record.tried = NO_GROUPS
        if record.tried and not record.parole:
            audience = Audience(record.tried, *audience[1:])
        lane = self.backlog.file(task, record.seq, rank_of(task), audience, now)
        self.backlog.show(lane, self.staff)
        self._time(lane)

    def _live_for(self, audience: Audience) -> frozenset[Group]:
        """Return the live groups that a task with these requirements could go to."""
        live = self.staff.live
        if audience == _ANYBODY:
            return live
        fit = (seat for seat in self.staff if self.staff.present(seat) and audience.suits(seat))
        return frozenset(seat.group for seat in fit)

    def _time(self, lane: Lane) -> None:
        """See to it that no task of `lane` waits longer than `affinity_wait` for an untried worker."""
        if lane.audience.tried and lane.tasks and not lane.timed:
            lane.timed = True
            self.agenda.add(lane.tasks[0][1] + self.affinity_wait, self._parole, lane)

    def _parole(self, lane: Lane, now: float) -> None:
        """Let any worker take the tasks of `lane` that have waited long enough for an untried one."""
        lane.timed = False
        tasks = lane.tasks
        while tasks and tasks[0][1] + self.affinity_wait <= now:
            self._refile(heappop(tasks)[2], now, parole=True)
        if tasks:
            self._time(lane)
        else:
            self.backlog.close(lane)

    def _refile(self, task: AnyTask, now: float, *, parole: bool) -> None:
        """File a task anew that has just been taken out of its lane."""
        if task._withdrawn:
            self.backlog.ghosts -= 1
            return
        record = task._record
        assert record is not None
        record.parole = parole
        self._file(task, record, now)

    def _review_live(self, before: frozenset[Group]) -> None:
        """If a group is live no more, refile what every group that is left has tried."""
        if self.staff.live >= before:
            self._rouse()  # a probe that left may have let others in
            return
        for lane in list(self.backlog.lanes.values()):
            tried = lane.audience.tried
            if tried and tried >= self._live_for(lane.audience):
                tasks = list(lane.tasks)
                lane.tasks.clear()
                self.backlog.close(lane)
                for _, since, task in tasks:
                    self._refile(task, since, parole=False)
        self._rouse()

    # -- claiming --------------------------------------------------------------------------------

    def _take_back(self, task: AnyTask, seat: Seat, now: float) -> None:
        """Undo a worker's taking of a task: it goes back to where it was."""
        task._seat = None
        record = task._record
        if task._withdrawn:
            self.backlog.ghosts -= 1
            return
        line = self.backlog.arrivals.line(task._settings.priority)
        if line is not None and (record is None or (record.plain and self.admits(seat, task))):
            line.appendleft(task)
        else:
            assert record is not None
            self._file(task, record, now)

    def _next_for(self, seat: Seat, now: float) -> AnyTask | None:
        """Take the task that is first in order among those that `seat` may run."""
        while (task := self._first(seat)) is not None:
            if task._withdrawn:
                self.backlog.ghosts -= 1
            elif not self.admits(seat, task):
                assert task._record is not None
                self._file(task, task._record, now)
            else:
                return task
        return None

    def _first(self, seat: Seat) -> AnyTask | None:
        """Take the first task in order from the seat's lanes or the arrivals; None if there is none."""
        backlog = self.backlog
        lane = backlog.best(seat)
        place = None if lane is None else seat.standings[0][0]
        task = backlog.arrivals.popleft_before(place)
        if task is None and lane is not None:
            return backlog.take(lane)
        return task

    def _seat_at(self, seat: Seat, task: AnyTask, now: float) -> None:
        """Let `seat` have `task`, and say whether it may help itself next time."""
        task._seat = seat
        seat.go = True
        staff = self.staff
        if seat.group.until is not None:
            staff.start_probe(seat)
        seat.direct = self._may_be_direct(seat)
        record = task._record
        self.firsts += record is None or not record.entries
        if seat.group.pace is not None or staff.pace is not None:
            staff.charge(seat, 1.0 if record is None else record.cost, now)

    def _may_be_direct(self, seat: Seat) -> bool:
        if self.counts_firsts or not self.staff.may_help_itself(seat):
            return False
        return self.backlog.best(seat) is None

    def _park(self, seat: Seat, now: float) -> None:
        """Let `seat` wait.

        Whoever calls this looks at the arrivals once more *after* it: a dispatcher appends and then
        looks for parked seats.
        """
        seat.direct = self._may_be_direct(seat)
        self.staff.park(seat, now)

    def _rouse(self) -> None:
        """Wake one parked worker that something waits for; it will wake the next.

        Called at the end of whatever may have left work for somebody who sleeps.
        """
        parked = self.staff.parked
        if not parked:
            return
        if self.backlog.lanes:
            for seat in list(parked):
                if self.backlog.best(seat) is not None:
                    parked.pop(seat, None)
                    seat.wake()
                    return
        if self.backlog.arrivals:
            with suppress(KeyError):  # dispatchers may be quicker
                seat, _ = parked.popitem()
                seat.wake()
