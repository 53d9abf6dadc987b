"""What does a timeout on every attempt cost, when none of them is reached?"""

from __future__ import annotations

from typing import Any

from . import peers
from .harness import Contest, faster, scaled, within
from .peers import per_task

WORKERS = 4
TASKS = 10_000
SECONDS = 10.0


def nothing(item: object) -> bool:
    return True


def batch(size: int) -> range:
    return range(size)


def armed() -> dict[str, Any]:
    return {"timeout": SECONDS}


def contests(scale: float = 1) -> list[Contest]:
    size = scaled(TASKS, scale)
    field = (
        peers.retrypool(pool_options=armed),
        peers.retrypool("retrypool, no timeout"),
        peers.EXECUTOR,
        peers.executor_timer(SECONDS),
        peers.more_executors_timeout(SECONDS),
    )
    rows = [peer.row(per_task(peer, nothing, WORKERS, batch), size) for peer in field]
    goals = (
        within(1.05, "retrypool, no timeout"),
        faster("ThreadPoolExecutor", 5),
        faster("ThreadPoolExecutor + Timer", 35),
    )
    return [Contest(f"no-op with {SECONDS:g} s each, {WORKERS} workers", "µs/task", rows, goals)]
