"""Does a task cost more, the more of them wait?"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from time import process_time
from typing import Any

from .harness import Contest, Measure, Row, scaled, within

BACKLOGS = (1_000, 10_000, 100_000, 1_000_000)
AT_LEAST = 50_000
"""Tasks in one round: a small backlog is built and worked off as often as that takes."""
WORKERS = 4
PER_TASK = 10e-6
"""Seconds to allow for the dispatch of one delayed task, so that none is due before all wait."""

Submit = Callable[[int], Any]


class Gate:
    """Holds workers, each at a task of its own, so that a backlog can build up."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._held = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, item: object) -> bool:
        if item is self:
            self._held.release()
            self._open.wait()
        return True

    def close(self, submit: Callable[[Any], Any]) -> list[Any]:
        """Returns once all workers are held; call `open` to let them go."""
        self._open.clear()
        blockers = [submit(self) for _ in range(self._workers)]
        for _ in range(self._workers):
            self._held.acquire()
        return blockers

    def open(self) -> None:
        self._open.set()


def repeated(once: Callable[[int], float], backlog: int, at_least: int) -> Measure:
    """CPU microseconds per task: time that is only waited costs nothing."""
    times = max(1, at_least // backlog)

    def measure(size: int) -> float:
        return sum(once(size) for _ in range(times)) / times / size * 1e6

    return measure


def drain(gate: Gate, submit: Submit, backlog: int) -> float:
    """CPU seconds to submit the backlog behind a closed gate, and to work it off."""
    blockers = gate.close(submit)
    started = process_time()
    tasks = [submit(n) for n in range(backlog)]
    gate.open()
    for task in tasks:
        task.result()
    elapsed = process_time() - started
    for blocker in blockers:
        blocker.result()
    return elapsed


class Bare:
    """About as large as a task, and nothing but that."""

    __slots__ = tuple("abcdefghijklm")

    def __init__(self, n: int) -> None:
        self.a = n
        self.b = float(n)


def bare_objects(backlog: int) -> float:
    """An object for each task, made, queued, taken and kept: what memory and garbage collection cost."""
    queue: deque[Bare] = deque()
    started = process_time()
    kept = [Bare(n) for n in range(backlog)]
    for item in kept:
        queue.append(item)
    while queue:
        item = queue.popleft()
        item.c = float(item.a)
    return process_time() - started


def with_executor(backlog: int) -> float:
    gate = Gate(WORKERS)
    with ThreadPoolExecutor(WORKERS) as executor:
        return drain(gate, lambda n: executor.submit(gate, n), backlog)


@contextmanager
def gated_pool() -> Iterator[tuple[Gate, Any]]:
    from retrypool import Pool

    gate = Gate(WORKERS)
    with Pool([gate] * WORKERS) as pool:
        yield gate, pool


def plain(backlog: int) -> float:
    with gated_pool() as (gate, pool):
        return drain(gate, pool.dispatch, backlog)


def priorities(backlog: int) -> float:
    choose = Random(1).randrange
    with gated_pool() as (gate, pool):
        return drain(gate, lambda n: pool.dispatch(n, priority=choose(1000)), backlog)


def delayed(backlog: int) -> float:
    """Due in random order within a short time that begins when the last one has been dispatched."""
    draw = Random(1).random
    soon = 0.01 + backlog * PER_TASK
    with gated_pool() as (_, pool):
        started = process_time()
        for task in [pool.dispatch(n, delay=soon * (1 + draw() / 4)) for n in range(backlog)]:
            task.result()
        return process_time() - started


def tried(backlog: int) -> float:
    """One worker fails all of it and stays at hand; the other comes back when it has."""
    from retrypool import Pool, RetryPolicy

    held, opened = threading.Event(), threading.Event()
    refused = threading.Semaphore(0)
    left = backlog

    def refuse(n: int) -> bool:
        nonlocal left
        if n >= 0:
            left -= 1
            if not left:
                refused.release()
        raise ConnectionError("not here")

    def accept(n: int) -> bool:
        if n < 0:
            held.set()
            opened.wait()
        return True

    pool: Any
    policy = RetryPolicy(attempts=2, delay=0)
    # Without health: the one that fails all of it would soon be given nothing.
    with Pool([refuse, accept], retry=policy, health=None, affinity_wait=3600) as pool:
        blocker = pool.dispatch(-1)
        held.wait()
        started = process_time()
        tasks = [pool.dispatch(n) for n in range(backlog)]
        refused.acquire()
        opened.set()
        for task in tasks:
            task.result()
        elapsed = process_time() - started
        blocker.result()
        return elapsed


def contests(scale: float = 1) -> list[Contest]:
    backlogs = sorted({scaled(backlog, scale) for backlog in BACKLOGS})
    at_least = scaled(AT_LEAST, scale)
    first, last = f"{backlogs[0]:,}", f"{backlogs[-1]:,}"
    found = []
    for setting, once in (
        ("first in, first out", plain),
        ("1,000 priorities", priorities),
        ("delayed", delayed),
        ("one of two workers has tried everything", tried),
    ):
        rows = [
            Row(f"{backlog:,}", repeated(once, backlog, at_least), backlog, "retrypool")
            for backlog in backlogs
        ]
        if once is plain:
            rows += [
                Row(
                    f"bare objects (floor), {backlog:,}",
                    repeated(bare_objects, backlog, at_least),
                    backlog,
                    floor=True,
                )
                for backlog in backlogs
            ]
            rows += [
                Row(
                    f"ThreadPoolExecutor, {backlog:,}",
                    repeated(with_executor, backlog, at_least),
                    backlog,
                )
                for backlog in backlogs[:3]
            ]
        goals = (within(1.3, first, row=last),)
        found.append(Contest(f"{setting}, by backlog", "CPU µs/task", rows, goals, first, most_rounds=3))
    return found
