"""A pool that closes while tasks are on their way, each race forced."""

from typing import Any

import pytest

from retrypool import NoWorkers, PoolClosed, RetryPolicy, Task, TaskState


def test_task_appended_while_the_pool_closes_is_refused_or_run(stage: Any, hooks: Any) -> None:
    """The dispatcher has passed the check, and appends when nobody takes anything any more."""
    ran: list[object] = []
    pool = stage.pool([ran.append])
    stage.until(lambda: pool._engine.scheduler.fleet.parked)
    late = stage.gate()
    settings, append, version = pool._settled

    def append_late(task: "Task[Any, Any]") -> None:
        late.hold()
        append(task)

    pool._settled = (settings, append_late, version)
    dispatching = stage.start(pool.dispatch, "x")
    late.wait_until_reached()
    pool.close(timeout=stage.within)
    late.open()
    assert isinstance(dispatching.exception(stage.within), PoolClosed)
    assert ran == []
    assert pool.queue_size == 0
    assert pool.stats().dispatched == 0


@pytest.mark.parametrize("listens", [False, True])
def test_task_appended_just_before_the_pool_closes_is_refused_or_run(
    stage: Any, hooks: Any, listens: bool
) -> None:
    """It is in the injector, and the dispatcher finds the pool closed: it takes it back, if it can."""
    ran: list[object] = []
    pool = stage.pool([ran.append], listeners=[lambda event: None] if listens else [])
    stage.until(lambda: pool._engine.scheduler.fleet.parked)
    pool.pause()
    appended = stage.gate()
    hooks.arm("appended", appended.hold)
    dispatching = stage.start(pool.dispatch, "x")
    appended.wait_until_reached()
    closing = stage.start(pool.close)
    stage.until(lambda: pool.closed)
    appended.open()
    error = dispatching.exception(stage.within)
    closing.result(stage.within)
    assert (ran == []) if error is not None else (ran == ["x"])
    assert pool.queue_size == 0


def test_task_taken_before_the_pool_closes_is_accepted(stage: Any, hooks: Any) -> None:
    """A worker has it already when the dispatcher looks again: it came in time."""
    running, appended = stage.gate(), stage.gate()
    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    hooks.arm("appended", appended.hold)
    dispatching = stage.start(pool.dispatch, "x")
    appended.wait_until_reached()
    closing = stage.start(pool.close)
    # Perhaps it has parked already. The dispatcher, who would wake it, is held.
    for slot in pool._engine.scheduler.fleet:
        slot.wake()
    running.wait_until_reached()
    appended.open()
    task = dispatching.result(stage.within)
    running.open()
    assert task.result(stage.within) == "x"
    closing.result(stage.within)


def test_dispatch_while_the_last_worker_leaves_is_refused(stage: Any, hooks: Any) -> None:
    pool = stage.pool([str.upper])
    pool.pause()
    appended = stage.gate()
    hooks.arm("appended", appended.hold)
    dispatching = stage.start(pool.dispatch, "x")
    appended.wait_until_reached()
    pool.remove_worker(0)
    appended.open()
    assert isinstance(dispatching.exception(stage.within), NoWorkers)
    assert pool.stats().waiting == 0
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("delay", [0, 600])
@pytest.mark.parametrize("callback", ["on_failure", "on_retry"])
def test_task_whose_failure_is_just_being_decided_ends_when_the_pool_is_closed_by_force(
    stage: Any, callback: str, delay: float
) -> None:
    """It neither waits nor runs at that moment; a retry into a closed pool would never be taken."""
    deciding = stage.gate()

    def fail(data: object) -> None:
        raise OSError(data)

    pool = stage.pool([fail], retry=RetryPolicy(delay=delay), **{callback: deciding.hold})
    task = pool.dispatch("x")
    deciding.wait_until_reached()
    pool.force_close()
    deciding.open()
    stage.join_workers(pool)
    assert task.done()
    assert pool.stats().waiting == 0


def test_task_in_the_hands_of_a_worker_ends_when_the_pool_is_closed_by_force(stage: Any, hooks: Any) -> None:
    """The worker has taken it and not looked whether it may: it may not, and nobody else will."""
    first, taken = stage.gate(), stage.gate()
    pool = stage.pool([first.hold])
    pool.dispatch("first")
    first.wait_until_reached()
    task = pool.dispatch("x")
    hooks.arm("taken", taken.hold)
    first.open()
    taken.wait_until_reached()
    pool.force_close()
    taken.open()
    stage.join_workers(pool)
    assert task.done()
    assert pool.stats().waiting == 0


def test_task_that_fails_after_the_pool_was_closed_by_force_ends(stage: Any, hooks: Any) -> None:
    """It was about to start when the pool was closed, so that nobody saw it run."""
    first, starting = stage.gate(), stage.gate()

    def run(data: str) -> None:
        if data == "first":
            first.hold()
        raise OSError(data)

    pool = stage.pool([run], retry=RetryPolicy(attempts=1))
    pool.dispatch("first")
    first.wait_until_reached()
    task = pool.dispatch("x", retry=RetryPolicy(attempts=9, delay=0))
    hooks.hold_before_start(starting)
    first.open()
    starting.wait_until_reached()
    pool.force_close()
    starting.open()
    stage.join_workers(pool)
    assert task.done()


def test_wait_waits_for_a_timed_out_task_whose_retry_is_just_being_decided(stage: Any) -> None:
    """The watchdog has taken the attempt over and is still in a callback: the task has not ended."""
    deciding, stuck = stage.gate(), stage.gate()
    calls: list[object] = []

    def hang_once(data: str) -> str:
        calls.append(data)
        if len(calls) == 1:
            stuck.hold()
        return data

    pool = stage.pool([hang_once] * 2, on_failure=deciding.hold, retry=RetryPolicy(attempts=2, delay=0))
    task = pool.dispatch("x", timeout=0.01)
    deciding.wait_until_reached()
    assert pool.wait(timeout=0) is False
    deciding.open()
    assert task.result(stage.within) == "x"
    stuck.open()
    pool.close(timeout=stage.within)


def test_close_waits_for_a_timed_out_task_whose_retry_is_just_being_decided(stage: Any) -> None:
    deciding, stuck = stage.gate(), stage.gate()
    calls: list[object] = []

    def hang_once(data: str) -> str:
        calls.append(data)
        if len(calls) == 1:
            stuck.hold()
        return data

    pool = stage.pool([hang_once] * 2, on_failure=deciding.hold, retry=RetryPolicy(attempts=2, delay=0))
    task = pool.dispatch("x", timeout=0.01)
    deciding.wait_until_reached()
    closing = stage.start(pool.close)
    stage.until(lambda: pool._engine.waiters or pool.stats().workers == 0)
    deciding.open()
    stuck.open()
    closing.result(stage.within)
    assert task.state is TaskState.SUCCEEDED


def test_close_waits_for_a_task_that_is_just_taken_from_a_removed_worker(stage: Any) -> None:
    """Between its taking and its return to the queue, the worker that is removed tells a token of it."""
    running, cancelling = stage.gate(), stage.gate()

    class Holds:
        def run(self, ctx: Any, data: str) -> str:
            ctx.token.on_cancel(cancelling.hold)
            running.hold()
            return data

    pool = stage.pool([Holds(), str.upper])
    pool.pause_worker(1)
    task = pool.dispatch("x")
    running.wait_until_reached()
    pool.resume_worker(1)
    removing = stage.start(pool.remove_worker, 0, 0.0)
    cancelling.wait_until_reached()
    closing = stage.start(pool.close)
    stage.until(lambda: pool._engine.waiters or pool.stats().workers == 0)
    cancelling.open()
    running.open()
    removing.result(stage.within)
    closing.result(stage.within)
    assert task.state is TaskState.SUCCEEDED
    assert task.result() == "X"


def test_task_that_is_said_to_be_cancelled_while_its_failure_is_decided_ends_so(stage: Any) -> None:
    """Whatever the policy answers after that."""
    deciding = stage.gate()

    def never(error: BaseException) -> bool:
        deciding.hold()
        return False

    def fail(data: object) -> None:
        raise OSError(data)

    pool = stage.pool([fail])
    task = pool.dispatch("x", retry=RetryPolicy(retry_if=never))
    deciding.wait_until_reached()
    cancelling = stage.start(pool.cancel_task, task)
    stage.until(lambda: cancelling.done() or stage.lock_is_held(pool) or task._record.cancelled)
    deciding.open()
    cancelled = cancelling.result(stage.within)
    pool.close(timeout=stage.within)
    assert task.cancelled() is cancelled


def test_task_that_was_tried_before_the_pool_closed_is_accepted(stage: Any, hooks: Any) -> None:
    """It came in time, though it waits for its retry when the dispatcher looks again."""
    appended = stage.gate()

    def fail(data: object) -> None:
        raise OSError(data)

    pool = stage.pool([fail], retry=RetryPolicy(delay=600, max_delay=None, jitter="none"))
    stage.until(lambda: pool._engine.scheduler.fleet.parked)
    hooks.arm("appended", appended.hold)
    dispatching = stage.start(pool.dispatch, "x")
    appended.wait_until_reached()
    pool._engine.waking.wake_one()
    stage.until(lambda: pool.stats().delayed)
    closing = stage.start(pool.close)
    stage.until(lambda: pool.closed)
    appended.open()
    dispatching.exception(stage.within)
    returned = pool.force_close()
    closing.result(stage.within)
    assert returned == [dispatching.result()]


def test_worker_that_is_held_up_when_it_is_to_leave_holds_up_the_others_for_an_instant_only(
    stage: Any,
) -> None:
    """They are woken one after the other, and not only once the one before has gone."""
    held, stopped = stage.gate(), []

    class Slow:
        def run(self, ctx: Any, data: object) -> object:
            return data

        def on_pause(self) -> None:
            held.hold()

    class Quick(Slow):
        def on_pause(self) -> None: ...

        def on_stop(self) -> None:
            stopped.append(self)

    pool = stage.pool([Slow(), Quick(), Quick()])
    pool.pause()
    held.wait_until_reached()
    pool.force_close()
    stage.until(lambda: len(stopped) == 2)
    held.open()
