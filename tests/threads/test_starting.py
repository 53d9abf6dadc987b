"""Workers that can't start: they are tried again, and nobody waits for what can never be."""

import threading
from typing import Any

import pytest

from retrypool import (
    Context,
    DeadReason,
    InvalidValue,
    NoWorkers,
    Pool,
    Rate,
    RetryPolicy,
    WorkerFault,
    WorkerSpec,
    current_context,
)


class Failing:
    def on_start(self) -> None:
        raise ConnectionError("no database")

    def run(self, ctx: Context, data: Any) -> Any:
        return data


class Flaky:
    """Starts once, then fails to a few times."""

    def __init__(self, failures: int, before: int = 1) -> None:
        self.failures, self.before = failures, before
        self.starts = 0

    def on_start(self) -> None:
        self.starts += 1
        if self.before < self.starts <= self.before + self.failures:
            raise ConnectionError("no database")

    def run(self, ctx: Context, data: Any) -> Any:
        return data


def test_task_is_dead_with_the_start_error_when_no_worker_can_be_started() -> None:
    go_on = threading.Event()

    class Slow(Failing):
        def on_start(self) -> None:
            go_on.wait(20)
            super().on_start()

    pool: Pool[Any, Any] = Pool([Slow(), Slow()])
    task = pool.dispatch("x")
    go_on.set()
    with pytest.raises(NoWorkers, match="no database") as raised:
        task.result(20)
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.NO_WORKERS]
    pool.force_close()


def test_map_does_not_hang_when_no_worker_can_be_started() -> None:
    pool: Pool[Any, Any] = Pool([Failing()])
    with pytest.raises(NoWorkers):
        list(pool.map(range(1000)))
    pool.force_close()


def test_dispatch_names_the_start_error() -> None:
    pool: Pool[Any, Any] = Pool([WorkerSpec(Failing(), name="db")])
    with pytest.raises(NoWorkers, match="ConnectionError: no database") as raised:
        for _ in range(10_000_000):
            pool.dispatch("x")
    assert isinstance(raised.value.__cause__, ConnectionError)
    pool.force_close()


def test_worker_that_could_not_start_is_tried_again_and_the_state_says_when() -> None:
    flaky = Flaky(failures=2, before=0)
    pool: Pool[Any, Any] = Pool([flaky], wait_for_workers=True)
    assert pool.dispatch("x").result(20) == "x"
    assert flaky.starts == 3
    pool.close()

    pool = Pool([Failing()], wait_for_workers=True)
    task = pool.dispatch("y")
    while True:
        worker = pool.workers()[0]
        if worker.state == "failed" and worker.until is not None:
            break
    assert not task.done()
    pool.force_close()


def test_pool_recovers_by_itself_when_a_worker_that_worked_can_start_again() -> None:
    flaky = Flaky(failures=3)
    with Pool([flaky]) as pool:
        assert pool.dispatch("before").result(20) == "before"
        pool.restart_worker(0)
        tasks = pool.dispatch_many(range(10))
    assert [task.result() for task in tasks] == list(range(10))
    assert flaky.starts == 5


def test_task_that_only_the_failed_could_run_is_dead_and_others_run() -> None:
    with Pool([WorkerSpec(Failing(), tags={"gold"}), str], wait_for_workers=False) as pool:
        try:
            task = pool.dispatch(1, require={"gold"})
        except NoWorkers:
            pass
        else:
            assert isinstance(task.exception(20), NoWorkers)
        assert pool.dispatch(2).result(20) == "2"


def test_fault_may_ask_for_a_fresh_start() -> None:
    starts = []

    class Session:
        def on_start(self) -> None:
            starts.append(self)

        def run(self, ctx: Context, data: Any) -> Any:
            if len(starts) == 1:
                raise WorkerFault("the session has expired", restart=True)
            return data

    with Pool([WorkerSpec(factory=Session)], retry=RetryPolicy(delay=0)) as pool:
        assert pool.dispatch("x").result(20) == "x"
    assert len(set(map(id, starts))) == 2


def test_worker_may_ask_for_a_fresh_start_and_keep_its_result() -> None:
    starts = []

    class Session:
        def on_start(self) -> None:
            starts.append(self)

        def run(self, ctx: Context, data: Any) -> Any:
            current_context().restart()
            return data

    with Pool([Session()]) as pool:
        assert [task.result(20) for task in pool.dispatch_many(range(3))] == [0, 1, 2]
    assert len(starts) >= 3


def test_worker_that_starts_while_the_pool_is_paused_begins_nothing(stage: Any) -> None:
    starting, ran = stage.gate(), []

    class Slow:
        def on_start(self) -> None:
            starting.hold()

        def run(self, ctx: Context, data: Any) -> None:
            ran.append(data)

    pool = stage.pool([Slow()])
    task = pool.dispatch("x")
    starting.wait_until_reached()
    pool.pause()
    starting.open()
    stage.until(lambda: pool.workers()[0].state == "active")
    assert pool.wait(timeout=0.001) is False
    assert ran == []
    pool.resume()
    task.result(stage.within)
    pool.close(timeout=stage.within)


def test_no_worker_is_started_if_one_of_them_can_not_join() -> None:
    started: list[object] = []

    class Worker:
        def on_start(self) -> None:
            started.append(self)

        def run(self, ctx: Context, data: Any) -> Any:
            return data

    threads = threading.active_count()
    with pytest.raises(InvalidValue, match="rate"):
        Pool([WorkerSpec(Worker(), group="one", rate=rate) for rate in (Rate(1), Rate(1), Rate(2))])
    assert threading.active_count() == threads
    assert started == []


def test_repeated_workers_are_one_group_and_others_are_not() -> None:
    """Also where those that are the same do not follow each other."""

    class Client:
        def fetch(self, data: Any) -> Any:
            return data

    one, two = Client(), Client()
    workers = [str, str, one.fetch, str, WorkerSpec(Flaky(0)), two.fetch, str, one.fetch]
    with Pool(workers) as pool:
        groups = [worker.group for worker in pool.workers()]
    assert groups == [f"worker-{number}" for number in (0, 0, 2, 0, 4, 5, 0, 2)]
