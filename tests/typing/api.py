"""What the public types are. Never run: mypy reads it, and each line must mean what it says.

A `type: ignore` is a promise too: mypy complains when the line it stands on becomes correct.
"""

from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from typing import assert_type

from retrypool import (
    Context,
    Drain,
    FailureAction,
    Pool,
    PoolExecutor,
    RetryPolicy,
    Schedule,
    Task,
    TaskGroup,
    TaskResult,
    TaskStatus,
    Unrecoverable,
    Worker,
    WorkerSpec,
    current_context,
    exponential,
)


def fetch(url: str) -> bytes:
    assert_type(current_context(), Context)
    return url.encode()


class Fetcher:
    def run(self, ctx: Context, data: str) -> bytes:
        if not data:
            raise Unrecoverable("no address")
        return data.encode()


def a_function_is_a_worker() -> None:
    with Pool([fetch] * 4) as pool:
        assert_type(pool, Pool[str, bytes])
        task = pool.dispatch("page")
        assert_type(task, Task[str, bytes])
        assert_type(task.result(), bytes)
        assert_type(task.result(timeout=1.0), bytes)


def an_object_with_run_is_a_worker() -> None:
    worker: Worker[str, bytes] = Fetcher()
    pool = Pool([worker, Fetcher()])
    assert_type(pool, Pool[str, bytes])
    assert_type(pool.dispatch("page"), Task[str, bytes])


def a_worker_may_be_described() -> None:
    pool = Pool([WorkerSpec(Fetcher(), name="first", group="token-1")])
    assert_type(pool, Pool[str, bytes])


def a_task_is_a_standard_future(pool: Pool[str, bytes]) -> None:
    future: Future[bytes] = pool.dispatch("page")
    assert_type(future.result(), bytes)


def results_come_as_the_worker_returns_them(pool: Pool[str, bytes]) -> None:
    for page in pool.map(["a", "b"], window=10):
        assert_type(page, bytes)
    for page_or_error in pool.map(["a"], return_exceptions=True, ordered=False):
        assert_type(page_or_error, bytes | BaseException)
    for task in pool.as_completed(pool.dispatch_many(["a"])):
        assert_type(task, Task[str, bytes])
    assert_type(pool.results(), list[TaskResult[str, bytes]])
    assert_type(pool.errors(), list[BaseException])


def a_group_dispatches_as_its_pool_does(pool: Pool[str, bytes]) -> None:
    with pool.group(on_error="cancel", priority=1) as group:
        assert_type(group, TaskGroup[str, bytes])
        assert_type(group.dispatch("page"), Task[str, bytes])
    assert_type(group.results()[0].value, bytes | None)
    pool.group(on_error="retry")  # type: ignore[arg-type]
    group.dispatch(3)  # type: ignore[arg-type]


def a_drain_knows_its_values(pool: Pool[str, bytes]) -> None:
    drain: Drain[int] = Drain(commit="success")
    pool.dispatch("page", drain=drain, keep_data=False, block_timeout=1)
    assert_type(drain.drain(), list[int])
    for value in drain:
        assert_type(value, int)
    drain.send("page")  # type: ignore[arg-type]


def an_executor_is_a_standard_one(pool: Pool[str, bytes]) -> None:
    executor: Executor = PoolExecutor(4)
    assert_type(PoolExecutor(4).submit(pow, 2, 3), Future[int])
    assert_type(PoolExecutor(4).submit(fetch, "page"), Future[bytes])
    PoolExecutor(4).submit(fetch, 3)  # type: ignore[arg-type]
    executor = pool.as_executor()
    Pool([fetch], max_queue=10, on_full="raise", keep_results=True)
    Pool([fetch], on_full="drop")  # type: ignore[arg-type]


def many_at_once(pool: Pool[str, bytes]) -> None:
    assert_type(pool.dispatch_many(["a", "b"]), list[Task[str, bytes]])


def later_and_over_and_over(pool: Pool[str, bytes]) -> None:
    pool.dispatch("page", at=datetime(2026, 3, 1, tzinfo=UTC), tags={"nightly"})
    schedule = pool.schedule("page", every=60, until=timedelta(hours=1), overlap="queue", priority=1)
    assert_type(schedule, Schedule[str, bytes])
    assert_type(schedule.next_run, datetime | None)
    assert_type(schedule.last_task, Task[str, bytes] | None)
    assert_type(pool.schedules(), list[Schedule[str, bytes]])
    pool.schedule(lambda tick: tick.isoformat(), cron="0 2 * * *", tz="Europe/Oslo")
    pool.schedule("page", every=60, overlap="merge")  # type: ignore[arg-type]
    pool.schedule(lambda tick: tick.year, every=60)  # type: ignore[arg-type, return-value]


def where_a_task_stands(pool: Pool[str, bytes], task: Task[str, bytes]) -> None:
    assert_type(pool.status(task.id), TaskStatus)
    assert_type(pool.explain(task), str)
    assert_type(pool.explain(3), str)


def a_policy_is_made_of_values(pool: Pool[str, bytes]) -> None:
    policy = RetryPolicy(attempts=5, delay=exponential(0.5), retry_if=(OSError, TimeoutError))
    pool.dispatch("page", retry=policy, priority=1, name="front page")


def callbacks_know_the_result() -> None:
    def on_success(task: Task[str, bytes]) -> None:
        assert_type(task.result(), bytes)

    def on_failure(task: Task[str, bytes], error: BaseException) -> FailureAction | None:
        return FailureAction.DROP

    Pool([fetch], on_success=on_success, on_failure=on_failure)


def wrong_calls_are_refused(pool: Pool[str, bytes]) -> None:
    pool.dispatch(3)  # type: ignore[arg-type]
    pool.dispatch("page", RetryPolicy())  # type: ignore[call-arg, arg-type]
    Pool([fetch], attempts=3)  # type: ignore[arg-type]
    RetryPolicy(attempts="five")  # type: ignore[arg-type]


def what_is_seen_of_a_pool_has_types() -> None:
    with Pool([fetch] * 2, name="pages", keep_results=100, keep_for=timedelta(hours=1)) as pool:
        assert_type(list(pool.map(["a"], progress=True)), list[bytes])
        assert_type(list(pool.map(iter(["a"]), progress=1)), list[bytes])
        assert_type(pool.wait(progress=True), bool)
        task = pool.dispatch("a")
        assert_type(pool.task(task.id), Task[str, bytes])
        assert_type(pool.status(task.id), TaskStatus)
        assert_type(pool.status(task).to_dict(), dict[str, object])
        assert_type(pool.explain(), str)
        assert_type(pool.explain(task), str)
        assert_type(pool.name, str)
        with pool.live(interval=0.5), pool.drain_on_signals(timeout=20):
            pool.cancel_task(task.id)
        cancelled = pool.force_close()
        assert_type(cancelled.running, list[Task[str, bytes]])
        assert_type(cancelled.queued, list[Task[str, bytes]])
    Pool([fetch], time_out=3)  # type: ignore[arg-type]
    pool.map(["a"], progress="yes")  # type: ignore[call-overload]
