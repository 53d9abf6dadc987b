"""The pools and executors that several questions open alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WORKERS = 4
EXECUTOR = "ThreadPoolExecutor"


def nothing(item: object) -> bool:
    return True


# -- opening --------------------------------------------------------------------------------------


def pool_of(workers: int = WORKERS, function: Callable[[Any], Any] = nothing, **options: Any) -> Any:
    from retrypool import Pool

    return Pool([function] * workers, **options)


def executor_of(threads: int) -> ThreadPoolExecutor:
    """One that has started all its threads. By itself it starts one only when none is idle."""
    executor = ThreadPoolExecutor(threads)
    gate = threading.Barrier(threads + 1)
    for _ in range(threads):
        executor.submit(gate.wait)
    gate.wait()
    return executor
