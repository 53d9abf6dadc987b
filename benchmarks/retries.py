"""What does a retry cost, when it may follow at once?"""

from __future__ import annotations

from typing import Any

from . import peers
from .harness import Contest, faster, scaled
from .peers import per_task

WORKERS = 4
TASKS = 10_000


def flaky(failures: list[None]) -> bool:
    """An item is a list of the failures that are still to come."""
    if failures:
        failures.pop()
        raise ConnectionError("try again")
    return True


def at_once() -> dict[str, Any]:
    from retrypool import RetryPolicy

    return {"retry": RetryPolicy(attempts=3, delay=0)}


def contests(scale: float = 1) -> list[Contest]:
    size = scaled(TASKS, scale)
    field = (
        peers.retrypool(pool_options=at_once),
        peers.retrypool("retrypool, four groups", at_once, alike=False),
        peers.executor_tenacity(),
        peers.executor_by_hand(),
        peers.executor_stamina(),
        peers.more_executors_retry(),
    )
    settings = (("all succeed", 0, None), ("10% fail once", 10, 12), ("all fail once", 1, 8))
    by_hand = faster("ThreadPoolExecutor + for … try", 1.2)
    found = []
    for setting, every, goal in settings:

        def batch(size: int, every: int = every) -> list[list[None]]:
            return [[None] if every and not n % every else [] for n in range(size)]

        rows = [peer.row(per_task(peer, flaky, WORKERS, batch), size) for peer in field]
        goals = () if goal is None else (faster("ThreadPoolExecutor + tenacity", goal), by_hand)
        found.append(Contest(f"{setting}, {WORKERS} workers", "µs/task", rows, goals))
    return found
