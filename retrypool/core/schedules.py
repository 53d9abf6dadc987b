"""Schedules: when each ticks next, and which of its ticks become tasks.

Pure, and all of it under the pool's lock. What becomes of a tick:

    due → (pool paused, or the data of the last one still in the making: owed, and merged with the next)
        → (overlap="skip" and the last task has not ended: skipped)
        → `TickDue`, told outside the lock, where somebody makes the data and dispatches → `made`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from retrypool.core.fleet import Fleet
from retrypool.core.timers import SAME, Moment, Timers
from retrypool.events import Event
from retrypool.model.task import Task
from retrypool.policy.recurrence import Grid, Recurrence

__all__ = ["Overlap", "Plan", "Schedules", "TickDue"]

Overlap = Literal["skip", "queue"]
"""What becomes of a tick while the task of an earlier one has not ended."""

CLOCK_WAS_SET = 60.0
"""Seconds by which the wall clock must have been put back to make the ticks start over from there. Less
is a correction, after which none is to come twice."""


class Plan:
    """One schedule. `next` is on the clock that `dated` says, as are all the ticks of `ticks`.

    A grid that begins at a date is dated until it has begun, and keeps to the monotonic clock from then
    on; cron is dated for good.
    """

    __slots__ = (
        "base",
        "dated",
        "draw",
        "due",
        "jitter",
        "last_task",
        "making",
        "next",
        "number",
        "over",
        "overlap",
        "owed",
        "owner",
        "paused",
        "runs",
        "skipped",
        "start",
        "ticks",
        "times",
        "until",
    )

    def __init__(
        self,
        ticks: Recurrence,
        *,
        dated: bool,
        base: float = 0.0,
        start: float | None = None,
        until: Moment | None = None,
        times: int | None = None,
        jitter: float = 0.0,
        draw: Callable[[], float] = float,
        overlap: Overlap = "skip",
    ) -> None:
        self.ticks = ticks
        self.dated = dated
        self.base = base  # of a grid: what the wall clock shows at its first tick
        self.start = start  # on the wall clock: of a schedule with dates, no tick comes before it
        self.until = until
        self.times = times
        self.jitter = jitter
        self.draw = draw  # returns a number from 0 up to 1
        self.overlap = overlap
        self.owner: Any = None  # given by the threads: its `fire(tick)` makes a task of a tick
        self.next: float | None = None  # the next tick
        self.due = 0.0  # the same, jitter added
        self.number = 0  # of its appointments; those of a smaller number are past
        self.owed: float | None = None  # a tick that waits for the pool to be resumed, on the wall clock
        self.making = False  # the data of a tick is being made
        self.paused = False
        self.over = False
        self.runs = 0
        self.skipped = 0
        self.last_task: Task[Any, Any] | None = None

    def label(self, tick: float, now: float, wall: float) -> float:
        """Return what the wall clock shows at a tick.

        That of a grid is reckoned from its first tick, so that one at 12:01:00 is not told as
        12:00:59.99; if the wall clock has been set since, it is followed by whole seconds.
        """
        if self.dated:
            return tick
        assert isinstance(self.ticks, Grid)
        nominal = self.base + self.ticks.number(tick) * self.ticks.step
        return nominal + round(wall - (now - tick) - nominal)


@dataclass(frozen=True, slots=True)
class TickDue(Event):
    """A tick is to become a task. For the engine itself; nobody is told."""

    plan: Plan
    tick: float  # on the wall clock


@dataclass(frozen=True, slots=True)
class Visit:
    """An appointment with a plan."""

    plan: Plan
    number: int

    @property
    def past(self) -> bool:
        """Whether the plan has another appointment by now, or none."""
        return self.number != self.plan.number


class Schedules:
    """The schedules of a pool that are not over."""

    def __init__(self, timers: Timers, fleet: Fleet, report: Callable[[Event], None]) -> None:
        self._timers = timers
        self._fleet = fleet
        self._report = report
        self.plans: dict[Plan, None] = {}  # in the order in which they were made
        # What the two clocks showed when they were last read together.
        self._now = 0.0
        self._wall = -inf

    # -- what may be done to a schedule ----------------------------------------------------------

    def add(self, plan: Plan, first: float | None) -> None:
        """Add a schedule, whose first tick is this one."""
        self.plans[plan] = None
        self._arrange(plan, first)

    def pause(self, plan: Plan) -> None:
        """Skip the ticks of a schedule until `resume`."""
        if not plan.over and not plan.paused:
            plan.paused = True
            plan.owed = None
            self._forget_next(plan)

    def resume(self, plan: Plan) -> None:
        """Resume a schedule at its next tick."""
        if plan.paused:
            plan.paused = False
            self._arrange(plan, self._after(plan, self._here(plan)))

    def cancel(self, plan: Plan) -> None:
        """End a schedule."""
        plan.over = True
        plan.paused = False
        plan.owed = None
        self._forget_next(plan)
        self.plans.pop(plan, None)

    def stop(self) -> None:
        """End all schedules."""
        for plan in list(self.plans):
            self.cancel(plan)

    # -- time ------------------------------------------------------------------------------------

    def read(self, now: float, wall: float) -> None:
        """Read both clocks. Called before anything that depends on them."""
        gained = (wall - self._wall) - (now - self._now)
        self._now, self._wall = now, wall
        if gained <= -CLOCK_WAS_SET:
            # What was next by the old time may lie hours ahead by the new one.
            for plan in list(self.plans):
                if plan.dated and plan.next is not None:
                    self._arrange(plan, self._after(plan, wall))

    def catch_up(self) -> None:
        """Report the owed tick of each schedule: one, however many it missed."""
        for plan in list(self.plans):
            if plan.owed is not None and not plan.making:
                self._deliver(plan, plan.owed)
                self._tidy(plan)

    def made(self, plan: Plan, task: Task[Any, Any] | None) -> None:
        """Record the task that was made for a due tick, or that there was none."""
        plan.making = False
        if task is not None:
            plan.runs += 1
            plan.last_task = task
        elif not plan.over:
            plan.skipped += 1
        if plan.runs == plan.times:
            self.cancel(plan)
        elif plan.owed is not None and not self._fleet.paused:
            self._deliver(plan, plan.owed)
        self._tidy(plan)

    # -- steps -----------------------------------------------------------------------------------

    def _here(self, plan: Plan) -> float:
        return self._wall if plan.dated else self._now

    def _after(self, plan: Plan, moment: float) -> float | None:
        """Return the first tick of a schedule later than `moment`, and not before its start."""
        if plan.dated and plan.start is not None and moment < plan.start:
            return plan.ticks.after(plan.start - SAME)
        return plan.ticks.after(moment)

    def _arrange(self, plan: Plan, tick: float | None) -> None:
        """Set the next tick of a schedule, unless that is past its end."""
        self._forget_next(plan)
        if tick is not None and tick <= self._limit(plan) + SAME:
            plan.next = tick
            plan.due = tick + plan.jitter * plan.draw() if plan.jitter else tick
            visit = Visit(plan, plan.number)
            if plan.dated:
                self._timers.add_date(plan.due, self._visit, visit, now=self._now, wall=self._wall)
            else:
                self._timers.add(plan.due, self._visit, visit)
        self._tidy(plan)

    def _forget_next(self, plan: Plan) -> None:
        plan.number += 1
        plan.next = None

    def _visit(self, visit: Visit, _now: float) -> None:
        """A tick of a schedule is due; of those that were missed, the last one counts."""
        plan = visit.plan
        tick = plan.next
        if visit.past or tick is None:
            return
        plan.number += 1
        if plan.dated and isinstance(plan.ticks, Grid):
            tick = self._begin(plan, tick)
        latest = plan.ticks.latest(min(self._here(plan), self._limit(plan)))
        tick = tick if latest is None else max(tick, latest)
        self._deliver(plan, plan.label(tick, self._now, self._wall))
        self._arrange(plan, plan.ticks.after(max(tick, self._here(plan))))

    def _begin(self, plan: Plan, tick: float) -> float:
        """Move a grid to the monotonic clock at its first tick; return that tick there."""
        assert isinstance(plan.ticks, Grid)
        first = self._now - (self._wall - tick)
        plan.base = tick
        plan.dated = False
        plan.ticks = Grid(first, plan.ticks.step)
        return first

    def _limit(self, plan: Plan) -> float:
        """Return the time after which there are no ticks, on the plan's clock."""
        if plan.until is None:
            return inf
        until, dated = plan.until
        if dated is plan.dated:
            return until
        ahead = self._wall - self._now
        return until - ahead if dated else until + ahead

    def _deliver(self, plan: Plan, tick: float) -> None:
        if self._fleet.paused or plan.making:
            plan.owed = tick
            return
        plan.owed = None
        last = plan.last_task
        if plan.overlap == "skip" and last is not None and not last.done():
            plan.skipped += 1
            return
        plan.making = True
        self._report(TickDue(self._now, plan, tick))

    def _tidy(self, plan: Plan) -> None:
        """End a schedule that has no further tick."""
        if plan.next is None and plan.owed is None and not plan.making and not plan.paused:
            self.cancel(plan)
