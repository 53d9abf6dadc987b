"""What does the pool itself cost per task, when the task does nothing?"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from . import peers
from .cost import Cost, Meter, middle
from .harness import Contest, Measure, faster, scaled
from .peers import per_task

WORKERS = (1, 4, 16, 64)
TASKS = 20_000
PRIORITIES = 10


def nothing(item: object) -> bool:
    return True


def batch(size: int) -> range:
    return range(size)


def contests(scale: float = 1) -> list[Contest]:
    size = scaled(TASKS, scale)
    field = (
        peers.SIMPLE_QUEUE,
        peers.RETRYPOOL,
        peers.EXECUTOR,
        peers.executor_tenacity(),
        peers.MULTIPROCESSING,
        peers.PEBBLE,
        peers.MORE_EXECUTORS,
    )
    found = []
    for workers in WORKERS:
        rows = [peer.row(per_task(peer, nothing, workers, batch), size) for peer in field]
        goals = (
            faster("ThreadPoolExecutor", 7),
            faster("ThreadPoolExecutor + tenacity", 14),
        )
        setting = f"no-op, {workers} worker{'s' * (workers > 1)}"
        found.append(Contest(setting, "µs/task", rows, goals if workers in {4, 64} else ()))
    return [*found, with_priorities(size)]


def with_priorities(size: int) -> Contest:
    rows = [
        peers.RETRYPOOL.row(prioritised(workers=4), size),
        peers.EXECUTOR.row(per_task(peers.EXECUTOR, nothing, 4, batch), size, "ThreadPoolExecutor"),
    ]
    goal = faster("ThreadPoolExecutor", 3)
    return Contest(f"no-op, 4 workers, {PRIORITIES} priorities in use", "µs/task", rows, (goal,))


def prioritised(workers: int) -> Measure:
    """The peer has no priorities: it is measured without."""

    def measure(size: int) -> float:
        from retrypool import Pool

        priorities = list(islice(cycle(range(PRIORITIES)), size))
        pool: Any
        with Pool([nothing] * workers) as pool:

            def once() -> Cost:
                with Meter() as meter:
                    tasks = [pool.dispatch(0, priority=priority) for priority in priorities]
                    results = [task.result() for task in tasks]
                assert results == [True] * size
                return meter.per(size)

            for task in [pool.dispatch(0) for _ in range(10 * workers)]:
                task.result()
            return middle(once)

    return measure
