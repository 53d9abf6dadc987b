"""Runs in virtual time: workers that take as long as they are told, all at once."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from retrypool import WorkerSpec
from retrypool.testing import ManualAttempt, ManualPool

#: What a worker does with an item: for how many seconds, and what it raises then, if anything.
Script = Callable[[Any], tuple[float, BaseException | None]]


class Actor:
    """A worker that follows a script."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def run(self, ctx: object, data: object) -> object:
        raise AssertionError("the play ends its attempts")


def stage(scripts: dict[str, Script], **options: Any) -> ManualPool[Any, Any]:
    return ManualPool([WorkerSpec(Actor(script), name=name) for name, script in scripts.items()], **options)


def play(pool: ManualPool[Any, Any], scripts: dict[str, Script], until: float = 1e6) -> None:
    """Let all workers work until nothing is left to do, or it is so late."""
    names = {worker.id: worker.name for worker in pool.workers()}
    busy: list[tuple[float, int, ManualAttempt[Any, Any], BaseException | None]] = []
    order = 0
    while pool.clock.monotonic() < until:
        while (attempt := pool.claim()) is not None:
            length, error = scripts[names[attempt.worker_id]](attempt.task.data)
            order += 1
            heapq.heappush(busy, (pool.clock.monotonic() + length, order, attempt, error))
        wakeup = pool._engine.scheduler.next_wakeup()
        moments = [busy[0][0]] if busy else []
        moments += [attempt.context._expires for _, _, attempt, _ in busy if not attempt.context.cancelled]
        moments += [] if wakeup is None else [wakeup]
        if not moments or not (busy or pool.stats().waiting):
            return
        pool.clock.advance(max(min(moments) - pool.clock.monotonic(), 1e-9))
        while busy and busy[0][0] <= pool.clock.monotonic():
            _, _, attempt, error = heapq.heappop(busy)
            if error is None:
                attempt.finish(attempt.task.data)
            else:
                attempt.fail(error)


def takes(length: float, error: Callable[[], BaseException] | None = None) -> Script:
    return lambda data: (length, None if error is None else error())
