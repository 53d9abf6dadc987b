"""What does a task cost that is not lost with its process, from dispatch to done and durable?"""

from __future__ import annotations

import functools
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from .harness import OURS, Contest, Row, faster, scaled

WORKERS = 4
MANY = 100_000
SINGLE = 4_000
PEERS = 4_000

Durability = Literal["process", "power"]

Peer = Callable[[Durability, int], float]

HUEY = "huey.SqliteHuey"
ONE_BY_ONE = f"{OURS}, one dispatch after the other"
FORGETS = f"{OURS} without a journal"


def _work(item: object) -> object:
    return item


def ours(durability: Durability | None, *, single: bool, size: int) -> float:
    """Dispatch all, wait for all, and for the disk."""
    from retrypool import Pool, SQLiteStorage

    with tempfile.TemporaryDirectory() as folder:
        storage = None
        if durability is not None:
            storage = SQLiteStorage(Path(folder) / "run.db", durability=durability)
        pool: Any
        with Pool([_work] * WORKERS, storage=storage) as pool:
            pool.dispatch(0).result()
            start = time.perf_counter()
            if single:
                for item in range(size):
                    pool.dispatch(item)
            else:
                pool.dispatch_many(range(size))
            pool.wait()
            if storage is not None:
                storage.flush()
            return (time.perf_counter() - start) / size * 1e6


def _threads(size: int, take: Callable[[], bool]) -> None:
    """Have `take` called by all workers until it has returned True `size` times."""
    counted = itertools.count(1).__next__
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            if take() and counted() == size:
                done.set()

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def with_huey(durability: Durability, size: int) -> float:
    """Huey's own storage and tasks, without the waits of its consumer: the threads take what is there."""
    from huey import SqliteHuey

    with tempfile.TemporaryDirectory() as folder:
        huey = SqliteHuey(filename=str(Path(folder) / "huey.db"), fsync=durability == "power", results=False)
        work = huey.task()(_work)

        def take() -> bool:
            task = huey.dequeue()
            if task is None:
                return False
            huey.execute(task)
            return True

        start = time.perf_counter()
        for item in range(size):
            work(item)
        _threads(size, take)
        return (time.perf_counter() - start) / size * 1e6


def with_persist_queue(_durability: Durability, size: int) -> float:
    """Its queue with acknowledgements."""
    import persistqueue

    with tempfile.TemporaryDirectory() as folder:
        queue = persistqueue.SQLiteAckQueue(folder, multithreading=True, auto_commit=True)
        start = time.perf_counter()
        for item in range(size):
            queue.put(item)

        def take() -> bool:
            try:
                item = queue.get(block=False)
            except persistqueue.exceptions.Empty:
                return False
            _work(item)
            queue.ack(item)
            return True

        _threads(size, take)
        cost = (time.perf_counter() - start) / size * 1e6
        queue.close()
        return cost


def with_litequeue(_durability: Durability, size: int) -> float:
    """One connection for each thread."""
    from litequeue import LiteQueue

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "lite.db")
        queue = LiteQueue(path)
        start = time.perf_counter()
        for item in range(size):
            queue.put(str(item))
        here = threading.local()

        def take() -> bool:
            mine = getattr(here, "queue", None)
            if mine is None:
                mine = here.queue = LiteQueue(path)
            message = mine.pop()
            if message is None:
                return False
            _work(message.data)
            mine.done(message.message_id)
            return True

        _threads(size, take)
        return (time.perf_counter() - start) / size * 1e6


def contests(scale: float = 1.0) -> list[Contest]:
    def row(label: str, measure: Callable[[int], float], size: int, needs: str | None = None) -> Row:
        return Row(label, measure, scaled(size, scale, least=20), needs=needs)

    def own(label: str, durability: Durability | None, *, single: bool, size: int) -> Row:
        return row(label, lambda size: ours(durability, single=single, size=size), size)

    def peer(
        label: str, measure: Callable[[Durability, int], float], durability: Durability, needs: str
    ) -> Row:
        return row(label, functools.partial(measure, durability), PEERS, needs)

    process = [
        own(OURS, "process", single=False, size=MANY),
        own(ONE_BY_ONE, "process", single=True, size=SINGLE),
        own(FORGETS, None, single=False, size=MANY),
        peer(HUEY, with_huey, "process", "huey"),
        peer("persist-queue", with_persist_queue, "process", "persistqueue"),
        peer("litequeue", with_litequeue, "process", "litequeue"),
    ]
    power = [
        own(OURS, "power", single=False, size=MANY),
        own(ONE_BY_ONE, "power", single=True, size=SINGLE),
        peer(HUEY, with_huey, "power", "huey"),
    ]
    return [
        Contest(
            f"outlives its process, {WORKERS} workers, tasks with nothing to do",
            "µs per task",
            process,
            (faster(HUEY, 5),),
            most_rounds=5,
        ),
        Contest(
            f"outlives a power cut, {WORKERS} workers, tasks with nothing to do",
            "µs per task",
            power,
            (faster(HUEY, 2.5), faster(HUEY, 2, row=ONE_BY_ONE)),
            most_rounds=5,
        ),
    ]
