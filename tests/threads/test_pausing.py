"""A paused worker is given nothing, a paused pool gives nothing; what runs, ends."""

import threading
from typing import Any

import pytest

from retrypool import PoolClosed, RetryPolicy, TaskState


def test_paused_pool_accepts_tasks_and_runs_none(stage: Any) -> None:
    pool = stage.pool([int] * 2)
    pool.pause()
    tasks = pool.dispatch_many("123")
    assert pool.wait(timeout=0.001) is False
    assert (pool.queue_size, pool.processing_count) == (3, 0)
    assert {task.state for task in tasks} == {TaskState.QUEUED}
    pool.resume()
    assert pool.wait(stage.within) is True
    assert [task.result() for task in tasks] == [1, 2, 3]
    pool.close(timeout=stage.within)


def test_task_that_runs_when_the_pool_is_paused_ends(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    first, second = pool.dispatch_many("ab")
    running.wait_until_reached()
    pool.pause()
    running.open()
    assert first.result(stage.within) == "a"
    assert pool.wait(timeout=0.001) is False
    assert second.state is TaskState.QUEUED
    pool.resume()
    assert second.result(stage.within) == "b"
    pool.close(timeout=stage.within)


def test_retry_waits_for_the_end_of_a_pause(stage: Any) -> None:
    attempts = []
    failing = stage.gate()

    def run(data: object) -> object:
        attempts.append(data)
        if len(attempts) == 1:
            failing.hold()
            raise OSError(data)
        return data

    pool = stage.pool([run], retry=RetryPolicy(delay=0))
    task = pool.dispatch("x")
    failing.wait_until_reached()
    pool.pause()
    failing.open()
    stage.until(lambda: pool.queue_size)
    assert (task.state, attempts) == (TaskState.QUEUED, ["x"])
    pool.resume()
    assert task.result(stage.within) == "x"
    pool.close(timeout=stage.within)


def test_nothing_starts_while_a_busy_pool_is_paused(stage: Any) -> None:
    """Over many pauses, while others dispatch: no attempt starts between pause() and resume()."""
    paused = threading.Event()
    broken: list[int] = []
    enough = threading.Event()

    def run(data: int) -> None:
        if paused.is_set():
            broken.append(data)

    def dispatch() -> None:
        for number in range(100_000):
            if enough.is_set():
                return
            pool.dispatch(number)
            if number % 64 == 63:
                pool.wait(timeout=0.002)

    pool = stage.pool([run] * 3)
    dispatching = [stage.start(dispatch) for _ in range(2)]
    for _ in range(150):
        pool.pause()
        paused.set()
        pool.stats()
        paused.clear()
        pool.resume()
    enough.set()
    for each in dispatching:
        each.result(stage.within)
    pool.close(timeout=stage.within)
    assert broken == []


def test_paused_worker_gets_nothing_and_the_others_get_it(stage: Any) -> None:
    pool = stage.pool([str.upper] * 2)
    pool.pause_worker(0)
    tasks = pool.dispatch_many("abcdef")
    assert pool.wait(stage.within) is True
    assert {task.history[0].worker_id for task in tasks} == {1}
    assert [info.state for info in pool.workers()] == ["paused", "active"]
    pool.close(timeout=stage.within)


def test_worker_paused_by_itself_stays_so_when_the_pool_is_resumed(stage: Any) -> None:
    pool = stage.pool([str.upper] * 2)
    pool.pause_worker(0)
    pool.pause()
    pool.resume()
    tasks = pool.dispatch_many("abcdef")
    assert pool.wait(stage.within) is True
    assert {task.history[0].worker_id for task in tasks} == {1}
    pool.resume_worker(0)
    pool.pause_worker(1)
    assert pool.dispatch("x").result(stage.within) == "X"
    pool.close(timeout=stage.within)


def test_worker_resumed_in_a_paused_pool_gets_nothing(stage: Any) -> None:
    pool = stage.pool([str.upper])
    pool.pause_worker(0)
    pool.pause()
    task = pool.dispatch("x")
    pool.resume_worker(0)
    assert pool.wait(timeout=0.001) is False
    assert task.state is TaskState.QUEUED
    pool.resume()
    assert task.result(stage.within) == "X"
    pool.close(timeout=stage.within)


def test_worker_added_to_a_paused_pool_gets_nothing(stage: Any) -> None:
    pool = stage.pool([str.upper])
    pool.pause()
    task = pool.dispatch("x")
    added = pool.add_worker(str.upper)
    stage.until(lambda: pool.workers()[added].state == "active")
    assert task.state is TaskState.QUEUED
    pool.resume()
    assert task.result(stage.within) == "X"
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("times", [2, 3])
def test_pausing_and_resuming_more_than_once_is_as_once(stage: Any, times: int) -> None:
    pool = stage.pool([str.upper])
    for call in (pool.pause, lambda: pool.pause_worker(0), pool.resume, lambda: pool.resume_worker(0)):
        for _ in range(times):
            call()
    assert pool.dispatch("x").result(stage.within) == "X"
    pool.close(timeout=stage.within)


def test_paused_worker_that_alone_has_not_tried_a_task_is_waited_for_only_so_long(stage: Any) -> None:
    """After `affinity_wait` any worker may take the retry."""

    class FailsFirst:
        def run(self, ctx: Any, data: object) -> int:
            if ctx.attempt == 1:
                raise OSError(data)
            return int(ctx.worker_id)

    pool = stage.pool([FailsFirst() for _ in range(2)], affinity_wait=0.001)
    pool.pause_worker(1)
    assert pool.dispatch("x", retry=RetryPolicy(delay=0)).result(stage.within) == 0
    pool.close(timeout=stage.within)


def test_pool_that_closes_can_not_be_paused(stage: Any) -> None:
    """It would wait for good for what it has promised to run."""
    pool = stage.pool([str])
    pool.close(timeout=stage.within)
    with pytest.raises(PoolClosed):
        pool.pause()
