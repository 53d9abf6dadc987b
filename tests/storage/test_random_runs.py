"""Whatever is done to a pool, by several threads at once: its storage says what the pool says."""

import logging
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from retrypool import (
    Pool,
    RetryPolicy,
    SQLiteStorage,
    TaskNotFound,
    Throttled,
    Unrecoverable,
    WorkerNotFound,
    WorkerSpec,
)


def worker(chance: random.Random) -> Any:
    def work(data: object) -> object:
        number = chance.random()
        if number < 0.2:
            raise OSError("now and then")
        if number < 0.22:
            raise Throttled(retry_after=0.005)
        if number < 0.24:
            raise Unrecoverable("no such thing")
        return data

    return work


class Caller:
    """Does what callers do, at random."""

    def __init__(self, pool: Pool[Any, Any], name: str, chance: random.Random) -> None:
        self.pool, self.name, self.chance = pool, name, chance

    def run(self, times: int) -> None:
        for number in range(times):
            act = self.chance.choice(
                (
                    self.one,
                    self.one,
                    self.keyed,
                    self.many,
                    self.cancelled,
                    self.dead,
                    self.interrupted,
                    self.mapped,
                )
            )
            try:
                act(f"{self.name}-{number}")
            except (TaskNotFound, WorkerNotFound):
                pass  # another caller was quicker

    def one(self, name: str) -> None:
        self.pool.dispatch(name)

    def keyed(self, name: str) -> None:
        self.pool.dispatch(name, key=name)
        self.pool.dispatch(name, key=name)

    def many(self, name: str) -> None:
        self.pool.dispatch_many([f"{name}-{n}" for n in range(20)])

    def cancelled(self, name: str) -> None:
        self.pool.cancel_task(self.pool.dispatch(name, delay=self.chance.choice((0, 0.01))))

    def dead(self, name: str) -> None:
        if dead := self.pool.dead_tasks():
            chosen = self.chance.choice(dead).id
            self.chance.choice((self.pool.requeue_dead_task, self.pool.pull_dead_task))(chosen)

    def interrupted(self, name: str) -> None:
        self.pool.interrupt_worker(self.chance.choice(self.pool.workers()).id)

    def mapped(self, name: str) -> None:
        results = self.pool.map(
            range(30), key=lambda n: f"{name}-{n}", return_exceptions=True, ordered=self.chance.random() < 0.5
        )
        for _ in range(self.chance.choice((1, 30))):
            next(results, None)
        results.close()


@pytest.mark.parametrize("record_starts", [False, True], ids=["", "record_starts"])
def test_storage_says_what_the_pool_says(
    tmp_path: Path, record_starts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="retrypool")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for ends_by_force in (True, False):
        storage = SQLiteStorage(tmp_path / "run.db", record_starts=record_starts)
        specs = [WorkerSpec(worker(random.Random(chance.random())), group=name) for name in "abcd"]
        pool = Pool(specs, storage=storage, retry=RetryPolicy(attempts=3, delay=0.002))
        callers = [Caller(pool, f"{ends_by_force}-{n}", random.Random(chance.random())) for n in range(4)]
        threads = [threading.Thread(target=caller.run, args=(30,)) for caller in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if ends_by_force:
            pool.force_close()
            continue
        pool.wait()
        storage.flush()
        counts = storage.counts()
        assert {dead.id for dead in storage.dead()} == {dead.id for dead in pool.dead_tasks()}, f"seed {seed}"
        assert counts.waiting == len(pool.tasks()) == 0, f"seed {seed}: {counts}"
        pool.close()
