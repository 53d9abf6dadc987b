"""One worker's thread: made, started, set up, restarted, and left. In between it is in `worker_thread`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from logging import INFO, WARNING
from typing import Generic, TypeVar

from retrypool.callbacks import described, log_broken, log_safely
from retrypool.errors import Interrupted
from retrypool.model.context import occupy
from retrypool.model.describe import worker_fields
from retrypool.model.slots import Slot
from retrypool.model.worker import AnyWorker, WorkerSpec, check_worker, hook
from retrypool.threads.engine import Engine
from retrypool.threads.interrupt import Gate
from retrypool.threads.parker import Parker
from retrypool.threads.worker_thread import Loop, call_hook

__all__ = ["Runner"]

T = TypeVar("T")
R = TypeVar("R")


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
        self.replacement: WorkerSpec[T, R] | None = None  # to be made anew from
        self.ready = not engine.threaded  # its on_start has run
        self.error: BaseException | None = None  # of a factory or an on_start that raised
        self.worked_before = False  # another was in its place
        self.failed_starts = 0  # of those before it in its place, in a row
        self.failing_since: float | None = None  # when the first of them failed, if it had worked before
        self.retry_at: float | None = None  # when it will be tried to start it again
        self.dismissed = False  # it is to be forgotten; under the pool's lock
        self.gone = False  # its thread has left, but for its last steps; under the pool's lock
        self._on_leave = on_leave
        parker = Parker(engine.clock)
        self._gate = Gate(slot)
        self._loop: Loop[T, R] = Loop(engine, slot, self._gate, parker)
        self._have(spec)
        slot.away = engine.threaded
        slot.wake = parker.call
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

    def _have(self, spec: WorkerSpec[T, R]) -> None:
        self.spec = spec
        self._loop.worker, self._loop.made = spec.worker, spec.factory is not None

    @property
    def worker(self) -> AnyWorker[T, R] | None:
        """Its worker; None until it is made."""
        return self._loop.worker

    @property
    def sleeps(self) -> bool:
        """Whether its thread waits for work, or is about to, as far as can be seen from outside."""
        return self.slot.idle and self.ready and self.thread.is_alive()

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
                self.engine.leaving.wake_next()
                call_hook(self.slot, self.worker, "on_stop")
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
                self._loop.worker = self.spec.factory()
                check_worker(self._loop.worker)
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
                if (stuck := self.slot.stuck) is not None:
                    self._loop.came_back(stuck)
                if not self.slot.retired:
                    self._loop.serve()
                if self.slot.retired:
                    return True
                if self._loop.broken is not None:
                    self.error = self._loop.broken
                    return False
                if self.slot.unfit and not self.restart():
                    return False
            except Interrupted:  # it came too late to hit what it was meant for
                self._gate.struck = self.slot.stuck

    def restart(self) -> bool:
        """Stop the worker and start it again, or a new one if there is something to make it from."""
        with self.engine.lock:
            # First of all: if this is asked for again meanwhile, it is done again.
            self.slot.unfit, self.slot.away = False, True
        call_hook(self.slot, self.worker, "on_stop")
        if self.can_be_remade:
            spec, self.replacement = self.next_spec, None
            self._have(spec)
        return self._set_up()
