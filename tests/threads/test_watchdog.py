"""The one thread for all that happens by the clock."""

import threading
import time
from typing import Any

import pytest

from retrypool import AttemptTimeout, CancelToken, RetryPolicy, TaskState, WrongThread
from retrypool.clock import SystemClock
from retrypool.testing import FakeClock


def watchdogs() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "watchdog" in thread.name]


def test_pool_without_anything_bound_to_time_has_no_watchdog(stage):
    pool = stage.eager_pool([str] * 2)
    hang = stage.hang()
    pool.add_worker(hang)
    pool.dispatch_many(range(100))
    pool.dispatch("x", priority=3)
    hang.release()
    assert pool.wait(stage.within)
    assert watchdogs() == []
    pool.force_close()
    assert watchdogs() == []


@pytest.mark.parametrize("why", ["timeout", "time_limit", "deadline", "delay", "retry", "token"])
def test_there_is_one_watchdog_from_the_first_thing_on_that_is_bound_to_time(stage, why):
    pool = stage.eager_pool([lambda data: 1 / data] * 4, retry=RetryPolicy(attempts=2, delay=0.001))
    options: dict[str, dict[str, Any]] = {
        "retry": {},
        "token": {"cancel": CancelToken().after(60)},
    }
    divisor = 0 if why == "retry" else 1
    for _ in range(20):
        pool.dispatch(divisor, **options.get(why, {why: 0.001 if why == "delay" else 60}))
    pool.wait(stage.within)
    assert watchdogs() == [f"{pool._engine.name}-watchdog"]
    pool.close()
    stage.until(lambda: watchdogs() == [])


def test_threads_that_arm_something_at_once_start_one_watchdog(stage):
    pool = stage.eager_pool([str])
    at_once = threading.Barrier(8)

    def arm() -> None:
        at_once.wait(stage.within)
        pool.dispatch("x", delay=60)

    for dispatching in [stage.start(arm) for _ in range(8)]:
        dispatching.result(stage.within)
    assert len(watchdogs()) == 1


def test_earlier_moment_is_not_missed_behind_a_later_one(stage):
    pool = stage.eager_pool([str])
    late = pool.dispatch("late", delay=3600)
    assert pool.dispatch("early", delay=0.01).result(stage.within) == "early"
    hang = stage.hang()
    pool.add_worker(hang, name="hanging")
    pool.pause_worker(pool.workers()[0].id)
    task = pool.dispatch("x", timeout=0.01, retry=stage.once)
    assert isinstance(task.exception(stage.within), AttemptTimeout)
    assert late.state is TaskState.SCHEDULED


def test_virtual_time_serves_threads_too(stage):
    clock, hang = FakeClock(), stage.hang()
    pool = stage.eager_pool([hang], clock=clock, timeout=3600, retry=stage.once)
    task = pool.dispatch("x")
    hang.wait_until_begun()
    stage.until(lambda: clock._sleepers)
    clock.advance(3599)
    assert not task.done()
    clock.advance(1)
    assert isinstance(task.exception(stage.within), AttemptTimeout)


def test_wall_clock_that_jumps_by_an_hour_changes_nothing(stage, monkeypatch):
    """Neither `time.time` nor the `time` of the pool's clock is asked how long something has taken."""
    jumps = iter(range(10**6))

    def jumping() -> float:
        return 1_700_000_000.0 + (-1) ** next(jumps) * 3600

    class Jumping(SystemClock):
        time = staticmethod(jumping)  # type: ignore[assignment]

    monkeypatch.setattr(time, "time", jumping)
    hang = stage.hang()
    pool = stage.eager_pool(
        [lambda data: hang() if data == "x" and not hang.hung else str(data)] * 2,
        clock=Jumping(),
        retry=RetryPolicy(attempts=2, delay=0.005),
    )
    task = pool.dispatch("x", timeout=0.02, deadline=60)
    tasks = [pool.dispatch(n, delay=0.001 * n, timeout=60) for n in range(20)]
    assert [each.result(stage.within) for each in tasks] == [str(n) for n in range(20)]
    assert task.result(stage.within) == "x"
    assert all(0 <= attempt.duration < 60 for each in [task, *tasks] for attempt in each.history)


@pytest.mark.parametrize("callback", ["on_failure", "on_retry", "on_dead", "done"])
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_callback_that_raises_on_the_watchdog_does_not_end_it(stage, callback, error):
    """It is the watchdog that goes on with what has timed out."""

    def raise_it(*_: object) -> None:
        raise error

    options: dict[str, Any] = {} if callback == "done" else {callback: raise_it}
    hang = stage.hang()
    pool = stage.eager_pool([hang] * 2, timeout=0.01, retry=RetryPolicy(attempts=2, delay=0.001), **options)
    task = pool.dispatch("x")
    if callback == "done":
        task.add_done_callback(raise_it)
    assert isinstance(task.exception(stage.within), AttemptTimeout)
    hang.release()
    stage.until(lambda: all(worker.state != "stuck" for worker in pool.workers()))
    assert pool.dispatch("y", timeout=None, delay=0.001).result(stage.within) == "too late"


@pytest.mark.parametrize("call", ["close", "wait"])
def test_callback_on_the_watchdog_that_would_wait_for_it_is_told_so(stage, call):
    raised: list[BaseException] = []

    def wait_there(dead: object) -> None:
        try:
            getattr(pool, call)()
        except BaseException as error:
            raised.append(error)
            raise

    hang = stage.hang()
    pool = stage.eager_pool([hang], timeout=0.01, retry=stage.once, on_dead=wait_there)
    pool.dispatch("x")
    waiting = pool.dispatch("y", delay=3600)
    stage.until(lambda: raised)
    assert isinstance(raised[0], WrongThread)
    assert waiting.cancel()


def test_callback_that_blocks_the_watchdog_does_not_hold_up_force_close(stage):
    blocked, hang = stage.hang(), stage.hang()
    pool = stage.eager_pool([hang], timeout=0.01, retry=stage.once, on_dead=blocked)
    pool.dispatch("x")
    blocked.wait_until_begun()
    pool.force_close()
    assert pool.closed
