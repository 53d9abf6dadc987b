"""How a pool comes to its end: waited for, closed, or closed by force. At the exit, see `exiting`."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import ref

from retrypool.core.scheduler import CLOSED_BY_FORCE
from retrypool.ctrl_c import join
from retrypool.errors import CloseTimeout, StorageError, WrongThread
from retrypool.events import PoolClosing, PoolStopped
from retrypool.model.cancel import CancelToken, reason_of
from retrypool.model.describe import worker_fields
from retrypool.model.task import Task
from retrypool.states import DeadReason
from retrypool.threads.engine import Engine
from retrypool.threads.interrupt import shielded
from retrypool.threads.parker import Bell
from retrypool.threads.runner import Runner
from retrypool.threads.workers import Workers

__all__ = ["Cancelled", "Lifecycle", "busy", "give_up", "open_pools", "seconds_left"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

_BEFORE_ITS_TIME = "the pool was closed before its time had come"


class Cancelled(list[Task[T, R]]):
    """The tasks that a pool cancelled as it was closed by force: those that waited. `running` has more."""

    def __init__(self, queued: Iterable[Task[T, R]], running: Iterable[Task[T, R]]) -> None:
        super().__init__(queued)
        self.running: list[Task[T, R]] = list(running)

    @property
    def queued(self) -> list[Task[T, R]]:
        """The tasks that waited: the same as the list itself."""
        return list(self)


# Strong references, also to what each is told to keep: a pool that nobody holds any more still has threads,
# and tasks that were promised to be run. In the order in which they were made.
open_pools: dict[Lifecycle[Any, Any], object] = {}


class Lifecycle(Generic[T, R]):
    """Waits for the tasks of one pool, and brings the pool to its end."""

    def __init__(self, engine: Engine[T, R], workers: Workers[T, R], exit_timeout: float | None) -> None:
        self.engine = engine
        self.workers = workers
        self.exit_timeout = exit_timeout

    def watch_over(self, pool: object) -> None:
        """Have the pool drained at exit, and refuse in a forked child. Keeps `pool` until it is over."""
        open_pools[self] = pool

    def wait(self, timeout: float | None) -> bool:
        """Wait until no task waits or runs, or none ever can; return whether all have ended."""
        engine, scheduler = self.engine, self.engine.scheduler
        if self._is_over():
            return False
        self._not_from_a_worker("wait()")
        self._refuse_if_forked()
        until = None if timeout is None else time.monotonic() + timeout
        bell, called = Bell(), True

        def begin() -> tuple[bool, bool]:
            engine.waiters.add(bell)
            idle = scheduler.idle()
            return idle, idle or scheduler.is_stranded()

        try:
            while True:
                idle, over = engine.look(begin)
                if over or not called:
                    return idle
                called = bell.wait(seconds_left(until), engine.stand_by)
        finally:
            engine.waiters.discard(bell)

    # -- in good order -----------------------------------------------------------------------------

    def close(self, timeout: float | None, *, cancel_delayed: bool = False) -> None:
        """Take nothing more, wait for what was accepted, let the workers go."""
        if self._is_over():
            return
        self._not_from_a_worker("close()")
        self._refuse_if_forked()
        until = None if timeout is None else time.monotonic() + timeout
        try:
            self.shut(cancel_delayed=cancel_delayed)
            self.workers.resume_all()
            self._drain(timeout, until)
            self._dismiss()
            self._join(timeout, until)
            self._over()
            self.engine.end_drains()
            self.engine.watchdog.join(seconds_left(until))
            if self.engine.journal is not None:
                self.engine.journal.close()
            self._tell_end()
        except KeyboardInterrupt:
            # One Ctrl-C ends the script: what still waits is not begun any more.
            self.force_close()
            raise

    @shielded
    def shut(self, *, cancel_delayed: bool = False) -> None:
        """Take nothing more."""
        engine = self.engine
        with engine.lock:
            news = not engine.closed
            engine.closed = True
            engine.review_guard()
            # First of all: from here on nothing comes in, so that there is an end to what has to run.
            engine.scheduler.schedules.stop()
            if cancel_delayed:
                engine.scheduler.cancel_waiting(_BEFORE_ITS_TIME, engine.monotonic(), scheduled=True)
            happened = engine.decided()
        if news:
            engine.observers.tell(PoolClosing(engine.monotonic()))
        engine.act(happened)

    def _drain(self, timeout: float | None, until: float | None) -> None:
        """Wait for the last task to end; cancel what no worker is left for."""
        while not self.wait(seconds_left(until)):
            self.cancel_the_hopeless()
            if until is not None and time.monotonic() >= until:
                raise self._still_running(timeout)

    @shielded
    def cancel_the_hopeless(self) -> None:
        """Cancel what waits, if there is no worker left that could ever run it."""
        engine, scheduler = self.engine, self.engine.scheduler
        with engine.step:
            if scheduler.is_stranded():
                scheduler.cancel_waiting("no worker is left that could run it", engine.monotonic())

    @shielded
    def _dismiss(self) -> None:
        """Let all workers leave once they have ended what they run."""
        engine = self.engine
        with engine.step:
            # The others have been woken by whoever retired them.
            runners = [runner for runner in self.workers if not runner.slot.retired]
            for runner in runners:
                engine.scheduler.retire(runner.slot, engine.monotonic())
        asleep = []
        for runner in runners:
            if runner.sleeps:
                asleep.append(runner.slot)
            else:
                runner.slot.wake()
        engine.leaving.wake_all(asleep)

    def _join(self, timeout: float | None, until: float | None) -> None:
        """Wait for the threads. Without a timeout, one that is stuck is given `grace`, and then given up."""
        grace_ends = time.monotonic() + self.engine.grace
        for runner in self.workers:
            if not runner.thread.is_alive():
                continue
            if timeout is not None:
                if not join(runner.thread, seconds_left(until)):
                    raise self._still_running(timeout)
            elif runner.slot.stuck is None:
                join(runner.thread)
            elif not join(runner.thread, seconds_left(grace_ends)):
                fields = worker_fields(self.engine.name, "worker_left_behind", runner.slot)
                name = runner.slot.name
                log.warning("%s has not come back: its thread is left behind", name, extra=fields)

    @shielded
    def _over(self) -> None:
        self.engine.watchdog.stop()
        self.engine.bonds.unbind_all()
        open_pools.pop(self, None)

    @shielded
    def _tell_end(self) -> None:
        """Tell once that the pool has come to its end."""
        engine = self.engine
        with engine.lock:
            news, engine.stopped = not engine.stopped, True
        if news:
            engine.observers.tell(PoolStopped(engine.monotonic()))

    # -- by force ----------------------------------------------------------------------------------

    @shielded
    def force_close(self, reason: str = CLOSED_BY_FORCE) -> Cancelled[T, R]:
        """Take nothing more, cancel what waits and what runs, and wait for nobody."""
        engine, scheduler = self.engine, self.engine.scheduler
        if engine.forked or self._is_over() or engine.steps.put_off(partial(self.force_close, reason)):
            return Cancelled((), ())
        self.shut()
        if engine.journal is not None:
            engine.journal.freeze()
        # First of all, so that ending the attempts starts no watchdog only to stop it again.
        self._over()
        takeovers = engine.takeovers
        with engine.step:
            scheduler.over = True  # H12, before the rest: what is in somebody's hands now is cancelled later
            queued: list[Task[T, R]] = scheduler.cancel_waiting(reason, engine.monotonic())
            taken = [
                (runner.slot, ctx)
                for runner in self.workers
                for ctx in scheduler.running_at(runner.slot)
                if takeovers.take_over(runner.slot, ctx)
            ]
        # Before they end: an attempt lets go of its task then.
        running: list[Task[T, R]] = list(dict.fromkeys(ctx._task for _, ctx in taken))
        for slot, ctx in taken:
            takeovers.end(slot, ctx, "drop", reason)
        self._dismiss()
        engine.end_drains()
        if engine.journal is not None:
            try:
                engine.journal.close()
            except StorageError as error:
                log.error("what had ended could not be stored, and is run again: %s", error)
        self._tell_end()
        return Cancelled(queued, running)

    @shielded
    def cancel_waiting(self, reason: str) -> None:
        """Take nothing more, and cancel what waits. What runs, runs to its end."""
        engine = self.engine
        self.shut()
        with engine.step:
            engine.scheduler.cancel_waiting(reason, engine.monotonic())

    @shielded
    def break_down(self, error: BaseException) -> None:
        """Take nothing more, and let what waits end with `error`. What runs, runs to its end."""
        engine, scheduler = self.engine, self.engine.scheduler
        self.shut()
        with engine.step:
            now = engine.monotonic()
            for task in sorted(scheduler.waiting(), key=lambda task: task.id):
                if scheduler.withdraw(task):
                    scheduler.bury(task, DeadReason.CALLBACK, error, now)
        self._dismiss()

    # -- small things ------------------------------------------------------------------------------

    def _not_from_a_worker(self, call: str) -> None:
        self.engine.steps.check(call)
        here = threading.current_thread()
        # The watchdog too: it calls callbacks, and what is waited for may be due in its hands.
        watchdog = self.engine.watchdog
        if (watchdog.is_current() and not watchdog.stands_in) or any(
            runner.thread is here for runner in self.workers
        ):
            raise WrongThread(call)

    def _is_over(self) -> bool:
        """Return whether the interpreter takes itself apart, having closed the pool before.

        Daemon threads are frozen then, with whatever they hold: no lock is to be had for sure, and there is
        nothing to wait for. It is asked by finalizers that run that late.
        """
        if sys.is_finalizing():
            self.engine.closed = True
            return True
        return False

    def _refuse_if_forked(self) -> None:
        if self.engine.forked and (refusal := self.engine.closing_refusal()):
            raise refusal

    def _still_running(self, timeout: float | None) -> CloseTimeout:
        assert timeout is not None
        running = [busy(runner) for runner in self.workers if _is_alive(runner)]
        return CloseTimeout(timeout, running, self._waiting())

    def _waiting(self) -> int:
        """Return how many tasks wait."""
        scheduler = self.engine.scheduler
        return self.engine.look(lambda: len(scheduler.backlog) + scheduler.delayed)


def give_up(lifecycle: ref[Lifecycle[Any, Any]], token: CancelToken) -> None:
    """Close a pool by force, because its token was cancelled. The token does not keep the pool."""
    its = lifecycle()
    if its is not None:
        its.force_close(reason_of(token))


def seconds_left(until: float | None) -> float | None:
    """Return the seconds until a moment on the system's clock; None for no limit."""
    return None if until is None else max(0.0, until - time.monotonic())


def _is_alive(runner: Runner[Any, Any]) -> bool:
    """Return whether a runner is worth naming among those that keep a pool from closing."""
    slot = runner.slot
    return bool(slot.running) or slot.stuck is not None or (slot.retired and runner.thread.is_alive())


def busy(runner: Runner[Any, Any]) -> str:
    """Return what a runner is held up by, for people."""
    slot = runner.slot
    stuck = slot.stuck
    if stuck is not None:
        return f"{slot.name} (stuck in task {stuck.task_id}, which is over)"
    running = runner.engine.look(lambda: runner.engine.scheduler.running_at(slot))
    return f"{slot.name} (task {running[0].task_id})" if running else f"{slot.name} (stopping)"
