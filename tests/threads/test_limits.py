"""timeout, time_limit and deadline, in virtual time."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from retrypool import (
    AttemptTimeout,
    DeadReason,
    FailureAction,
    RetryPolicy,
    TaskState,
)
from retrypool.states import Outcome
from retrypool.testing import FakeClock, ManualPool

AT_ONCE = RetryPolicy(attempts=3, delay=0)
DURATIONS = [n / 10 for n in range(1, 50, 7)]


def test_attempt_is_over_at_its_timeout_and_the_task_goes_elsewhere():
    pool = ManualPool([str] * 2, timeout=5, retry=AT_ONCE)
    task = pool.dispatch("x")
    first = pool.claim()
    pool.clock.advance(4.999)
    assert task.state is TaskState.RUNNING
    pool.clock.advance(0.001)
    assert task.state is TaskState.QUEUED
    second = pool.claim()
    assert second.worker_id != first.worker_id
    second.finish("done")
    assert task.result() == "done"
    assert [attempt.outcome for attempt in task.history] == [Outcome.TIMED_OUT, Outcome.SUCCEEDED]
    assert task.history[0].duration == 5
    pool.force_close()


def test_late_result_and_late_error_are_discarded():
    pool = ManualPool([str] * 2, timeout=1, retry=RetryPolicy(attempts=2, delay=0))
    task = pool.dispatch("x")
    first = pool.claim()
    pool.clock.advance(1)
    second = pool.claim()
    first.finish("too late")
    assert not task.done()
    pool.clock.advance(1)
    second.fail(ValueError("too late"))
    assert task.state is TaskState.DEAD
    assert [type(error) for error in task.errors] == [AttemptTimeout, AttemptTimeout]
    assert pool.stats().died == 1


def test_worker_stays_occupied_until_its_late_attempt_comes_back():
    pool = ManualPool([str], timeout=1, retry=AT_ONCE)
    task = pool.dispatch("x")
    late = pool.claim()
    pool.clock.advance(1)
    assert pool.workers()[0].state == "stuck"
    late.finish("too late")
    assert pool.workers()[0].state != "stuck"
    pool.claim().finish("in time")
    assert task.result() == "in time"


@pytest.mark.parametrize(
    ("option", "limit"), [("timeout", "timeout"), ("time_limit", "time limit"), ("deadline", "deadline")]
)
@pytest.mark.parametrize("on_the_task", [True, False])
def test_error_says_which_limit_and_how_much_it_was(option, limit, on_the_task):
    options: dict[str, Any] = {option: timedelta(seconds=3)}
    pool = ManualPool([str], retry=RetryPolicy(attempts=1), **({} if on_the_task else options))
    task = pool.dispatch("x", **(options if on_the_task else {}))
    pool.claim()
    pool.clock.advance(3)
    error = task.exception()
    assert isinstance(error, AttemptTimeout)
    assert isinstance(error, TimeoutError)
    assert (error.seconds, error.limit) == (3, limit)
    assert str(error) == f"the attempt was not over after 3 s (its {limit})"


def test_task_can_lift_the_limits_of_its_pool():
    pool = ManualPool([str], timeout=1, time_limit=1, deadline=1)
    task = pool.dispatch("x", timeout=None, time_limit=None, deadline=None)
    attempt = pool.claim()
    pool.clock.advance(1000)
    assert attempt.context.remaining is None
    attempt.finish("x")
    assert task.result() == "x"


def test_time_limit_counts_running_time_and_not_waiting():
    pool = ManualPool([str] * 3, time_limit=5, retry=RetryPolicy(attempts=9, delay=100))
    task = pool.dispatch("x")
    pool.clock.advance(50)
    first = pool.claim()
    pool.clock.advance(3)
    first.fail(OSError())
    pool.clock.advance(100)
    second = pool.claim()
    assert second.context.remaining == 2
    pool.clock.advance(2)
    assert task.state is TaskState.DEAD
    [dead] = pool.dead_tasks()
    assert dead.reason is DeadReason.TIME_LIMIT
    assert dead.duration == 5


def test_time_limit_used_up_by_failures_is_dead_at_once():
    pool = ManualPool([str], time_limit=5, retry=RetryPolicy(attempts=9, delay=1))
    task = pool.dispatch("x")
    attempt = pool.claim()
    pool.clock.advance(4.9)
    attempt.fail(OSError("first"))
    pool.clock.advance(1)
    attempt = pool.claim()
    pool.clock.advance(0.2)
    assert isinstance(task.exception(), AttemptTimeout)
    assert pool.dead_tasks()[0].reason is DeadReason.TIME_LIMIT


@pytest.mark.parametrize("delay", [0, 1000])
def test_deadline_strikes_a_task_that_waits(delay):
    """In the queue as well as before its moment."""
    pool = ManualPool([str], deadline=5)
    task = pool.dispatch("x", delay=delay)
    pool.clock.advance(5)
    assert task.state is TaskState.DEAD
    assert pool.dead_tasks()[0].reason is DeadReason.DEADLINE
    assert pool.claim() is None
    assert isinstance(task.exception(), AttemptTimeout)
    assert task.attempts == 0


def test_deadline_strikes_between_two_attempts():
    """Nobody could take it, and the delay was short enough: it is the waiting that takes too long."""
    pool = ManualPool([str], deadline=5, retry=RetryPolicy(attempts=9, delay=1))
    task = pool.dispatch("x")
    pool.claim().fail(OSError("down"))
    pool.pause()
    pool.clock.advance(4.9)
    assert task.state is TaskState.QUEUED
    pool.clock.advance(0.1)
    assert str(task.exception()) == "down"
    assert pool.dead_tasks()[0].reason is DeadReason.DEADLINE


def test_retry_that_would_begin_past_the_deadline_is_dead_now():
    pool = ManualPool([str], deadline=5, retry=RetryPolicy(attempts=9, delay=5))
    task = pool.dispatch("x")
    pool.claim().fail(OSError("down"))
    assert task.state is TaskState.DEAD
    assert pool.dead_tasks()[0].reason is DeadReason.DEADLINE


def test_deadline_strikes_while_it_runs():
    pool = ManualPool([str], deadline=5, timeout=100, retry=RetryPolicy(attempts=9, delay=0))
    task = pool.dispatch("x")
    pool.clock.advance(3)
    attempt = pool.claim()
    assert attempt.context.remaining == 2
    assert attempt.context.deadline == 5
    pool.clock.advance(2)
    assert task.state is TaskState.DEAD
    assert pool.dead_tasks()[0].reason is DeadReason.DEADLINE


def test_deadline_that_passes_during_a_callback_is_not_missed():
    """The appointment with it came while the task was in nobody's queue."""

    def on_retry(*_: object) -> None:
        pool.clock.advance(10)

    pool = ManualPool([str], deadline=5, retry=RetryPolicy(attempts=9, delay=0), on_retry=on_retry)
    task = pool.dispatch("x")
    pool.claim().fail(OSError("down"))
    assert task.state is TaskState.DEAD
    assert pool.dead_tasks()[0].reason is DeadReason.DEADLINE


@pytest.mark.parametrize("option", ["time_limit", "deadline"])
def test_limit_that_was_reached_is_used_up_whatever_rounding_makes_of_it(option):
    """0.1 + 0.7 - 0.1 is less than 0.7: no attempt of a nanosecond is made for that."""
    for start, limit in itertools.product(DURATIONS, DURATIONS):
        clock = FakeClock(start=start)
        options: dict[str, Any] = {option: limit}
        pool = ManualPool([str] * 2, clock=clock, retry=RetryPolicy(attempts=9, delay=0), **options)
        task = pool.dispatch("x")
        pool.claim()
        clock.advance(limit)
        assert task.state is TaskState.DEAD, (start, limit)
        assert task.attempts == 1
        pool.force_close()


def test_requeued_task_has_its_time_again():
    pool = ManualPool([str] * 2, deadline=5, time_limit=3, retry=RetryPolicy(attempts=9, delay=0))
    task = pool.dispatch("x")
    late = pool.claim()
    pool.clock.advance(3)
    late.finish(None)
    assert task.state is TaskState.DEAD
    pool.clock.advance(100)
    again = pool.requeue_dead_task(task.id)
    attempt = pool.claim()
    assert attempt.context.remaining == 3
    attempt.finish("done")
    assert again.result() == "done"
    assert len(again.history) == 2


def test_action_of_on_failure_is_asked_after_a_timeout_too():
    asked = []

    def on_failure(task: Any, error: BaseException) -> FailureAction:
        asked.append(type(error))
        return FailureAction.DROP

    pool = ManualPool([str], timeout=1, on_failure=on_failure)
    task = pool.dispatch("x")
    pool.claim()
    pool.clock.advance(1)
    assert task.cancelled()
    assert asked == [AttemptTimeout]


def test_retry_if_may_refuse_timeouts():
    pool = ManualPool([str], timeout=1, retry=RetryPolicy(retry_if=ConnectionError))
    task = pool.dispatch("x")
    pool.claim()
    pool.clock.advance(1)
    assert task.state is TaskState.DEAD
    assert pool.dead_tasks()[0].reason is DeadReason.NOT_RETRYABLE


def test_wall_clock_that_jumps_changes_nothing():
    pool = ManualPool([str], timeout=5, deadline=60, retry=RetryPolicy(attempts=2, delay=10))
    task = pool.dispatch("x")
    attempt = pool.claim()
    for hours in (1, -1, 2):
        pool.clock.set_time(pool.clock.time() + hours * 3600)
        pool.clock.advance(1)
        assert task.state is TaskState.RUNNING
    assert attempt.context.remaining == 2
    pool.clock.advance(2)
    pool.clock.set_time(0)
    assert task.state is TaskState.RETRYING
    attempt.finish(None)
    pool.clock.advance(10)
    pool.claim().finish("done")
    assert task.result() == "done"
