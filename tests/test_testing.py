"""`FakeClock` and `ManualPool`: what users test their own code with."""

import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from retrypool import (
    AttemptTimeout,
    CloseTimeout,
    Context,
    InvalidType,
    InvalidValue,
    RetryPolicy,
    TaskState,
    Throttled,
    WorkerNotFound,
    WorkerSpec,
    current_context,
)
from retrypool.testing import FakeClock, ManualPool


class Echo:
    def run(self, ctx: Context, data: str) -> str:
        return f"{data} by {ctx.group}"


# -- the clock -----------------------------------------------------------------------------------


def test_clock_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(start=10.0, time=1_000.0)
    assert (clock.monotonic(), clock.time()) == (10.0, 1_000.0)
    clock.advance(2.5)
    clock.advance(timedelta(seconds=1))
    assert (clock.monotonic(), clock.time()) == (13.5, 1_003.5)


def test_wall_clock_can_be_set_without_time_passing() -> None:
    clock = FakeClock()
    clock.set_time(0.0)
    clock.advance(1)
    assert (clock.monotonic(), clock.time()) == (1.0, 1.0)


@pytest.mark.parametrize(("duration", "kind"), [(-1, InvalidValue), ("1", InvalidType)])
def test_clock_never_goes_back(duration: float, kind: type[Exception]) -> None:
    clock = FakeClock()
    with pytest.raises(kind):
        clock.advance(duration)
    assert clock.monotonic() == 0.0
    clock.advance(1)
    assert clock.monotonic() == 1.0


def test_followers_are_called_after_each_advance() -> None:
    clock, seen = FakeClock(), []
    clock.follow(lambda: seen.append(clock.monotonic()))
    clock.advance(1)
    clock.advance(2)
    assert seen == [1.0, 3.0]


def test_wait_without_time_does_not_wait() -> None:
    lock = threading.Lock()
    assert FakeClock().acquire(lock, 0) is True
    assert FakeClock().acquire(lock, 0) is False


@pytest.mark.parametrize(("steps", "in_time"), [([4.0], True), ([5.0], False), ([4.0, 4.0], False)])
def test_thread_waits_in_virtual_time(steps: list[float], in_time: bool) -> None:
    clock, lock, waits = FakeClock(), threading.Lock(), threading.Event()
    lock.acquire()
    got: list[bool] = []

    class Announced:
        """Says when somebody is about to wait for it."""

        def acquire(self, blocking: bool = True) -> bool:
            waits.set()
            return lock.acquire(blocking)

        def release(self) -> None:
            lock.release()

    thread = threading.Thread(target=lambda: got.append(clock.acquire(Announced(), 5.0)))  # type: ignore[arg-type]
    thread.start()
    assert waits.wait(10)
    for step in steps:
        clock.advance(step)
    if in_time:
        lock.release()
    thread.join(10)
    assert got == [in_time]


# -- the pool ------------------------------------------------------------------------------------


def test_late_result_of_a_timed_out_attempt_is_ignored() -> None:
    """A worker that comes back after its deadline cannot resurrect the task."""
    pool = ManualPool([Echo()], timeout=5)
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    pool.clock.advance(5)
    attempt.finish("too late")
    assert task.state is TaskState.RETRYING
    assert [type(error) for error in task.errors] == [AttemptTimeout]


def test_late_error_of_a_timed_out_attempt_is_ignored() -> None:
    pool = ManualPool([Echo()], timeout=5)
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    pool.clock.advance(5)
    attempt.fail(OSError("too late"))
    assert [type(error) for error in task.errors] == [AttemptTimeout]


def test_worker_is_occupied_until_it_comes_back() -> None:
    pool = ManualPool([Echo()], timeout=5, retry=RetryPolicy(delay=0))
    pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    pool.clock.advance(5)
    assert attempt.context.cancelled
    with pytest.raises(InvalidValue, match="one that runs nothing"):
        pool.claim(attempt.worker_id)
    attempt.finish("too late")
    again = pool.claim(attempt.worker_id)
    assert again is not None
    assert again.context.attempt == 2


def test_claim_passes_over_a_worker_that_has_not_come_back() -> None:
    pool = ManualPool([Echo(), Echo()], timeout=5, retry=RetryPolicy(delay=0))
    task = pool.dispatch("x")
    stuck = pool.claim()
    assert stuck is not None
    pool.clock.advance(5)
    attempt = pool.claim()
    assert attempt is not None
    assert attempt.worker_id != stuck.worker_id
    attempt.finish("in time")
    assert task.result(0) == "in time"


def test_attempt_is_ended_with_a_result() -> None:
    pool = ManualPool([Echo()])
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    assert (task.state, attempt.task, attempt.context.task_id) == (TaskState.RUNNING, task, task.id)
    pool.clock.advance(2)
    attempt.finish("done")
    assert (task.result(0), task.duration) == ("done", 2.0)


def test_failed_attempt_is_retried_by_another_worker_after_its_delay() -> None:
    pool = ManualPool([Echo(), Echo()], retry=RetryPolicy(delay=3))
    task = pool.dispatch("x")
    first = pool.claim()
    assert first is not None
    first.fail(OSError("down"))
    assert task.state is TaskState.RETRYING
    assert pool.claim() is None
    pool.clock.advance(2.9)
    assert pool.claim() is None
    pool.clock.advance(0.1)
    assert pool.claim(first.worker_id) is None
    second = pool.claim()
    assert second is not None
    assert second.worker_id != first.worker_id
    second.finish("done")
    assert [attempt.outcome for attempt in task.history] == ["failed", "succeeded"]


def test_run_calls_the_worker_on_this_thread() -> None:
    def where(data: str) -> tuple[str, str, int]:
        return data, current_context().group, threading.get_ident()

    pool = ManualPool([Echo(), WorkerSpec(where, group="here")])
    first, second = pool.dispatch("x"), pool.dispatch("y")
    while (attempt := pool.claim()) is not None:
        attempt.run()
    assert first.result(0) == "x by worker-0"
    pool.dispatch("z")
    attempt = pool.claim(1)
    assert attempt is not None
    attempt.run()
    assert second.result(0) == "y by worker-0"
    assert attempt.task.result(0) == ("z", "here", threading.get_ident())


def test_run_turns_what_the_worker_raises_into_a_failure() -> None:
    pool = ManualPool([lambda data: 1 / data], retry=RetryPolicy(attempts=1))
    task = pool.dispatch(0)
    attempt = pool.claim()
    assert attempt is not None
    attempt.run()
    assert isinstance(task.exception(0), ZeroDivisionError)
    (dead,) = pool.dead_tasks()
    assert dead.error is task.exception(0)


def test_run_turns_system_exit_into_a_failure_as_a_pool_does() -> None:
    pool = ManualPool([sys.exit], retry=RetryPolicy(attempts=1))
    task = pool.dispatch(3)
    attempt = pool.claim()
    assert attempt is not None
    attempt.run()
    assert isinstance(task.exception(0), SystemExit)


def test_throttled_worker_cools_in_virtual_time() -> None:
    pool = ManualPool([Echo()])
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(Throttled(retry_after="10"))
    pool.clock.advance(9.9)
    assert pool.claim() is None
    pool.clock.advance(0.1)
    attempt = pool.claim()
    assert attempt is not None
    attempt.run()
    assert task.result(0) == "x by worker-0"


def test_deadline_passes_in_virtual_time() -> None:
    pool = ManualPool([Echo()])
    task = pool.dispatch("x", deadline=5)
    pool.clock.advance(5)
    assert task.state is TaskState.DEAD
    assert isinstance(task.exception(0), AttemptTimeout)


def test_busy_and_unknown_workers_cannot_claim() -> None:
    pool = ManualPool([Echo()])
    pool.dispatch("x")
    assert pool.claim(0) is not None
    with pytest.raises(InvalidValue):
        pool.claim(0)
    with pytest.raises(WorkerNotFound):
        pool.claim(7)
    assert pool.claim() is None


def test_clock_may_be_shared_by_pools() -> None:
    clock = FakeClock()
    pools = [ManualPool([Echo()], clock=clock) for _ in range(2)]
    tasks = [pool.dispatch("x", delay=1) for pool in pools]
    clock.advance(1)
    assert [task.state for task in tasks] == [TaskState.QUEUED] * 2


def test_close_says_what_is_left_instead_of_waiting() -> None:
    pool = ManualPool([Echo()])
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    with pytest.raises(CloseTimeout, match="worker-0"):
        pool.close()
    attempt.run()
    pool.close()
    assert task.result(0) == "x by worker-0"


def test_no_thread_is_started() -> None:
    before = set(threading.enumerate())
    pool = ManualPool([Echo()] * 3, timeout=5)
    pool.dispatch("x", delay=1)
    pool.clock.advance(1)
    assert set(threading.enumerate()) == before


def test_pool_left_open_does_not_disturb_the_exit() -> None:
    script = "from retrypool.testing import ManualPool\np = ManualPool([str])\np.dispatch(1)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=10
    )
    assert (done.returncode, done.stderr) == (0, "")
