"""Fleets with real threads: held at barriers and gates, never timed."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from retrypool import (
    Context,
    HealthPolicy,
    NoWorkers,
    Pool,
    Rate,
    RetryPolicy,
    Task,
    Throttled,
    WorkerFault,
    WorkerSpec,
)
from retrypool.events import GroupEjected

AT_ONCE = RetryPolicy(attempts=5, delay=0)


def test_threads_of_one_worker_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    spec: WorkerSpec[int, int] = WorkerSpec(lambda _: meeting.wait(), concurrency=3)
    with Pool([spec]) as pool:
        tasks = pool.dispatch_many(range(3))
        assert sorted(task.result() for task in tasks) == [0, 1, 2]
        assert {task.history[0].worker_id for task in tasks} == {0}


def test_each_thread_has_a_resource_of_its_own_if_there_is_a_factory() -> None:
    meeting = threading.Barrier(2, timeout=20)

    class Resource:
        def run(self, ctx: Context, data: Any) -> int:
            meeting.wait()
            return id(self)

    with Pool([WorkerSpec(factory=Resource, concurrency=2)]) as pool:
        first, second = pool.dispatch_many(range(2))
        assert first.result() != second.result()


def test_tasks_of_a_throttled_group_are_done_by_the_others() -> None:
    def refused(_: int) -> int:
        raise Throttled(retry_after=3600)

    with Pool([refused, lambda n: n], retry=RetryPolicy(attempts=1)) as pool:
        tasks = pool.dispatch_many(range(200))
        assert [task.result() for task in tasks] == list(range(200))
        assert pool.workers()[0].calls <= 1


def test_ill_group_is_ejected_and_the_work_is_done() -> None:
    def ill(_: int) -> int:
        raise ConnectionError("proxy is down")

    policy = HealthPolicy(ejection=3600, longest_ejection=3600)
    ejected = threading.Event()
    with Pool(
        [ill, lambda n: n],
        retry=AT_ONCE,
        blame={ConnectionError: "group"},
        health=policy,
        listeners=[lambda event: ejected.set() if isinstance(event, GroupEjected) else None],
    ) as pool:
        pool.pause_worker(1)
        tasks = pool.dispatch_many(range(300))
        assert ejected.wait(20)
        pool.resume_worker(1)
        assert [task.result() for task in tasks] == list(range(300))
        assert (pool.workers()[0].state, pool.workers()[0].calls) == ("ejected", 5)


def test_worker_parks_itself_by_the_callback_and_loses_no_task() -> None:
    """A key that was revoked is cordoned for good by whoever hears of it."""

    def revoked(_: int) -> int:
        raise PermissionError("401")

    def park(task: Task[int, int], error: BaseException) -> None:
        pool.cordon_worker(0, "revoked")
        cordoned.set()

    cordoned = threading.Event()
    pool: Pool[int, int] = Pool(
        [revoked, lambda n: n], retry=AT_ONCE, blame={PermissionError: WorkerFault}, on_failure=park
    )
    with pool:
        pool.pause_worker(1)
        tasks = pool.dispatch_many(range(100))
        assert cordoned.wait(20)
        pool.resume_worker(1)
        assert [task.result() for task in tasks] == list(range(100))
        assert (pool.workers()[0].state, pool.workers()[0].reason) == ("cordoned", "revoked")
        assert pool.workers()[0].calls == 1


def test_worker_is_replaced_under_a_live_queue() -> None:
    """What the old one runs, it ends; the rest is done by the new one, under the same id."""
    began, may_end = threading.Event(), threading.Event()
    by: Counter[str] = Counter()

    def old(n: int) -> int:
        began.set()
        may_end.wait(20)
        by["old"] += 1
        return n

    def new(n: int) -> int:
        by["new"] += 1
        return n

    with Pool([old]) as pool:
        tasks = pool.dispatch_many(range(50))
        assert began.wait(20)
        pool.replace_worker(0, new)
        may_end.set()
        assert [task.result() for task in tasks] == list(range(50))
        assert {task.history[0].worker_id for task in tasks} == {0}
    assert by == {"old": 1, "new": 49}


def test_parked_worker_is_brought_back_by_a_new_resource() -> None:
    with Pool([str.upper]) as pool:
        pool.cordon_worker(0, "revoked")
        try:
            pool.dispatch("x")
        except NoWorkers:
            pool.replace_worker(0, str.lower)
        assert pool.dispatch("X").result() == "x"


def test_paced_pool_comes_to_its_end_with_many_threads() -> None:
    """Each thread that sleeps for the pace is called in its turn: none is forgotten."""
    specs: list[WorkerSpec[int, int]] = [
        WorkerSpec(lambda n: n, concurrency=3, rate=Rate(2000, burst=2)) for _ in range(2)
    ]
    with Pool(specs, rate=Rate(3000, burst=3)) as pool:
        tasks = pool.dispatch_many(range(200))
    assert [task.result() for task in tasks] == list(range(200))


def test_table_can_be_read_while_outcomes_of_new_kinds_come_in() -> None:
    """The counts of a worker grow in its own thread, while others look at them."""
    errors: list[Callable[[], BaseException]] = [OSError, LookupError, lambda: WorkerFault("ill")]
    turn = iter(range(10_000))

    def fails(_: int) -> int:
        kind = errors[next(turn) % 3]
        raise kind()

    retry = RetryPolicy(attempts=30, delay=0)
    with Pool([fails] * 2, retry=retry, blame={LookupError: "nobody"}, health=None) as pool:
        tasks = pool.dispatch_many(range(5))
        while not all(task.done() for task in tasks):
            for worker in pool.workers():
                assert sum(worker.failures.values()) >= 0
