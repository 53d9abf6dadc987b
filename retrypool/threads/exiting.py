"""What becomes of the pools that are open when the interpreter exits, or the process forks."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Any

from retrypool.threads.crews import Tally
from retrypool.threads.lifecycle import Lifecycle, busy, open_pools, seconds_left
from retrypool.threads.parker import Bell
from retrypool.threads.runner import Runner

__all__ = ["close_at_exit", "exiting"]

log = logging.getLogger("retrypool")

_exiting = False


def exiting() -> bool:
    """Return whether the interpreter is on its way out."""
    return _exiting


def close_at_exit() -> None:
    """Drain what is open, unless a Ctrl-C ends the script. The package has it called at the exit."""
    global _exiting  # noqa: PLW0603 - there is one interpreter
    _exiting = True
    for pool in list(open_pools):
        pool.engine.exiting = True
        if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) or not pool.engine.threaded:
            pool.force_close()
        else:
            _drain(pool)


def _drain(pool: Lifecycle[Any, Any]) -> None:
    """Run what was accepted to its end, but don't wait for attempts that do not come to theirs."""
    pool.shut()
    pool.workers.resume_all()
    while True:
        under_way, ended = _progress(pool)
        if _wait(pool, pool.exit_timeout):
            break
        pool.cancel_the_hopeless()
        still_under_way, ended_since = _progress(pool)
        held_up = under_way & still_under_way or not any(_is_able(pool, runner) for runner in pool.workers)
        if held_up and ended == ended_since:
            names = ", ".join(busy(runner) for runner in pool.workers if not _is_able(pool, runner))
            log.warning("the exit does not wait any longer for %s", names or "what no worker can take")
            break
    pool.force_close()


def _wait(pool: Lifecycle[Any, Any], timeout: float | None) -> bool:
    """Wait as `wait` does, and be the pool's watchdog meanwhile if it has none."""
    engine, scheduler = pool.engine, pool.engine.scheduler
    if not engine.watchdog.stand_in():
        return pool.wait(timeout)
    until = None if timeout is None else time.monotonic() + timeout
    bell = Bell()  # rung for nobody: the watchdog is nudged, and that is this thread
    try:
        while True:
            with engine.lock:
                engine.waiters.add(bell)
                if scheduler.idle() or scheduler.is_stranded():
                    return scheduler.idle()
            left = seconds_left(until)
            if left == 0:
                return False
            engine.watchdog.watch(left)
    finally:
        engine.waiters.discard(bell)


def _is_able(pool: Lifecycle[Any, Any], runner: Runner[Any, Any]) -> bool:
    """Return whether a worker could take a task now, or when its cool-down is over."""
    slot = runner.slot
    usable = pool.engine.scheduler.fleet.usable(slot)
    return runner.ready and usable and not (slot.running or slot.stuck)


def _progress(pool: Lifecycle[Any, Any]) -> tuple[set[object], Tally]:
    """Return the attempts that are under way, and how many have ended."""
    engine, workers = pool.engine, pool.workers
    return engine.look(
        lambda: (
            {ctx for runner in workers for ctx in engine.scheduler.running_at(runner.slot)},
            workers.tally(),
        )
    )


# -- left behind by a fork -----------------------------------------------------------------------


def _refuse_in_child() -> None:
    """Let the child's copies of the pools refuse: their threads have stayed in the parent."""
    for pool in list(open_pools):
        engine = pool.engine
        engine.lock = threading.RLock()  # some thread of the parent may have held it
        engine.forked = True
        engine.review_guard()
    open_pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_refuse_in_child)
