"""`Pool.group`: a block that ends when its tasks have, and tells of their errors together."""

import os
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retrypool import (
    DeadReason,
    InvalidType,
    InvalidValue,
    PoolClosed,
    RetryPolicy,
    TaskState,
    Unrecoverable,
    WrongThread,
)
from retrypool.testing import FakeClock, ManualPool

ONCE = RetryPolicy(attempts=1)


def invert(number: int) -> float:
    return 1 / number


def test_block_ends_when_its_tasks_have(stage: Any) -> None:
    pool = stage.pool([invert] * 3)
    with pool.group() as group:
        tasks = group.dispatch_many([1, 2, 4])
    assert [task.state for task in tasks] == [TaskState.SUCCEEDED] * 3
    assert [result.value for result in group.results()] == [1, 0.5, 0.25]


def test_errors_come_together_in_the_order_of_dispatch(stage: Any) -> None:
    """The first one to fail is the last that was dispatched."""
    gate = stage.gate()

    def run(item: str) -> None:
        if item == "first":
            gate.hold()
        gate.open()
        raise ValueError(item)

    pool = stage.pool([run] * 2, retry=ONCE)
    with pytest.raises(ExceptionGroup, match="2 of 2 tasks failed") as caught, pool.group() as group:
        group.dispatch("first")
        gate.wait_until_reached()
        group.dispatch("second")
    assert [str(error) for error in caught.value.exceptions] == ["first", "second"]
    assert [str(error) for error in pool.errors()] == ["first", "second"]


def test_errors_that_are_no_exceptions_make_a_base_group(stage: Any) -> None:
    def leave(item: int) -> None:
        raise SystemExit(item)

    pool = stage.pool([leave], retry=ONCE)
    with pytest.raises(BaseExceptionGroup) as caught, pool.group() as group:
        group.dispatch(3)
    assert isinstance(caught.value.exceptions[0], SystemExit)


def test_ignored_errors_are_told_by_the_results(stage: Any) -> None:
    pool = stage.pool([invert], retry=ONCE)
    with pool.group(on_error="ignore") as group:
        group.dispatch(0, name="nothing")
        group.dispatch(1)
    bad, good = group.results()
    assert (bad.name, bad.data, bad.ok, bad.attempts) == ("nothing", 0, False, 1)
    assert isinstance(bad.error, ZeroDivisionError)
    assert (good.value, good.error, good.ok) == (1, None, True)


def test_first_failure_cancels_the_rest_running_ones_too(stage: Any) -> None:
    gate = stage.gate()
    told = threading.Event()

    class Worker:
        def run(self, ctx: Any, item: str) -> None:
            if item == "fails":
                gate.hold()
                raise Unrecoverable("no")
            assert ctx.token.wait(stage.within)
            told.set()

    pool = stage.pool([Worker(), Worker()])
    with pytest.raises(ExceptionGroup) as caught, pool.group(on_error="cancel") as group:
        fails = group.dispatch("fails")
        gate.wait_until_reached()
        rest = group.dispatch_many(["runs", "waits"])
        gate.open()
    assert [type(error) for error in caught.value.exceptions] == [Unrecoverable]
    assert fails.state is TaskState.DEAD
    assert {task.state for task in rest} == {TaskState.CANCELLED}
    pool.close()
    assert told.is_set() or not rest[0].history


def test_block_ends_once_a_task_has_failed(stage: Any) -> None:
    """It would dispatch for ever."""
    pool = stage.pool([invert], retry=ONCE)
    with pytest.raises(ExceptionGroup) as caught, pool.group(on_error="cancel") as group:
        while True:
            group.dispatch(0)
    assert all(isinstance(error, ZeroDivisionError) for error in caught.value.exceptions)


def test_task_that_fails_before_the_group_knows_it_counts(stage: Any) -> None:
    """The failure comes between the dispatch and its entry in the group."""
    pool = stage.pool([invert], retry=ONCE)
    group = pool.group(on_error="cancel")
    enter = group._enter

    def enter_and_wait(data: int) -> Any:
        task = enter(data)
        task.exception(stage.within)
        while not group._failed:
            pass
        return task

    group._enter = enter_and_wait
    with pytest.raises(ExceptionGroup) as caught, group:
        group.dispatch(0)
    assert len(caught.value.exceptions) == 1


def test_task_dispatched_while_another_fails_is_cancelled(stage: Any) -> None:
    """It is entered after the others were cancelled."""
    gate = stage.gate()
    pool = stage.pool([lambda item: gate.hold() if item else invert(item)] * 2, retry=ONCE)
    group = pool.group(on_error="cancel")
    enter = group._enter

    def fail_first(data: int) -> Any:
        task = enter(data)
        if data:
            group._fail(dead)
        return task

    group._enter = fail_first
    with pytest.raises(ExceptionGroup), group:
        dead = pool.dispatch(0)
        dead.exception(stage.within)
        group._tasks.append(dead)
        late = group.dispatch(1)
        assert late.cancelled()


def test_exception_in_the_block_cancels_its_tasks_and_goes_on_as_it_is(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, pool.group() as group:
        tasks = group.dispatch_many(range(3))
        raise error
    assert caught.value is error
    assert {task.state for task in tasks} == {TaskState.CANCELLED}


def test_groups_stand_inside_of_groups(stage: Any) -> None:
    pool = stage.pool([invert], retry=ONCE)
    with pytest.raises(ExceptionGroup) as caught, pool.group() as outer:
        kept = outer.dispatch(1)
        kept.result(stage.within)
        with pool.group() as inner:
            inner.dispatch(0)
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert kept.result() == 1


def test_task_that_somebody_cancels_is_no_failure(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    with pool.group() as group:
        group.dispatch("runs")
        assert group.dispatch("waits").cancel()
        gate.open()
    assert [result.ok for result in group.results()] == [True, False]
    assert isinstance(group.results()[1].error, CancelledError)


def test_task_that_the_pool_gives_up_is_one(stage: Any) -> None:
    """Nothing is lost unnoticed."""
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    with pytest.raises(ExceptionGroup) as caught, pool.group() as group:
        group.dispatch(1)
        pool.force_close()
    assert [type(error) for error in caught.value.exceptions] == [CancelledError]
    gate.open()


def test_options_of_the_group_are_those_of_its_tasks(stage: Any) -> None:
    pool = stage.pool([invert])
    with pool.group(name="all", priority=2) as group:
        first = group.dispatch(1)
        second = group.dispatch(1, name="other")
    assert [(task.name, task.priority) for task in (first, second)] == [("all", 2), ("other", 2)]


def test_group_is_entered_once_and_dispatches_in_its_block_only(stage: Any) -> None:
    group = stage.pool([invert]).group()
    with pytest.raises(PoolClosed, match="not entered"):
        group.dispatch(1)
    with group:
        pass
    with pytest.raises(PoolClosed, match="over"):
        group.dispatch(1)
    with pytest.raises(PoolClosed, match="once"):
        group.__enter__()


def test_what_makes_no_sense_is_refused_at_the_call(stage: Any) -> None:
    pool = stage.pool([invert])
    with pytest.raises(InvalidValue):
        pool.group(on_error="retry")
    with pytest.raises(InvalidType):
        pool.group(priority="high")
    pool.close()
    with pytest.raises(PoolClosed):
        pool.group()


def test_worker_can_not_wait_for_its_own_pool(stage: Any) -> None:
    pool = stage.pool([lambda item: pool.group()], retry=ONCE)
    with pytest.raises(WrongThread):
        pool.dispatch(1).result()


def test_errors_of_a_group_leave_no_cycle_behind(stage: Any, no_garbage: None) -> None:
    class Broken(Exception):
        pass

    def fail(item: int) -> None:
        raise Broken

    pool = stage.pool([fail], retry=ONCE, dead_limit=0)

    def run() -> "weakref.ref[BaseException]":
        try:
            with pool.group() as group:
                group.dispatch(0)
        except ExceptionGroup as error:
            return weakref.ref(error.exceptions[0])
        raise AssertionError

    known = run()
    pool.close()
    assert known() is None


SCRIPT = """
import threading
from retrypool import Pool

class Worker:
    def run(self, ctx, item):
        dispatched.wait(30)
        print("runs", flush=True)
        ctx.token.wait(30)

tasks = []
dispatched = threading.Event()
with Pool([Worker()]) as pool:
    try:
        with pool.group() as group:
            for item in range(3):
                tasks.append(group.dispatch(item))
            dispatched.set()
    finally:
        print(*{task.state.value for task in tasks}, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
def test_ctrl_c_at_the_end_of_the_block_cancels_its_tasks() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in err
    assert out == "cancelled\n"  # and none of the others has begun


def test_errors_of_the_pool_come_in_the_order_of_dispatch(stage: Any) -> None:
    gate = stage.gate()

    def run(item: int) -> None:
        if item == 1:
            gate.hold()
        raise ValueError(item)

    pool = stage.pool([run] * 2, retry=ONCE)
    first = pool.dispatch(1)
    gate.wait_until_reached()
    second = pool.dispatch(2)
    assert second.exception(stage.within)
    gate.open()
    assert first.exception(stage.within)
    assert [error.args for error in pool.errors()] == [(1,), (2,)]
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.ATTEMPTS] * 2


@pytest.mark.parametrize("usual", ["delay", "at"])
def test_a_task_s_own_date_goes_before_that_of_its_group(usual: str) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    when: dict[str, dict[str, Any]] = {"delay": {"delay": 3600}, "at": {"at": noon + timedelta(hours=1)}}
    own: dict[str, dict[str, Any]] = {"delay": {"at": noon + timedelta(seconds=5)}, "at": {"delay": 5}}
    pool = ManualPool([str], clock=FakeClock(time=noon.timestamp()))
    with pool.group(on_error="ignore", **when[usual]) as group:
        task = group.dispatch(1, **own[usual])
        assert pool.status(task.id).next_attempt_at == noon + timedelta(seconds=5)
        task.cancel()
    pool.force_close()


def test_group_takes_an_iterable_of_data(stage: Any) -> None:
    pool = stage.pool([str])
    with pool.group() as group, pytest.raises(InvalidType, match="items"):
        group.dispatch_many(5)
