"""How many bytes does a task take: waiting, ended, and when nobody wants it any more?

Counted by `tracemalloc` between two moments, garbage collected before each. The items are small
integers that exist already, and the list of the tasks is made beforehand, so that what is counted
is the task and what the pool keeps for it. The control row counts objects of a known size in the
same way: if it is off, so is the rest.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

from .growth import Gate
from .harness import Contest, Row, at_most, scaled, within

TASKS = 50_000
WORKERS = 4
CONTROL = "control: bytearrays of known size (floor)"

Moment = Literal["queued", "finished", "let go"]


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def control(size: int) -> float:
    """Measured over known size, as bytes: the known size exactly, if the method holds."""
    kept: list[Any] = [None] * size
    tracemalloc.start()
    before = traced()
    for n in range(size):
        kept[n] = bytearray(99)
    after = traced()
    tracemalloc.stop()
    return (after - before) / size


def known_size(size: int) -> float:
    return float(sys.getsizeof(bytearray(99)))


def footprint(gate: Gate, submit: Callable[..., Any], size: int, moment: Moment) -> float:
    """Bytes per task at that moment."""
    tasks: list[Any] = [None] * size
    for task in [submit(0) for _ in range(10 * WORKERS)]:
        task.result()
    blockers = gate.close(submit)
    tracemalloc.start()
    try:
        before = traced()
        for n in range(size):
            tasks[n] = submit(0)
        if moment == "queued":
            return (traced() - before) / size
        gate.open()
        for task in (*tasks, *blockers):
            task.result()
        del task
        if moment == "let go":
            for n in range(size):
                tasks[n] = None
        # Less than a byte is what the threads did meanwhile, not what a task left behind.
        return max(1.0, (traced() - before) / size)
    finally:
        tracemalloc.stop()
        gate.open()


def with_executor(size: int, moment: Moment) -> float:
    gate = Gate(WORKERS)
    with ThreadPoolExecutor(WORKERS) as executor:
        return footprint(gate, lambda item: executor.submit(gate, item), size, moment)


def with_retrypool(size: int, moment: Moment) -> float:
    from retrypool import Pool

    gate = Gate(WORKERS)
    with Pool([gate] * WORKERS) as pool:
        return footprint(gate, pool.dispatch, size, moment)


def contests(scale: float = 1) -> list[Contest]:
    size = scaled(TASKS, scale)
    found = [
        Contest(
            "is the method right?",
            "bytes",
            [
                Row(CONTROL, control, size, floor=True),
                Row("sys.getsizeof (floor)", known_size, size, floor=True),
            ],
            (within(1.02, "sys.getsizeof (floor)", row=CONTROL),),
            reference="sys.getsizeof (floor)",
            most_rounds=2,
        )
    ]
    moments: tuple[Moment, ...] = ("queued", "finished", "let go")
    for moment in moments:
        rows = [
            Row("retrypool", partial(with_retrypool, moment=moment), size, "retrypool"),
            Row("ThreadPoolExecutor", partial(with_executor, moment=moment), size),
        ]
        goals = (at_most(300),) if moment == "queued" else ()
        found.append(Contest(f"{size:,} tasks, {moment}", "bytes/task", rows, goals, most_rounds=2))
    return found
