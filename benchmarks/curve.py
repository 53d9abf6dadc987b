"""What does a task cost, by how many are dispatched at once?"""

from __future__ import annotations

from . import peers
from .cost import Cost, Meter, middle
from .harness import Contest, Goal, Measure, faster, scaled
from .peers import Peer

WORKERS = 4
GOALS = {10: 2, 100: 4, 1_000: 6, 20_000: 7, 100_000: 9}
"""Batches, and how many times as much `ThreadPoolExecutor` should cost."""
AT_LEAST = 20_000
"""Tasks in one round: a small batch is run as often as that takes."""

PEERS = (
    peers.RETRYPOOL,
    peers.EXECUTOR,
    peers.MULTIPROCESSING,
    peers.executor_by_hand(),
    peers.executor_tenacity(),
    peers.SIMPLE_QUEUE,
    peers.BARE_FUTURES,
)


def nothing(item: object) -> bool:
    return True


def by_batch(peer: Peer, times: int) -> Measure:
    """Microseconds per task of a batch, from its first submit to its last result, one after the other."""

    def measure(size: int) -> float:
        with peer.open(nothing, WORKERS) as run_batch:

            def once() -> Cost:
                items = range(size)
                with Meter() as meter:
                    run_batch(items)
                return meter.per(size)

            run_batch(range(10 * WORKERS))
            return middle(once, times)

    return measure


def contests(scale: float = 1) -> list[Contest]:
    found = []
    for batch, goal in GOALS.items():
        times = scaled(AT_LEAST // batch, scale)
        size = scaled(batch, min(scale, 1), least=min(batch, 10))
        rows = [peer.row(by_batch(peer, times), size) for peer in PEERS]
        goals: tuple[Goal, ...] = (faster("ThreadPoolExecutor", goal),)
        if batch == AT_LEAST:
            goals += (peers.over_the_floor(2.0),)
        found.append(Contest(f"batches of {batch:,}, {WORKERS} workers", "µs/task", rows, goals))
    return found
