"""Workers that do not come back: grace, factories, replacement, max_abandoned, and closing with them."""

import logging
import threading
from typing import Any

import pytest

from retrypool import AttemptTimeout, CloseTimeout, RetryPolicy, TaskState, WorkerSpec
from retrypool.events import WorkerReplaced, WorkerReturned, WorkerStuck
from retrypool.testing import ManualPool
from retrypool.threads.parker import Bell


class Resources:
    """A factory whose first products hang."""

    def __init__(self, hang: Any, hanging: int = 1) -> None:
        self.hang = hang
        self.hanging = hanging
        self.made = 0
        self.stopped: list[int] = []

    def __call__(self) -> Any:
        self.made += 1
        return _Resource(self, self.made)


class _Resource:
    def __init__(self, resources: Resources, number: int) -> None:
        self.resources, self.number = resources, number

    def run(self, ctx: Any, data: object) -> object:
        if data is None and self.number <= self.resources.hanging:
            return self.resources.hang()
        return self.number

    def on_stop(self) -> None:
        self.resources.stopped.append(self.number)


def test_worker_that_does_not_come_back_in_time_is_reported_in_virtual_time():
    told: list[Any] = []
    pool = ManualPool([str], timeout=5, grace=3, retry=RetryPolicy(attempts=1), listeners=[told.append])
    pool.dispatch("x")
    attempt = pool.claim()
    pool.clock.advance(5)
    pool.clock.advance(2.9)
    assert not any(isinstance(event, WorkerStuck) for event in told)
    pool.clock.advance(0.1)
    assert [event.worker_id for event in told if isinstance(event, WorkerStuck)] == [attempt.worker_id]
    assert pool.stats().abandoned == 0


def test_worker_that_came_back_in_time_is_not_replaced():
    told: list[Any] = []
    worker = WorkerSpec(str, factory=lambda: str)
    pool = ManualPool([worker], timeout=5, grace=3, retry=RetryPolicy(attempts=1), listeners=[told.append])
    pool.dispatch("x")
    attempt = pool.claim()
    pool.clock.advance(7)
    attempt.finish("too late")
    pool.clock.advance(100)
    assert not any(isinstance(event, (WorkerStuck, WorkerReplaced)) for event in told)


def test_stuck_worker_with_a_factory_is_replaced(stage):
    """New resource, new thread, same id; the old thread is counted until it comes back."""
    resources = Resources(stage.hang())
    pool = stage.eager_pool([WorkerSpec(factory=resources, name="phone")], timeout=0.01, grace=0.01)
    task = pool.dispatch(None)
    assert task.result(stage.within) == 2
    [worker] = pool.workers()
    assert (worker.id, worker.name) == (task.history[0].worker_id, "phone")
    assert task.history[1].worker_id == worker.id
    assert pool.stats().abandoned == 1
    assert pool.stats().workers == 1
    resources.hang.release()
    stage.until(lambda: pool.stats().abandoned == 0)
    assert resources.stopped == [1]
    assert task.result() == 2


def test_paused_stuck_worker_is_paused_in_its_new_thread_too(stage):
    resources = Resources(stage.hang())
    pool = stage.eager_pool([WorkerSpec(factory=resources)], timeout=0.01, grace=0.02, retry=stage.once)
    pool.dispatch(None)
    resources.hang.wait_until_begun()
    pool.pause_worker(pool.workers()[0].id)
    stage.until(lambda: pool.stats().abandoned == 1)
    stage.until(lambda: pool.workers()[0].state == "paused")
    task = pool.dispatch("y", timeout=None)
    pool.resume_worker(pool.workers()[0].id)
    assert task.result(stage.within) == 2


def test_no_more_threads_are_given_up_than_allowed(stage, caplog):
    resources = Resources(stage.hang(), hanging=9)
    pool = stage.eager_pool(
        [WorkerSpec(factory=resources)],
        timeout=0.01,
        grace=0.01,
        max_abandoned=2,
        retry=RetryPolicy(attempts=9, delay=0),
    )
    pool.dispatch(None)
    resources.hang.wait_until_begun(3)
    stage.until(lambda: "max_abandoned" in caplog.text)
    assert pool.stats().abandoned == 2
    assert resources.made == 3
    assert pool.workers()[0].state == "stuck"


def test_factory_that_fails_takes_the_worker_out_and_no_other(stage, caplog):
    hang, calls = stage.hang(), []

    def make() -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise OSError("no more of them")
        return hang

    pool = stage.eager_pool([WorkerSpec(factory=make)], timeout=0.01, grace=0.01)
    task = pool.dispatch(None)
    stage.until(lambda: pool.workers()[0].error is not None)
    assert pool.workers()[0].state == "failed"
    pool.add_worker(str)
    assert task.result(stage.within) == "None"
    assert "could not be started" in caplog.text


def test_task_waits_for_a_stuck_worker_as_long_as_the_pool_is_open(stage):
    hang = stage.hang()
    pool = stage.eager_pool([hang], timeout=0.01, grace=0.01)
    task = pool.dispatch("x")
    stage.until(lambda: pool.wait(0.01) is False and pool.workers()[0].state == "stuck")
    assert not task.done()
    hang.release()
    assert task.result(stage.within) == "too late"


def test_close_does_not_wait_for_a_worker_that_is_given_up(stage):
    """What only such workers are left for ends cancelled, with the reason."""
    hang = stage.hang()
    pool = stage.eager_pool([hang] * 2, timeout=0.01, grace=0.02)
    tasks = pool.dispatch_many(range(5))
    stage.start(pool.close).result(stage.within)
    assert {task.state for task in tasks} <= {TaskState.CANCELLED, TaskState.DEAD}
    cancelled = [task for task in tasks if task.cancelled()]
    assert cancelled
    with pytest.raises(BaseException, match="no worker is left"):
        cancelled[0].result()


def test_stuck_worker_with_a_factory_is_replaced_while_the_pool_closes(stage):
    """A `with` block spends most of its time in `close`."""
    resources = Resources(stage.hang())
    with stage.eager_pool([WorkerSpec(factory=resources)], timeout=0.05, grace=0.01) as pool:
        task = pool.dispatch(None)
    assert task.result() == 2


def test_close_with_a_timeout_names_what_still_runs(stage):
    hang = stage.hang()
    pool = stage.eager_pool([hang], name="phones", retry=stage.once)
    running, stuck = pool.dispatch("x"), None
    hang.wait_until_begun()
    with pytest.raises(CloseTimeout) as raised:
        pool.close(timeout=0.01)
    assert raised.value.running == (f"worker-0 (task {running.id})",)
    hang.release()
    pool.close(timeout=stage.within)
    assert running.result() == "too late"
    hang = stage.hang()
    pool = stage.eager_pool([hang], timeout=0.01, retry=stage.once)
    stuck = pool.dispatch("x")
    assert isinstance(stuck.exception(stage.within), AttemptTimeout)
    with pytest.raises(CloseTimeout, match=f"stuck in task {stuck.id}, which is over"):
        pool.close(timeout=0.01)


def test_closing_does_not_burn_a_processor_while_a_paused_worker_runs(stage, monkeypatch):
    hang, looked = stage.hang(), []
    pool = stage.eager_pool([hang])
    task = pool.dispatch("x")
    hang.wait_until_begun()
    pool.pause_worker(pool.workers()[0].id)
    wait = Bell.wait
    monkeypatch.setattr(Bell, "wait", lambda *a: (looked.append(1), wait(*a))[1])
    closing = stage.start(pool.close)
    stage.until(lambda: looked)
    hang.release()
    closing.result(stage.within)
    assert task.result() == "too late"
    assert len(looked) <= 3


def test_worker_that_is_asked_to_leave_while_stuck_is_not_replaced(stage):
    resources = Resources(stage.hang())
    pool = stage.eager_pool([WorkerSpec(factory=resources), str], timeout=0.01, grace=0.05, retry=stage.once)
    pool.pause_worker(pool.workers()[1].id)
    pool.dispatch(None)
    resources.hang.wait_until_begun()
    leaving = pool.workers()[0].id
    removing = stage.start(lambda: pool.remove_worker(leaving, timeout=0.2))
    removing.result(stage.within)
    assert leaving not in [worker.id for worker in pool.workers()]
    assert resources.made == 1
    resources.hang.release()
    stage.until(lambda: pool.stats().abandoned == 0)


def test_thread_that_has_just_left_is_not_counted_as_abandoned(stage):
    """Its last steps come after it has said good-bye."""
    last_step, go_on = threading.Event(), threading.Event()
    pool = stage.eager_pool([str] * 2)
    runner = next(iter(pool._workers))
    leave = runner._on_leave

    def leave_slowly(runner: Any) -> None:
        leave(runner)
        last_step.set()
        go_on.wait(stage.within)

    runner._on_leave = leave_slowly
    removing = stage.start(lambda: pool.remove_worker(runner.slot.id, timeout=0.01))
    assert last_step.wait(stage.within)
    removing.result(stage.within)
    assert pool.stats().abandoned == 0
    go_on.set()


def test_worker_that_was_stuck_tells_that_it_is_back(stage, caplog):
    caplog.set_level(logging.INFO, logger="retrypool")
    hang, told = stage.hang(), []
    pool = stage.eager_pool([hang], timeout=0.01, grace=0.01, retry=stage.once)
    pool.add_listener(lambda event: told.append(type(event)))
    task = pool.dispatch("x")
    stage.until(lambda: WorkerStuck in told and pool._workers.find(0)[0].slot.given_up)
    hang.release()
    stage.until(lambda: WorkerReturned in told)
    assert task.exception(stage.within) is not None
    found = {record.event: record for record in caplog.records if hasattr(record, "event")}
    assert found["worker_stuck"].levelno == logging.WARNING
    assert found["worker_returned"].levelno == logging.INFO
    assert found["worker_returned"].worker == "worker-0"
