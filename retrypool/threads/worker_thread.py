"""One worker thread: take a task, run it, say how it went."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any, Generic, TypeVar

from retrypool.callbacks import call_guarded, described, log_broken, log_safely, traceback_of
from retrypool.errors import Interrupted
from retrypool.model.chunk import Chunk
from retrypool.model.context import Context, begin, occupy
from retrypool.model.describe import worker_fields
from retrypool.model.slots import Slot
from retrypool.model.task import Record, Task
from retrypool.model.worker import AnyWorker, WorkerSpec, check_worker, hook, run_of
from retrypool.states import TaskState
from retrypool.threads.chunks import run_chunk
from retrypool.threads.engine import Engine
from retrypool.threads.interrupt import Gate
from retrypool.threads.parker import Parker

__all__ = ["Runner"]

T = TypeVar("T")
R = TypeVar("R")

MOST_BREAKDOWNS = 10
"""How often in a row a worker may go on after an error that comes from nowhere that is known."""

_RUNNING = TaskState.RUNNING
_SUCCEEDED = TaskState.SUCCEEDED


class Runner(Generic[T, R]):
    """A worker, its slot and its thread."""

    def __init__(
        self,
        engine: Engine[T, R],
        slot: Slot,
        spec: WorkerSpec[T, R],
        on_leave: Callable[[Runner[T, R]], None],
    ) -> None:
        self.engine = engine
        self.slot = slot
        self.spec = spec
        self.replacement: WorkerSpec[T, R] | None = None  # to be made anew from
        self.worker = spec.worker
        self.ready = not engine.threaded  # its on_start has run
        self.error: BaseException | None = None  # of a factory or an on_start that raised
        self.worked_before = False  # another was in its place
        self.failed_starts = 0  # of those before it in its place, in a row
        self.failing_since: float | None = None  # when the first of them failed, if it had worked before
        self.retry_at: float | None = None  # when it will be tried to start it again
        self.dismissed = False  # it is to be forgotten; under the pool's lock
        self.gone = False  # its thread has left, but for its last steps; under the pool's lock
        self._on_leave = on_leave
        self._parker = Parker(engine.clock)
        self._gate = Gate(slot)
        self._pause_noticed = False
        self._breakdowns = 0  # in a row, without a success in between
        self._succeeded_before = -1  # successes at the last one
        self._handed: Task[T, R] | None = None  # what it has taken and may not simply run, for _next
        slot.wake = self._parker.call
        slot.interrupt = self._gate.interrupt
        self.thread = self._make_thread()

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` if there is none to be had; then it may be tried again."""
        if self.engine.threaded:
            try:
                self.thread.start()
            except BaseException:
                self.thread = self._make_thread()
                raise

    def _make_thread(self) -> threading.Thread:
        name = f"{self.engine.name}-{self.slot.name}"
        return threading.Thread(target=self._live, name=name, daemon=True)

    @property
    def can_be_remade(self) -> bool:
        """Whether there is something to make its worker anew from."""
        return self.replacement is not None or self.spec.factory is not None

    @property
    def next_spec(self) -> WorkerSpec[T, R]:
        """What its worker is to be made of, the next time."""
        return self.replacement or replace(self.spec, worker=None)

    def interrupt_again(self) -> None:
        """Interrupt the thread once more, if it was interrupted and has not come back since."""
        self._gate.repeat()

    # -- the life of the thread ------------------------------------------------------------------

    def _live(self) -> None:
        occupy(self.slot)
        self._gate.open()
        try:
            if self._set_up() and self._serve_until_told():
                self.engine.leaving.call()
                self._call_hook("on_stop")
        except BaseException as broken:  # noqa: BLE001 - logged there
            log_broken("%s breaks down", self.slot.name)
            self.error = broken
        finally:
            occupy(None)
            self.slot.idle = True
            self._on_leave(self)

    def _set_up(self) -> bool:
        """Make the worker, if it is to be made, and start it; return whether it can work."""
        try:
            if self.worker is None and self.spec.factory is not None:
                self.worker = self.spec.factory()
                check_worker(self.worker)
            if on_start := hook(self.worker, "on_start"):
                on_start()
        except BaseException as error:  # noqa: BLE001 - logged there
            fields = worker_fields(self.engine.name, "worker_failed", self.slot)
            if not self.failed_starts:  # of those that follow, the error alone is told
                log_broken("%s could not be started: that is tried again", self.slot.name, extra=fields)
            else:
                text = described(error)
                log_safely(WARNING, "%s could not be started again: %s", self.slot.name, text, extra=fields)
            self.error = error
            return False
        self.ready = True
        if self.failed_starts:
            fields = worker_fields(self.engine.name, "worker_started", self.slot)
            log_safely(INFO, "%s has started after all", self.slot.name, extra=fields)
        self.failed_starts, self.failing_since = 0, None
        return True

    def _serve_until_told(self) -> bool:
        """Serve until the worker is to leave for good; return whether there still is one to stop."""
        while True:
            try:
                return self._serve_and_restart()
            except Interrupted:  # the last one: it was under way when the first was noted
                continue

    def _serve_and_restart(self) -> bool:
        while True:
            try:
                if self.slot.stuck is not None:
                    self._came_back(self.slot.stuck)
                self._serve()
                if self.slot.retired:
                    return True
                if self._breakdowns >= MOST_BREAKDOWNS or (self.slot.unfit and not self.restart()):
                    return False
            except Interrupted:  # it came too late to hit what it was meant for
                self._gate.struck = self.slot.stuck

    def restart(self) -> bool:
        """Stop the worker and start it again, or a new one if there is something to make it from."""
        with self.engine.lock:
            # First of all: if this is asked for again meanwhile, it is done again.
            self.slot.unfit = False
        self._call_hook("on_stop")
        if self.can_be_remade:
            self.spec, self.replacement = self.next_spec, None
            self.worker = self.spec.worker
        return self._set_up()

    def _serve(self) -> None:
        """Run one task after the other until the worker is to leave, or to be made anew.

        This is the hot loop. A plain task that succeeds is taken, run and ended by operations that are
        atomic each by itself, without a lock; whatever is more than that goes another way.
        """
        engine, slot = self.engine, self.slot
        attempts, watchdog, monotonic = engine.attempts, engine.watchdog, engine.monotonic
        injector, running, admits = engine.unlocked, slot.running, engine.scheduler.admits
        popleft = injector.usual.popleft
        observers = engine.observers
        remember = engine.scheduler.history.entries.append
        run, takes_context = run_of(self.worker)
        gate = self._gate
        slot.idle = False
        task: Any = None
        ctx: Any = None
        start: Any = None  # what is told of an attempt that begins
        try:
            while True:
                try:
                    task = injector.popleft() if injector.several else popleft()
                except IndexError:
                    task = self._next()
                else:
                    # Handshake H3: write _slot, then read _withdrawn.
                    task._slot = slot
                    if (
                        task._withdrawn
                        or not slot.direct
                        or (task._record is not None and not admits(slot, task))
                    ):
                        self._handed, task = task, None  # hold on to nothing while waiting
                        task = self._next()
                if task is None:
                    return
                task._phase = _RUNNING
                now = monotonic()
                span = task._settings.span
                expires = attempts.expiry(task, now) if span is None else now + span
                ctx = begin(task, slot, now, expires)
                listening = observers.wants_started  # looked at once: who bars the gate opens it again
                if listening:
                    gate.bar()
                    start = attempts.starting(ctx)
                # From here on the attempt may be taken over: whoever gets it out of the box owns it.
                running.append(ctx)
                # Handshake H4: fill the box, then read `go`.
                if not slot.go:
                    self._give_back(ctx)
                    if listening:
                        observers.release(start)
                        gate.unbar()
                    task = ctx = None
                    continue
                if expires < watchdog.wakes_at:
                    watchdog.expect(expires)
                if listening:
                    observers.tell(start)
                    gate.unbar()
                    if ctx.cancelled:  # it was taken over before it has begun
                        self._came_back(ctx)
                        task = ctx = None
                        continue
                try:
                    if (record := task._record) is not None and record.wrapped:
                        result = self._run_wrapped(task, record, ctx)
                    else:
                        result = run(ctx, task.data) if takes_context else run(task.data)
                except BaseException as error:  # noqa: BLE001 - whatever it is, the task failed of it
                    self._failed(ctx, error)
                else:
                    try:
                        running.pop()
                    except IndexError:
                        self._came_back(ctx)
                    else:
                        task._started = now
                        task._ended = ended = monotonic()
                        task._outcome = result
                        if record is None:
                            remember((task.id, task._dispatched, now, ended))
                        else:
                            attempts.remember(task, record)
                        slot.succeeded += 1
                        # Handshake H6: the task has ended with this write; then read _completion.
                        task._phase = _SUCCEEDED
                        if task._completion is not None:
                            task._announce()
                        if observers.talkative or slot.attentive or (record is not None and record.accused):
                            attempts.succeeded(slot, task)
                # Hold on to nothing while waiting for the next one.
                task = record = ctx = result = None  # type: ignore[assignment]
        except Interrupted:
            raise
        except BaseException as broken:  # noqa: BLE001 - logged there
            self._break_down(task, ctx, broken)

    def _break_down(self, task: Task[T, R] | None, ctx: Context | None, broken: BaseException) -> None:
        """Go on after an error of our own, or of what the user lent us: a clock, a worker's attributes.

        What the thread has in hand ends with the error, if its end is not decided by now.
        """
        log_broken("%s goes on after an error", self.slot.name)
        slot = self.slot
        self._breakdowns = 1 if slot.succeeded != self._succeeded_before else self._breakdowns + 1
        self._succeeded_before = slot.succeeded
        if self._breakdowns >= MOST_BREAKDOWNS:
            self.error = broken
        if slot.running:
            self._failed(slot.running[-1], broken)
        elif task is not None and (ctx is None or slot.stuck is not ctx):
            self.engine.attempts.lost(slot, task, broken)

    def _run_wrapped(self, task: Task[T, R], record: Record, ctx: Context) -> R:
        """Run what the hot loop does not simply run, and see to what its success brings with it."""
        wraps_up = task._settings.wraps_up
        if wraps_up:
            ctx._withheld = []
        journal = self.engine.journal
        if journal is not None:
            journal.begin(ctx, self.slot, task)
        run, takes_context = run_of(self.worker)
        data, context = task.data, record.context
        # The frame of `run` holds this one, and an error's traceback that: so nothing here may lead back
        # to the error.
        del task, record
        # An ended task may have dropped its data. This is asked after the data was read: whoever ends
        # the task cancels the context first.
        ctx.check()
        if data.__class__ is Chunk:
            run_chunk(self.engine, ctx, run, takes_context=takes_context)
            return None  # type: ignore[return-value]
        if self.engine.scheduler.fleet.is_measured(self.slot):
            self.engine.attempts.measure(self.slot, ctx, data)
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
            self.engine.attempts.finish(self.slot, ctx, result)

    def _next(self) -> Task[T, R] | None:
        """Return the next task, waiting for it; None when the worker is to leave or to be made anew."""
        engine, slot = self.engine, self.slot
        handed, self._handed = self._handed, None
        while True:
            task = engine.claim(slot, handed)
            if task is not None:
                self._notice_pause(False)
                return task
            handed = None
            if slot.retired or slot.unfit:
                return None
            self._notice_pause(engine.scheduler.fleet.has_paused(slot))
            engine.wait_for_call(slot, self._parker)
            handed = self._help_itself()
            if (
                handed is not None
                and not handed._withdrawn
                and slot.direct
                and engine.scheduler.admits(slot, handed)
            ):
                return handed

    def _help_itself(self) -> Task[T, R] | None:
        """Take what it was called for from the injector, if it may, without the lock: that is quicker.

        The steps of the hot loop, after those by which `Engine.claim` answers a call.
        """
        engine, slot = self.engine, self.slot
        engine.scheduler.fleet.unpark(slot)
        engine.searching = False
        if not (slot.direct and slot.go):
            return None
        try:
            task = engine.unlocked.popleft()
        except IndexError:
            return None
        task._slot = slot
        if engine.injector and engine.parked:
            engine.wake_one(oldest=task.id % 4 == 0)  # there is more
        return task

    def _give_back(self, ctx: Context) -> None:
        """Put back what was taken and is not to be begun."""
        try:
            self.slot.running.pop()
        except IndexError:
            self._came_back(ctx)
        else:
            self.engine.give_back(self.slot, ctx._task)

    # -- attempts that don't succeed -------------------------------------------------------------

    def _failed(self, ctx: Context, error: BaseException) -> None:
        slot = self.slot
        try:
            slot.running.pop()
        except IndexError:
            self._came_back(ctx)
            return
        ended = self.engine.monotonic()
        slot.failed += 1
        # The first entry is the hot loop's own frame. Without it, the error that the task keeps does
        # not hold what this thread does later.
        traceback = traceback_of(error)
        if traceback is not None:
            # Not by assignment, which an error may refuse, as a frozen dataclass does.
            BaseException.with_traceback(error, traceback.tb_next)
            traceback = None
        self.engine.attempts.failed(slot, ctx, error, ended)

    def _came_back(self, ctx: Context) -> None:
        """Notice that the attempt was over before this thread was: what it brings is of no use."""
        interrupted = self._gate.absorb(ctx)
        self.engine.takeovers.came_back(self.slot, unfit=interrupted and self.spec.factory is not None)

    # -- hooks -----------------------------------------------------------------------------------

    def _notice_pause(self, paused: bool) -> None:
        if paused is not self._pause_noticed:
            self._pause_noticed = paused
            self._call_hook("on_pause" if paused else "on_resume")

    def _call_hook(self, name: str) -> None:
        call_guarded(f"{name} of {self.slot.name}", _call_hook, self.worker, name)


def _call_hook(worker: AnyWorker[Any, Any] | None, name: str) -> None:
    if function := hook(worker, name):
        function()
