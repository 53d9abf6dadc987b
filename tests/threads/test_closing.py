"""A pool comes to its end: closed in good order, by force, or by an exception in its block."""

import time
from concurrent.futures import CancelledError
from typing import Any

import pytest

from retrypool import CloseTimeout, DeadReason, NoWorkers, Pool, PoolClosed, RetryPolicy, TaskState
from retrypool.events import PoolClosing


def reason_of(task: Any) -> str:
    with pytest.raises(CancelledError) as caught:
        task.result(timeout=0)
    return str(caught.value)


# -- close -------------------------------------------------------------------------------------------


def test_close_runs_everything_that_was_accepted_and_joins_the_threads(stage: Any) -> None:
    pool = stage.pool([int] * 2, retry=RetryPolicy(attempts=3, delay=0.001))
    tasks = [*pool.dispatch_many(["1"] * 50), pool.dispatch("2", delay=0.003), pool.dispatch("x")]
    pool.close(timeout=stage.within)
    assert {task.state for task in tasks[:-1]} == {TaskState.SUCCEEDED}
    assert (tasks[-1].state, tasks[-1].attempts) == (TaskState.DEAD, 3)
    assert not any(thread.is_alive() for thread in stage.worker_threads(pool))
    assert pool.closed


def test_close_is_idempotent(stage: Any) -> None:
    pool = stage.pool([int])
    for _ in range(3):
        pool.close(timeout=stage.within)
    assert pool.force_close() == []


def test_pool_without_workers_can_be_closed() -> None:
    Pool().close()
    with Pool(wait_for_workers=True):
        pass


def test_several_threads_close_one_pool(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([running.hold])
    task = pool.dispatch("x")
    closing = [stage.start(pool.close) for _ in range(4)]
    stage.until(lambda: len(pool._engine.waiters) == 4)
    assert not any(each.done() for each in closing)
    running.open()
    for each in closing:
        each.result(stage.within)
        assert task.done()


def test_close_lifts_a_pause_of_the_pool(stage: Any) -> None:
    pool = stage.pool([int])
    pool.pause()
    task = pool.dispatch("1")
    pool.close(timeout=stage.within)
    assert task.result() == 1


def test_close_that_runs_out_of_time_names_what_runs_and_can_be_repeated(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([running.hold])
    first, second = pool.dispatch_many("ab")
    running.wait_until_reached()
    with pytest.raises(CloseTimeout) as caught:
        pool.close(timeout=0.001)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.running == (f"worker-0 (task {first.id})",)
    assert (caught.value.timeout, caught.value.waiting) == (0.001, 1)
    assert f"worker-0 (task {first.id}); 1 waiting" in str(caught.value)
    with pytest.raises(PoolClosed):
        pool.dispatch("c")
    running.open()
    pool.close(timeout=stage.within)
    assert second.done()


def test_close_that_runs_out_of_time_names_a_worker_that_does_not_stop(stage: Any) -> None:
    """All tasks have ended, and one worker is still in its `on_stop`."""
    stopping = stage.gate()

    class SlowToStop:
        def run(self, ctx: Any, data: object) -> None: ...

        def on_stop(self) -> None:
            stopping.hold()

    pool = stage.pool([SlowToStop()])
    closing = stage.start(pool.close, 0.05)
    stopping.wait_until_reached()
    error = closing.exception(stage.within)
    assert isinstance(error, CloseTimeout)
    assert len(error.running) == 1
    assert error.running[0].startswith("worker-0")
    stopping.open()
    pool.close(timeout=stage.within)


def test_tasks_that_only_paused_workers_could_take_end_cancelled_with_a_reason(stage: Any) -> None:
    pool = stage.pool([int] * 2)
    pool.pause_worker(0)
    pool.pause_worker(1)
    tasks = [pool.dispatch("1"), pool.dispatch("2", delay=600), pool.dispatch("3", priority=1)]
    pool.close(timeout=stage.within)
    assert {reason_of(task) for task in tasks} == {"no worker is left that could run it"}
    assert pool.stats().cancelled == 3


def test_tasks_that_only_failed_workers_could_take_are_dead_with_the_start_error(stage: Any) -> None:
    starting = stage.gate()

    class Broken:
        def on_start(self) -> None:
            starting.hold()
            raise OSError("no device")

        def run(self, ctx: Any, data: object) -> None: ...

    pool = stage.pool([Broken()])
    task = pool.dispatch("1")
    closing = stage.start(pool.close)
    stage.until(lambda: pool._engine.waiters)
    starting.open()
    closing.result(stage.within)
    assert isinstance(task.exception(), NoWorkers)
    assert pool.dead_tasks()[0].reason is DeadReason.NO_WORKERS


def test_tasks_that_wait_for_workers_end_cancelled_when_none_came(stage: Any) -> None:
    pool = stage.pool(wait_for_workers=True)
    task = pool.dispatch("1")
    pool.close(timeout=stage.within)
    assert task.cancelled()


def test_close_waits_for_a_paused_worker_without_spinning(stage: Any) -> None:
    """What it runs, it ends; until then there is nothing to do but to wait."""
    running = stage.gate()
    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    first, second = pool.dispatch_many("ab")
    running.wait_until_reached()
    pool.pause_worker(0)
    rounds: list[object] = []
    idle = pool._engine.scheduler.idle

    def counting() -> bool:
        rounds.append(None)
        return bool(idle())

    pool._engine.scheduler.idle = counting
    closing = stage.start(pool.close)
    stage.until(lambda: pool._engine.waiters)
    for _ in range(20):  # so long that it would have gone round many times; it may not even once
        time.sleep(0.001)
    assert len(rounds) < 20
    running.open()
    closing.result(stage.within)
    assert (first.result(), second.cancelled()) == ("a", True)


def test_dispatch_while_the_pool_closes_is_refused_and_what_runs_may_not_add_to_it(stage: Any) -> None:
    running = stage.gate()

    def run(data: object) -> None:
        running.hold()
        pool.dispatch("more")

    pool = stage.pool([run], retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x")
    closing = stage.start(pool.close)
    stage.until(lambda: pool.closed)
    running.open()
    closing.result(stage.within)
    assert isinstance(task.exception(), PoolClosed)


# -- by force ----------------------------------------------------------------------------------------


def test_force_close_cancels_and_returns_what_waits(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([running.hold])
    first = pool.dispatch("first")
    running.wait_until_reached()
    waiting = [pool.dispatch("a"), pool.dispatch("b", delay=600), pool.dispatch("c", priority=2)]
    assert pool.force_close() == waiting
    assert {reason_of(task) for task in [first, *waiting]} == {"the pool was closed by force"}
    assert pool.force_close() == []
    stats = pool.stats()
    assert (stats.cancelled, stats.waiting, stats.running) == (4, 0, 0)
    running.open()
    stage.join_workers(pool)
    assert first.cancelled()


def test_force_close_tells_what_runs(stage: Any) -> None:
    told: list[bool] = []
    sleeping = stage.gate()

    class Sleeper:
        def run(self, ctx: Any, data: object) -> None:
            sleeping.open()
            try:
                ctx.sleep(600)
            finally:
                told.append(ctx.cancelled)

    pool = stage.pool([Sleeper()])
    pool.dispatch("x")
    sleeping.hold()
    pool.force_close()
    stage.join_workers(pool)
    assert told == [True]


def test_force_close_starts_nothing_in_a_pool_that_was_paused(stage: Any) -> None:
    """Not even between its steps, where a listener is told that the pool closes."""
    ran = stage.gate()

    def linger(event: object) -> None:
        if isinstance(event, PoolClosing):
            ran._reached.wait(0.1)

    pool = stage.pool([lambda data: ran.hold()], listeners=[linger])
    pool.pause()
    task = pool.dispatch("x")
    assert pool.force_close() == [task]
    assert not ran.reached
    stage.join_workers(pool)


def test_result_of_a_waiting_thread_is_there_after_force_close(stage: Any) -> None:
    pool = stage.pool([int])
    pool.pause()
    task = pool.dispatch("1")
    waiting = stage.start(task.result)
    stage.until(lambda: task._completion)
    pool.force_close()
    assert isinstance(waiting.exception(stage.within), CancelledError)
    stage.join_workers(pool)


def test_close_after_force_close_joins_the_threads(stage: Any) -> None:
    pool = stage.pool([int] * 3)
    pool.dispatch_many("123")
    pool.force_close()
    pool.close(timeout=stage.within)
    assert not any(thread.is_alive() for thread in stage.worker_threads(pool))


def test_force_close_ends_a_close_that_waits(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([running.hold])
    first, second = pool.dispatch_many("ab")
    running.wait_until_reached()
    closing = stage.start(pool.close)
    stage.until(lambda: pool._engine.waiters)
    assert pool.force_close() == [second]
    assert first.cancelled()
    running.open()
    closing.result(stage.within)


# -- the with statement ------------------------------------------------------------------------------


def test_block_that_ends_well_closes_the_pool(stage: Any) -> None:
    with stage.pool([int]) as pool:
        task = pool.dispatch("1", delay=0.001)
    assert task.result(timeout=0) == 1
    assert pool.closed


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_exception_in_the_block_ends_the_pool_and_goes_through(
    stage: Any, error: type[BaseException]
) -> None:
    running = stage.gate()
    tasks: list[Any] = []
    with pytest.raises(error), stage.pool([running.hold]) as pool:
        tasks += pool.dispatch_many("ab")
        running.wait_until_reached()
        raise error
    assert pool.closed
    assert [task.cancelled() for task in tasks] == [True, True]
    running.open()
    stage.join_workers(pool)


def test_dead_task_does_not_make_the_block_raise(stage: Any) -> None:
    with stage.pool([int], retry=RetryPolicy(attempts=1)) as pool:
        pool.dispatch("x")
    assert pool.dead_count == 1
