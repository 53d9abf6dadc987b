"""How late do timeouts and delays fire?"""

from __future__ import annotations

import threading
from time import monotonic, sleep
from typing import Any

from .harness import Contest, Row, at_most_later, percentile, scaled

ATTEMPTS = 500
DELAYED = 2_000
FIRST = 0.5
STEP = 0.002
"""Seconds between two that are due: each needs a wake-up of its own."""

BARE = "bare Condition.wait (floor)"


def bare_waits(size: int) -> float:
    """One thread that waits for one due time after the other, and does nothing else."""
    condition = threading.Condition()
    late = []
    start = monotonic()
    for n in range(size):
        due = start + FIRST + n * STEP
        with condition:
            while (left := due - monotonic()) > 0:
                condition.wait(left)
        late.append(monotonic() - due)
    return percentile(late, 0.99) * 1e3


def timeouts(size: int) -> float:
    """As many attempts as there are workers, all hung, each with its own timeout.

    Late is what passes between the timeout, counted from the entry into the function, and the call
    of the task's callback.
    """
    from retrypool import Pool, RetryPolicy

    release = threading.Event()
    entered = [0.0] * size
    late: list[float] = []
    all_over = threading.Semaphore(0)

    def hang(n: int) -> None:
        entered[n] = monotonic()
        release.wait()

    def over(n: int, timeout: float) -> None:
        late.append(monotonic() - entered[n] - timeout)
        all_over.release()

    pool: Any
    with Pool([hang] * size, retry=RetryPolicy(attempts=1)) as pool:
        try:
            for n in range(size):
                timeout = FIRST + n * STEP
                task = pool.dispatch(n, timeout=timeout)
                task.add_done_callback(lambda _, n=n, timeout=timeout: over(n, timeout))
            for _ in range(size):
                all_over.acquire()
        finally:
            release.set()
    return percentile(late, 0.99) * 1e3


def delays(size: int) -> float:
    """Delayed tasks on four workers, of which two are always busy with something else."""
    from retrypool import Pool

    done = threading.Event()

    def late_or_busy(due: float | None) -> float:
        if due is None:
            sleep(0.005)
            return 0.0
        return monotonic() - due

    def keep_busy(pool: Any) -> None:
        while not done.is_set():
            pool.dispatch(None).result()

    pool: Any
    with Pool([late_or_busy] * 4) as pool:
        feeders = [threading.Thread(target=keep_busy, args=(pool,)) for _ in range(2)]
        for feeder in feeders:
            feeder.start()
        tasks = []
        start = monotonic()
        for n in range(size):
            due = start + FIRST + n * STEP
            tasks.append(pool.dispatch(due, delay=due - monotonic()))
        late = [task.result() for task in tasks]
        done.set()
        for feeder in feeders:
            feeder.join()
    return percentile(late, 0.99) * 1e3


def contests(scale: float = 1) -> list[Contest]:
    found = []
    for setting, measure, size in (
        ("timeouts, {} attempts armed", timeouts, scaled(ATTEMPTS, scale)),
        ("delays, {} tasks, half load", delays, scaled(DELAYED, scale)),
    ):
        rows = [
            Row(BARE, bare_waits, size, floor=True),
            Row("retrypool", measure, size, "retrypool"),
        ]
        goals = (at_most_later(10, BARE),)
        found.append(Contest(setting.format(f"{size:,}"), "ms late, p99", rows, goals, most_rounds=5))
    return found
