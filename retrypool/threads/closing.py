"""How a pool comes to its end: closed, forced, with the interpreter, or left behind by a fork."""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from retrypool.errors import CloseTimeout, WrongThread
from retrypool.events import PoolClosing
from retrypool.task import Task

if TYPE_CHECKING:
    from retrypool.threads.pool import Pool

__all__ = ["close", "force_close", "wait", "watch_over"]

T = TypeVar("T")
R = TypeVar("R")

_open: WeakSet[Pool[Any, Any]] = WeakSet()


def watch_over(pool: Pool[Any, Any]) -> None:
    """See to it that `pool` is drained at exit, and refuses in a forked child."""
    _open.add(pool)


def wait(pool: Pool[Any, Any], timeout: float | None) -> bool:
    """Wait until no task waits or runs, or none ever can; return whether all have ended."""
    engine, scheduler = pool._engine, pool._engine.scheduler
    _not_from_a_worker(pool, "wait()")
    with engine.lock:
        engine.waiters += 1
        try:
            engine.settled.wait_for(lambda: scheduler.idle() or scheduler.staff.hopeless(), timeout)
        finally:
            engine.waiters -= 1
        return scheduler.idle()


def close(pool: Pool[Any, Any], timeout: float | None) -> None:
    """Take nothing more, wait for what was accepted, let the workers go."""
    engine, scheduler = pool._engine, pool._engine.scheduler
    _not_from_a_worker(pool, "close()")
    until = None if timeout is None else time.monotonic() + timeout
    with engine.lock:
        news = not engine.closed
        engine.closed = True
        engine.review_guard()
        scheduler.staff.resume_all()
        happened = engine.decided()
    if news:
        engine.observers.tell(PoolClosing(engine.monotonic()))
    engine.act(happened)
    while not wait(pool, _left(until)):
        with engine.lock:
            if scheduler.staff.hopeless():
                scheduler.cancel_waiting("no worker is left that could run it", engine.monotonic())
            happened = engine.decided()
        engine.act(happened)
        if until is not None and time.monotonic() >= until:
            raise _still_running(pool, timeout)
    _dismiss(pool)
    for runner in pool._roster:
        if runner.thread.ident is not None:
            runner.thread.join(_left(until))
            if runner.thread.is_alive():
                raise _still_running(pool, timeout)
    engine.watchdog.stop()
    _open.discard(pool)


def force_close(pool: Pool[T, R]) -> list[Task[T, R]]:
    """Take nothing more, cancel what waits and what runs, and wait for nobody."""
    engine, scheduler = pool._engine, pool._engine.scheduler
    with engine.lock:
        news = not engine.closed
        engine.closed = True
        engine.review_guard()
        now = engine.monotonic()
        cancelled: list[Task[T, R]] = scheduler.cancel_waiting("the pool was closed by force", now)
        stopped = [
            (runner.seat, ctx)
            for runner in pool._roster
            for ctx in runner.seat.running[:]
            if engine.take_over(runner.seat, ctx)
        ]
        for _, ctx in stopped:
            scheduler.cancel(ctx._task, "the pool was closed by force", now)
        happened = engine.decided()
    if news:
        engine.observers.tell(PoolClosing(now))
    for _, ctx in stopped:
        ctx._cancel("the pool was closed by force")
    engine.act(happened)
    _dismiss(pool)
    engine.watchdog.stop()
    _open.discard(pool)
    return cancelled


def _dismiss(pool: Pool[Any, Any]) -> None:
    """Let all workers leave once they have ended what they run."""
    engine = pool._engine
    with engine.lock:
        for runner in pool._roster:
            runner.stop.set()
            engine.scheduler.retire(runner.seat, engine.monotonic())
        happened = engine.decided()
    engine.act(happened)


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _not_from_a_worker(pool: Pool[Any, Any], call: str) -> None:
    here = threading.current_thread()
    if any(runner.thread is here for runner in pool._roster):
        raise WrongThread(call)


def _still_running(pool: Pool[Any, Any], timeout: float | None) -> CloseTimeout:
    assert timeout is not None
    stats = pool.stats()
    running = [
        f"{info.name} (task {info.task_id}{', stuck' if info.state == 'stuck' else ''})"
        for info in pool.workers()
        if info.task_id is not None
    ]
    return CloseTimeout(timeout, running, stats.waiting)


def _drain_at_exit() -> None:
    for pool in list(_open):
        pool.close()


def _refuse_in_child() -> None:
    for pool in list(_open):
        engine = pool._engine
        engine.lock = threading.Lock()
        engine.forked = True
        engine.guarded = True
    _open.clear()


atexit.register(_drain_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_refuse_in_child)
