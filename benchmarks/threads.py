"""What does a worker cost to start, to keep idle and to close, beside a thread of ThreadPoolExecutor?"""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from time import perf_counter, sleep
from typing import Any

from .cost import Meter
from .harness import Contest, Measure, at_most, faster, measured, scaled, within
from .memory import traced
from .opening import EXECUTOR, executor_of, pool_of


def closed(open_pool: Callable[[int], Any], close: str) -> Measure:
    """Milliseconds to close a pool of so many idle workers, all threads joined."""

    def measure(size: int) -> float:
        pool = open_pool(size)
        sleep(0.05)
        with Meter() as meter:
            getattr(pool, close)()
        return meter.per(1, 1e3)

    return measure


def started(open_pool: Callable[[int], Any], close: str) -> Measure:
    """Microseconds per thread, until all of them run."""

    def measure(size: int) -> float:
        with Meter() as meter:
            pool = open_pool(size)
        getattr(pool, close)()
        return meter.per(size)

    return measure


def ready_pool(workers: int) -> Any:
    """A pool whose threads have all come to wait."""
    pool = pool_of(workers)
    while len(pool._engine.parked) < workers:
        sleep(0.0001)
    return pool


def busy_seconds(size: int) -> float:
    """Seconds until each of so many workers has worked, at sleeps of a millisecond."""
    from retrypool import Pool

    worked: set[int] = set()

    def short_sleep(item: object) -> None:
        worked.add(threading.get_ident())
        sleep(0.001)

    with closing(Pool([short_sleep] * size)) as pool:
        began = perf_counter()
        for _ in pool.map(range(1_000_000), window=4 * size):
            taken = perf_counter() - began
            if len(worked) == size or taken > 10:
                return taken
    return perf_counter() - began


def contests(scale: float = 1) -> list[Contest]:
    found = []
    for count in (1_000, 2_000):
        rows = {"retrypool": closed(ready_pool, "close"), EXECUTOR: closed(executor_of, "shutdown")}
        goal = within(1.5, EXECUTOR)
        found.append(measured(f"close {count:,} idle workers", "ms", scaled(count, scale), rows, goal))
    return [
        *found,
        measured(
            "start a thread",
            "µs/thread",
            scaled(200, scale),
            {"retrypool": started(ready_pool, "close"), EXECUTOR: started(executor_of, "shutdown")},
            faster(EXECUTOR, 1),
        ),
        measured(
            "memory of an idle worker",
            "bytes",
            scaled(500, scale),
            {"retrypool": kept_by(ready_pool, "close"), EXECUTOR: kept_by(executor_of, "shutdown")},
            within(1.5, EXECUTOR),
            most_rounds=2,
        ),
        measured(
            "500 workers, each has slept 1 ms",
            "s",
            scaled(500, scale),
            {"retrypool": busy_seconds},
            at_most(1),
            most_rounds=2,
        ),
    ]


def kept_by(open_pool: Callable[[int], Any], close: str) -> Measure:
    """Bytes that Python has allocated for each worker, its stack aside."""

    def measure(size: int) -> float:
        tracemalloc.start()
        try:
            before = traced()
            pool = open_pool(size)
            after = traced()
            getattr(pool, close)()
        finally:
            tracemalloc.stop()
        return (after - before) / size

    return measure
