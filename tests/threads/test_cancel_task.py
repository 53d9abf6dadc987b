"""cancel_task wherever a task is, and the races that it can lose."""

import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

from retrypool import FailureAction, Interrupted, RetryPolicy, TaskState
from retrypool.states import Outcome
from retrypool.testing import ManualPool


@pytest.mark.parametrize("delay", [0, 60])
def test_waiting_task_is_cancelled_and_never_runs(delay):
    pool = ManualPool([str])
    task = pool.dispatch("x", delay=delay)
    assert pool.cancel_task(task)
    assert pool.cancel_task(task)
    with pytest.raises(CancelledError):
        task.result()
    pool.clock.advance(100)
    assert pool.claim() is None
    assert pool.stats().cancelled == 1


def test_task_is_cancelled_between_two_attempts():
    pool = ManualPool([str], retry=RetryPolicy(attempts=3, delay=60))
    task = pool.dispatch("x")
    pool.claim().fail(OSError())
    assert task.state is TaskState.RETRYING
    assert pool.cancel_task(task)
    pool.clock.advance(100)
    assert pool.claim() is None
    assert len(task.history) == 1


def test_running_task_ends_cancelled_and_its_late_result_is_discarded():
    pool = ManualPool([str])
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert pool.cancel_task(task)
    assert task.cancelled()
    assert attempt.context.cancelled
    assert pool.workers()[0].state == "stuck"
    attempt.finish("too late")
    assert task.cancelled()
    assert task.history[0].outcome is Outcome.CANCELLED
    assert pool.workers()[0].state != "stuck"


def test_ended_task_is_not_cancelled():
    pool = ManualPool([str])
    task = pool.dispatch("x")
    pool.claim().run()
    assert not pool.cancel_task(task)
    assert task.result() == "x"


def test_task_of_another_pool_is_left_alone():
    pool, other = ManualPool([str]), ManualPool([str])
    task = other.dispatch("x")
    assert not pool.cancel_task(task)
    assert not task.done()
    other.force_close()


def test_running_task_is_interrupted_if_asked_for(stage):
    seen: list[str] = []

    def spin_on() -> None:
        seen.append("spinning")
        while True:
            pass

    def spin(data: object) -> None:
        try:
            spin_on()
        except Interrupted:
            seen.append("struck")
            raise

    pool = stage.eager_pool([spin])
    task = pool.dispatch("x")
    stage.until(lambda: seen)
    assert pool.cancel_task(task, interrupt=True)
    stage.until(lambda: seen == ["spinning", "struck"])
    assert task.cancelled()
    stage.until(lambda: pool.workers()[0].state != "stuck")


def test_task_can_cancel_itself(stage):
    tasks: list[Any] = []
    dispatched = threading.Event()

    def cancel_myself(data: object) -> str:
        dispatched.wait(stage.within)
        assert pool.cancel_task(tasks[0])
        return "too late"

    pool = stage.eager_pool([cancel_myself, str])
    pool.pause_worker(pool.workers()[1].id)
    tasks.append(pool.dispatch("x"))
    dispatched.set()
    with pytest.raises(CancelledError):
        tasks[0].result(stage.within)


@pytest.mark.parametrize("callback", ["on_failure", "on_retry", "listener", "on_cancel"])
@pytest.mark.parametrize("ending", ["failure", "timeout"])
def test_callback_in_the_middle_of_a_decision_may_cancel_the_task(callback, ending):
    """Whoever waited for the decision there would wait for itself."""
    answers = []

    def cancel(*_: object) -> None:
        if not answers and task.history:
            answers.append(pool.cancel_task(task))

    options: dict[str, Any] = {"listeners": [cancel]} if callback == "listener" else {callback: cancel}
    if callback == "on_cancel":
        if ending == "failure":
            pytest.skip("its token is not cancelled by a failure")
        options = {}
    pool = ManualPool([str] * 2, timeout=5, retry=RetryPolicy(attempts=3, delay=0), **options)
    task = pool.dispatch("x")
    attempt = pool.claim()
    attempt.context.token.on_cancel(cancel if callback == "on_cancel" else lambda token: None)
    if ending == "failure":
        attempt.fail(OSError())
    else:
        pool.clock.advance(5)
    assert answers == [True]
    assert task.cancelled()
    assert pool.claim() is None
    assert pool.stats().cancelled == 1


@pytest.mark.parametrize("decision", ["retry at once", "retry later", "dead", "dropped"])
def test_answer_is_true_only_if_the_task_ends_cancelled(stage, monkeypatch, decision):
    """A cancellation that arrives between the decision on a failure and its execution."""
    answers: list[Any] = []
    policy = RetryPolicy(
        attempts=1 if decision == "dead" else 3, delay=60 if decision == "retry later" else 0
    )
    pool = stage.eager_pool(
        [_failing_once()],
        retry=policy,
        on_failure=lambda *_: FailureAction.DROP if decision == "dropped" else None,
    )
    place = {"retry at once": "retry", "retry later": "retry", "dead": "bury", "dropped": "cancel"}
    step = getattr(pool._engine.scheduler, place[decision])

    def cancel_then(task: Any, *arguments: Any) -> Any:
        if not answers:
            answers.append(stage.start(pool.cancel_task, task))
            # It either is done at once, or waits for the decision to be carried out: both are seen to.
            for _ in range(100):
                if answers[0].done():
                    break
        return step(task, *arguments)

    monkeypatch.setattr(pool._engine.scheduler, place[decision], cancel_then)
    task = pool.dispatch("x")
    stage.until(lambda: answers)
    answer = answers[0].result(stage.within)
    stage.until(task.done)
    assert answer is task.cancelled()


def test_success_wins_a_race_with_cancel(stage):
    """The attempt has been taken out of its box by its own thread: it is too late, and the answer is no."""
    popped, go_on = threading.Event(), threading.Event()

    class Box(list[Any]):
        def pop(self, *arguments: Any) -> Any:
            ctx = super().pop(*arguments)
            popped.set()
            assert go_on.wait(stage.within)
            return ctx

    pool = stage.eager_pool([str])
    pool.pause()
    slot = next(iter(pool._workers)).slot
    slot.running = Box()
    pool.restart_worker(slot.id)  # it takes its box in hand anew
    pool.resume()
    task = pool.dispatch("x")
    assert popped.wait(stage.within)
    answer = stage.start(pool.cancel_task, task)
    assert not task.done()
    go_on.set()
    assert answer.result(stage.within) is False
    assert task.result() == "x"


def test_cancel_wins_a_race_with_success(stage):
    """The attempt was taken over just before its thread has reached for it."""
    pool = stage.eager_pool([lambda data: (pool.cancel_task(task_of[data]), data)[1]])
    task_of: dict[str, Any] = {}
    pool.pause()
    task_of["x"] = pool.dispatch("x")
    pool.resume()
    with pytest.raises(CancelledError):
        task_of["x"].result(stage.within)


def test_task_cancelled_while_it_is_requeued():
    """Withdrawn from its worker by an operator, and cancelled by a listener that hears of it."""

    def hear(event: Any) -> None:
        if type(event).__name__ == "AttemptEnded":
            answers.append(pool.cancel_task(event.task))

    answers: list[bool] = []
    pool = ManualPool([str] * 2, listeners=[hear])
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert pool.interrupt_worker(attempt.worker_id, task="retry")
    assert answers == [True]
    assert task.cancelled()
    assert pool.claim() is None


def test_requeued_dead_task_can_be_cancelled():
    pool = ManualPool([str], retry=RetryPolicy(attempts=1))
    dead = pool.dispatch("x")
    pool.claim().fail(OSError())
    again = pool.requeue_dead_task(dead.id)
    assert not pool.cancel_task(dead)
    assert pool.cancel_task(again)
    assert pool.claim() is None


def _failing_once() -> Any:
    calls: list[object] = []

    def run(data: object) -> object:
        calls.append(data)
        if len(calls) == 1:
            raise OSError("once")
        return data

    return run


def test_task_may_be_cancelled_by_the_function_that_says_whose_fault_its_error_is(stage):
    def blame(error: BaseException) -> None:
        assert pool.cancel_task(tasks[0])

    def fail(data: object) -> None:
        go.wait(stage.within)
        raise ValueError(data)

    go = threading.Event()
    tasks: list[Any] = []
    pool = stage.eager_pool([fail] * 2, blame=blame)
    tasks.append(pool.dispatch("x"))
    go.set()
    stage.until(tasks[0].done)
    assert tasks[0].cancelled()
    assert len(tasks[0].history) == 1
