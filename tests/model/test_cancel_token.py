"""CancelToken by itself, and the tokens of pools, workers and tasks."""

import gc
import itertools
import logging
import sys
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

from retrypool import CancelToken, PoolClosed, TaskState, WorkerNotFound
from retrypool.testing import FakeClock, ManualPool


def test_cancelling_reaches_the_children_and_not_the_parent():
    root = CancelToken()
    child, other = root.child(), root.child()
    grandchild = child.child()
    assert child.cancel("enough")
    assert (grandchild.cancelled, grandchild.reason) == (True, "enough")
    assert not root.cancelled
    assert not other.cancelled


def test_only_the_first_reason_counts():
    token = CancelToken()
    assert token.cancel("first")
    assert not token.cancel("second")
    assert token.reason == "first"
    assert repr(token) == "<CancelToken cancelled: 'first'>"


def test_child_of_a_cancelled_token_is_cancelled():
    token = CancelToken()
    token.cancel("enough")
    assert token.child().reason == "enough"
    assert token.after(10).cancelled


def test_way_from_the_root_stays_whole_when_nobody_keeps_a_token_in_between():
    root = CancelToken()
    grandchild = root.after(60).child().child()
    gc.collect()
    root.cancel("enough")
    assert grandchild.cancelled


def test_children_that_nobody_wants_any_more_are_not_kept():
    root = CancelToken()
    for _ in range(100):
        root.child()
    gc.collect()
    assert len(root._children) == 0


def test_token_with_a_time_is_cancelled_when_it_is_over():
    clock = FakeClock()
    root = CancelToken(clock=clock)
    token = root.after(5)
    assert token.time_left() == 5
    clock.advance(4)
    assert not token.cancelled
    assert token.child().time_left() == 1
    clock.advance(1)
    assert token.cancelled
    assert token.reason == "its time is over"
    assert not root.cancelled
    assert root.time_left() is None


def test_time_of_a_child_is_never_longer_than_that_of_its_parent():
    clock = FakeClock()
    token = CancelToken(clock=clock).after(5)
    assert token.after(60).time_left() == 5
    assert token.after(1).time_left() == 1


def test_wait_ends_when_it_is_cancelled(stage):
    token = CancelToken()
    waiting = [stage.start(token.wait) for _ in range(3)]
    stage.until(lambda: len(token._waiters) == 3)
    token.child().cancel("another one")
    token.cancel()
    assert [each.result(stage.within) for each in waiting] == [True] * 3
    assert token.wait()


def test_wait_ends_with_its_timeout_or_the_time_of_the_token(stage):
    clock = FakeClock()
    plain, timed = CancelToken(clock=clock), CancelToken(clock=clock).after(5)
    short, long = stage.start(plain.wait, 5), stage.start(timed.wait, 60)
    stage.until(lambda: len(clock._sleepers) == 2)
    clock.advance(5)
    assert short.result(stage.within) is False
    assert long.result(stage.within) is True
    assert plain._waiters == []


def test_token_that_is_cancelled_as_the_time_of_a_wait_is_over(stage):
    """The clock has woken whoever waits, and he has not yet said that he does not wait any more."""
    clock, woken = FakeClock(), []

    class Slow(FakeClock):
        def acquire(self, lock: Any, timeout: float | None) -> bool:
            got = super().acquire(lock, timeout)
            woken.append(got)
            token.cancel()
            return got

    clock = Slow()
    token = CancelToken(clock=clock)
    waiting = stage.start(token.wait, 5)
    stage.until(lambda: clock._sleepers)
    with clock._lock:
        clock._now = 5.0
        for sleeper in clock._sleepers:
            sleeper.late = True
            sleeper.lock.release()
        token.cancel("at the same moment")
    assert waiting.result(stage.within) is True


def test_callback_is_called_once_or_now_or_not_any_more():
    token, told = CancelToken(), []
    token.on_cancel(lambda token: told.append("early"))
    forget = token.on_cancel(lambda token: told.append("forgotten"))
    forget()
    token.cancel()
    token.cancel()
    token.on_cancel(lambda token: told.append("late"))
    assert told == ["early", "late"]


def test_callback_that_raises_keeps_nobody_else_from_being_told(caplog):
    """Least of all the pool that is to be closed."""
    token, told = CancelToken(), []
    token.on_cancel(lambda token: 1 / 0)
    pool = ManualPool([str], cancel=token)
    token.on_cancel(lambda token: told.append("told"))
    token.cancel()
    assert pool.closed
    assert told == ["told"]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_callback_that_raises_does_not_end_the_thread_of_the_clock(stage, caplog, error):
    """It is the watchdog that notices that the time of a token is over."""
    caplog.set_level(logging.CRITICAL, logger="retrypool")
    token = CancelToken().after(0.01)

    def raise_it(token: CancelToken) -> None:
        raise error

    token.on_cancel(raise_it)
    pool = stage.eager_pool([str], retry=stage.once)
    waiting = pool.dispatch("x", delay=3600, cancel=token)
    with pytest.raises(CancelledError):
        waiting.result(stage.within)
    assert pool.dispatch("y", delay=0.001).result(stage.within) == "y"


def test_pool_token_ends_every_task(stage):
    token, hang = CancelToken(), stage.hang()
    pool = stage.eager_pool([hang], cancel=token)
    running = pool.dispatch("running")
    hang.wait_until_begun()
    queued, delayed = pool.dispatch("queued"), pool.dispatch("delayed", delay=3600)
    token.cancel("the program ends")
    for task in (running, queued, delayed):
        with pytest.raises(CancelledError, match="the program ends"):
            task.result(stage.within)
    assert pool.closed
    with pytest.raises(PoolClosed):
        pool.dispatch("x")
    assert pool.stats().cancelled == 3


def test_pool_token_with_a_time_closes_the_pool_at_that_time():
    for start, seconds in itertools.product((0.0, 0.1, 0.7, 1e6), (0.1, 0.7, 2.9)):
        clock = FakeClock(start=start)
        pool = ManualPool([str], clock=clock, cancel=CancelToken(clock=clock).after(seconds))
        task = pool.dispatch("x")
        clock.advance(seconds)
        assert pool.closed
        assert task.cancelled()


def test_cancelled_token_makes_a_closed_pool():
    token = CancelToken()
    token.cancel()
    pool = ManualPool([str], cancel=token)
    assert pool.closed


def test_worker_token_takes_the_worker_and_its_task_is_run_elsewhere():
    token = CancelToken()
    pool = ManualPool([str])
    leaving = pool.add_worker(str, cancel=token)
    task = pool.dispatch("x")
    attempt = pool.claim(leaving)
    token.cancel("this account is closed")
    assert attempt.context.cancelled
    assert attempt.context.stopping
    with pytest.raises(WorkerNotFound):
        pool.remove_worker(leaving)
    other = pool.claim()
    assert other.context.attempt == 2
    other.finish("x")
    assert task.result() == "x"
    assert [a.outcome.value for a in task.history] == ["withdrawn", "succeeded"]


def test_worker_token_takes_the_one_who_came_in_its_place(stage):
    """A worker that was replaced because it hung is still the worker of its token."""
    token, hang = CancelToken(), stage.hang()
    pool = stage.eager_pool([str], timeout=0.01, grace=0.01)
    pool.pause_worker(pool.workers()[0].id)
    leaving = pool.add_worker(factory=lambda: hang, cancel=token)
    pool.dispatch("x", retry=stage.once)
    stage.until(lambda: pool.stats().abandoned == 1)
    token.cancel()
    assert leaving not in [worker.id for worker in pool.workers()]
    assert pool.stats().workers == 1


def test_task_token_cancels_it_where_it_is():
    clock = FakeClock()
    root = CancelToken(clock=clock)
    pool = ManualPool([str], clock=clock)
    running = pool.dispatch("x", cancel=root.after(5))
    attempt = pool.claim()
    queued, delayed = pool.dispatch("y", cancel=root), pool.dispatch("z", cancel=root, delay=60)
    clock.advance(5)
    assert running.cancelled()
    assert attempt.context.cancelled
    assert not queued.done()
    root.cancel("enough")
    assert queued.cancelled()
    assert delayed.cancelled()
    assert pool.queue_size == 0
    attempt.finish(None)


def test_cancelled_token_cancels_a_task_as_it_is_dispatched():
    token = CancelToken()
    token.cancel()
    pool = ManualPool([str])
    assert pool.dispatch("x", cancel=token).cancelled()
    assert pool.claim() is None


def test_token_forgets_tasks_that_have_ended():
    token = CancelToken()
    pool = ManualPool([str])
    task = pool.dispatch("x", cancel=token)
    pool.claim().run()
    assert task.state is TaskState.SUCCEEDED
    assert token._callbacks == {}
    references = sys.getrefcount(task)
    token.cancel()
    assert task.state is TaskState.SUCCEEDED
    assert sys.getrefcount(task) == references


@pytest.mark.parametrize("where", ["pool", "worker", "task"])
def test_what_is_no_token_is_refused(where):
    wrong: Any = threading.Event()
    pool = ManualPool([str])
    with pytest.raises(TypeError, match="CancelToken"):
        match where:
            case "pool":
                ManualPool([str], cancel=wrong)
            case "worker":
                pool.add_worker(str, cancel=wrong)
            case "task":
                pool.dispatch("x", cancel=wrong)
