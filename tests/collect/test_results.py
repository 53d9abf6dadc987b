"""What is kept of a task, and what is not: results, data, references."""

import asyncio
import time
import weakref
from concurrent.futures import CancelledError
from typing import Any

import pytest

from retrypool import (
    DeadReason,
    Drain,
    InvalidType,
    InvalidValue,
    RetryPolicy,
    TaskResult,
    TaskState,
    fixed,
)
from retrypool.events import AttemptStarted

ONCE = RetryPolicy(attempts=1)


class Thing:
    """Something that can be watched."""


class Broken(Exception):
    pass


def invert(number: int) -> float:
    return 1 / number


# -- results() -----------------------------------------------------------------------------------


def test_results_tell_of_all_that_has_ended_also_after_close(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([lambda n: gate.hold() if n < 0 else invert(n)], retry=ONCE, keep_results=True)
    good = pool.dispatch(2, name="half")
    bad = pool.dispatch(0)
    gone = pool.dispatch(5, delay=3600)
    gone.cancel()
    held = pool.dispatch(-1)
    gate.wait_until_reached()
    first, second, third = pool.results()
    assert first == TaskResult(good.id, "half", 2, TaskState.SUCCEEDED, 0.5, None, good.duration, 1)
    assert (second.id, second.value, second.ok) == (bad.id, None, False)
    assert isinstance(second.error, ZeroDivisionError)
    assert isinstance(third.error, CancelledError)
    gate.open()
    pool.close()
    assert [result.id for result in pool.results()] == [good.id, bad.id, gone.id, held.id]


def test_result_is_there_as_soon_as_the_task_has_ended(stage: Any) -> None:
    pool = stage.pool([invert] * 2, keep_results=True)
    for number in range(1, 200):
        pool.dispatch(number).result()
        assert len(pool.results()) == number


def test_results_are_kept_whatever_way_the_task_came(stage: Any) -> None:
    pool = stage.pool([invert] * 2, keep_results=True)
    pool.dispatch_many([1, 2])
    with pool.group() as group:
        group.dispatch(4)
    assert list(pool.map([5, 10], ordered=False))
    pool.close()
    assert [result.data for result in pool.results()] == [1, 2, 4, 5, 10]


def test_requeued_task_has_one_result(stage: Any) -> None:
    online = False

    def send(letter: str) -> str:
        if not online:
            raise OSError("down")
        return letter

    pool = stage.pool([send], retry=ONCE, keep_results=True)
    task = pool.dispatch("a")
    assert task.exception()
    online = True
    pool.requeue_dead_task(task.id).result()
    [result] = pool.results()
    assert (result.value, result.attempts) == ("a", 2)


def test_pool_that_keeps_no_results_says_how_to(stage: Any) -> None:
    with pytest.raises(InvalidValue, match="keep_results=True"):
        stage.pool([invert]).results()
    with pytest.raises(InvalidType):
        stage.pool([invert], keep_results="yes")


# -- keep_data -----------------------------------------------------------------------------------


def test_task_lets_go_of_its_data_before_it_is_known_to_have_succeeded(stage: Any) -> None:
    pool = stage.pool([lambda data: 1] * 2)
    for _ in range(100):
        task = pool.dispatch(Thing(), keep_data=False)
        assert task.result() == 1
        assert task.data is None


def test_data_goes_and_the_task_stays(stage: Any, no_garbage: None) -> None:
    thing = Thing()
    known = weakref.ref(thing)
    pool = stage.pool([lambda data: None])
    task = pool.dispatch(thing, keep_data=False)
    del thing
    task.result()
    pool.close()
    assert known() is None
    assert (task.attempts, len(task.history), task.errors) == (1, 1, [])


def test_dead_task_still_has_its_data_to_be_requeued_with(stage: Any) -> None:
    pool = stage.pool([invert], retry=ONCE)
    task = pool.dispatch(0, keep_data=False)
    assert task.exception()
    assert task.data is None
    [dead] = pool.dead_tasks()
    assert (dead.data, dead.reason) == (0, DeadReason.ATTEMPTS)


def test_cancelled_task_lets_go_of_its_data(stage: Any) -> None:
    task = stage.pool([invert]).dispatch(1, delay=3600, keep_data=False)
    assert task.cancel()
    assert task.data is None


def test_retried_task_has_its_data_until_the_end(stage: Any) -> None:
    seen: list[Any] = []

    def run(data: str) -> str:
        seen.append(data)
        if len(seen) < 3:
            raise OSError
        return data

    pool = stage.pool([run], retry=RetryPolicy(delay=fixed(0)))
    task = pool.dispatch("x", keep_data=False)
    assert task.result() == "x"
    assert seen == ["x"] * 3
    assert task.data is None
    assert len(task.history) == 3


def test_attempt_that_is_over_before_it_began_is_not_given_the_data_that_is_gone(stage: Any) -> None:
    """The task is cancelled after a worker took it, and before that has read the data."""
    seen: list[Any] = []

    def hear(event: Any) -> None:
        if isinstance(event, AttemptStarted):
            pool.cancel_task(event.task)

    pool = stage.pool([seen.append], listeners=[hear])
    with pytest.raises(CancelledError):
        pool.dispatch("x", keep_data=False).result(stage.within)
    pool.close()
    assert seen == []


# -- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"keep_data": False}, {"drain": Drain(commit="success")}])
def test_result_goes_with_the_last_reference_to_its_task(
    stage: Any, no_garbage: None, options: dict[str, Any]
) -> None:
    pool = stage.pool([lambda data: Thing()])
    task = pool.dispatch(1, **options)
    known = weakref.ref(task.result())
    data = weakref.ref(task)
    assert known() is not None
    del task
    pool.dispatch(2).result()  # the worker has moved on from the first one
    assert known() is None
    assert data() is None


def test_idle_worker_holds_on_to_nothing(stage: Any, no_garbage: None) -> None:
    pool = stage.pool([lambda data: Thing()])
    things = [Thing() for _ in range(3)]
    known = [weakref.ref(thing) for thing in things]
    for task in [pool.dispatch(thing) for thing in things]:
        task.result()
    del things, task
    pool.close()
    assert [ref() for ref in known] == [None] * 3


class Fails:
    def run(self, ctx: Any, data: Any) -> None:
        raise Broken


class Waits:
    """Finds out that its time is over, and raises the very error that the task ends with."""

    def run(self, ctx: Any, data: Any) -> None:
        ctx.token.wait(10)
        ctx.check()


@pytest.mark.parametrize(
    "options",
    [{}, {"copy_context": True}, {"keep_data": False}, {"name": "x", "priority": 1}],
    ids=["plain", "in a context", "without data", "with options"],
)
@pytest.mark.parametrize("attempts", [1, 3])
def test_error_makes_no_cycle(stage: Any, no_garbage: None, attempts: int, options: dict[str, Any]) -> None:
    """Though its traceback holds the frame of `run`, and that the context of the attempt."""
    pool = stage.pool([Fails(), Fails()], retry=RetryPolicy(attempts=attempts, delay=fixed(0)), dead_limit=0)
    task = pool.dispatch(Thing(), **options)
    error = weakref.ref(task.exception())
    ended = weakref.ref(task)
    pool.close()
    del task
    assert ended() is None
    assert error() is None


def test_timeout_that_the_worker_raises_makes_no_cycle(stage: Any, no_garbage: None) -> None:
    pool = stage.pool([Waits()], retry=ONCE, dead_limit=0, timeout=0.01)
    task = pool.dispatch(1)
    error, ended = weakref.ref(task.exception()), weakref.ref(task)
    pool.close()
    del task
    assert ended() is None
    assert error() is None


def test_context_that_outlives_its_attempt_still_tells_what_it_was(stage: Any) -> None:
    contexts = []

    class Worker:
        def run(self, ctx: Any, data: Any) -> None:
            contexts.append(ctx)
            raise Broken

    pool = stage.pool([Worker()], retry=ONCE, options={"region": "north"})
    task = pool.dispatch(1, name="one")
    assert isinstance(task.exception(), Broken)
    pool.close()
    [ctx] = contexts
    assert (ctx.task_id, ctx.name, ctx.options) == (task.id, "one", {"region": "north"})
    assert not ctx.cancelled


# -- asyncio -------------------------------------------------------------------------------------


def test_task_can_be_awaited(stage: Any) -> None:
    pool = stage.pool([invert] * 2)

    async def main() -> list[float]:
        return await asyncio.gather(*(asyncio.wrap_future(pool.dispatch(n)) for n in (1, 2, 4)))

    assert asyncio.run(main()) == [1, 0.5, 0.25]


def test_done_callback_is_called_beside_the_reporter_of_a_map(stage: Any) -> None:
    """Tasks of an unordered map report to it; whoever else gets hold of one may wait for it as well."""
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    results = pool.map([1], ordered=False)
    consuming = stage.start(list, results)
    gate.wait_until_reached()
    [task] = pool.tasks()
    told: list[Any] = []
    task.add_done_callback(told.append)
    gate.open()
    assert consuming.result(stage.within) == [None]
    assert told == [task]


def test_worker_that_waits_holds_on_to_no_task_that_it_has_run(stage: Any, no_garbage: None) -> None:
    """Nor to one that it took from the queue, and left to another worker because it had failed it."""

    class Value:
        pass

    def fail_once(data: object) -> Value:
        if not failures:
            failures.append(data)
            raise OSError
        return Value()

    failures: list[object] = []
    pool = stage.pool([fail_once] * 2, retry=RetryPolicy(delay=0))
    task = pool.dispatch(Value())
    result, data = weakref.ref(task.result(stage.within)), weakref.ref(task.data)
    pool.wait()
    failures.clear()
    del task
    deadline = time.monotonic() + stage.within
    while (result() or data()) and time.monotonic() < deadline:  # its worker is on its way to sleep
        time.sleep(0)
    assert result() is None
    assert data() is None
