"""Everything at once, at random, with seeds and switch intervals: no task is lost, and none hangs."""

import contextlib
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from retrypool import (
    CancelToken,
    Drain,
    Pool,
    PoolClosed,
    QueueFull,
    Rate,
    RetryPolicy,
    RetryPoolError,
    TaskState,
    Throttled,
    Unrecoverable,
    WorkerFault,
    WorkerSpec,
)

WITHIN = 60.0
TASKS = 300


@pytest.fixture(params=[0.005, 1e-4, 1e-6], ids=["seldom", "often", "always"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


class Worker:
    def __init__(self, seed: float) -> None:
        self.chance = random.Random(seed)

    def run(self, ctx: Any, data: int) -> int:
        match self.chance.randrange(12):
            case 0:
                raise OSError(data)
            case 1:
                raise Throttled(retry_after=0.001)
            case 2:
                raise WorkerFault("ill")
            case 3:
                raise Unrecoverable(data)
            case 4:
                ctx.sleep(0.002)
            case 5:
                ctx.settle(2)
            case 6:
                ctx.token.child()
        return data


class Run:
    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.told: Counter[int] = Counter()
        self.tasks: list[Any] = []
        self.token = CancelToken()
        self.drain: Drain[Any] = Drain(commit=chance.choice(["now", "success"]))
        self.pool: Pool[Any, Any] = Pool(
            [self.spec() for _ in range(3)],
            retry=RetryPolicy(attempts=chance.choice([1, 3]), delay=chance.choice([0, 0.001])),
            max_queue=chance.choice([None, 20]),
            listeners=[] if chance.random() < 0.5 else [id],
            keep_results=chance.random() < 0.3,
            grace=0.05,
            wait_for_workers=True,
            max_abandoned=1000,
            affinity_wait=0.01,
            rate=chance.choice([None, Rate(1e5)]),
        )

    def spec(self) -> WorkerSpec[Any, Any]:
        seed = self.chance.random()
        return WorkerSpec(
            factory=lambda: Worker(seed),
            concurrency=self.chance.choice([1, 1, 2]),
            tags={"even"} if self.chance.random() < 0.7 else (),
        )

    def options(self, chance: random.Random) -> dict[str, Any]:
        choices: list[dict[str, Any]] = [
            {},
            {"delay": chance.random() * 0.01},
            {"priority": chance.randrange(30)},
            {"timeout": 0.001, "interrupt_on_timeout": chance.random() < 0.5},
            {"deadline": 0.02},
            {"time_limit": 0.005},
            {"require": {"even"}, "wait_for_worker": True, "deadline": 0.5},
            {"cancel": self.token.after(0.01) if chance.random() < 0.5 else self.token.child()},
            {"drain": self.drain},
            {"keep_data": False},
            {"cost": 2.0},
            {"copy_context": True},
        ]
        return {**chance.choice(choices), "block_timeout": WITHIN}

    def dispatch(self, seed: float) -> None:
        chance = random.Random(seed)
        for number in range(TASKS):
            with contextlib.suppress(PoolClosed, QueueFull):
                task = self.pool.dispatch(number, **self.options(chance))
                task.add_done_callback(lambda task: self.told.update([id(task)]))
                self.tasks.append(task)

    def trouble(self, seed: float) -> None:
        chance, pool = random.Random(seed), self.pool
        for _ in range(60):
            workers = [info.id for info in pool.workers()]
            one = chance.choice(workers) if workers else 0
            with contextlib.suppress(RetryPoolError):
                match chance.randrange(12):
                    case 0:
                        pool.add_worker(self.spec())
                    case 1 if len(workers) > 2:
                        pool.remove_worker(one, timeout=0.001, force=chance.random() < 0.5)
                    case 2:
                        pool.pause_worker(one)
                        pool.resume_worker(one)
                    case 3:
                        pool.pause()
                        pool.resume()
                    case 4:
                        pool.interrupt_worker(one, then=chance.choice(["keep", "restart"]), force=True)
                    case 5:
                        pool.restart_worker(one)
                    case 6:
                        pool.replace_worker(one, self.spec())
                    case 7:
                        for task in chance.sample(self.tasks, min(3, len(self.tasks))):
                            pool.cancel_task(task, interrupt=chance.random() < 0.5)
                    case 8:
                        for dead in pool.dead_tasks()[:2]:
                            self.tasks.append(pool.requeue_dead_task(dead.id))
                    case 9:
                        for task in chance.sample(self.tasks, min(3, len(self.tasks))):
                            pool.explain(task), pool.status(task.id)
                    case 10:
                        list(pool.map(range(3), ordered=chance.random() < 0.5, return_exceptions=True))
                    case _:
                        pool.stats(), pool.tasks(), pool.wait(0.001)

    def go(self) -> None:
        seeds = [self.chance.random() for _ in range(4)]
        threads = [threading.Thread(target=self.dispatch, args=[seed]) for seed in seeds[:2]]
        threads += [threading.Thread(target=self.trouble, args=[seed]) for seed in seeds[2:]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)
            assert not thread.is_alive(), "a call hangs"

    def end(self) -> None:
        pool = self.pool
        for info in pool.workers():
            with contextlib.suppress(RetryPoolError):
                pool.resume_worker(info.id)
        pool.add_worker(lambda data: data, tags={"even"})
        if self.chance.random() < 0.3:
            pool.force_close()
            pool.wait(WITHIN)
        pool.close(WITHIN)
        for runner in pool._workers:
            runner.thread.join(WITHIN)

    def check(self) -> None:
        left = [task for task in self.tasks if not task.done()]
        assert left == []
        states = Counter(task.state for task in self.tasks)
        stats = self.pool.stats()
        assert (stats.queued, stats.delayed, stats.running) == (0, 0, 0)
        assert stats.succeeded >= states[TaskState.SUCCEEDED]
        scheduler = self.pool._engine.scheduler
        backlog = scheduler.backlog
        assert backlog.filed == sum(len(each.tasks) for each in backlog.subqueues.values())
        assert len(backlog.injector) + backlog.filed == backlog.tombstones
        assert scheduler.undecided == 0
        assert set(self.told.values()) <= {1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_everything_at_once(switching: None, patience: float) -> None:
    for seed in range(round(8 * patience)):
        run = Run(seed)
        run.go()
        run.end()
        run.check()
