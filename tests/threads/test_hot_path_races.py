"""The hand-over without a lock, each of its races forced: see Engine, Runner and Scheduler.withdraw."""

import threading
from typing import Any

import pytest

from retrypool import (
    AttemptTimeout,
    CancelToken,
    DeadReason,
    Pool,
    RetryPolicy,
    Task,
    TaskState,
    current_context,
)
from retrypool.core import queue
from retrypool.events import TaskCancelled
from retrypool.model import completion
from retrypool.model import task as task_module
from retrypool.model.completion import Bell
from retrypool.threads import intake


@pytest.fixture
def tombstones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those do that are few among many tasks."""
    monkeypatch.setattr(queue, "SWEPT_AT", 1)


def busy_worker(stage: Any, hooks: Any, **options: Any) -> "tuple[Pool[Any, Any], Any]":
    """Return a pool whose one worker is held in its first task, and the gate that holds it.

    When it is let go, it takes its next task from the injector without asking.
    """
    gate = stage.gate()

    def run(data: str) -> str:
        if data == "first":
            gate.hold()
        return data

    pool = stage.pool([run], **options)
    pool.dispatch("first")
    gate.wait_until_reached()
    return pool, gate


def test_task_appended_while_the_worker_looks_for_the_last_time_is_run(stage: Any, hooks: Any) -> None:
    """The worker is parked, and the dispatcher, which has not looked for parked workers yet, is slow."""
    slow = stage.gate()
    pool, first = busy_worker(stage, hooks)
    hooks.arm("appended", slow.hold)
    dispatching = stage.start(pool.dispatch, "x")
    slow.wait_until_reached()
    first.open()
    # The worker takes what was appended, though nobody has called it; then it parks.
    stage.until(lambda: pool.stats().succeeded == 2)
    slow.open()
    assert dispatching.result(stage.within).result(stage.within) == "x"
    pool.close(timeout=stage.within)


def test_task_appended_just_after_the_worker_was_parked_is_run(stage: Any, hooks: Any) -> None:
    """The dispatcher comes between the parking and the last look, which both then know of the task."""
    pool, first = busy_worker(stage, hooks)
    dispatched = stage.gate()
    parking = stage.gate()
    hooks.arm("parked", parking.hold)
    first.open()
    parking.wait_until_reached()
    hooks.arm("appended", dispatched.hold)
    dispatching = stage.start(pool.dispatch, "x")
    dispatched.wait_until_reached()
    parking.open()
    dispatched.open()
    assert dispatching.result(stage.within).result(stage.within) == "x"
    pool.close(timeout=stage.within)


def test_dispatcher_that_is_too_late_to_wake_anybody_keeps_no_other_from_it(stage: Any, hooks: Any) -> None:
    """It says that it is about to wake a worker, finds none parked, and is slow to take that back.

    Meanwhile the worker has parked again, and another dispatcher leaves the waking to the slow one.
    """
    slow, asleep, asleep_again = stage.gate(), stage.gate(), stage.gate()
    hooks.arm("asleep", asleep.open)
    pool = stage.pool([lambda data: data])
    (thread,) = stage.worker_threads(pool)
    engine = pool._engine
    asleep.hold()
    (slot,) = engine.scheduler.fleet.parked
    waking: list[Any] = []

    def be_overtaken() -> None:
        """The slow one, who saw the worker parked, comes when it is not, and has cleared the flag."""
        hooks.arm("nobody parked", slow.hold)
        waking.append(stage.start(engine.waking.wake_one))
        slow.wait_until_reached()
        hooks.arm("asleep", asleep_again.open)

    hooks.clock.call_next(thread.ident, be_overtaken)
    slot.go = False  # so it asks for a task, and looks at the clock for that
    slot.wake()
    asleep_again.hold()
    task = pool.dispatch("x")
    slow.open()
    waking[0].result(stage.within)
    assert task.result(stage.within) == "x"
    pool.close(timeout=stage.within)


def test_worker_that_was_parked_first_is_woken_for_what_else_waits(stage: Any) -> None:
    """Otherwise, of many workers, those that were parked first would never work."""
    pool = stage.pool([str] * 3)
    parked = pool._engine.scheduler.fleet.parked
    stage.until(lambda: len(parked) == 3)
    first = next(iter(parked))
    pool._engine.waking.wake_one(oldest=True)
    stage.until(lambda: len(parked) == 3 and list(parked)[-1] is first)


def test_worker_that_is_woken_by_two_at_once_leaves_none_unwoken(stage: Any, hooks: Any) -> None:
    """Somebody else calls it between the look at it and the call."""
    asleep = stage.gate()
    hooks.arm("asleep", asleep.open)
    pool = stage.pool([str])
    asleep.hold()
    engine = pool._engine
    hooks.arm("looked through", engine.waking.wake_one)
    engine.waking.wake_one(oldest=True)
    stage.until(lambda: engine.parked and not engine.waking.searching)
    assert pool.dispatch(1).result(stage.within) == "1"
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("look", ["queue_size", "stats", "wait", "repr"])
def test_pool_can_be_looked_at_while_a_worker_comes_upon_a_cancelled_task(
    stage: Any, hooks: Any, look: str, tombstones_stay: None
) -> None:
    """The worker has taken it out of the injector and has not struck it off the count of tombstones."""
    pool, first = busy_worker(stage, hooks)
    assert pool.dispatch("cancelled").cancel()
    taken = stage.gate()
    hooks.arm("taken", taken.hold)
    first.open()
    taken.wait_until_reached()
    looks = {
        "queue_size": lambda: pool.queue_size,
        "stats": lambda: pool.stats().queued,
        "wait": lambda: int(pool.wait(timeout=0)),
        "repr": lambda: int(" 0 waiting" not in repr(pool)),
    }
    assert looks[look]() == 0
    taken.open()
    pool.close(timeout=stage.within)


def test_worker_that_parks_while_another_comes_upon_a_cancelled_task_lives(
    stage: Any, hooks: Any, tombstones_stay: None
) -> None:
    """Whoever parks finds out whether the pool is idle, if somebody waits for that."""
    pool, first = busy_worker(stage, hooks)
    assert pool.dispatch("cancelled").cancel()
    waiting = stage.start(pool.wait)
    stage.until(lambda: pool._engine.waiters)
    taken = stage.gate()
    hooks.arm("taken", taken.hold)
    first.open()
    taken.wait_until_reached()
    second = pool.add_worker(lambda data: data)
    thread = stage.worker_threads(pool)[second]
    stage.until(lambda: pool._engine.scheduler.fleet.parked or not thread.is_alive())
    taken.open()
    assert waiting.result(stage.within) is True
    assert thread.is_alive()
    pool.close(timeout=stage.within)


def test_task_that_a_worker_has_in_hand_cannot_be_cancelled(stage: Any, hooks: Any) -> None:
    """The worker has written its slot into it; whoever cancels writes, then looks, and draws back."""
    pool, first = busy_worker(stage, hooks)
    task = pool.dispatch("x")
    starting = stage.gate()
    hooks.hold_before_start(starting)
    first.open()
    starting.wait_until_reached()
    assert task.cancel() is False
    starting.open()
    assert task.result(stage.within) == "x"
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("end", ["run", "cancelled", "closed", "heard"])
def test_task_that_somebody_else_ends_as_it_is_about_to_be_cancelled_ends_once(
    stage: Any, hooks: Any, end: str
) -> None:
    """Between the look at it and the lock."""
    pool, first = busy_worker(stage, hooks)
    task = pool.dispatch("x")
    heard: list[Any] = []

    def overtake() -> None:
        if end == "run":
            first.open()
            task.result(stage.within)
        elif end == "cancelled":
            task.cancel()
        elif end == "closed":
            pool.force_close()
        else:
            pool.add_listener(lambda event: isinstance(event, TaskCancelled) and heard.append(event.task))

    hooks.clock.call_next(threading.get_ident(), overtake)
    assert task.cancel() is (end != "run")
    first.open()
    pool.close(timeout=stage.within)
    assert task.cancelled() is (end != "run")
    assert pool.stats().cancelled == (2 if end == "closed" else end != "run")  # the first one too, by force
    assert heard == ([task] if end == "heard" else [])


def test_task_cancelled_between_the_taking_and_the_look_is_not_run(stage: Any, hooks: Any) -> None:
    """Popped, but the slot not written yet: whoever cancels is first, and the worker notices."""
    ran: list[str] = []
    gate = stage.gate()

    def run(data: str) -> None:
        ran.append(data)
        if data == "first":
            gate.hold()

    pool = stage.pool([run])
    pool.dispatch("first")
    gate.wait_until_reached()
    task, after = pool.dispatch("cancelled"), pool.dispatch("after")
    taken = stage.gate()
    hooks.arm("taken", taken.hold)
    gate.open()
    taken.wait_until_reached()
    assert task.cancel() is True
    taken.open()
    after.result(stage.within)
    pool.close(timeout=stage.within)
    assert ran == ["first", "after"]
    assert task.cancelled()
    assert pool.stats().cancelled == 1


@pytest.mark.parametrize("pause", ["pool", "worker"])
def test_nothing_starts_after_pause_has_returned(stage: Any, hooks: Any, pause: str) -> None:
    """Also not a task that a worker had in hand already."""
    pool, first = busy_worker(stage, hooks)
    task = pool.dispatch("x")
    starting = stage.gate()
    hooks.hold_before_start(starting)
    first.open()
    starting.wait_until_reached()
    pausing = stage.start(pool.pause if pause == "pool" else lambda: pool.pause_worker(0))
    stage.until(lambda: pausing.done() or stage.lock_is_held(pool))
    starting.open()
    pausing.result(stage.within)
    stage.until(lambda: task.done() or pool.queue_size == 1)
    assert task.state is TaskState.QUEUED
    pool.resume()
    pool.resume_worker(0)
    assert task.result(stage.within) == "x"
    pool.close(timeout=stage.within)


def test_task_in_the_hands_of_a_worker_that_is_removed_is_run_by_another(stage: Any, hooks: Any) -> None:
    """It has taken the task and not looked whether it may: it puts it back."""
    pool, first = busy_worker(stage, hooks)
    task = pool.dispatch("x")
    taken = stage.gate()
    hooks.arm("taken", taken.hold)
    first.open()
    taken.wait_until_reached()
    other = pool.add_worker(str.upper)
    removing = stage.start(pool.remove_worker, 0)
    stage.until(lambda: pool.workers()[0].state == "stopping")
    taken.open()
    assert task.result(stage.within) == "X"
    assert task.history[0].worker_id == other
    removing.result(stage.within)
    pool.close(timeout=stage.within)


def test_pool_waits_for_a_task_that_a_removed_worker_was_about_to_start(stage: Any, hooks: Any) -> None:
    """Removed without patience, the worker may still run what it has in hand; the task is not lost."""
    pool, first = busy_worker(stage, hooks, retry=RetryPolicy(attempts=2, delay=0))
    pool.add_worker(str.upper)
    pool.pause_worker(1)
    task = pool.dispatch("x")
    starting = stage.gate()
    hooks.hold_before_start(starting)
    first.open()
    starting.wait_until_reached()
    pool.remove_worker(0, timeout=0)
    pool.resume_worker(1)
    assert pool.wait(timeout=0) is False
    starting.open()
    pool.close(timeout=stage.within)
    assert task.done()


def test_pool_does_not_count_as_idle_while_a_task_goes_from_one_hand_to_the_next(
    stage: Any, hooks: Any
) -> None:
    """It is neither in the injector nor seen to run, and still it is waited for."""
    pool, first = busy_worker(stage, hooks)
    task = pool.dispatch("x")
    starting = stage.gate()
    hooks.hold_before_start(starting)
    first.open()
    starting.wait_until_reached()
    assert pool.wait(timeout=0) is False
    starting.open()
    assert pool.wait(timeout=stage.within) is True
    assert task.done()
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("place", ["parking", "parked"])
@pytest.mark.parametrize("what", ["filed", "waited for", "paused", "removed"])
def test_worker_that_parks_without_the_lock_learns_what_is_wanted_of_it(
    stage: Any, hooks: Any, monkeypatch: pytest.MonkeyPatch, place: str, what: str
) -> None:
    """It enters itself, then looks; whoever wants something of it says so, then looks for it."""
    monkeypatch.setattr(queue, "MOST_LINES", 1)
    pool, first = busy_worker(stage, hooks)
    engine = pool._engine
    ((slot, worker_id),) = [(slot, slot.id) for slot in engine.scheduler.fleet]
    parking = stage.gate()
    hooks.arm(place, parking.hold)
    first.open()
    parking.wait_until_reached()
    if what == "filed":  # under the lock: the worker does not have it
        task = pool.dispatch("x", priority=1)
        parking.open()
        assert task.result(stage.within) == "x"
    elif what == "waited for":
        waiting = stage.start(pool.wait, stage.within)
        stage.until(lambda: engine.waiters or waiting.done())
        parking.open()
        assert waiting.result(stage.within) is True
    elif what == "paused":
        pool.pause_worker(worker_id)
        task = pool.dispatch("x")
        parking.open()
        stage.until(lambda: not slot.direct and not engine.parked)
        assert task.state is TaskState.QUEUED
        pool.resume_worker(worker_id)
        assert task.result(stage.within) == "x"
    else:
        removing = stage.start(pool.remove_worker, worker_id, timeout=stage.within)
        stage.until(lambda: slot.retired)
        parking.open()
        removing.result(stage.within)
    pool.close(timeout=stage.within)


def test_worker_that_finds_a_task_after_all_as_it_parks_does_not_count_as_idle(
    stage: Any, hooks: Any
) -> None:
    """Somebody waits for the pool, so it asks once more under the lock, and the task has come by then."""
    first, second = stage.gate(), stage.gate()
    pool = stage.pool([lambda gate: gate.hold()])
    pool.dispatch(first)
    first.wait_until_reached()
    waiting = stage.start(pool.wait)
    stage.until(lambda: pool._engine.waiters)
    hooks.arm("parked", lambda: pool.dispatch(second))
    first.open()
    second.wait_until_reached()
    assert pool.wait(timeout=0) is False
    second.open()
    assert waiting.result(stage.within) is True
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("when", ["before", "appended", "after"])
def test_task_whose_deadline_comes_in_as_the_last_worker_is_barred_is_dead_at_once(
    stage: Any, hooks: Any, when: str
) -> None:
    """Either the one who bars it finds the deadline, or the dispatcher finds nobody to begin in time."""
    pool = stage.pool([str])
    engine = pool._engine
    pool.dispatch(0, deadline=60).result(stage.within)
    stage.until(lambda: engine.parked)

    def bar() -> None:
        (slot,) = engine.scheduler.fleet
        with engine.lock:
            now = engine.monotonic()
            engine.scheduler.fleet.quarantine.cool(slot.group, 3600.0, now)
            engine.scheduler.deadlines.expire_the_late(now)
            happened = engine.decided()
        engine.act(happened)

    if when == "before":
        bar()
    elif when == "appended":
        hooks.arm("appended", bar)
    task = pool.dispatch(1, deadline=60)
    if when == "after":
        task.result(stage.within)
    else:
        assert isinstance(task.exception(timeout=0), AttemptTimeout)
        assert pool.dead_tasks()[0].reason is DeadReason.DEADLINE


def test_deadlines_that_come_in_without_the_lock_are_looked_through_now_and_then(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is entered for tasks that have ended meanwhile is not kept until its time."""
    monkeypatch.setattr(intake, "MOST_ENTERED", 10)
    pool = stage.pool([str])
    pool.dispatch(0, deadline=3600).result(stage.within)
    for number in range(100):
        pool.dispatch(number, deadline=3600).result(stage.within)
    assert len(pool._engine.scheduler.timers.incoming) < 10


def test_token_that_is_cancelled_while_its_task_arrives_cancels_it(stage: Any, hooks: Any) -> None:
    pool, first = busy_worker(stage, hooks)
    token = CancelToken()
    hooks.arm("appended", token.cancel)
    task = pool.dispatch("x", cancel=token)
    assert task.cancelled()
    first.open()


def test_token_keeps_no_task_that_has_ended(stage: Any) -> None:
    pool, token = stage.pool([str]), CancelToken()
    tasks = [pool.dispatch(number, cancel=token) for number in range(10)]
    pool.close(timeout=stage.within)
    assert all(task.done() for task in tasks)
    assert not token._callbacks


@pytest.mark.parametrize("ends_first", [True, False])
def test_attempt_that_ends_while_it_is_given_its_context_ends_once(stage: Any, ends_first: bool) -> None:
    """Somebody puts a context beside the plain task in the box. Is the task out before its worker is done?"""

    class Box(list[Any]):
        def insert(self, *arguments: Any) -> None:
            super().insert(*arguments)
            if ends_first:
                gate.open()
                stage.until(task.done)

    gate = stage.gate()
    pool = stage.pool([lambda data: (gate.hold(), data)[1]])
    slot = next(iter(pool._workers)).slot
    slot.running = box = Box()
    pool.restart_worker(slot.id)  # it takes its box in hand anew
    task = pool.dispatch("x")
    gate.wait_until_reached()
    assert box == [task]
    (info,) = pool.workers()
    assert info.task_ids == (() if ends_first else (task.id,))
    gate.open()
    assert task.result(stage.within) == "x"
    stage.until(lambda: not box)
    assert pool.stats().succeeded == 1


def test_plain_function_has_one_context_for_each_attempt(stage: Any) -> None:
    seen: list[Any] = []

    def run(_: str) -> None:
        seen.append((current_context(), current_context()))
        if len(seen) == 2:
            raise OSError

    pool = stage.eager_pool([run], retry=RetryPolicy(attempts=2, delay=0))
    tasks = [pool.dispatch(data) for data in ("first", "second")]
    for task in tasks:
        task.result(stage.within)
    assert all(one is other for one, other in seen)
    assert len({one for one, _ in seen}) == 3
    assert [(one.task_id, one.attempt) for one, _ in seen] == [
        (tasks[0].id, 1),
        (tasks[1].id, 1),
        (tasks[1].id, 2),
    ]


def test_plain_attempt_that_is_cancelled_while_it_runs_finds_its_context_cancelled(stage: Any) -> None:
    """Its context is made by whoever takes the attempt over."""
    gate = stage.gate()
    found: list[Any] = []

    def run(_: str) -> None:
        gate.hold()
        found.append(current_context())

    pool = stage.eager_pool([run])
    task = pool.dispatch("x")
    gate.wait_until_reached()
    assert pool.cancel_task(task)
    gate.open()
    stage.until(lambda: found)
    assert found[0].cancelled
    assert found[0].task_id == task.id
    stage.until(lambda: pool.workers()[0].state == "active")
    pool.dispatch("y").result(stage.within)


def called_to_wake(stage: Any, hooks: Any) -> "tuple[Task[Any, Any], Task[Any, Any], Any]":
    """Return two tasks of a pool with two workers, and the gate that holds the first one.

    One worker alone was woken. It begins the first task, which lasts, when somebody waits for it.
    """
    first_one, lasting, asleep = stage.gate(), stage.gate(), set()

    def note() -> None:
        asleep.add(threading.get_ident())
        hooks.arm("asleep", note)

    pool = stage.pool([lambda gate: gate is not None and gate.hold()] * 2)
    waking = pool._engine.waking
    pool.dispatch_many([first_one] * 2)  # each worker claims a task: from then on it helps itself
    first_one.wait_until_reached(2)
    hooks.arm("asleep", note)
    first_one.open()
    stage.until(lambda: len(asleep) == 2)
    waking.searching = True  # so the dispatches wake nobody
    first, second = pool.dispatch_many([lasting, None])
    hooks.arm("taken", lambda: stage.until(lambda: getattr(first._completion, "attended", False)))
    waking.wake_one()
    return first, second, lasting


def test_who_waits_for_a_task_wakes_a_worker_for_the_next(stage: Any, hooks: Any) -> None:
    """In place of the worker that has begun the task: nothing waits behind a task that takes long."""
    first, second, lasting = called_to_wake(stage, hooks)
    waiting = stage.start(first.result, stage.within)
    assert second.result(stage.within / 2) is False
    assert isinstance(first._completion, Bell)
    assert first._completion.called
    assert not waiting.done()
    lasting.open()
    assert waiting.result(stage.within) is None


def test_who_is_called_to_wake_a_worker_as_a_ctrl_c_strikes_does_so(
    stage: Any, hooks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck(lock: threading.Lock, *_: object) -> bool:
        lock.acquire()
        raise KeyboardInterrupt

    first, second, _ = called_to_wake(stage, hooks)
    monkeypatch.setattr(completion, "acquire", struck)
    waiting = stage.start(first.result)
    with pytest.raises(KeyboardInterrupt):
        waiting.result(stage.within)
    monkeypatch.undo()
    assert second.result(stage.within / 2) is False


def test_who_ceases_to_wait_just_before_it_is_called_leaves_nothing_behind(
    stage: Any, hooks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has seen it wait, and calls it when it has looked for a call for the last time."""
    calling, waiting_on = stage.gate(), stage.gate()

    class SlowBell(Bell):
        __slots__ = ("_called",)

        @property
        def called(self) -> bool:  # type: ignore[override]
            return self._called

        @called.setter
        def called(self, called: bool) -> None:
            if called:
                calling.hold()
            self._called = called

    first, second, _ = called_to_wake(stage, hooks)
    with monkeypatch.context() as patched:
        patched.setattr(task_module, "Bell", SlowBell)
        patched.setattr(completion, "acquire", lambda *_: waiting_on.hold())
        waiting = stage.start(first.result, stage.within)
        calling.wait_until_reached()
        waiting_on.open()
        with pytest.raises(TimeoutError):
            waiting.result(stage.within)
    calling.open()
    assert second.result(stage.within / 2) is False


def test_who_was_called_to_wake_a_worker_waits_no_longer_than_it_may(stage: Any, hooks: Any) -> None:
    first, _, _ = called_to_wake(stage, hooks)
    waiting = stage.start(first.result, 0.01)
    assert isinstance(waiting.exception(stage.within / 2), TimeoutError)
