"""Callbacks are told what happens, in order, outside of all locks; what they raise changes nothing."""

import logging
import threading
from typing import Any

import pytest

from retrypool import (
    DeadReason,
    DeadTask,
    FailureAction,
    RetryPolicy,
    Task,
    TaskState,
    Unrecoverable,
    WrongThread,
)

AT_ONCE = RetryPolicy(attempts=2, delay=0)


def fail(data: object) -> None:
    raise OSError(data)


class FailsOnce:
    def __init__(self) -> None:
        self._failed = False

    def run(self, ctx: Any, data: object) -> object:
        if not self._failed:
            self._failed = True
            raise OSError(data)
        return data


def test_callbacks_of_a_task_that_succeeds_at_the_second_attempt(stage: Any) -> None:
    told: list[Any] = []
    pool = stage.pool(
        [FailsOnce()],
        retry=AT_ONCE,
        on_failure=lambda task, error: told.append(("failure", task, error, task.attempts)),
        on_retry=lambda task, error, delay: told.append(("retry", task, error, delay)),
        on_success=lambda task: told.append(("success", task, task.result(timeout=0))),
        on_dead=told.append,
    )
    task = pool.dispatch("x")
    pool.close(timeout=stage.within)
    (error,) = task.errors
    assert told == [("failure", task, error, 1), ("retry", task, error, 0.0), ("success", task, "x")]


def test_callbacks_of_a_task_that_dies(stage: Any) -> None:
    told: list[Any] = []
    pool = stage.pool(
        [fail],
        retry=AT_ONCE,
        on_failure=lambda task, error: told.append("failure"),
        on_retry=lambda task, error, delay: told.append("retry"),
        on_success=lambda task: told.append("success"),
        on_dead=told.append,
    )
    task = pool.dispatch("x")
    pool.close(timeout=stage.within)
    *before, dead = told
    assert before == ["failure", "retry", "failure"]
    assert isinstance(dead, DeadTask)
    assert (dead.id, dead.reason, dead.error) == (task.id, DeadReason.ATTEMPTS, task.exception())


def test_delay_is_told_to_on_retry(stage: Any) -> None:
    delays: list[float] = []
    policy = RetryPolicy(attempts=3, delay=lambda failure: failure.attempt / 1000)
    pool = stage.pool([fail], retry=policy, on_retry=lambda task, error, delay: delays.append(delay))
    pool.dispatch("x")
    pool.close(timeout=stage.within)
    assert delays == [0.001, 0.002]


def test_callbacks_run_on_the_thread_that_causes_them(stage: Any) -> None:
    here: dict[str, threading.Thread] = {}

    def note(what: str) -> None:
        here[what] = threading.current_thread()

    pool = stage.pool(
        [fail],
        name="noted",
        retry=AT_ONCE,
        on_failure=lambda task, error: note("failure"),
        on_retry=lambda task, error, delay: note("retry"),
        on_dead=lambda dead: note("dead"),
    )
    (thread,) = stage.worker_threads(pool)
    assert thread.name == "noted-worker-0"
    pool.dispatch("x")
    pool.close(timeout=stage.within)
    assert here == {"failure": thread, "retry": thread, "dead": thread}


@pytest.mark.parametrize("error", [OSError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_callback_that_raises_is_logged_and_changes_nothing(
    stage: Any, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def careless(*arguments: object) -> None:
        if threading.current_thread() is not threading.main_thread():  # what ends programs is let through
            raise error("careless")

    pool = stage.pool(
        [lambda data: data if data == "good" else fail(data)],
        retry=AT_ONCE,
        on_success=careless,
        on_failure=careless,
        on_retry=careless,
        on_dead=careless,
        listeners=[careless],
    )
    with caplog.at_level(logging.ERROR, logger="retrypool"):
        good, bad = pool.dispatch("good"), pool.dispatch("bad")
        pool.close(timeout=stage.within)
    assert (good.state, bad.state) == (TaskState.SUCCEEDED, TaskState.DEAD)
    assert bad.attempts == 2
    messages = " ".join(record.getMessage() for record in caplog.records)
    for callback in ("on_success", "on_failure", "on_retry", "on_dead", "listener"):
        assert f"{callback} " in messages
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {error}


@pytest.mark.parametrize(
    ("action", "attempts", "state"),
    [
        (FailureAction.RETRY, 5, TaskState.SUCCEEDED),  # beyond the attempts of its policy
        (FailureAction.DEAD, 1, TaskState.DEAD),
        (FailureAction.DROP, 1, TaskState.CANCELLED),
        (None, 2, TaskState.DEAD),
    ],
)
def test_on_failure_decides_what_becomes_of_the_task(
    stage: Any, action: FailureAction | None, attempts: int, state: TaskState
) -> None:
    failures = iter(range(4))

    def fails_four_times(data: object) -> object:
        if next(failures, None) is not None:
            raise OSError(data)
        return data

    pool = stage.pool([fails_four_times], retry=AT_ONCE, on_failure=lambda task, error: action)
    task = pool.dispatch("x")
    pool.close(timeout=stage.within)
    assert (task.state, task.attempts) == (state, attempts)
    reasons = [dead.reason for dead in pool.dead_tasks()]
    expected = DeadReason.CALLBACK if action else DeadReason.ATTEMPTS
    assert reasons == ([expected] if state is TaskState.DEAD else [])


def test_on_failure_cannot_save_a_task_that_is_unrecoverable(stage: Any) -> None:
    def refuse(data: object) -> None:
        raise Unrecoverable(data)

    pool = stage.pool([refuse], on_failure=lambda task, error: FailureAction.RETRY)
    task = pool.dispatch("x")
    pool.close(timeout=stage.within)
    assert task.attempts == 1
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.UNRECOVERABLE]


def test_answer_of_on_failure_that_makes_no_sense_is_logged_and_the_policy_decides(
    stage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pool = stage.pool([fail], retry=AT_ONCE, on_failure=lambda task, error: "again")
    with caplog.at_level(logging.ERROR, logger="retrypool"):
        task = pool.dispatch("x")
        pool.close(timeout=stage.within)
    assert task.attempts == 2
    assert "'again'" in caplog.text


def test_callbacks_may_dispatch(stage: Any) -> None:
    more: list[Task[Any, Any]] = []

    def dispatch_more(task: "Task[Any, Any]", *_: object) -> None:
        if task.data == "x":
            more.append(pool.dispatch("y"))

    pool = stage.pool([FailsOnce()], retry=AT_ONCE, on_success=dispatch_more, on_retry=dispatch_more)
    pool.dispatch("x")
    assert pool.wait(stage.within)
    pool.close(timeout=stage.within)
    assert [task.result() for task in more] == ["y", "y"]


@pytest.mark.parametrize("call", ["close", "wait", "wait_with"])
@pytest.mark.parametrize("callback", ["on_success", "on_failure", "on_retry", "on_dead"])
def test_callback_that_would_wait_for_its_own_thread_is_told_so(stage: Any, callback: str, call: str) -> None:
    raised: list[BaseException] = []

    def wait_for_itself(*_: object) -> None:
        try:
            {"close": pool.close, "wait": pool.wait, "wait_with": lambda: pool.wait_with(bool)}[call]()
        except BaseException as error:
            raised.append(error)
            raise

    run = (lambda data: data) if callback == "on_success" else fail
    pool = stage.pool([run], retry=AT_ONCE, **{callback: wait_for_itself})
    task = pool.dispatch("x")
    task.exception(stage.within)
    assert pool.wait(stage.within)
    assert {type(error) for error in raised} == {WrongThread}
    assert not pool.closed
    pool.close(timeout=stage.within)


def test_run_that_closes_its_own_pool_fails_of_it(stage: Any) -> None:
    pool = stage.pool([lambda data: pool.close()], retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x")
    assert isinstance(task.exception(stage.within), WrongThread)
    assert not pool.closed
    pool.close(timeout=stage.within)


def test_callback_on_the_thread_of_the_clock_that_would_wait_for_it_is_told_so(stage: Any) -> None:
    """What runs out of time is told on the one thread that also ends all delays."""
    raised: list[BaseException] = []
    told = threading.Event()

    def close(dead: object) -> None:
        try:
            pool.close(timeout=0.1)
        except BaseException as error:  # noqa: BLE001 - looked at below
            raised.append(error)
        told.set()

    pool = stage.pool([fail], on_dead=close)
    pool.pause()
    pool.dispatch("x", deadline=0.3)
    assert told.wait(stage.within)
    assert [type(error) for error in raised] == [WrongThread]
    pool.close(timeout=stage.within)


def test_force_close_from_a_callback_ends_the_pool(stage: Any) -> None:
    pool = stage.pool([fail], retry=AT_ONCE, on_dead=lambda dead: pool.force_close())
    first, second = pool.dispatch_many("ab")
    first.exception(stage.within)
    stage.join_workers(pool)
    assert second.done()
    assert pool.closed
