"""Whatever happens to a pool at random: no task is lost, and none is run twice at once."""

import random
import threading
from collections import Counter
from concurrent.futures import wait
from contextlib import suppress
from typing import Any

import pytest

from retrypool import DeadReason, FailureAction, RetryPolicy, Task, TaskState, Unrecoverable, WorkerNotFound

pytestmark = pytest.mark.usefixtures("switching_often")

DISPATCHERS = 3
TASKS_EACH = 25


class Ledger:
    """Who is run now, and how often each was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self.doubled: list[int] = []
        self.entries: Counter[int] = Counter()

    def enter(self, number: int) -> int:
        with self._lock:
            if number in self._running:
                self.doubled.append(number)
            self._running.add(number)
            self.entries[number] += 1
            return self.entries[number]

    def leave(self, number: int) -> None:
        with self._lock:
            self._running.discard(number)


class Flaky:
    """Fails as each item's own plan says, attempt by attempt, and now and then of itself."""

    def __init__(self, ledger: Ledger, seed: float, failing: float) -> None:
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._failing = failing

    def run(self, ctx: Any, item: tuple[int, str]) -> int:
        number, plan = item
        attempt = self._ledger.enter(number)
        try:
            step = plan[min(attempt, len(plan)) - 1]
            if step == "u":
                raise Unrecoverable(f"item {number}")
            if step == "f" or self._chance.random() < self._failing:
                raise OSError(f"item {number}, attempt {attempt}")
            if step == "x":
                raise SystemExit(number)
            return number
        finally:
            self._ledger.leave(number)


def random_options(chance: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if chance.random() < 0.3:
        options["priority"] = chance.randint(-1, 1)
    if chance.random() < 0.2:
        options["delay"] = chance.choice([0, 0.001, 0.003])
    if chance.random() < 0.3:
        options["retry"] = RetryPolicy(
            attempts=chance.randint(1, 4),
            delay=chance.choice([0, 0.001, 0.002]),
            immediate=chance.random() < 0.3,
        )
    return options


def random_plan(chance: random.Random) -> str:
    return "".join(chance.choices("ofux", (8, 3, 0.3, 0.5), k=chance.randint(1, 4)))


class Run:
    """One random run: some threads dispatch, one makes trouble."""

    def __init__(self, stage: Any, seed: int, *, leave_within: float) -> None:
        self.stage = stage
        self.chance = random.Random(seed)
        self.ledger = Ledger()
        self.leave_within = leave_within
        self.ended: Counter[int] = Counter()
        self._ended_lock = threading.Lock()
        self.tasks: list[Task[Any, Any]] = []
        self.requeued: list[Task[Any, Any]] = []
        self.pool = stage.pool(
            [self.worker() for _ in range(self.chance.randint(1, 4))],
            retry=RetryPolicy(attempts=3, delay=0),
            on_failure=self.on_failure if seed % 2 else None,
            listeners=[lambda event: None] if seed % 5 == 0 else [],
            affinity_wait=self.chance.choice([0, 0.002, 5.0]),
            health=None,  # an ejected group would be waited for
        )
        self.first = self.pool.workers()[0].id

    def worker(self) -> Flaky:
        return Flaky(self.ledger, self.chance.random(), self.chance.choice([0.0, 0.1, 0.5]))

    def on_failure(self, task: Task[Any, Any], error: BaseException) -> FailureAction | None:
        number = task.data[0]
        if number % 17 == 0:
            return FailureAction.DROP
        return FailureAction.DEAD if number % 13 == 0 else None

    def count_end(self, task: Any) -> None:
        with self._ended_lock:
            self.ended[id(task)] += 1

    def dispatch(self, dispatcher: int, seed: float) -> None:
        chance = random.Random(seed)
        for count in range(TASKS_EACH):
            item = (dispatcher * TASKS_EACH + count, random_plan(chance))
            task = self.pool.dispatch(item, **random_options(chance))
            task.add_done_callback(self.count_end)
            self.tasks.append(task)

    def make_trouble(self) -> None:
        for _ in range(25):
            with suppress(WorkerNotFound):  # one that was leaving is gone in the meantime
                self.make_one_trouble(self.chance, self.pool)

    def make_one_trouble(self, chance: random.Random, pool: Any) -> None:
        match chance.randrange(9):
            case 0:
                pool.add_worker(self.worker())
            case 1:
                leaving = chance.choice(pool.workers()).id
                if leaving != self.first:
                    pool.remove_worker(leaving, timeout=self.leave_within)
            case 2:
                pool.pause_worker(chance.choice(pool.workers()).id)
            case 3:
                pool.resume_worker(chance.choice(pool.workers()).id)
            case 4:
                pool.pause()
                pool.wait(timeout=0.001)
                pool.resume()
            case 5:
                for task in chance.sample(self.tasks, min(3, len(self.tasks))):
                    task.cancel()
            case 6:
                for dead in pool.dead_tasks()[:2]:
                    self.ledger.entries[dead.data[0]] = 0
                    task = pool.requeue_dead_task(dead.id)
                    task.add_done_callback(self.count_end)
                    self.requeued.append(task)
            case 7:
                assert pool.stats().waiting >= 0
                assert pool.queue_size >= 0
                pool.tasks()
            case 8:
                pool.wait(timeout=0.001)

    def resume_all(self) -> None:
        for worker in self.pool.workers():
            with suppress(WorkerNotFound):
                self.pool.resume_worker(worker.id)

    def go(self) -> None:
        dispatching = [
            self.stage.start(self.dispatch, number, self.chance.random()) for number in range(DISPATCHERS)
        ]
        self.make_trouble()
        for each in dispatching:
            each.result(self.stage.within)

    def check(self) -> None:
        tasks = self.tasks + self.requeued
        assert self.ledger.doubled == []
        assert len(self.tasks) == DISPATCHERS * TASKS_EACH
        assert [task for task in tasks if not task.done()] == []
        assert {self.ended[id(task)] for task in tasks} == {1}
        states = Counter(task.state for task in tasks)
        stats = self.pool.stats()
        assert (stats.queued, stats.delayed, stats.running) == (0, 0, 0)
        assert stats.succeeded == states[TaskState.SUCCEEDED]
        assert stats.died == states[TaskState.DEAD]
        assert stats.cancelled == states[TaskState.CANCELLED]
        assert stats.dispatched == len(tasks)
        assert stats.dead == stats.died - len(self.requeued)
        for task in tasks:
            if task.state is TaskState.SUCCEEDED:
                assert task.result() == task.data[0]


@pytest.mark.parametrize("seed", range(200))
def test_no_task_is_lost_and_none_is_run_twice_at_once(stage: Any, seed: int) -> None:
    """Workers leave only after their task, so every entry into `run` is an attempt of some task."""
    run = Run(stage, seed, leave_within=stage.within)
    run.go()
    run.resume_all()
    run.pool.close(timeout=stage.within)
    run.check()
    if not run.requeued:
        assert sum(run.ledger.entries.values()) == sum(task.attempts for task in run.tasks)
        stats = run.pool.stats()
        dropped = sum(task.cancelled() and task.data[0] % 17 == 0 for task in run.tasks)
        assert stats.retries + stats.died <= stats.failures <= stats.retries + stats.died + dropped


@pytest.mark.parametrize("seed", range(40))
def test_no_task_is_lost_when_workers_are_taken_away_from_them(stage: Any, seed: int) -> None:
    run = Run(stage, seed, leave_within=0.0)
    run.go()
    run.resume_all()
    run.pool.close(timeout=stage.within)
    assert [task for task in run.tasks + run.requeued if not task.done()] == []
    assert {run.ended[id(task)] for task in run.tasks + run.requeued} == {1}


@pytest.mark.parametrize("seed", range(60))
def test_every_task_ends_when_a_busy_pool_is_closed_by_force(stage: Any, seed: int) -> None:
    run = Run(stage, seed, leave_within=stage.within)
    run.dispatch(0, run.chance.random())
    more = stage.start(run.dispatch, 1, run.chance.random())
    returned = run.pool.force_close()
    more.exception(stage.within)
    assert all(task.cancelled() for task in returned)
    stage.join_workers(run.pool)
    _, hanging = wait(run.tasks, timeout=0)
    assert hanging == set()
    assert run.ledger.doubled == []


def test_dead_worker_costs_each_task_at_most_one_attempt(stage: Any) -> None:
    """A retry goes to a worker that has not tried the task, as long as one is live."""
    refused: Counter[int] = Counter()

    class Dead:
        def run(self, ctx: Any, number: int) -> int:
            refused[number] += 1
            raise ConnectionError("this one never works")

    pool = stage.pool([Dead(), *[lambda number: number] * 3], affinity_wait=600, health=None)
    policy = RetryPolicy(attempts=2, delay=0)
    tasks = pool.dispatch_many(range(10_000), retry=policy)
    pool.close(timeout=60)
    assert [task.result() for task in tasks] == list(range(10_000))
    assert set(refused.values()) <= {1}
    assert sum(refused.values()) == pool.stats().failures == pool.stats().retries


def test_each_retry_goes_to_a_worker_that_has_not_tried_the_task(stage: Any) -> None:
    tried_by: dict[int, list[int]] = {number: [] for number in range(500)}

    class Recorder:
        def run(self, ctx: Any, number: int) -> None:
            tried_by[number].append(ctx.worker_id)
            raise OSError(number)

    pool = stage.pool([Recorder() for _ in range(5)], affinity_wait=600, health=None)
    tasks = pool.dispatch_many(tried_by, retry=RetryPolicy(attempts=5, delay=0))
    pool.close(timeout=stage.within)
    assert {tuple(sorted(workers)) for workers in tried_by.values()} == {(0, 1, 2, 3, 4)}
    assert {task.state for task in tasks} == {TaskState.DEAD}
    assert {dead.reason for dead in pool.dead_tasks()} == {DeadReason.ATTEMPTS}


def test_tried_set_starts_afresh_once_every_worker_has_tried(stage: Any) -> None:
    tried_by: list[int] = []

    class Recorder:
        def run(self, ctx: Any, data: object) -> None:
            tried_by.append(ctx.worker_id)
            raise OSError(data)

    with stage.pool([Recorder() for _ in range(3)], affinity_wait=600, health=None) as pool:
        pool.dispatch("x", retry=RetryPolicy(attempts=9, delay=0))
    assert [sorted(tried_by[n : n + 3]) for n in (0, 3, 6)] == [[0, 1, 2]] * 3


def test_one_worker_alone_is_tried_again(stage: Any) -> None:
    attempts = iter([OSError("once"), OSError("twice"), None])

    def flaky(data: str) -> str:
        error = next(attempts)
        if error is not None:
            raise error
        return data

    with stage.pool([flaky], affinity_wait=600) as pool:
        task = pool.dispatch("x", retry=RetryPolicy(attempts=3, delay=0))
    assert task.result() == "x"
    assert task.attempts == 3
