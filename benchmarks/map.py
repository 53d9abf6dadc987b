"""What does a mapped item cost, and does memory stay flat however many there are?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from .harness import Contest, Row, at_most, faster, scaled

WORKERS = 4
ITEMS = 20_000
MANY = 200_000
WINDOW = 1_000

HAS_BUFFERSIZE = sys.version_info >= (3, 14)
PEER = "ThreadPoolExecutor.map"
BUFFERED = f"ThreadPoolExecutor.map, buffersize={WINDOW}"


def same(item: int) -> int:
    return item


def with_retrypool(items: Iterable[int]) -> Iterator[int]:
    from retrypool import Pool

    pool: Any
    with Pool([same] * WORKERS) as pool:
        yield from pool.map(items, window=WINDOW)


def with_executor(items: Iterable[int], **options: int) -> Iterator[int]:
    with ThreadPoolExecutor(WORKERS) as executor:
        yield from executor.map(same, items, **options)


MAPS: dict[str, Callable[[Iterable[int]], Iterator[int]]] = {
    "retrypool": with_retrypool,
    PEER: with_executor,
    **({BUFFERED: partial(with_executor, buffersize=WINDOW)} if HAS_BUFFERSIZE else {}),
}


def per_item(size: int, label: str) -> float:
    """Microseconds, the pool's start and end included."""
    started = perf_counter()
    total = sum(MAPS[label](range(size)))
    elapsed = perf_counter() - started
    assert total == size * (size - 1) // 2
    return elapsed / size * 1e6


_STATM = Path("/proc/self/statm")

_CHILD = """
import sys
sys.path[:] = {path!r}
from resource import getpagesize
from benchmarks.map import _STATM, MAPS

def megabytes():
    return int(_STATM.read_text().split()[1]) * getpagesize() / 2**20

mapped = MAPS[{label!r}]
for _ in mapped(range(1000)):
    pass
before = peak = megabytes()
for item in mapped(range({size})):
    if item % 1000 == 0:
        peak = max(peak, megabytes())
print(peak - before)
"""


def peak_growth(size: int, label: str) -> float:
    """Megabytes by which the resident set of a fresh process rises over that of a first short run.

    Looked at every thousand items. The kernel's own peak is of no use: a child inherits its parent's.
    """
    child = _CHILD.format(path=sys.path, label=label, size=size)
    command = [sys.executable, "-c", child]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def contests(scale: float = 1) -> list[Contest]:
    items, many = scaled(ITEMS, scale), scaled(MANY, scale)
    rows, peaks = [], []
    for label in MAPS:
        needs = "retrypool:Pool.map" if label == "retrypool" else None
        rows.append(Row(label, partial(per_item, label=label), items, needs))
        peaks.append(Row(label, partial(peak_growth, label=label), many, needs))
    found = [Contest(f"no-op, {WORKERS} workers", "µs/item", rows, (faster(PEER, 4), faster(BUFFERED, 4)))]
    if _STATM.exists():
        found.append(Contest(f"peak memory, {many:,} items", "MB", peaks, (at_most(5),), most_rounds=3))
    return found
