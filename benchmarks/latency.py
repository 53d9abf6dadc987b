"""How long does one task take from dispatch to result, on an idle pool and on a half-busy one?"""

from __future__ import annotations

import threading
from time import perf_counter, sleep

from . import peers
from .harness import Contest, Measure, percentile, scaled, within
from .peers import Peer

WORKERS = 4
TASKS = 1_000
PAUSE = 0.001
"""Seconds before each task, so that all workers have gone to wait again."""
BUSY = 0.005


def task(busy: bool) -> bool:
    if busy:
        sleep(BUSY)
    return True


def latency(peer: Peer, share: float, load: int, workers: int = WORKERS) -> Measure:
    """Microseconds that `share` of the tasks do not exceed, while `load` workers are kept busy."""

    def measure(size: int) -> float:
        taken = []
        done = threading.Event()
        with peer.open(task, workers) as run_batch:

            def keep_busy() -> None:
                while not done.is_set():
                    run_batch((True,))

            feeders = [threading.Thread(target=keep_busy) for _ in range(load)]
            for feeder in feeders:
                feeder.start()
            run_batch((False,) * 10 * workers)
            for _ in range(size):
                sleep(PAUSE)
                started = perf_counter()
                run_batch((False,))
                taken.append(perf_counter() - started)
            done.set()
            for feeder in feeders:
                feeder.join()
        return percentile(taken, share) * 1e6

    return measure


def contests(scale: float = 1) -> list[Contest]:
    size = scaled(TASKS, scale)
    field = (peers.SIMPLE_QUEUE, peers.RETRYPOOL, peers.EXECUTOR)
    found = []
    for load, name in ((0, "idle"), (WORKERS // 2, "half load")):
        for share in (0.50, 0.99):
            rows = [
                peer.row(latency(peer, share, load), size)
                for peer in field
                # Its answers carry no name: with feeders beside us we would take theirs.
                if not (load and peer is peers.SIMPLE_QUEUE)
            ]
            # As many as it would have by itself: it starts no thread while one is idle.
            needed = load + 1
            label = f"ThreadPoolExecutor, {needed} thread{'s' if needed > 1 else ''}"
            rows.append(peers.EXECUTOR.row(latency(peers.EXECUTOR, share, load, needed), size, label))
            setting = f"{name}, {WORKERS} workers, p{share * 100:g}"
            goals = within(1.0, "ThreadPoolExecutor"), within(1.0, label)
            found.append(Contest(setting, "µs", rows, goals))
    return found
