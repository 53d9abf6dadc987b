"""Tasks with two attempts under way, and how each comes to one end.

Such a task is a *race*. Each attempt has one owner as ever, whoever gets its context out of its slot's box
(H5). To end the task with a success, the second attempt has to take the first one over: so the first, which
runs in the hot loop, needs no look at anything but the table of races, after its success. Whoever ends an
attempt in any other way asks here, under the pool's lock, what that means for the task: the other attempt
goes on alone and owns it, or the other is taken over and the task ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from retrypool.core.hedging import Hedging
from retrypool.events import AttemptEnded
from retrypool.model.completion import Reporter
from retrypool.model.context import Context
from retrypool.model.record import Attempt, Record
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.states import Outcome
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.works import Works

__all__ = ["Race", "Races"]

AnyTask = Task[Any, Any]

QUICKER = "another attempt of the task was quicker"


class Race:
    """A task with two attempts under way. All fields are written under the pool's lock."""

    __slots__ = ("data", "first", "lost", "second", "settled", "task")

    def __init__(self, task: AnyTask, first: Context, second: Context) -> None:
        self.task = task
        self.data = task.data  # which the task may let go of when the first attempt ends it
        self.first = first
        self.second = second
        self.lost = (
            False  # the task has ended while the second attempt was just ending: that counts for nothing
        )
        self.settled = threading.Event()  # set once the first attempt can't win any more, or has won

    def other(self, ctx: Context) -> Context:
        """Return the attempt that is not this one."""
        return self.first if ctx is self.second else self.second


class Races:
    """The races of a pool."""

    def __init__(self, engine: Works, hedging: Hedging) -> None:
        self._engine = engine
        self._hedging = hedging
        # Written under the pool's lock; read without it by who has just emptied the box of a first attempt
        # (H15).
        self.under_way: dict[AnyTask, Race] = {}

    def before(self, remember: Callable[[AnyTask, Record], None]) -> Callable[[AnyTask, Record], None]:
        """Return what takes notice of a success before its task has ended, and then calls `remember`."""

        def note(task: AnyTask, record: Record) -> None:
            slot = task._slot
            assert slot is not None
            self._hedging.succeeded(slot.group, task._ended - task._started)
            if task in self.under_way:  # H15: the box was emptied before this
                self._first_has_won(task, record)
            remember(task, record)

        return note

    def _first_has_won(self, task: AnyTask, record: Record) -> None:
        """Let the second attempt of a task be lost that the first has just succeeded with."""
        engine = self._engine
        beaten = None
        spin_while_held(engine.lock)
        with engine.step:
            race = self.under_way.get(task)
            if race is not None:  # else the second has failed meanwhile
                task._record = record
                record.number = race.first.attempt
                beaten = self._beat(race, race.second, record, Outcome.SUPERSEDED)
                if beaten is None:
                    self._lose(race)
        if beaten is not None:
            task._report_to(beaten)

    def wins(self, slot: Slot, ctx: Context) -> bool:
        """Return whether an attempt that has succeeded, and is out of its box, ends its task.

        A second attempt that finds the first one just ending waits for what comes of that: a few steps,
        unless the user's code is among them.
        """
        engine, task = self._engine, ctx._task
        while True:
            settled = beaten = late = None
            with engine.step:
                race = self.under_way.get(task)
                won = race is None or ctx is race.first
                if race is not None and ctx is race.second:
                    record = task._record
                    assert record is not None
                    if race.lost:
                        late = self.come_too_late(ctx)
                    elif beaten := self._beat(race, race.first, record, Outcome.SUPERSEDED):
                        won = True
                        record.number = ctx.attempt
                        task._slot = slot
                        self._hedging.won += 1
                    else:
                        settled = race.settled
            if settled is None:
                if beaten is not None:
                    task._report_to(beaten)
                if late is not None:
                    self._tell(task, slot, late)
                return won
            settled.wait()

    def is_lost(self, ctx: Context) -> bool:
        """Return whether the task of an attempt has ended without it. Under the lock."""
        race = self.under_way.get(ctx._task)
        return race is not None and race.lost

    def come_too_late(self, ctx: Context) -> Attempt:
        """Enter an attempt whose task had ended when it did: it counts for nothing. Under the lock."""
        race = self.under_way.pop(ctx._task)
        record = race.task._record
        assert record is not None
        return self._enter(ctx, record, Outcome.SUPERSEDED)

    def leave(self, task: AnyTask, slot: Slot) -> bool:
        """Let the other attempt of a race go on alone: the one at `slot` is over, and was entered.

        Returns False if there is no race. Called by the owner of the attempt at `slot`, under the lock.
        """
        race = self.under_way.pop(task, None)
        if race is None:
            return False
        other = race.second if race.first._slot is slot else race.first
        task._slot = other._slot
        record = task._record
        if record is not None:
            record.number = other.attempt
            record.deciding = False  # H7: written, then `cancelled` is read
            if record.cancelled:
                self._engine.unwanted.append(task)
        race.settled.set()
        return True

    def abandon(self, task: AnyTask, slot: Slot) -> bool:
        """Take an attempt out of its race that could not be brought to its end; return whether it was."""
        engine = self._engine
        with engine.step:
            race = self.under_way.get(task)
            found = race is not None
            if race is not None and race.lost:
                self.come_too_late(race.second)
            elif found:
                self.leave(task, slot)
        return found

    def end(self, ctx: Context) -> tuple[bool, Reporter | None]:
        """Say what becomes of a task one attempt of which was ended so that the task ends. Under the lock.

        Returns whether the task is somebody else's all the same, and who is to be told once it has ended.
        If the first attempt is just ending, its success stands; after a failure, the task is cancelled.
        """
        task = ctx._task
        race, record = self.under_way.get(task), task._record
        if race is None or record is None:
            return False, None
        other = race.other(ctx)
        if beaten := self._beat(race, other, record, Outcome.CANCELLED):
            return False, beaten
        if other is race.second:
            self._lose(race)
            return False, None
        self.leave(task, ctx._slot)
        record.cancelled = True
        return True, None

    # -- steps -----------------------------------------------------------------------------------

    def _beat(self, race: Race, ctx: Context, record: Record, outcome: Outcome) -> Reporter | None:
        """Take an attempt over whose task ends without it; None if it is just ending. Under the lock."""
        if not self._engine.takeovers.take_over(ctx._slot, ctx):
            return None
        del self.under_way[race.task]
        return _Beaten(self, ctx, self._enter(ctx, record, outcome))

    def _lose(self, race: Race) -> None:
        race.lost = True
        race.settled.set()

    def _enter(self, ctx: Context, record: Record, outcome: Outcome) -> Attempt:
        slot, now = ctx._slot, self._engine.monotonic()
        attempt = Attempt(ctx.attempt, slot.id, slot.group.name, ctx._started, now, outcome)
        record.history.append(attempt)
        record.entries += 1
        record.running_time += now - ctx._started
        slot.lost[outcome._value_] += 1
        self._engine.scheduler.probe_not_made(slot, now)
        return attempt

    def stop(self, task: AnyTask, ctx: Context, attempt: Attempt) -> None:
        """Tell the code of an attempt that was beaten that nobody waits for it. Called outside the lock."""
        takeovers, slot = self._engine.takeovers, ctx._slot
        takeovers.stop(slot, ctx, QUICKER, interrupt=task._settings.interrupt_on_timeout)
        self._tell(task, slot, attempt)
        ctx._let_go()
        takeovers.settled()

    def _tell(self, task: AnyTask, slot: Slot, attempt: Attempt) -> None:
        engine = self._engine
        if engine.journal is not None:
            engine.journal.over(slot)
        if engine.observers.wants_ended:
            engine.observers.tell(AttemptEnded(attempt.ended, task, attempt))


class _Beaten(Reporter):
    """Stops the attempt that was beaten, once its task has ended."""

    __slots__ = ("_attempt", "_left", "_races")

    def __init__(self, races: Races, ctx: Context, attempt: Attempt) -> None:
        self._races = races
        self._left = [ctx]  # taken out by the first who tells of the end: there may be two
        self._attempt = attempt

    def report(self, task: AnyTask) -> None:
        """Stop it, unless that has been done."""
        try:
            ctx = self._left.pop()
        except IndexError:
            return
        self._races.stop(task, ctx, self._attempt)
