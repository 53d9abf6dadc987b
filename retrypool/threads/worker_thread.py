"""The hot loop of a worker's thread: take a task, run it, say how it went. For the thread, see `runner`."""

from __future__ import annotations

import sys
from math import inf
from typing import Any, Generic, TypeVar

from retrypool.callbacks import call_guarded, log_broken
from retrypool.errors import Interrupted
from retrypool.model.chunk import Chunk
from retrypool.model.completion import Bell
from retrypool.model.context import Context, begin
from retrypool.model.slots import Slot
from retrypool.model.task import Record, Task
from retrypool.model.worker import AnyWorker, hook, run_of
from retrypool.states import TaskState
from retrypool.threads.chunks import run_chunk
from retrypool.threads.engine import Engine
from retrypool.threads.hedges import Hedges
from retrypool.threads.interrupt import Gate
from retrypool.threads.parker import Parker
from retrypool.threads.queue_limit import WayOut

__all__ = ["Loop", "call_hook"]

T = TypeVar("T")
R = TypeVar("R")

MOST_BREAKDOWNS = 10
"""How often in a row a worker may go on after an error that comes from nowhere that is known."""

_RUNNING = TaskState.RUNNING
_SUCCEEDED = TaskState.SUCCEEDED


class Loop(Generic[T, R]):
    """What the thread of one slot does as long as it has a worker."""

    __slots__ = (
        "_breakdowns",
        "_gate",
        "_handed",
        "_injector",
        "_parker",
        "_pause_noticed",
        "_succeeded_before",
        "broken",
        "engine",
        "made",
        "slot",
        "worker",
    )

    # Touched by that thread alone.
    def __init__(self, engine: Engine[T, R], slot: Slot, gate: Gate, parker: Parker) -> None:
        self.engine = engine
        self.slot = slot
        self.worker: AnyWorker[T, R] | None = None
        self.made = False  # the worker, by a factory: so it can be made again
        self.broken: BaseException | None = None  # by which it ended, after too many
        self._gate = gate
        self._parker = parker
        self._injector = engine.injector if engine.queue_limit is None else WayOut(engine, slot)
        self._pause_noticed = False
        self._breakdowns = 0  # in a row, without a success in between
        self._succeeded_before = -1  # successes at the last one
        self._handed: Task[T, R] | None = None  # what it has taken and may not simply run, for _next

    def serve(self) -> None:
        """Run one task after the other until the worker is to leave, or to be made anew.

        This is the hot loop. A plain task that succeeds is taken, run and ended by operations that are
        atomic each by itself, without a lock; whatever is more than that goes another way.
        """
        engine, slot = self.engine, self.slot
        attempts, successes = engine.attempts, engine.successes
        watchdog, monotonic = engine.watchdog, engine.monotonic
        injector, running, admits = self._injector, slot.running, engine.scheduler.admits
        popleft = injector.usual.popleft
        observers = engine.observers
        remember = engine.scheduler.history.entries.append
        run, takes_context = run_of(self.worker)
        gate = self._gate
        slot.asks, slot.idle, slot.away = takes_context, False, False
        expires, listening = inf, False
        task: Any = None
        ctx: Any = None
        start: Any = None  # what is told of an attempt that begins
        try:
            while True:
                try:
                    task = injector.popleft() if injector.several else popleft()
                except IndexError:
                    task = None  # and not `_next` here, which would sleep with the error and its frame
                else:
                    # Handshake H3: write _slot, then read _withdrawn.
                    task._slot = slot
                    if (
                        task._withdrawn
                        or not slot.direct
                        or (task._record is not None and not admits(slot, task))
                    ):
                        self._handed, task = task, None  # hold on to nothing while waiting
                if task is None:
                    task = self._next()
                    if task is None:
                        return
                task._phase = _RUNNING
                now = monotonic()
                record, span = task._record, task._settings.span
                if record is None and span == inf and not (slot.asks or observers.wants_started):
                    task._started = now
                    ctx = task  # it stands for its attempt, see `attempts_at`
                else:
                    expires = attempts.expiry(task, now) if span is None else now + span
                    ctx = begin(task, slot, now, expires)
                    listening = observers.wants_started  # looked at once: who bars the gate opens it again
                    if listening:
                        gate.barred = True  # without a lock: there is no attempt yet to be interrupted
                        start = attempts.starting(ctx)
                # From here on the attempt may be taken over: whoever gets it out of the box owns it.
                running.append(ctx)
                # Handshake H4: fill the box, then read `go`.
                if not slot.go:
                    self._give_back(task, ctx)
                    if listening and ctx is not task:
                        observers.release(start)
                        gate.unbar()
                    task = ctx = None
                    continue
                if ctx is not task:
                    if expires < watchdog.wakes_at:
                        watchdog.expect(expires)
                    if listening:
                        observers.tell(start)
                        gate.unbar()
                        if ctx._reason is not None:  # it was taken over before it has begun
                            self.came_back(ctx)
                            task = ctx = None
                            continue
                try:
                    if record is None or not record.wrapped:
                        result = run(ctx, task.data) if takes_context else run(task.data)
                    elif task.data.__class__ is Chunk:  # in all else it is plain, see `takes_chunks`
                        run_chunk(engine, ctx, task.data, run, takes_context=takes_context)
                        result = None
                    else:
                        result = self._run_wrapped(task, record, ctx, task.data)
                except BaseException as error:  # noqa: BLE001 - whatever it is, the task failed of it
                    self._failed(ctx, error)
                else:
                    try:
                        running.pop()
                    except IndexError:
                        self.came_back(ctx)
                    else:
                        task._started = now
                        task._ended = ended = monotonic()
                        task._outcome = result
                        if record is None:
                            remember((task.id, task._dispatched, now, ended))
                        else:
                            successes.remember(task, record)
                        slot.succeeded += 1
                        # Handshake H6: the task has ended with this write; then read _completion.
                        task._phase = _SUCCEEDED
                        if task._completion is not None:
                            task._completion.announce(task)  # the steps of `Task._announce`
                        if observers.talkative or slot.attentive or (record is not None and record.accused):
                            successes.tell(slot, task)
                # Hold on to nothing while waiting for the next one.
                task = record = ctx = result = None
        except Interrupted:
            raise
        except BaseException as broken:  # noqa: BLE001 - logged there
            self._break_down(task, broken)

    def _break_down(self, task: Task[T, R] | None, broken: BaseException) -> None:
        """Go on after an error of our own, or of what the user lent us: a clock, a worker's attributes.

        What the thread has in hand ends with the error, if its end is not decided by now.
        """
        log_broken("%s goes on after an error", self.slot.name)
        engine, slot = self.engine, self.slot
        self._breakdowns = 1 if slot.succeeded != self._succeeded_before else self._breakdowns + 1
        self._succeeded_before = slot.succeeded
        if self._breakdowns >= MOST_BREAKDOWNS:
            self.broken = broken
        with engine.lock:
            under_way, stuck = engine.scheduler.running_at(slot), slot.stuck
        if under_way:
            self._failed(under_way[-1], broken)
        elif task is not None and stuck is None:
            engine.attempts.lost(slot, task, broken)

    def _run_wrapped(self, task: Task[T, R], record: Record, ctx: Context, data: T) -> R:
        """Run what the hot loop does not simply run, and see to what its success brings with it."""
        wraps_up = task._settings.wraps_up
        if wraps_up:
            ctx._withheld = []
        journal = self.engine.journal
        if journal is not None:
            journal.begin(ctx, self.slot, task)
        run, takes_context = run_of(self.worker)
        context = record.context
        # The frame of `run` holds this one, and an error's traceback that: so nothing here may lead back
        # to the error.
        del task, record
        # An ended task may have dropped its data. This is asked after the data was read: whoever ends
        # the task cancels the context first.
        ctx.check()
        if self.engine.scheduler.fleet.is_measured(self.slot):
            self.engine.costs.measure(self.slot, ctx, data)
        arguments = (ctx, data) if takes_context else (data,)
        if context is None:
            result: R = run(*arguments)
        else:
            # In a copy: an attempt that is over may still be running in the context itself.
            result = context.copy().run(run, *arguments)
        if wraps_up:
            self._finish(ctx, result)
        return result

    def _finish(self, ctx: Context, result: R) -> None:
        """End a task before the hot loop does, which will find its box empty, as after a take-over."""
        try:
            self.slot.running.pop()
        except IndexError:
            pass
        else:
            self.engine.successes.finish(self.slot, ctx, result)

    def _next(self) -> Task[T, R] | None:
        """Return the next task, waiting for it; None when the worker is to leave or to be made anew."""
        engine, slot = self.engine, self.slot
        handed, self._handed = self._handed, None
        while True:
            if handed is not None or not engine.waking.park_at_once(slot):
                task = engine.waking.claim(slot, handed)
                if task is not None:
                    self._notice_pause(False)
                    if engine.hedges is not None:
                        engine.hedges.expect()
                    return task
                handed = None
                if slot.retired or slot.unfit:
                    return None
                self._notice_pause(engine.scheduler.fleet.has_paused(slot))
            if engine.hedges is not None and self._help_out(engine.hedges):
                continue
            engine.waking.wait_for_call(slot, self._parker)
            handed = self._help_itself()
            if (
                handed is not None
                and not handed._withdrawn
                and slot.direct
                and engine.scheduler.admits(slot, handed)
            ):
                if engine.hedges is not None:
                    engine.hedges.expect()
                return handed

    def _help_itself(self) -> Task[T, R] | None:
        """Take what it was called for from the injector, if it may, without the lock: that is quicker.

        The steps of the hot loop, after those by which `Waking.claim` answers a call.
        """
        engine, slot = self.engine, self.slot
        engine.scheduler.fleet.unpark(slot)
        engine.waking.searching = False
        if not (slot.direct and slot.go):
            return None
        try:
            task = self._injector.popleft()
        except IndexError:
            return None
        task._slot = slot
        if engine.injector and engine.parked:
            # There is more. Who waits for this task is called before its end, and wakes another (H18).
            waiter = task._completion
            if not (isinstance(waiter, Bell) and waiter.call()):
                engine.waking.wake_one(oldest=task.id % 4 == 0)
        return task

    def _help_out(self, hedges: Hedges) -> bool:
        """Make a second attempt of a task that takes long elsewhere; return whether there is such a task.

        The steps of the hot loop, at leisure.
        """
        slot, observers, gate = self.slot, self.engine.observers, self._gate
        listening = observers.wants_started
        if listening:
            gate.barred = True
        found = hedges.begin(slot)
        if found is None:
            if listening:
                gate.unbar()
            return False
        race, start = found
        ctx, data = race.second, race.data
        task, record = race.task, race.task._record
        del race, found
        if start is not None:
            observers.tell(start)
        if listening:
            gate.unbar()
        try:
            assert record is not None
            result = self._run_wrapped(task, record, ctx, data)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the attempt failed of it
            self._failed(ctx, error)
        else:
            try:
                slot.running.pop()
            except IndexError:
                self.came_back(ctx)
            else:
                self.engine.successes.finish(slot, ctx, result)
        return True

    def _give_back(self, task: Task[T, R], attempt: Context | Task[T, R]) -> None:
        """Put back what was taken and is not to be begun."""
        try:
            self.slot.running.pop()
        except IndexError:
            self.came_back(attempt)
        else:
            self.engine.give_back(self.slot, task)

    # -- attempts that don't succeed -------------------------------------------------------------

    def _failed(self, attempt: Context | Task[T, R], error: BaseException) -> None:
        """Take an attempt back that raised `error`. Called while that is handled."""
        slot = self.slot
        try:
            attempt = slot.running.pop()
        except IndexError:
            self.came_back(attempt)
            return
        ended = self.engine.monotonic()
        slot.failed += 1
        # The first entry is the hot loop's own frame. Without it, the error that the task keeps does
        # not hold what this thread does later.
        # Not by assignment, which an error may refuse, as a frozen dataclass does; nor is the error asked.
        traceback = sys.exc_info()[2]
        if traceback is not None:  # another thread, which raises the same error, may have taken it off
            BaseException.with_traceback(error, traceback.tb_next)
            traceback = None
        self.engine.attempts.failed(slot, attempt, error, ended)

    def came_back(self, attempt: Context | Task[T, R]) -> None:
        """Notice that the attempt was over before this thread was: what it brings is of no use."""
        ctx = self.slot.stuck if isinstance(attempt, Task) else attempt
        interrupted = self._gate.absorb(ctx)
        self.engine.takeovers.came_back(self.slot, unfit=interrupted and self.made)
        if self.slot.retired:
            # To the guard, which lets it leave at once. It must not take a task even to put it back: the pool
            # may have forgotten the slot, and would count as idle meanwhile (H11).
            raise Interrupted

    def _notice_pause(self, paused: bool) -> None:
        if paused is not self._pause_noticed:
            self._pause_noticed = paused
            call_hook(self.slot, self.worker, "on_pause" if paused else "on_resume")


def call_hook(slot: Slot, worker: AnyWorker[Any, Any] | None, name: str) -> None:
    """Call a method of a worker, if it has that. What it raises is logged."""
    call_guarded(f"{name} of {slot.name}", _call, worker, name)


def _call(worker: AnyWorker[Any, Any] | None, name: str) -> None:
    if function := hook(worker, name):
        function()
