"""Ending an attempt from outside its thread: because its time is up, or because it is not wanted any more.

Whoever gets the context out of its slot's box owns the attempt from then on (see `outcome`), and takes it
the same way: entered, its code told to stop, and its task's fate decided and carried out. Its thread finds
the box empty when it comes back.
"""

from __future__ import annotations

from math import inf
from typing import Any, Literal

from retrypool.core.records import ended_early
from retrypool.errors import AttemptTimeout, RetryPoolError
from retrypool.events import AttemptEnded, WorkerReturned
from retrypool.model.chunk import Chunk
from retrypool.model.context import Context
from retrypool.model.slots import Slot
from retrypool.model.task import Attempt, Task
from retrypool.policy.retry import UNCHARGED, UNLIMITED
from retrypool.states import DeadReason, Outcome
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.works import Works

__all__ = ["Fate", "Takeovers"]

Fate = Literal["retry", "drop", "dead"]
"""What becomes of a task whose attempt is ended from outside."""


class Takeovers:
    """Ends attempts from outside. Called outside the pool's lock, but for what says otherwise."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self._attempts = engine.attempts
        self._scheduler = engine.scheduler
        self._observers = engine.observers
        self._monotonic = engine.clock.monotonic

    def take_over(self, slot: Slot, ctx: Context) -> bool:
        """Make an attempt one's own, unless its worker has just ended it. Called under the lock.

        The slot is stuck from then on, until its thread comes back, which may be at once.
        """
        if ctx not in slot.running:
            return False
        slot.stuck = ctx  # first: a thread that finds its box empty looks here
        try:
            slot.running.remove(ctx)  # atomic: the worker's pop gets it, or this
        except ValueError:
            slot.stuck = None
            return False
        self._scheduler.undecided += 1
        return True

    def settled(self) -> None:
        """Take notice that the fate of a task is decided whose attempt was taken over."""
        engine = self._engine
        spin_while_held(engine.lock)
        with engine.step:
            self._scheduler.undecided -= 1

    def take_overdue(self, now: float) -> tuple[list[tuple[Slot, Context]], float]:
        """Take over what is out of time; say when the next one will be. Called under the lock."""
        overdue: list[tuple[Slot, Context]] = []
        earliest = inf
        for slot in self._scheduler.fleet:
            for ctx in self._scheduler.running_at(slot):
                if ctx._expires > now:
                    earliest = min(earliest, ctx._expires)
                elif self.take_over(slot, ctx):
                    slot.timed_out += 1
                    overdue.append((slot, ctx))
        return overdue, earliest

    def timed_out(self, slot: Slot, ctx: Context, now: float) -> None:
        """Go on with an attempt that was taken over because its time was up."""
        error = AttemptTimeout(*self._attempts.time_left(ctx._task, ctx._started))
        try:
            self._attempts.failed(slot, ctx, error, now, over=True)
        finally:
            self.settled()

    def end(self, slot: Slot, ctx: Context, fate: Fate, reason: str, *, interrupt: bool = False) -> None:
        """End an attempt that was taken over because somebody wants so, and decide its task's fate."""
        self._attempts.deciding.add(ctx)
        try:
            self._end(slot, ctx, fate, reason, interrupt=interrupt)
        finally:
            self._attempts.deciding.discard(ctx)
            self.settled()

    def _end(self, slot: Slot, ctx: Context, fate: Fate, reason: str, *, interrupt: bool) -> None:
        task = ctx._task
        outcome = Outcome.WITHDRAWN if fate == "retry" else Outcome.CANCELLED
        ended = self._monotonic()
        attempt = Attempt(ctx.attempt, slot.id, slot.group.name, ctx._started, ended, outcome)
        races, left, beaten = self._engine.races, False, None
        with self._engine.lock:
            if races is not None and races.is_lost(ctx):
                attempt, left = races.come_too_late(ctx), True
            else:
                slot.lost[outcome._value_] += 1
                ended_early(task, attempt)
                if races is not None:
                    if fate == "retry":
                        left = races.leave(task, slot)
                    else:
                        left, beaten = races.end(ctx)
        self.stop(slot, ctx, reason, interrupt=interrupt)
        if type(task.data) is Chunk:
            task.data.go_on()
        if self._observers.wants_ended:
            self._observers.tell(AttemptEnded(attempt.ended, task, attempt))
        if slot.attentive:
            self._forget_probe(slot)
        match fate:
            case _ if left:  # to another attempt
                if self._engine.journal is not None:
                    self._engine.journal.failed(slot, task, 0.0)
            case "retry" if self._is_withdrawn_for_ever(task):
                self._attempts.bury(task, DeadReason.ATTEMPTS, RetryPoolError(f"{reason}, time and again"))
            case "retry":
                if self._engine.journal is not None:
                    self._engine.journal.failed(slot, task, 0.0)
                self._attempts.put_back(task, 0.0)
            case "drop":
                self._attempts.cancel(task, reason)
            case "dead":
                errors = task.errors
                error = errors[-1] if errors else RetryPoolError(reason)
                self._attempts.bury(task, DeadReason.CALLBACK, error)
        if beaten is not None:
            beaten.report(task)
        ctx._let_go()

    def _is_withdrawn_for_ever(self, task: Task[Any, Any]) -> bool:
        """Return whether a task was taken from its worker so often that it may be what does that."""
        record = task._record
        attempts = task._settings.attempts
        return record is not None and record.uncharged >= UNCHARGED and attempts != UNLIMITED

    def _forget_probe(self, slot: Slot) -> None:
        """Take notice that an attempt that was a probe has shown nothing."""
        engine = self._engine
        with engine.step:
            self._scheduler.probe_not_made(slot, self._monotonic())

    def stop(self, slot: Slot, ctx: Context, reason: object, *, interrupt: bool) -> None:
        """Tell the code that still runs that nobody waits for it.

        Callbacks on its token are called here, and may want to cancel the task: so it has been entered
        as being decided on before.
        """
        ctx._cancel(reason)
        if interrupt:
            slot.interrupt(ctx)
        self._engine.expect_back(slot, ctx)

    def came_back(self, slot: Slot, *, unfit: bool = False) -> None:
        """Take a worker back whose attempt had been taken over, as it is or to be made anew."""
        engine = self._engine
        spin_while_held(engine.lock)
        with engine.step:
            slot.stuck = None
            if slot.given_up:
                slot.given_up = False
                event = WorkerReturned(self._monotonic(), slot.id, slot.name, slot.group.name)
                self._scheduler.report(event)
            if unfit:
                self._scheduler.fleet.make_unfit(slot)
