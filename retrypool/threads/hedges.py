"""Second attempts of tasks that take much longer than others: begun where nobody has anything to do.

Workers that come to have nothing to do look for a straggler, and so does the watchdog for those that have had
nothing to do for a while. What becomes of the two attempts is told in `races`.
"""

from __future__ import annotations

from collections.abc import Iterator
from logging import INFO
from math import inf
from typing import Any

from retrypool.callbacks import log_safely
from retrypool.core.hedging import Hedging
from retrypool.events import AttemptStarted
from retrypool.model.chunk import Chunk
from retrypool.model.context import Context, begin
from retrypool.model.describe import worker_fields
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.threads.races import Race
from retrypool.threads.works import Works

__all__ = ["Hedges"]

AnyTask = Task[Any, Any]


class Hedges:
    """Begins second attempts."""

    def __init__(self, engine: Works, hedging: Hedging) -> None:
        self.hedging = hedging
        self._engine = engine
        self._races = engine.races.under_way
        self._scheduler = engine.scheduler
        self._fleet = engine.scheduler.fleet
        self._alarm: float | None = None  # when running attempts will be looked at; under the pool's lock

    # -- a second attempt begins -----------------------------------------------------------------

    def begin(self, slot: Slot) -> tuple[Race, AttemptStarted | None] | None:
        """Let a worker that has just been parked begin a second attempt, if a task needs one.

        Returns the race, whose second attempt is in the slot's box, and what is to be told of it. Called by
        the worker's thread.
        """
        engine, fleet = self._engine, self._fleet
        found = None
        with engine.step:
            now = engine.monotonic()
            # Who was called under the lock meanwhile is not parked any more, and goes to see what for.
            if (
                slot in fleet.parked
                and (first := self._straggler_for(slot, now)) is not None
                and fleet.unpark(slot)
            ):
                # H1: from here on nobody can call the slot for what is in the queue, so it looks itself.
                # It may have been called already (H8): so nobody is to rely on it, and then it looks.
                engine.waking.searching = False
                found = None if engine.injector else self._race(slot, first, now)
                if found is None:
                    fleet.parked[slot] = None
            self._set_alarm(now)
        if found is not None:
            race = found[0]
            if race.second._expires < engine.watchdog.wakes_at:
                engine.watchdog.expect(race.second._expires)
            log_safely(
                INFO,
                "task %s has run for %.3g s on %s: %s begins it too",
                race.task.id,
                race.second._started - race.first._started,
                race.first._slot.name,
                slot.name,
                extra=worker_fields(engine.name, "task_hedged", slot),
            )
        return found

    def _race(self, slot: Slot, first: Context, now: float) -> tuple[Race, AttemptStarted | None] | None:
        task, attempts = first._task, self._engine.attempts
        span = task._settings.span
        second = begin(task, slot, now, attempts.expiry(task, now) if span is None else now + span)
        second.attempt += 1
        race = Race(task, first, second)
        # Handshake H15: enter the race, then look whether the first attempt is still in its box.
        self._races[task] = race
        if first not in first._slot.running:
            del self._races[task]
            return None
        event = attempts.starting(second) if self._engine.observers.wants_started else None
        slot.running.append(second)
        slot.idle = False
        slot.go = True
        record = task._record
        self._fleet.charge(slot, 1.0 if record is None else record.cost, now)
        self.hedging.hedged += 1
        return race, event

    def _straggler_for(
        self, slot: Slot, now: float, spoken_for: frozenset[AnyTask] = frozenset()
    ) -> Context | None:
        """Return the attempt that has run the longest of those that `slot` may help out. Under the lock."""
        limit = self.hedging.limit()
        if (
            limit is None
            or self._scheduler.over
            or self._fleet.quarantine.outage is not None
            or slot.group.until is not None
            or not self.hedging.allows_another(self._attempts())
            or self.hedging.is_slow(slot.group, limit)
        ):
            return None
        late = [
            ctx
            for ctx in self._alone()
            if ctx._started + limit <= now
            and ctx._task not in spoken_for
            and ctx._slot.group is not slot.group
            and _suits(slot, ctx._task)
        ]
        return min(late, key=lambda ctx: ctx._started, default=None)

    def _alone(self) -> Iterator[Context]:
        """Yield the attempts under way that may have a second one beside them."""
        for slot in self._fleet:
            for ctx in self._scheduler.running_at(slot):
                task = ctx._task  # an attempt that has just failed has let go of it
                if isinstance(task, Task) and task not in self._races and _may_be_hedged(task):
                    yield ctx

    def _attempts(self) -> int:
        """Return how many attempts there have been, those under way included."""
        return sum([slot.attempts() + len(slot.running) for slot in self._fleet])

    # -- when to look ----------------------------------------------------------------------------

    def expect(self) -> None:
        """See to it that a task that is about to be begun is looked at, should it take long."""
        if self._alarm is None:  # a hint: whoever clears it looks at all that runs after that
            engine = self._engine
            with engine.step:
                self._set_alarm(engine.monotonic())

    def _set_alarm(self, now: float) -> None:
        """Have the attempts under way looked at when the first of them may have become a straggler.

        As long as some worker is at work and another has nothing to do. Whoever comes to have nothing to do
        comes by `begin`; whoever has been idle and comes to work, by `expect`. And nobody can be a straggler
        before enough have succeeded, who come by one or the other after that.
        """
        limit = self.hedging.limit()
        if self._alarm is not None or limit is None:
            return
        idle = [slot.idle for slot in self._fleet]
        if all(idle) or not any(idle):
            return
        earliest = min((ctx._started + limit for ctx in self._alone()), default=inf)
        if not now < earliest < now + limit:  # one that nobody could help yet; or none has begun yet
            earliest = now + limit
        self._alarm = earliest
        self._scheduler.timers.add(earliest, self._look, None)

    def _look(self, _: None, now: float) -> None:
        """Wake a parked worker for each straggler that it may help out."""
        self._alarm = None
        spoken_for: frozenset[AnyTask] = frozenset()
        for slot in list(self._fleet.parked):
            ctx = self._straggler_for(slot, now, spoken_for)
            if ctx is not None and self._fleet.unpark(slot):
                spoken_for |= {ctx._task}
                slot.wake()
        self._set_alarm(now)


def _may_be_hedged(task: AnyTask) -> bool:
    """Return whether a task may have two attempts under way at once."""
    settings, record = task._settings, task._record
    return (
        settings.hedge
        and record is not None
        and not record.cancelled
        and record.charged + 2 <= settings.attempts
        and (settings.drain is None or settings.drain.withholds)
        and task.data.__class__ is not Chunk
    )


def _suits(slot: Slot, task: AnyTask) -> bool:
    record = task._record
    return (
        task._settings.constraints.suits(slot)
        and record is not None
        and slot.group not in record.tried
        and slot.id != record.avoid
    )
