"""What may happen in between two steps of the pool's own, each moment forced."""

import signal
import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from retrypool import Interrupted, Pool, Rate, WorkerSpec
from retrypool.ctrl_c import MainGate
from retrypool.events import AttemptStarted, TaskSucceeded
from retrypool.model.context import attempts_at
from retrypool.model.slots import Group, Slot
from retrypool.testing import ManualPool
from retrypool.threads import exiting
from retrypool.threads.interrupt import Gate
from retrypool.threads.observers import Observers
from retrypool.threads.parker import Bell


class Starting:
    """A worker that comes to a gate whenever it starts, but for the first `times`."""

    def __init__(self, gate: Any, times: int) -> None:
        self.gate, self.left = gate, times

    def on_start(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.gate.hold()

    def run(self, ctx: Any, data: int) -> int:
        return data


@pytest.mark.parametrize("restarts", [False, True])
def test_worker_that_is_just_starting_is_not_called_for_a_task(stage: Any, restarts: bool) -> None:
    """Sleepers are let in again when a rate or a group allows it. This one does not sleep."""
    gate = stage.gate()
    pool = stage.pool([WorkerSpec(abs, group="a"), WorkerSpec(Starting(gate, int(restarts)), group="b")])
    engine = pool._engine
    if restarts:
        stage.until(lambda: all(runner.ready for runner in pool._workers))
        pool.restart_worker(pool.workers()[1].id)
    gate.wait_until_reached()
    for number in range(3):
        with engine.step:
            engine.scheduler.fleet.let_sleepers_in(engine.scheduler.fleet, engine.monotonic())
        assert pool.dispatch(number).result(stage.within) == number
    gate.open()
    stage.until(lambda: len(engine.parked) == 2)


def test_worker_that_is_just_starting_holds_up_no_rate(stage: Any) -> None:
    gate = stage.gate()
    workers = [WorkerSpec(abs, group="a"), WorkerSpec(Starting(gate, 0), group="b")]
    pool = stage.pool(workers, rate=Rate(1000))
    gate.wait_until_reached()
    for number in range(20):
        assert pool.dispatch(number).result(stage.within) == number


def test_who_ceases_to_wait_as_all_are_called_is_in_nobodys_way() -> None:
    class Leaving(Bell):
        def ring(self) -> None:
            engine.waiters.discard(self)
            super().ring()

    pool = ManualPool([abs])
    engine = pool._engine
    engine.waiters |= {Leaving(), Leaving()}
    with engine.step:
        pass
    assert not engine.waiters
    pool.close()


def test_pool_is_asked_under_the_lock_whether_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep takes all that waits out of the queue for a moment."""
    pool = ManualPool([abs])
    pool.pause()
    pool.dispatch(1)
    engine = pool._engine
    idle, owned = engine.scheduler.idle, list[bool]()
    monkeypatch.setattr(engine.scheduler, "idle", lambda: owned.append(engine.steps.in_step) or idle())
    assert not pool.wait(0.001)
    assert all(owned)
    pool.force_close()


def test_ctrl_c_that_comes_as_what_was_put_off_is_done_loses_nothing() -> None:
    done: list[bool] = []

    def change() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(True)

    pool = ManualPool([abs], max_queue=10)
    pool._engine.steps.later.append(change)
    with pytest.raises(KeyboardInterrupt):
        pool.dispatch(1)
    assert done == [True]
    assert pool.queue_size == 0
    assert pool.dispatch(2).state.value == "queued"
    pool.force_close()


def test_event_of_a_finalizer_that_runs_as_another_is_left_behind_is_told() -> None:
    """Whoever has told of the task before is just about to let go of the queue, and looks no more."""

    class Queue(list[Any]):
        def append(self, event: Any) -> None:
            super().append(event)
            if event is second:
                observers.tell(third)

    told: list[Any] = []
    observers = Observers[Any, Any](
        on_success=None, on_failure=None, on_retry=None, on_dead=None, listeners=[told.append]
    )
    task: Any = SimpleNamespace(id=7)
    second, third = (TaskSucceeded(float(at), task) for at in (2, 3))
    observers.hold(AttemptStarted(1.0, task, 1, 0, "a"))
    observers._held[7] = Queue([None])
    observers.tell(second)
    assert told == [second, third]


def test_finalizer_that_looks_on_as_a_task_is_given_its_context_leaves_nothing_in_the_box(stage: Any) -> None:
    """It looks at the same attempt, and that ends before either has put its context in place of the task."""

    class Box(list[Any]):
        def insert(self, *arguments: Any) -> None:
            super().insert(*arguments)
            if len(self) == 2:
                seen.append(attempts_at(slot, dropped))
                self.pop()  # as the worker does

    pool = ManualPool([abs])
    task = pool.dispatch(1)
    slot = next(iter(pool._workers)).slot
    task._started = 0.0
    slot.running, seen, dropped = Box([task]), list[Any](), list[object]()
    assert attempts_at(slot, dropped) == []
    assert slot.running == []
    assert [type(each).__name__ for each in seen[0]] == ["Context"]
    pool.force_close()


@pytest.mark.parametrize("moment", ["insert", "remove"])
def test_who_looks_as_a_worker_goes_on_to_another_task_sees_the_context_of_that(moment: str) -> None:
    class Box(list[Any]):
        def insert(self, *arguments: Any) -> None:
            if moment == "insert":
                self.go_on()
            super().insert(*arguments)

        def remove(self, each: Any) -> None:
            if moment == "remove":
                self.go_on()
            super().remove(each)

        def go_on(self) -> None:
            if first in self:
                self.pop()
                self.append(second)

    pool = ManualPool([abs])
    first, second = pool.dispatch_many([1, 2])
    slot = next(iter(pool._workers)).slot
    first._started = second._started = 0.0
    slot.running = Box([first])
    with pool._engine.lock:
        (ctx,) = pool._engine.scheduler.running_at(slot)
    assert ctx._task is second
    assert slot.running == [ctx]
    pool.force_close()


def test_running_tasks_are_counted_under_the_lock() -> None:
    """An attempt stands in its box twice while its task is given a context there."""

    class Box(list[Any]):
        def __len__(self) -> int:
            owned.append(pool._engine.steps.in_step)
            return super().__len__()

    owned: list[bool] = []
    pool = ManualPool([abs])
    next(iter(pool._workers)).slot.running = Box()
    assert pool.processing_count == pool.stats().running == 0
    assert len(owned) == 2
    assert all(owned)
    pool.close()


def test_attempt_that_is_given_its_context_is_under_way_as_before(stage: Any) -> None:
    """The exit of the interpreter looks twice, and makes no progress of that."""
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    pool.dispatch(1)
    gate.wait_until_reached()
    before, _ = exiting._progress(pool._lifecycle)
    assert pool.tasks()
    after, _ = exiting._progress(pool._lifecycle)
    assert before == after
    assert len(before) == 1


def test_thread_whose_plain_task_was_taken_over_needs_no_lock_to_be_safe(stage: Any) -> None:
    """An interrupt may strike it on its way to the gate, so it must hold none there."""
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    runner = next(iter(pool._workers))
    task = pool.dispatch(1)
    gate.wait_until_reached()
    engine = pool._engine
    with engine.lock:
        (ctx,) = engine.scheduler.running_at(runner.slot)
        assert engine.takeovers.take_over(runner.slot, ctx)
        gate.open()
        stage.until(lambda: runner._gate._absorbed is ctx)
    engine.takeovers.end(runner.slot, ctx, "drop", "enough")
    assert task.cancelled()
    assert pool.dispatch(2).result(stage.within) is None


@pytest.mark.parametrize("call", ["absorb", "bar"])
def test_interrupt_that_strikes_as_the_lock_was_just_taken_leaves_it_free(call: str) -> None:
    """From Python 3.14 on, `with lock` is struck between the two."""

    class Lock:
        def __init__(self, lock: Any) -> None:
            self.lock, self.left = lock, 1

        def __enter__(self) -> None:
            self.lock.acquire()
            if self.left:
                self.left = 0
                raise Interrupted

        def __exit__(self, *_: object) -> None:
            self.lock.release()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.lock, name)

    pool = ManualPool([abs])
    pool.dispatch(1)
    attempt = pool.claim()
    assert attempt is not None
    gate = Gate(attempt._slot)
    gate._lock = lock = Lock(gate._lock)
    if call == "absorb":
        assert not gate.absorb(attempt.context)
    else:
        with pytest.raises(Interrupted):
            gate.bar()
        assert not gate.barred
    assert not lock._is_owned()
    pool.force_close()


def test_finalizer_that_uses_the_pool_as_an_attempt_is_absorbed_hangs_nobody(stage: Any) -> None:
    """What the attempt before it has sent may go with it."""

    class Sent:
        def __del__(self) -> None:
            told.append(pool.dispatch(-1, delay=0.001))

    told: list[Any] = []
    pool: Pool[Any, Any] = stage.pool([abs])
    pool.dispatch(1).result(stage.within)
    gate = next(iter(pool._workers))._gate
    gate._absorbed = SimpleNamespace(sent=Sent())

    def run_here() -> None:
        from retrypool.ctrl_c import here

        here.gate = gate
        gate.absorb(SimpleNamespace())

    stage.start(run_here).result(stage.within)
    assert told[0].result(stage.within) == 1


def test_what_a_finalizer_has_put_off_is_done_whoever_has_the_lock(stage: Any) -> None:
    """Not all who have it take a step: some only look, and then nobody might for a long time."""
    pool = stage.pool([abs])
    stage.until(lambda: pool._engine.parked)
    with pool._engine.lock:
        task = pool.dispatch(-2, delay=0.001)
    assert task.result(stage.within) == 2


@pytest.mark.parametrize("cancels", ["cancel", "cancel_task"])
def test_finalizer_that_cancels_the_task_that_its_worker_is_just_ending_hangs_nobody(
    stage: Any, cancels: str
) -> None:
    """The task has left the box, and has not ended yet: the thread would wait for itself."""
    pool = stage.pool([abs])
    stage.until(lambda: pool._engine.parked)
    told: list[bool] = []

    class Entries(list[Any]):
        def append(self, entry: Any) -> None:
            super().append(entry)
            task = tasks[0]
            told.append(task.cancel() if cancels == "cancel" else pool.cancel_task(task))

    pool.pause()
    tasks = [pool.dispatch(-1)]
    pool._engine.scheduler.history.entries = Entries()
    pool.restart_worker(0)
    pool.resume()
    assert tasks[0].result(stage.within) == 1
    assert told == [False]


def test_worker_whose_removal_is_struck_is_forgotten_once_it_has_left(stage: Any, monkeypatch: Any) -> None:
    """A Ctrl-C ends the wait for its task."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    gate = stage.gate()
    pool = stage.pool([lambda _: gate.hold()])
    task = pool.dispatch("x")
    gate.wait_until_reached()
    with monkeypatch.context() as patch:
        patch.setattr("retrypool.threads.workers.join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.remove_worker(0)
    gate.open()
    task.result(stage.within)
    stage.until(lambda: not pool.workers())


def test_ctrl_c_is_raised_though_another_handler_uses_a_pool_just_before(monkeypatch: Any) -> None:
    """That of another signal, or a finalizer, as the shield is lifted: it has the shield for itself then."""

    class Gate(MainGate):
        @property
        def barred(self) -> bool:  # type: ignore[override]
            return bool(states and states[-1])

        @barred.setter
        def barred(self, state: bool) -> None:
            states.append(state)
            if state is False and len(states) == 3:  # `__init__`, `bar`, and now
                self.bar()
                self.unbar()

    states: list[bool] = []
    gate = Gate()
    gate.bar()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        gate.unbar()


def test_second_ctrl_c_that_comes_as_the_first_has_ended_a_wait_finds_the_shield_up() -> None:
    class Gate(MainGate):
        def bar(self) -> None:
            if self.left:
                self.left -= 1
                raise KeyboardInterrupt
            super().bar()

    gate = Gate()
    gate.left = 0
    gate.bar()
    gate.left = 2
    with pytest.raises(KeyboardInterrupt):
        gate.lowered(signal.raise_signal, signal.SIGINT)
    assert gate.barred
    with pytest.raises(KeyboardInterrupt):
        gate.unbar()


@pytest.mark.parametrize("ending", ["returns", "raises"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_thread_that_comes_back_to_no_worker_takes_nothing(
    stage: Any, hooks: Any, how: str, ending: str
) -> None:
    """Not even to put it back: nobody looks there any more, and the pool would count as idle meanwhile."""
    hang = stage.hang()

    def hold(data: object) -> None:
        hang()
        if ending == "raises":
            raise OSError

    pool = stage.eager_pool([WorkerSpec(factory=lambda: hold), str], grace=0.01)
    held, other = (worker.id for worker in pool.workers())
    thread = next(iter(pool._workers)).thread
    pool.pause_worker(other)
    pool.dispatch("x", timeout=0.01 if how == "replaced" else None, retry=stage.once)
    hang.wait_until_begun()
    if how == "removed":
        pool.remove_worker(held, timeout=0)
    else:
        stage.until(lambda: pool.stats().abandoned)
        pool.pause()
        stage.until(lambda: all(each.slot.idle and not each.slot.away for each in pool._workers))
    waiting = pool.dispatch("y")
    taken: list[object] = []
    hooks.arm("taken", lambda: taken.append(threading.current_thread()))
    hang.release()
    thread.join(stage.within)
    assert taken == []
    pool.resume()
    pool.resume_worker(other)
    waiting.result(stage.within)


def test_worker_that_comes_back_as_it_is_removed_is_there_no_more(stage: Any, monkeypatch: Any) -> None:
    """It was found in an attempt, and takes nothing more: there is nothing to wait for."""
    leaving = stage.gate()

    class Obedient:
        def run(self, ctx: Any, data: object) -> None:
            leaving.reached = True
            ctx.token.wait()

        def on_stop(self) -> None:
            leaving.hold()

    pool = stage.eager_pool([Obedient(), str])
    (obedient, other), end = (worker.id for worker in pool.workers()), pool._engine.takeovers.end
    slot = next(iter(pool._workers)).slot

    def end_slowly(*arguments: Any, **options: Any) -> None:
        end(*arguments, **options)
        leaving.wait_until_reached()

    monkeypatch.setattr(pool._engine.takeovers, "end", end_slowly)
    pool.pause_worker(other)
    task = pool.dispatch("x")
    stage.until(lambda: leaving.reached)
    pool.remove_worker(obedient, timeout=0)
    assert slot.stuck is None
    assert [worker.id for worker in pool.workers()] == [other]
    leaving.open()
    pool.resume_worker(other)
    assert task.result(stage.within) == "x"
    stage.until(lambda: pool.stats().abandoned == 0)


@pytest.mark.parametrize("sleeping", [3, 100])
def test_dispatcher_survives_that_all_workers_are_parked_anew_as_it_looks_for_one(sleeping: int) -> None:
    """CPython crashes if a dict is made anew between `reversed` and `next`, in whatever thread."""

    class Parked(dict[Any, None]):
        def __reversed__(self) -> Any:
            raise AssertionError("such an iterator may be left behind by the dict")

    slots = [Slot(number, f"worker-{number}", Group("all")) for number in range(sleeping)]
    woken: list[int] = []
    for slot in slots:
        slot.wake = partial(woken.append, slot.id)  # type: ignore[assignment]
    pool = ManualPool([abs])
    pool._engine.parked = Parked.fromkeys(slots)
    pool._engine.waking.wake_one()
    pool._engine.waking.wake_one(oldest=True)
    assert woken == [2 if sleeping == 3 else 0, 0]
    pool.close()
