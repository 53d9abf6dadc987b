"""One worker thread: take a task, run it, say how it went."""

from __future__ import annotations

import logging
import threading
from typing import Any, Generic, TypeVar

from retrypool.context import sit_down
from retrypool.core.seat import Seat
from retrypool.errors import Interrupted
from retrypool.events import WorkerFailed, WorkerRemoved
from retrypool.task import Task, TaskState
from retrypool.threads.engine import Engine, started
from retrypool.threads.parking import Parker
from retrypool.worker import WorkerSpec, hook, run_of

__all__ = ["Runner"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

_RUNNING = TaskState.RUNNING
_SUCCEEDED = TaskState.SUCCEEDED


class Runner(Generic[T, R]):
    """A worker, its seat and its thread."""

    def __init__(self, engine: Engine[T, R], seat: Seat, spec: WorkerSpec[T, R]) -> None:
        self.engine = engine
        self.seat = seat
        self.worker = spec.worker
        self.stop = threading.Event()  # set when the worker is to leave; for those who watch it
        self.ready = False  # its on_start has run
        self.error: BaseException | None = None  # of an on_start that raised
        self._parker = Parker(engine.clock)
        self._pause_noticed = False
        seat.wake = self._parker.call
        self.thread = threading.Thread(target=self._live, name=f"{engine.name}-{seat.name}", daemon=True)

    def _live(self) -> None:
        """Live the life of the thread."""
        sit_down(self.seat)
        try:
            if self._begin():
                self._serve_until_told()
                self._call_hook("on_stop")
        finally:
            self._leave()

    def _begin(self) -> bool:
        on_start = hook(self.worker, "on_start")
        try:
            if on_start is not None:
                on_start()
        except BaseException as error:
            log.exception("on_start of %s raised: it is taken out", self.seat.name)
            self.error = error
            return False
        self.ready = True
        return True

    def _serve_until_told(self) -> None:
        while True:
            try:
                self._serve()
                return
            except Interrupted:  # one that came too late to hit what it was meant for
                self._came_back()

    def _serve(self) -> None:
        """Run one task after the other until the worker is to leave.

        This is the hot loop. A plain task that succeeds is taken, run and ended by operations that are
        atomic each by itself, without a lock; whatever is more than that goes another way.
        """
        engine, seat = self.engine, self.seat
        arrivals, running = engine.arrivals, seat.running
        admits, watchdog, monotonic = engine.scheduler.admits, engine.watchdog, engine.monotonic
        begin, observers = engine.begin, engine.observers
        run, takes_context = run_of(self.worker)
        seat.idle = False
        task: Task[Any, Any] | None
        while True:
            try:
                task = arrivals.popleft()
            except IndexError:
                task = self._next()
            else:
                # Written before _withdrawn is read; whoever withdraws does it the other way about.
                task._seat = seat
                if task._withdrawn or not seat.direct or not admits(seat, task):
                    task = self._next(task)
            if task is None:
                return
            task._phase = _RUNNING
            now = monotonic()
            ctx = begin(seat, task, now)
            # From here on the attempt may be taken over: whoever gets it out of the box owns it.
            running.append(ctx)
            if ctx._expires < watchdog.wakes_at:
                watchdog.expect(ctx._expires)
            if observers.listening:
                observers.tell(started(task, ctx, now))
            try:
                result = run(ctx, task.data) if takes_context else run(task.data)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the task failed of it
                self._failed(ctx, error)
            else:
                try:
                    running.pop()
                except IndexError:
                    self._came_back()
                else:
                    task._started = now
                    task._ended = monotonic()
                    task._outcome = result
                    seat.succeeded += 1
                    # The task has ended with this; _rendezvous is read after it, see Task.
                    task._phase = _SUCCEEDED
                    if task._rendezvous is not None:
                        task._announce()
                    if seat.attentive or engine.talkative:
                        engine.succeed(seat, task)
                result = None
            # Hold on to nothing while waiting for the next one.
            task = ctx = None  # type: ignore[assignment]

    def _next(self, handed: Task[Any, Any] | None = None) -> Task[Any, Any] | None:
        """Return the next task, waiting for it; None when the worker is to leave."""
        engine, seat = self.engine, self.seat
        while True:
            task = engine.claim(seat, handed)
            if task is not None:
                self._notice_pause(False)
                return task
            handed = None
            self._notice_pause(seat.paused)
            if seat.retired:
                return None
            engine.wait_for_call(seat, self._parker)

    def _failed(self, ctx: Any, error: BaseException) -> None:
        try:
            self.seat.running.pop()
        except IndexError:
            self._came_back()
            return
        ended = self.engine.monotonic()
        self.seat.failed += 1
        # The first entry is the hot loop's own frame. Without it, the error that the task keeps does
        # not hold what this thread does later.
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next
        self.engine.fail(self.seat, ctx, error, ended)

    def _came_back(self) -> None:
        """The attempt was over before this thread was: what it brings is of no use any more."""
        self.engine.came_back(self.seat)

    def _notice_pause(self, paused: bool) -> None:
        if paused is not self._pause_noticed:
            self._pause_noticed = paused
            self._call_hook("on_pause" if paused else "on_resume")

    def _call_hook(self, name: str) -> None:
        function = hook(self.worker, name)
        if function is not None:
            try:
                function()
            except Exception:
                log.exception("%s of %s raised", name, self.seat.name)

    def _leave(self) -> None:
        engine, seat = self.engine, self.seat
        sit_down(None)
        now = engine.monotonic()
        with engine.lock:
            engine.scheduler.retire(seat, now)
            seat.idle = True
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)
        if self.error is not None:
            engine.observers.tell(WorkerFailed(now, seat.id, seat.name, seat.group.name, self.error))
        else:
            engine.observers.tell(WorkerRemoved(now, seat.id, seat.name, seat.group.name))
