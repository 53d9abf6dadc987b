"""What goes in comes out: dispatch, its options, and what run may raise."""

import threading
import traceback
from dataclasses import dataclass
from typing import Any

import pytest

from retrypool import (
    DeadReason,
    NoWorkers,
    Pool,
    PoolClosed,
    RetryPolicy,
    TaskState,
    Throttled,
    WorkerFault,
    current_context,
)
from retrypool.states import Outcome

ONCE = RetryPolicy(attempts=1)


def test_function_times_four_in_a_with_statement() -> None:
    with Pool([str.upper] * 4) as pool:
        tasks = [pool.dispatch(letter) for letter in "abc"]
    assert [task.result(timeout=0) for task in tasks] == ["A", "B", "C"]


def test_object_gets_the_context_and_the_data(stage: Any) -> None:
    class Worker:
        def run(self, ctx: Any, data: int) -> tuple[Any, ...]:
            assert current_context() is ctx
            return ctx.task_id, ctx.name, ctx.attempt, ctx.worker_id, ctx.group, dict(ctx.options), data

    pool = stage.pool([Worker()], options={"of": "the pool"})
    task = pool.dispatch(7, name="seven", options={"of": "the task"})
    other = pool.dispatch(8)
    pool.close(timeout=stage.within)
    assert task.result() == (task.id, "seven", 1, 0, "worker-0", {"of": "the task"}, 7)
    assert other.result() == (other.id, None, 1, 0, "worker-0", {"of": "the pool"}, 8)


def test_function_finds_its_context(stage: Any) -> None:
    with stage.pool([lambda data: current_context().task_id]) as pool:
        task = pool.dispatch("x")
    assert task.result() == task.id


def test_task_tells_what_it_was_dispatched_with(stage: Any) -> None:
    pool = stage.pool([int])
    task = pool.dispatch("1", name="one", priority=3, metadata={"row": 1})
    assert (task.data, task.name, task.priority, dict(task.metadata)) == ("1", "one", 3, {"row": 1})
    pool.close(timeout=stage.within)


def test_tasks_have_ids_of_their_own(stage: Any) -> None:
    with stage.pool([int] * 2) as pool:
        tasks = [*pool.dispatch_many("123"), pool.dispatch("4", priority=1), pool.dispatch("5")]
    assert len({task.id for task in tasks}) == 5


@pytest.mark.parametrize("options", [{}, {"priority": 1}, {"delay": 0.001}])
def test_dispatch_many_keeps_the_order(stage: Any, options: dict[str, Any]) -> None:
    with stage.pool([int] * 3) as pool:
        tasks = pool.dispatch_many(map(str, range(100)), **options)
    assert [task.result(timeout=0) for task in tasks] == list(range(100))


def test_one_worker_takes_tasks_by_priority_and_then_in_the_order_of_dispatch(stage: Any) -> None:
    ran: list[str] = []
    pool = stage.pool([ran.append])
    pool.pause()
    for data, priority in (("a", 0), ("b", 1), ("c", 0), ("d", 1), ("e", -1), ("f", 0)):
        pool.dispatch(data, priority=priority)
    pool.resume()
    pool.close(timeout=stage.within)
    assert "".join(ran) == "bdacfe"


def test_delayed_task_is_scheduled_first(stage: Any) -> None:
    pool = stage.pool([int])
    task = pool.dispatch("1", delay=600)
    assert task.state is TaskState.SCHEDULED
    assert task in pool.tasks()
    assert task.cancel()
    soon = pool.dispatch("2", delay=0.001)
    assert soon.result(stage.within) == 2
    pool.close(timeout=stage.within)


def test_task_dispatched_from_run_is_run(stage: Any) -> None:
    def countdown(number: int) -> Any:
        return pool.dispatch(number - 1) if number else "done"

    pool = stage.pool([countdown])
    task = pool.dispatch(5)
    for _ in range(5):
        task = task.result(stage.within)
    assert task.result(stage.within) == "done"
    pool.close(timeout=stage.within)


def test_result_may_be_anything_also_an_exception_that_is_returned(stage: Any) -> None:
    error = OSError("as a value")
    with stage.pool([lambda data: data]) as pool:
        tasks = pool.dispatch_many([None, error, StopIteration])
    assert [task.result() for task in tasks] == [None, error, StopIteration]


# -- what run raises ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_whatever_run_raises_is_a_failure_and_its_thread_lives(
    stage: Any, error: type[BaseException]
) -> None:
    def fail_once(data: object) -> object:
        if current_context().attempt == 1:
            raise error("not so fast")
        return data

    pool = stage.pool([fail_once], retry=RetryPolicy(attempts=2, delay=0))
    threads = stage.worker_threads(pool)
    tasks = pool.dispatch_many(range(10))
    assert [task.result(stage.within) for task in tasks] == list(range(10))
    assert {type(failure) for task in tasks for failure in task.errors} == {error}
    assert threads == stage.worker_threads(pool)
    assert threads[0].is_alive()
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_last_error_of_a_dead_task_is_raised_whatever_it_is(stage: Any, error: type[BaseException]) -> None:
    def fail(data: object) -> None:
        raise error(data)

    with stage.pool([fail], retry=ONCE) as pool:
        task = pool.dispatch("x")
        with pytest.raises(error) as caught:
            task.result(stage.within)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"


def test_error_of_a_function_in_c_has_a_traceback_too(stage: Any) -> None:
    with stage.pool([int], retry=ONCE) as pool:
        task = pool.dispatch("x")
    with pytest.raises(ValueError, match="invalid literal"):
        task.result()


def test_error_chain_of_the_worker_is_intact(stage: Any) -> None:
    def fail(data: object) -> None:
        try:
            raise KeyError(data)
        except KeyError as cause:
            raise OSError(data) from cause

    with stage.pool([fail], retry=ONCE) as pool:
        task = pool.dispatch("x")
    error = task.exception()
    assert isinstance(error, OSError)
    assert isinstance(error.__cause__, KeyError)


def test_one_error_object_may_be_raised_by_all_workers(stage: Any) -> None:
    error = OSError("always the same")

    def fail(data: object) -> None:
        raise error

    with stage.pool([fail] * 4, retry=RetryPolicy(attempts=3, delay=0)) as pool:
        tasks = pool.dispatch_many(range(100))
    assert {task.exception() for task in tasks} == {error}
    assert pool.stats().workers == 0


def test_errors_that_say_more_than_failed(stage: Any) -> None:
    answers = iter([Throttled(retry_after=0), Throttled(retry_after="soon, or not"), None])

    def run(data: object) -> object:
        if (answer := next(answers)) is not None:
            answer.retry_after = 0 if answer.retry_after == "soon, or not" else answer.retry_after
            raise answer
        return data

    with stage.pool([run], retry=ONCE) as pool:
        task = pool.dispatch("x")
    assert task.result() == "x"
    assert [attempt.outcome for attempt in task.history] == [
        Outcome.THROTTLED,
        Outcome.THROTTLED,
        Outcome.SUCCEEDED,
    ]


@pytest.mark.parametrize("retry_after", [-1, float("nan"), object(), "nonsense", True])
def test_throttled_with_a_time_that_makes_no_sense_harms_nobody(stage: Any, retry_after: Any) -> None:
    def run(data: object) -> object:
        if current_context().attempt == 1:
            raise Throttled(retry_after=retry_after)
        return data

    pool = stage.pool([run])
    task = pool.dispatch("x")
    stage.until(lambda: task.done() or pool.workers()[0].until is not None)
    assert stage.worker_threads(pool)[0].is_alive()
    pool.force_close()


def test_throttled_by_a_subclass_that_forgot_its_fields_harms_nobody(stage: Any) -> None:
    class TooFast(Throttled):
        def __init__(self) -> None:
            Exception.__init__(self, "too fast")

    def run(data: object) -> object:
        if current_context().attempt == 1:
            raise TooFast
        return data

    pool = stage.pool([run])
    task = pool.dispatch("x")
    thread = stage.worker_threads(pool)[0]
    stage.until(lambda: task.done() or pool.workers()[0].until or not thread.is_alive())
    assert thread.is_alive()
    pool.force_close()


def test_worker_fault_alone_is_charged(stage: Any) -> None:
    """While no other group is live, it would otherwise go on for ever."""

    def run(data: object) -> None:
        raise WorkerFault("no session")

    with stage.pool([run], retry=RetryPolicy(attempts=2, delay=0)) as pool:
        task = pool.dispatch("x")
    assert task.attempts == 2
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.ATTEMPTS]


@pytest.mark.parametrize("broken", ["delay", "retry_if"])
def test_task_dies_of_a_policy_that_raises_and_the_worker_lives(stage: Any, broken: str) -> None:
    def divide(_: object) -> float:
        return 1 / 0

    policy = RetryPolicy(**{broken: divide})  # type: ignore[arg-type]
    pool = stage.pool([int])
    task = pool.dispatch("x", retry=policy)
    error = task.exception(stage.within)
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(error.__cause__, ValueError)
    assert pool.dispatch("1").result(stage.within) == 1
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.POLICY_ERROR]
    pool.close(timeout=stage.within)


# -- who is there to take it -------------------------------------------------------------------------


def test_dispatch_after_close_is_refused(stage: Any) -> None:
    pool = stage.pool([int], name="numbers")
    pool.close(timeout=stage.within)
    before = pool.stats()
    calls: list[Any] = [
        lambda: pool.dispatch("1"),
        lambda: pool.dispatch("1", priority=1),
        lambda: pool.dispatch_many("12"),
        lambda: pool.add_worker(int),
    ]
    for call in calls:
        with pytest.raises(PoolClosed, match="numbers refuses: it is closed"):
            call()
    assert pool.stats() == before


def test_dispatch_without_workers_is_refused(stage: Any) -> None:
    pool = stage.pool(name="empty")
    with pytest.raises(NoWorkers, match="empty has no workers"):
        pool.dispatch("1")
    with pytest.raises(NoWorkers):
        pool.dispatch_many("12", priority=1)
    assert pool.stats().dispatched == 0
    pool.add_worker(int)
    task = pool.dispatch("1")
    assert task.result(stage.within) == 1
    pool.remove_worker(0)
    with pytest.raises(NoWorkers):
        pool.dispatch("1")
    pool.close(timeout=stage.within)


def test_tasks_wait_for_workers_if_they_are_told_to(stage: Any) -> None:
    pool = stage.pool(wait_for_workers=True)
    tasks = pool.dispatch_many("12")
    assert pool.queue_size == 2
    assert pool.wait(timeout=stage.within) is False
    pool.add_worker(int)
    assert [task.result(stage.within) for task in tasks] == [1, 2]
    pool.close(timeout=stage.within)


def test_dispatch_from_many_threads(stage: Any) -> None:
    ready = threading.Barrier(8)

    def dispatch(first: int) -> Any:
        ready.wait(stage.within)
        return [pool.dispatch(first + count) for count in range(500)]

    pool = stage.pool([lambda data: data] * 4)
    dispatching = [stage.start(dispatch, number * 500) for number in range(8)]
    tasks = [task for each in dispatching for task in each.result(stage.within)]
    pool.close(timeout=stage.within)
    assert [task.result() for task in tasks] == list(range(4000))
    assert len({task.id for task in tasks}) == 4000
    assert pool.stats().succeeded == 4000


def test_error_that_refuses_attributes_is_a_failure_like_others(stage: Any) -> None:
    @dataclass(frozen=True)
    class Refused(Exception):
        code: int

    def fail(data: int) -> None:
        raise Refused(data)

    pool = stage.pool([fail] * 2, retry=RetryPolicy(attempts=2, delay=0))
    error = pool.dispatch(500).exception(stage.within)
    assert isinstance(error, Refused)
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code is fail.__code__
    assert {info.state for info in pool.workers()} == {"active"}


def test_task_is_dead_when_nobody_can_tell_what_becomes_of_it(
    stage: Any, monkeypatch: Any, caplog: Any
) -> None:
    """Whatever it is that goes wrong there: the task must not be left behind, nor the worker die of it."""
    pool = stage.pool([int])
    with monkeypatch.context() as broken:
        broken.setattr(pool._engine.attempts, "_decide", None)
        task = pool.dispatch("x")
        assert isinstance(task.exception(stage.within), TypeError)
    assert pool.dead_tasks()[0].reason is DeadReason.POLICY_ERROR
    assert "could not be decided" in caplog.text
    assert pool.dispatch("1").result(stage.within) == 1
