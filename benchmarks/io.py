"""How long do slow, flaky calls take in all, when each retry has to wait out a back-off?"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from random import Random
from time import perf_counter, sleep
from typing import Any

from . import peers
from .harness import Contest, Measure, Row, scaled, within
from .peers import Peer

WORKERS = 64
TASKS = 9_600
CALL = 0.005
BACK_OFF = 0.5
FAILING = 0.3
ATTEMPTS = 4

OPTIMUM = "optimum (simulated)"


def failures(size: int) -> list[int]:
    """How often each task fails before it succeeds: the same in every round, for every peer."""
    draw = Random(1).random
    return [next((n for n in range(ATTEMPTS - 1) if draw() >= FAILING), ATTEMPTS - 1) for _ in range(size)]


def call(left: list[None]) -> bool:
    sleep(CALL)
    if left:
        left.pop()
        raise ConnectionError("try again")
    return True


def simulate(counts: Sequence[int], *, due_first: bool) -> float:
    """Makespan of a pool that costs nothing and whose back-offs hold no worker."""
    free = [0.0] * WORKERS
    fresh = list(reversed(counts))
    due: list[tuple[float, int]] = []
    while fresh or due:
        now = heapq.heappop(free)
        if due and (not fresh or (due_first and due[0][0] <= now)):
            ready, left = heapq.heappop(due)
            now = max(now, ready)
        else:
            left = fresh.pop()
        end = now + CALL
        heapq.heappush(free, end)
        if left:
            heapq.heappush(due, (end + BACK_OFF, left - 1))
    return max(free)


def optimum(size: int) -> float:
    counts = failures(size)
    return min(simulate(counts, due_first=True), simulate(counts, due_first=False))


def bare_calls(size: int) -> float:
    """The calls alone, dealt out beforehand: what this machine makes of `sleep` in 64 threads."""
    attempts = sum(failures(size)) + size

    def work() -> None:
        for _ in range(-(-attempts // WORKERS)):
            sleep(CALL)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return perf_counter() - started


def makespan(peer: Peer) -> Measure:
    def measure(size: int) -> float:
        with peer.open(call, WORKERS) as run_batch:
            run_batch([[]] * WORKERS)
            batch: list[list[None]] = [[None] * count for count in failures(size)]
            started = perf_counter()
            results = run_batch(batch)
            elapsed = perf_counter() - started
        assert results == [True] * size
        return elapsed

    return measure


def backing_off() -> dict[str, Any]:
    from retrypool import RetryPolicy

    return {"retry": RetryPolicy(attempts=ATTEMPTS, delay=BACK_OFF)}


def contests(scale: float = 1) -> list[Contest]:
    size = scaled(TASKS, scale)
    field = (
        peers.retrypool(pool_options=backing_off),
        peers.executor_tenacity(ATTEMPTS, BACK_OFF),
    )
    rows = [
        Row(OPTIMUM, optimum, size, floor=True),
        Row("the calls alone (floor)", bare_calls, size, floor=True),
        *(peer.row(makespan(peer), size) for peer in field),
    ]
    setting = (
        f"{size:,} calls of {CALL * 1e3:g} ms, {WORKERS} workers, "
        f"{FAILING:.0%} of the attempts fail, {BACK_OFF:g} s back-off"
    )
    goals = (within(1.05, OPTIMUM),)
    return [Contest(setting, "s makespan", rows, goals, reference=OPTIMUM, most_rounds=3)]
