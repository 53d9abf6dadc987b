"""A worker that waits for a task of its own pool: it is told if nobody is left to run that task."""

from typing import Any

import pytest

from retrypool import PoolExecutor, RetryPolicy, WrongThread

ONCE = RetryPolicy(attempts=1)


@pytest.mark.parametrize("how", ["result", "exception"])
@pytest.mark.parametrize("workers", [1, 3])
def test_last_worker_that_would_wait_for_its_own_pool_is_told(stage: Any, how: str, workers: int) -> None:
    pools: list[Any] = []
    gate = stage.gate()

    def run(data: int) -> object:
        if data == 0:
            return "inner"
        if workers > 1:
            gate.hold()
        return getattr(pools[0].dispatch(0), how)()

    pools.append(stage.pool([run] * workers, retry=ONCE))
    tasks = [pools[0].dispatch(1) for _ in range(workers)]
    if workers > 1:
        gate.wait_until_reached(workers)
        gate.open()
    ends = [task.exception(stage.within) for task in tasks]
    assert sum(isinstance(end, WrongThread) for end in ends) == 1
    assert sum(end is None for end in ends) == workers - 1
    pools[0].close(timeout=stage.within)


def test_worker_may_wait_while_another_is_free(stage: Any) -> None:
    pools: list[Any] = []
    pools.append(stage.pool([lambda n: n if n == 0 else pools[0].dispatch(n - 1).result()] * 3, retry=ONCE))
    assert pools[0].dispatch(2).result(stage.within) == 0
    pools[0].close(timeout=stage.within)


def test_worker_may_wait_for_a_while(stage: Any) -> None:
    """With a timeout it is its own affair."""
    pools: list[Any] = []

    def run(data: int) -> object:
        if data == 0:
            return "inner"
        with pytest.raises(TimeoutError):
            pools[0].dispatch(0).result(timeout=0.01)
        return "outer"

    pools.append(stage.pool([run], retry=ONCE))
    assert pools[0].dispatch(1).result(stage.within) == "outer"
    pools[0].close(timeout=stage.within)


def test_worker_may_wait_for_another_pool(stage: Any) -> None:
    other = stage.pool([str])
    pool = stage.pool([lambda n: other.dispatch(n).result()], retry=ONCE)
    assert pool.dispatch(7).result(stage.within) == "7"
    pool.close(timeout=stage.within)
    other.close(timeout=stage.within)


def test_nested_submit_of_an_executor_with_one_thread_raises() -> None:
    """`ThreadPoolExecutor` hangs."""
    with PoolExecutor(1) as executor:
        future = executor.submit(lambda: executor.submit(pow, 2, 3).result())
        with pytest.raises(WrongThread):
            future.result()
