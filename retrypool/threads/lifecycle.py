"""How a pool comes to its end: closed, forced, with the interpreter, or left behind by a fork."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from retrypool.core.scheduler import CLOSED_BY_FORCE
from retrypool.ctrl_c import join
from retrypool.errors import CloseTimeout, StorageError, WrongThread
from retrypool.events import PoolClosing, PoolStopped
from retrypool.model.cancel import CancelToken, reason_of
from retrypool.model.context import Context
from retrypool.model.describe import worker_fields
from retrypool.model.task import Task
from retrypool.states import DeadReason
from retrypool.threads.interrupt import shielded
from retrypool.threads.parker import Bell
from retrypool.threads.workers import Tally

if TYPE_CHECKING:
    from retrypool.pool import Pool
    from retrypool.threads.worker_thread import Runner

__all__ = [
    "Cancelled",
    "break_down",
    "cancel_waiting",
    "close",
    "exiting",
    "force_close",
    "give_up",
    "shut",
    "wait",
    "watch_over",
]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

AN_INSTANT = 0.001
"""Seconds that a worker has to be on its way before the next one is woken to leave."""

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


# Strong references: a pool that nobody holds any more still has threads, and tasks that were promised to
# be run. In the order in which they were made.
_open: dict[Pool[Any, Any], None] = {}
_exiting = False


def watch_over(pool: Pool[Any, Any]) -> None:
    """See to it that `pool` is drained at exit, and refuses in a forked child."""
    _open[pool] = None


def wait(pool: Pool[Any, Any], timeout: float | None) -> bool:
    """Wait until no task waits or runs, or none ever can; return whether all have ended."""
    engine, scheduler = pool._engine, pool._engine.scheduler
    if _is_over(pool):
        return False
    _not_from_a_worker(pool, "wait()")
    _refuse_if_forked(pool)
    until = None if timeout is None else time.monotonic() + timeout
    bell = Bell()
    try:
        while True:
            with engine.lock:
                engine.waiters.add(bell)
                idle = scheduler.idle()
                over = idle or scheduler.is_stranded()
            if over:
                return idle
            if not bell.wait(_left(until), engine.stand_by):
                return scheduler.idle()
    finally:
        engine.waiters.discard(bell)


# -- in good order -------------------------------------------------------------------------------


def close(pool: Pool[Any, Any], timeout: float | None, *, cancel_delayed: bool = False) -> None:
    """Take nothing more, wait for what was accepted, let the workers go."""
    if _is_over(pool):
        return
    _not_from_a_worker(pool, "close()")
    _refuse_if_forked(pool)
    until = None if timeout is None else time.monotonic() + timeout
    try:
        shut(pool, cancel_delayed=cancel_delayed)
        pool.resume()
        _drain(pool, timeout, until)
        _dismiss(pool)
        _join(pool, timeout, until)
        _over(pool)
        pool._engine.end_drains()
        pool._engine.watchdog.join(_left(until))
        if pool._engine.journal is not None:
            pool._engine.journal.close()
        _tell_end(pool)
    except KeyboardInterrupt:
        # One Ctrl-C ends the script: what still waits is not begun any more.
        force_close(pool)
        raise


@shielded
def shut(pool: Pool[Any, Any], *, cancel_delayed: bool = False) -> None:
    """Take nothing more."""
    engine = pool._engine
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


def _drain(pool: Pool[Any, Any], timeout: float | None, until: float | None) -> None:
    """Wait for the last task to end; cancel what no worker is left for."""
    while not wait(pool, _left(until)):
        _cancel_the_hopeless(pool)
        if until is not None and time.monotonic() >= until:
            raise _still_running(pool, timeout)


@shielded
def _cancel_the_hopeless(pool: Pool[Any, Any]) -> None:
    engine, scheduler = pool._engine, pool._engine.scheduler
    with engine.lock:
        if scheduler.is_stranded():
            scheduler.cancel_waiting("no worker is left that could run it", engine.monotonic())
        happened = engine.decided()
    engine.act(happened)


@shielded
def _dismiss(pool: Pool[Any, Any]) -> None:
    """Let all workers leave once they have ended what they run."""
    engine = pool._engine
    with engine.lock:
        runners = list(pool._workers)
        for runner in runners:
            engine.scheduler.retire(runner.slot, engine.monotonic())
        happened = engine.decided()
    engine.act(happened)
    # One after the other: thousands that wake at once would all queue for the lock. Who sleeps is on its
    # way within some microseconds; who is held up, in a hook perhaps, holds up the others for an instant.
    for runner in runners:
        runner.slot.wake()
        if runner.slot.idle and runner.thread.is_alive():
            engine.leaving.park(AN_INSTANT)


def _join(pool: Pool[Any, Any], timeout: float | None, until: float | None) -> None:
    """Wait for the threads. Without a timeout, one that is stuck is given `grace`, and then given up."""
    grace_ends = time.monotonic() + pool._engine.grace
    for runner in pool._workers:
        if runner.thread.ident is None:
            continue
        if timeout is not None:
            if not join(runner.thread, _left(until)):
                raise _still_running(pool, timeout)
        elif runner.slot.stuck is None:
            join(runner.thread)
        elif not join(runner.thread, _left(grace_ends)):
            fields = worker_fields(pool._engine.name, "worker_left_behind", runner.slot)
            name = runner.slot.name
            log.warning("%s has not come back: its thread is left behind", name, extra=fields)


@shielded
def _over(pool: Pool[Any, Any]) -> None:
    pool._engine.watchdog.stop()
    pool._engine.bonds.unbind_all()
    _open.pop(pool, None)


@shielded
def _tell_end(pool: Pool[Any, Any]) -> None:
    """Tell once that the pool has come to its end."""
    engine = pool._engine
    with engine.lock:
        news, engine.stopped = not engine.stopped, True
    if news:
        engine.observers.tell(PoolStopped(engine.monotonic()))


# -- by force ------------------------------------------------------------------------------------


@shielded
def force_close(pool: Pool[T, R], reason: str = CLOSED_BY_FORCE) -> Cancelled[T, R]:
    """Take nothing more, cancel what waits and what runs, and wait for nobody."""
    engine, scheduler = pool._engine, pool._engine.scheduler
    if engine.forked or _is_over(pool) or engine.steps.put_off(partial(force_close, pool, reason)):
        return Cancelled((), ())
    shut(pool)
    if engine.journal is not None:
        engine.journal.freeze()
    # First of all, so that ending the attempts starts no watchdog only to stop it again.
    _over(pool)
    takeovers = engine.takeovers
    with engine.lock:
        scheduler.over = True  # H12, before the rest: what is in somebody's hands now is cancelled later
        queued: list[Task[T, R]] = scheduler.cancel_waiting(reason, engine.monotonic())
        taken = [
            (runner.slot, ctx)
            for runner in pool._workers
            for ctx in scheduler.running_at(runner.slot)
            if takeovers.take_over(runner.slot, ctx)
        ]
        happened = engine.decided()
    engine.act(happened)
    running: list[Task[T, R]] = [ctx._task for _, ctx in taken]  # an attempt lets go of its task as it ends
    for slot, ctx in taken:
        takeovers.end(slot, ctx, "drop", reason)
    _dismiss(pool)
    engine.end_drains()
    if engine.journal is not None:
        try:
            engine.journal.close()
        except StorageError as error:
            log.error("what had ended could not be stored, and is run again: %s", error)
    _tell_end(pool)
    return Cancelled(queued, running)


@shielded
def cancel_waiting(pool: Pool[Any, Any], reason: str) -> None:
    """Take nothing more, and cancel what waits. What runs, runs to its end."""
    engine = pool._engine
    shut(pool)
    with engine.lock:
        engine.scheduler.cancel_waiting(reason, engine.monotonic())
        happened = engine.decided()
    engine.act(happened)


@shielded
def break_down(pool: Pool[Any, Any], error: BaseException) -> None:
    """Take nothing more, and let what waits end with `error`. What runs, runs to its end."""
    engine, scheduler = pool._engine, pool._engine.scheduler
    shut(pool)
    with engine.lock:
        now = engine.monotonic()
        for task in sorted(scheduler.waiting(), key=lambda task: task.id):
            if scheduler.withdraw(task):
                scheduler.bury(task, DeadReason.CALLBACK, error, now)
        happened = engine.decided()
    engine.act(happened)
    _dismiss(pool)


def give_up(pool_ref: ref[Pool[Any, Any]], token: CancelToken) -> None:
    """Close by force, because the pool's token was cancelled."""
    pool = pool_ref()
    if pool is not None:
        force_close(pool, reason_of(token))


# -- with the interpreter ------------------------------------------------------------------------


def exiting() -> bool:
    """Return whether the interpreter is on its way out."""
    return _exiting


def close_at_exit() -> None:
    """Drain what is open, unless a Ctrl-C ends the script. The package has it called at the exit."""
    global _exiting  # noqa: PLW0603 - there is one interpreter
    _exiting = True
    for pool in list(_open):
        pool._engine.exiting = True
        if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) or not pool._engine.threaded:
            force_close(pool)
        else:
            _drain_at_exit(pool)


def _drain_at_exit(pool: Pool[Any, Any]) -> None:
    """Run what was accepted to its end, but don't wait for attempts that do not come to theirs."""
    shut(pool)
    pool.resume()
    while True:
        under_way, ended = _progress(pool)
        if _wait_at_exit(pool, pool._exit_timeout):
            break
        _cancel_the_hopeless(pool)
        still_under_way, ended_since = _progress(pool)
        held_up = under_way & still_under_way or not any(_is_able(pool, runner) for runner in pool._workers)
        if held_up and ended == ended_since:
            names = ", ".join(_busy(runner) for runner in pool._workers if not _is_able(pool, runner))
            log.warning("the exit does not wait any longer for %s", names or "what no worker can take")
            break
    force_close(pool)


def _wait_at_exit(pool: Pool[Any, Any], timeout: float | None) -> bool:
    """Wait as `wait` does, and be the pool's watchdog meanwhile if it has none."""
    engine, scheduler = pool._engine, pool._engine.scheduler
    if not engine.watchdog.stand_in():
        return wait(pool, timeout)
    until = None if timeout is None else time.monotonic() + timeout
    bell = Bell()  # rung for nobody: the watchdog is nudged, and that is this thread
    try:
        while True:
            with engine.lock:
                engine.waiters.add(bell)
                if scheduler.idle() or scheduler.is_stranded():
                    return scheduler.idle()
            left = _left(until)
            if left == 0:
                return False
            engine.watchdog.watch(left)
    finally:
        engine.waiters.discard(bell)


def _is_able(pool: Pool[Any, Any], runner: Runner[Any, Any]) -> bool:
    """Return whether a worker could take a task now, or when its cool-down is over."""
    slot = runner.slot
    usable = pool._engine.scheduler.fleet.usable(slot)
    return runner.ready and usable and not (slot.running or slot.stuck)


def _progress(pool: Pool[Any, Any]) -> tuple[set[Context], Tally]:
    """Return the attempts that are under way, and how many have ended."""
    under_way = {ctx for runner in pool._workers for ctx in runner.slot.running[:]}
    return under_way, pool._workers.tally()


# -- left behind by a fork -----------------------------------------------------------------------


def _refuse_in_child() -> None:
    """Let the child's copies of the pools refuse: their threads have stayed in the parent."""
    for pool in list(_open):
        engine = pool._engine
        engine.lock = threading.RLock()  # some thread of the parent may have held it
        engine.forked = True
        engine.guarded = True
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_refuse_in_child)


# -- small things --------------------------------------------------------------------------------


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _not_from_a_worker(pool: Pool[Any, Any], call: str) -> None:
    pool._engine.steps.check(call)
    here = threading.current_thread()
    # The watchdog too: it calls callbacks, and what is waited for may be due in its hands.
    watchdog = pool._engine.watchdog
    if (watchdog.is_current() and not watchdog.stands_in) or any(
        runner.thread is here for runner in pool._workers
    ):
        raise WrongThread(call)


def _is_over(pool: Pool[Any, Any]) -> bool:
    """Return whether the interpreter takes itself apart, having closed the pool before.

    Daemon threads are frozen then, with whatever they hold: no lock is to be had for sure, and there is
    nothing to wait for. It is asked by finalizers that run that late.
    """
    if sys.is_finalizing():
        pool._engine.closed = True
        return True
    return False


def _refuse_if_forked(pool: Pool[Any, Any]) -> None:
    if pool._engine.forked and (refusal := pool._engine.closing_refusal()):
        raise refusal


def _still_running(pool: Pool[Any, Any], timeout: float | None) -> CloseTimeout:
    assert timeout is not None
    running = [_busy(runner) for runner in pool._workers if _is_alive(runner)]
    return CloseTimeout(timeout, running, pool.stats().waiting)


def _is_alive(runner: Runner[Any, Any]) -> bool:
    """Return whether a runner is worth naming among those that keep a pool from closing."""
    slot = runner.slot
    return bool(slot.running) or slot.stuck is not None or (slot.retired and runner.thread.is_alive())


def _busy(runner: Runner[Any, Any]) -> str:
    slot = runner.slot
    stuck = slot.stuck
    if stuck is not None:
        return f"{slot.name} (stuck in task {stuck.task_id}, which is over)"
    running = slot.running[-1:]
    return f"{slot.name} (task {running[0].task_id})" if running else f"{slot.name} (stopping)"
