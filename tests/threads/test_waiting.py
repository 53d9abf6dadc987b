"""Waiting for the last task, and counting what there is."""

import threading
from typing import Any

import pytest

from retrypool import RetryPolicy, WrongThread


def test_wait_without_tasks_returns_at_once(stage: Any) -> None:
    pool = stage.pool([int])
    assert pool.wait() is True
    pool.close(timeout=stage.within)
    assert pool.wait() is True


def test_wait_waits_for_what_runs_waits_and_is_delayed(stage: Any) -> None:
    pool = stage.pool([int])
    tasks = [*pool.dispatch_many(["1"] * 100), pool.dispatch("2", delay=0.005)]
    assert pool.wait(stage.within) is True
    assert all(task.done() for task in tasks)
    pool.close(timeout=stage.within)


def test_wait_waits_for_retries(stage: Any) -> None:
    pool = stage.pool([int], retry=RetryPolicy(attempts=3, delay=0.001))
    task = pool.dispatch("x")
    assert pool.wait(stage.within) is True
    assert (task.done(), task.attempts) == (True, 3)
    pool.close(timeout=stage.within)


def test_wait_gives_up_when_its_time_is_over(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([running.hold])
    pool.dispatch("x")
    running.wait_until_reached()
    assert pool.wait(timeout=0) is False
    assert pool.wait(timeout=0.001) is False
    running.open()
    assert pool.wait(stage.within) is True
    pool.close(timeout=stage.within)


def test_several_threads_wait(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([running.hold])
    pool.dispatch("x")
    waiting = [stage.start(pool.wait, stage.within) for _ in range(5)]
    stage.until(lambda: len(pool._engine.waiters) == 5)
    running.open()
    assert [each.result(stage.within) for each in waiting] == [True] * 5
    pool.close(timeout=stage.within)


def test_wait_returns_when_only_tasks_are_left_that_no_worker_can_take(stage: Any) -> None:
    pool = stage.pool([int])
    pool.pause_worker(0)
    pool.dispatch("1")
    assert pool.wait(stage.within) is False
    pool.resume_worker(0)
    assert pool.wait(stage.within) is True
    pool.close(timeout=stage.within)


def test_wait_waits_for_the_task_of_a_worker_that_was_paused_meanwhile(stage: Any) -> None:
    """It gets nothing more, and what it runs, it ends."""
    running = stage.gate()
    pool = stage.pool([running.hold])
    pool.dispatch("x")
    running.wait_until_reached()
    pool.pause_worker(0)
    waiting = stage.start(pool.wait, stage.within)
    stage.until(lambda: waiting.done() or pool._engine.waiters)
    running.open()
    assert waiting.result(stage.within) is True
    pool.close(timeout=stage.within)


def test_wait_in_a_worker_is_refused(stage: Any) -> None:
    with stage.pool([lambda data: pool.wait()], retry=RetryPolicy(attempts=1)) as pool:
        task = pool.dispatch("x")
    assert isinstance(task.exception(), WrongThread)


# -- wait_with ---------------------------------------------------------------------------------------


def test_callback_of_wait_with_sees_the_stats_until_the_end(stage: Any) -> None:
    seen: list[Any] = []
    running = stage.gate()
    pool = stage.pool([lambda data: running.hold()])
    pool.dispatch_many("ab")
    running.wait_until_reached()

    def look(stats: Any) -> None:
        seen.append((stats.running, stats.queued, stats.succeeded))
        running.open()

    assert pool.wait_with(look, interval=0.001) is True
    assert seen[0] == (1, 1, 0)
    assert seen[-1] == (0, 0, 2)
    pool.close(timeout=stage.within)


def test_callback_of_wait_with_is_called_once_if_there_is_nothing_to_wait_for(stage: Any) -> None:
    seen: list[Any] = []
    pool = stage.pool([int])
    assert pool.wait_with(seen.append) is True
    assert len(seen) == 1
    pool.close(timeout=stage.within)


def test_callback_of_wait_with_stops_it_by_returning_false(stage: Any) -> None:
    running = stage.gate()
    answers = iter([None, True, 0, False])
    pool = stage.pool([running.hold])
    pool.dispatch("x")
    running.wait_until_reached()
    assert pool.wait_with(lambda stats: next(answers), interval=0.001) is False
    assert next(answers, "none") == "none"
    running.open()
    pool.close(timeout=stage.within)


def test_wait_with_ends_early_when_the_last_task_does(stage: Any) -> None:
    """It does not sleep out its interval."""
    running = stage.gate()
    pool = stage.pool([running.hold])
    pool.dispatch("x")
    waiting = stage.start(pool.wait_with, lambda stats: None, 3600)
    stage.until(lambda: pool._engine.waiters)
    running.open()
    assert waiting.result(stage.within) is True
    pool.close(timeout=stage.within)


def test_wait_with_does_not_spin_when_no_worker_can_take_what_is_left(stage: Any) -> None:
    """It ends as `wait` does, or it keeps to its interval."""
    calls: list[object] = []

    def look(stats: object) -> bool:
        calls.append(stats)
        return len(calls) < 100

    pool = stage.pool([int])
    pool.pause_worker(0)
    pool.dispatch("1")
    waiting = stage.start(pool.wait_with, look, 3600)
    stage.until(lambda: waiting.done() or pool._engine.waiters)
    pool.resume_worker(0)
    waiting.result(stage.within)
    assert len(calls) <= 3
    pool.close(timeout=stage.within)


def test_what_the_callback_of_wait_with_raises_is_raised(stage: Any) -> None:
    pool = stage.pool([int])
    with pytest.raises(ZeroDivisionError):
        pool.wait_with(lambda stats: 1 / 0)
    pool.close(timeout=stage.within)


# -- counts ------------------------------------------------------------------------------------------


def test_counts_of_what_waits_and_runs(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([running.hold])
    first = pool.dispatch("first")
    running.wait_until_reached()
    waiting = [pool.dispatch("a"), pool.dispatch("b", priority=1)]
    delayed = pool.dispatch("c", delay=600)
    assert (pool.queue_size, pool.processing_count, pool.dead_count) == (3, 1, 0)
    assert set(pool.tasks()) == {first, *waiting, delayed}
    assert pool.tasks()[0] is first
    stats = pool.stats()
    assert (stats.queued, stats.delayed, stats.running, stats.waiting) == (2, 1, 1, 3)
    assert (stats.dispatched, stats.ended, stats.workers) == (4, 0, 1)
    assert repr(pool).endswith("open: 1 workers, 1 running, 3 waiting, 0 dead>")
    for task in [*waiting, delayed]:
        assert task.cancel()
    assert pool.tasks() == [first]
    assert (pool.queue_size, pool.stats().cancelled) == (0, 3)
    running.open()
    pool.close(timeout=stage.within)
    assert pool.tasks() == []
    assert "closed" in repr(pool)


def test_counts_of_attempts(stage: Any) -> None:
    with stage.pool([int], retry=RetryPolicy(attempts=3, delay=0)) as pool:
        pool.dispatch_many(["1", "2", "x", "y"])
    stats = pool.stats()
    assert (stats.succeeded, stats.died, stats.cancelled, stats.dead) == (2, 2, 0, 2)
    assert (stats.failures, stats.retries) == (6, 4)
    assert stats.dispatched == stats.ended == 4


def test_counts_stay_when_workers_leave(stage: Any) -> None:
    pool = stage.pool([int] * 3, retry=RetryPolicy(attempts=2, delay=0))
    pool.dispatch_many(["1", "2", "3", "x"])
    assert pool.wait(stage.within)
    before = pool.stats()
    pool.remove_worker(0)
    pool.remove_worker(2)
    after = pool.stats()
    assert (after.succeeded, after.failures, after.retries) == (3, 2, 1)
    assert (before.succeeded, before.failures, before.retries) == (3, 2, 1)
    assert (before.workers, after.workers) == (3, 1)
    pool.close(timeout=stage.within)


def test_pool_can_be_looked_at_from_many_threads_while_it_works(stage: Any) -> None:
    enough = threading.Event()

    def look() -> None:
        while not enough.is_set():
            stats = pool.stats()
            assert min(stats.queued, stats.delayed, stats.running) >= 0
            assert len(pool.workers()) == 4
            assert pool.queue_size >= 0
            assert pool.processing_count <= 4
            assert len(pool.dead_tasks()) <= 200
            pool.tasks()
            repr(pool)

    pool = stage.pool([int] * 4, retry=RetryPolicy(attempts=2, delay=0))
    looking = [stage.start(look) for _ in range(3)]
    for number in range(2000):
        task = pool.dispatch("x" if number % 10 == 0 else str(number))
        if number % 7 == 0:
            task.cancel()
    assert pool.wait(stage.within)
    enough.set()
    for each in looking:
        each.result(stage.within)
    pool.close(timeout=stage.within)
    assert pool.stats().dispatched == 2000
