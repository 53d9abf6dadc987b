"""Whatever takes a `concurrent.futures.Future` takes a task, also together with plain futures."""

import asyncio
import time
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from typing import Any

import pytest

from retrypool import InvalidType, Pool, RetryPolicy, Task
from retrypool.collect import map as map_module

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def held(stage: Any) -> Any:
    """The gate that holds every task of `pool`."""
    return stage.gate()


@pytest.fixture
def pool(stage: Any, held: Any) -> Any:
    def run(data: object) -> object:
        held.hold()
        if isinstance(data, BaseException):
            raise data
        return data

    return stage.pool([run], retry=ONCE)


# -- concurrent.futures ------------------------------------------------------------------------------


@pytest.mark.parametrize("return_when", [ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION])
def test_wait_takes_tasks_and_plain_futures(
    stage: Any, pool: Pool[Any, Any], held: Any, return_when: str
) -> None:
    tasks: list[Future[Any]] = [pool.dispatch("x"), pool.dispatch("y")]
    plain: Future[Any] = Future()
    waiting = stage.start(lambda: wait([*tasks, plain], stage.within, return_when))
    held.open()
    plain.set_result("z")
    done, not_done = waiting.result(stage.within)
    if return_when == FIRST_COMPLETED:
        assert done
        assert done | not_done == {*tasks, plain}
    else:
        assert (done, not_done) == ({*tasks, plain}, set())


def test_wait_ends_with_the_first_task_that_dies(stage: Any, pool: Pool[Any, Any], held: Any) -> None:
    task, never = pool.dispatch(OSError("down")), Future[Any]()
    waiting = stage.start(lambda: wait([task, never], stage.within, FIRST_EXCEPTION))
    held.open()
    assert waiting.result(stage.within) == ({task}, {never})


def test_wait_counts_a_cancelled_task_as_done(stage: Any, pool: Pool[Any, Any], held: Any) -> None:
    first = pool.dispatch("first")
    held.wait_until_reached()
    task = pool.dispatch("x")
    waiting = stage.start(lambda: wait([task], stage.within))
    task.cancel()
    assert waiting.result(stage.within) == ({task}, set())
    assert wait([task, first], timeout=0) == ({task}, {first})


def test_as_completed_takes_tasks_and_plain_futures(stage: Any, pool: Pool[Any, Any], held: Any) -> None:
    tasks = [pool.dispatch(number) for number in range(50)]
    with ThreadPoolExecutor(2) as executor:
        plain = [executor.submit(int, number) for number in range(50, 100)]
        held.open()
        completed = [future.result() for future in as_completed([*tasks, *plain], stage.within)]
    assert sorted(completed) == list(range(100))


def test_as_completed_yields_each_task_once_while_they_end(stage: Any) -> None:
    with stage.pool([lambda data: data] * 3) as pool:
        for _ in range(20):
            tasks = pool.dispatch_many(range(300))
            completed = list(as_completed(tasks, stage.within))
            assert all(task.done() for task in completed)
            assert sorted(task.id for task in completed) == [task.id for task in tasks]


# -- asyncio -----------------------------------------------------------------------------------------


def test_coroutine_awaits_a_task() -> None:
    async def awaiting(pool: Pool[Any, Any]) -> object:
        return await asyncio.wrap_future(pool.dispatch("x"))

    with Pool([str.upper]) as pool:
        assert asyncio.run(awaiting(pool)) == "X"


def test_coroutine_gets_the_error_of_a_dead_task() -> None:
    async def awaiting(pool: Pool[Any, Any]) -> object:
        return await asyncio.wrap_future(pool.dispatch("x", retry=ONCE))

    with Pool([int]) as pool, pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(awaiting(pool))


def test_coroutine_that_is_cancelled_cancels_the_task(stage: Any, pool: Pool[Any, Any], held: Any) -> None:
    async def awaiting(task: Task[Any, Any]) -> None:
        future = asyncio.wrap_future(task)
        await asyncio.sleep(0)
        future.cancel()

    pool.dispatch("first")
    held.wait_until_reached()
    task = pool.dispatch("x")
    asyncio.run(awaiting(task))
    assert task.cancelled()


def test_task_that_is_cancelled_cancels_the_coroutine(stage: Any, pool: Pool[Any, Any], held: Any) -> None:
    async def awaiting(task: Task[Any, Any]) -> None:
        future = asyncio.wrap_future(task)
        task.cancel()
        await future

    pool.dispatch("first")
    held.wait_until_reached()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(awaiting(pool.dispatch("x")))


def test_as_completed_counts_its_time_from_the_call(
    stage: Any, monkeypatch: pytest.MonkeyPatch, pool: Pool[Any, Any], held: Any
) -> None:
    """Not from when it is first asked for a task."""
    left: list[float] = []

    def record(bell: Any, seconds: float) -> bool:
        left.append(seconds)
        return False

    monkeypatch.setattr(map_module, "acquire", record)
    called = time.monotonic()
    ended = pool.as_completed([pool.dispatch("x")], timeout=3600)
    while time.monotonic() < called + 0.02:
        pass
    with pytest.raises(TimeoutError):
        next(ended)
    assert left[0] < 3600 - 0.01


def test_as_completed_yields_each_task_once(stage: Any) -> None:
    pool = stage.pool([str])
    task = pool.dispatch(1)
    assert list(pool.as_completed([task, task])) == [task]


def test_as_completed_of_nothing_is_nothing(stage: Any) -> None:
    assert list(stage.pool([str]).as_completed([])) == []


def test_two_may_wait_for_the_same_tasks_as_they_end(stage: Any, pool: Pool[Any, Any], held: Any) -> None:
    tasks = [pool.dispatch("x"), pool.dispatch("y")]
    both = [stage.start(list, pool.as_completed(tasks)) for _ in range(2)]
    stage.until(lambda: all(task._completion is not None for task in tasks))
    held.open()
    assert [set(each.result(stage.within)) for each in both] == [set(tasks)] * 2


@pytest.mark.parametrize("tasks", [5, None])
def test_as_completed_takes_an_iterable_of_tasks(stage: Any, tasks: Any) -> None:
    pool = stage.pool([str])
    with pytest.raises(InvalidType, match="tasks"):
        pool.as_completed(tasks)
