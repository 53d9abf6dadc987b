"""How long until the library is imported, until the first result, and until the pool is closed?"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from statistics import median
from time import perf_counter
from typing import Any

from .harness import Contest, Row, at_most, scaled, within

IMPORTS = 5
POOLS = {1: 40, 100: 5}
EXECUTOR = "concurrent.futures.thread"
POOL = "from retrypool import Pool"
"""All that a pool needs. `import retrypool` alone leaves that for when it is first asked for."""

# What a pool of threads has no use for until somebody asks for it by name.
OPTIONAL = (
    "asyncio", "cron_converter", "croniter", "email", "http", "json", "multiprocessing",
    "opentelemetry", "prometheus_client", "redis", "rich", "socket", "sqlite3", "ssl", "tqdm",
    "urllib", "zoneinfo",
)  # fmt: skip

_CHILD = """
import sys
sys.path[:] = {path!r}
before = set(sys.modules)
from time import perf_counter
started = perf_counter()
{statement}
elapsed = perf_counter() - started
print(elapsed)
print(*sorted(set(sys.modules) - before))
"""


@cache
def environment() -> dict[str, str]:
    """Every module is compiled once, in the warm-up, whether or not it was installed compiled."""
    folder = tempfile.TemporaryDirectory(prefix="benchmarks-")
    atexit.register(folder.cleanup)
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": folder.name}


def import_in_fresh_process(statement: str) -> tuple[float, set[str]]:
    """Milliseconds, and what came along."""
    command = [sys.executable, "-c", _CHILD.format(path=sys.path, statement=statement)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    elapsed, modules = printed.splitlines()
    return float(elapsed) * 1e3, set(modules.split())


def import_time(size: int, statement: str) -> float:
    return median(import_in_fresh_process(statement)[0] for _ in range(size))


@cache
def imported(statement: str) -> set[str]:
    return import_in_fresh_process(statement)[1]


def optional_modules(size: int) -> float:
    return float(len(imported(POOL).intersection(OPTIONAL)))


def what_is_imported() -> str:
    """What we import that the executor does not, our own modules aside."""
    try:
        ours, theirs = imported(POOL), imported(f"import {EXECUTOR}")
    except subprocess.CalledProcessError as error:
        return f"import failed: {error.stderr.strip().splitlines()[-1]}"
    more = {name for name in ours - theirs if name.partition(".")[0] != "retrypool"}
    optional = ", ".join(sorted(more.intersection(OPTIONAL))) or "nothing"
    return f"beyond {EXECUTOR}: {', '.join(sorted(more)) or 'nothing'}; optional: {optional}"


def nothing(item: object) -> bool:
    return True


def executor(workers: int) -> tuple[Callable[[], Any], Callable[[], None]]:
    pool = ThreadPoolExecutor(workers)
    return lambda: pool.submit(nothing, 0), pool.shutdown


def retrypool(workers: int) -> tuple[Callable[[], Any], Callable[[], None]]:
    from retrypool import Pool

    pool = Pool([nothing] * workers)
    return lambda: pool.dispatch(0), pool.close


Make = Callable[[int], tuple[Callable[[], Any], Callable[[], None]]]


def first_result(size: int, make: Make, workers: int) -> float:
    """Milliseconds from no pool to the first result."""
    taken = []
    for _ in range(size):
        started = perf_counter()
        submit, close = make(workers)
        submit().result()
        taken.append(perf_counter() - started)
        close()
    return median(taken) * 1e3


def closing(size: int, make: Make, workers: int) -> float:
    """Milliseconds to close a pool that has worked and is idle, threads joined."""
    taken = []
    for _ in range(size):
        submit, close = make(workers)
        for task in [submit() for _ in range(10 * workers)]:
            task.result()
        started = perf_counter()
        close()
        taken.append(perf_counter() - started)
    return median(taken) * 1e3


def contests(scale: float = 1) -> list[Contest]:
    imports = scaled(IMPORTS, scale)
    modules = (
        ("retrypool", "import retrypool", "retrypool"),
        ("Pool", POOL, "retrypool"),
        (EXECUTOR, f"import {EXECUTOR}", None),
        ("tenacity", "import tenacity", "tenacity"),
        ("stamina", "import stamina", "stamina"),
        ("pebble", "import pebble", "pebble"),
        ("more_executors", "import more_executors", "more_executors"),
    )
    found = [
        Contest(
            "import, fresh process",
            "ms",
            [
                Row(name, partial(import_time, statement=statement), imports, needs)
                for name, statement, needs in modules
            ],
            (within(1.5, EXECUTOR),),
        ),
        Contest(
            "optional modules imported",
            "modules",
            [Row("retrypool", optional_modules, 1, "retrypool")],
            (at_most(0),),
            most_rounds=1,
            note=what_is_imported,
        ),
    ]
    for setting, measure in (("first result", first_result), ("close", closing)):
        for workers, pools in POOLS.items():
            size = scaled(pools, scale)
            rows = [
                Row(
                    "retrypool",
                    partial(measure, make=retrypool, workers=workers),
                    size,
                    "retrypool",
                ),
                Row("ThreadPoolExecutor", partial(measure, make=executor, workers=workers), size),
            ]
            plural = "s" * (workers > 1)
            found.append(Contest(f"{setting}, {workers} worker{plural}", "ms", rows))
    return found
