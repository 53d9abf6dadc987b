"""Where an interrupt can strike, each place forced."""

import ctypes
import functools
import gc
import logging
import operator
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from retrypool import AttemptTimeout, Interrupted, PoolClosed, RetryPolicy, TaskState, WorkerSpec
from retrypool.ctrl_c import here
from retrypool.testing import ManualAttempt, ManualPool
from retrypool.threads.interrupt import Gate
from retrypool.threads.worker_thread import Loop


class Box(list[Any]):
    """A slot's box that does something before its own thread reaches into it."""

    def __init__(self, before_pop: Any) -> None:
        super().__init__()
        self.before_pop = before_pop

    def pop(self, *arguments: Any) -> Any:
        before_pop, self.before_pop = self.before_pop, None
        if before_pop is not None:
            before_pop()
        return super().pop(*arguments)


def put_box(pool: Any, before_pop: Any) -> None:
    """Give the only worker of a pool that does nothing yet a box, and let it take it in hand."""
    runner = next(iter(pool._workers))
    runner.slot.running = Box(before_pop)
    pool.restart_worker(runner.slot.id)


def strike(pool: Any, stage: Any, **options: Any) -> None:
    """Interrupt the worker from another thread, while its own does nothing but be there to be struck."""
    done: list[bool] = []  # a future has a lock, and whoever is struck while he takes one keeps it

    def interrupt() -> None:
        try:
            pool.interrupt_worker(pool.workers()[0].id, force=True, **options)
        finally:
            done.append(True)

    threading.Thread(target=interrupt, daemon=True).start()
    while not done:
        pass


def thread_of(pool: Any) -> threading.Thread:
    return next(iter(pool._workers)).thread


@pytest.fixture
def over() -> Iterator[tuple[Gate, ManualAttempt[Any, Any]]]:
    """The gate of the thread that runs the test, and an attempt in it that was taken over."""
    pool = ManualPool([str])
    pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    attempt._slot.stuck = attempt.context
    gate = Gate(attempt._slot)
    gate.open()
    yield gate, attempt
    del here.gate  # the main thread has one of its own
    attempt._slot.stuck = None
    pool.force_close()


@pytest.mark.parametrize("ending", ["returns", "raises"])
@pytest.mark.parametrize("fate", ["retry", "drop", "dead"])
def test_interrupt_that_arrives_as_run_ends(stage, caplog, ending, fate):
    """The code has come to its end, and its thread has not yet reached for what it has done."""

    def run(data: object) -> object:
        calls.append(data)
        if ending == "raises":
            raise OSError(str(len(calls)))
        return len(calls)

    calls: list[object] = []
    pool = stage.eager_pool([run], retry=stage.once)
    thread = thread_of(pool)
    put_box(pool, lambda: strike(pool, stage, task=fate))
    task = pool.dispatch("x")
    stage.until(task.done)
    if fate == "retry":
        assert len(task.history) == 2
        if ending == "returns":
            assert task.result() == 2, "the first result was late"
        else:
            assert str(task.exception()) == "2"
    else:
        assert task.state is (TaskState.CANCELLED if fate == "drop" else TaskState.DEAD)
    pool.add_worker(lambda data: "alive")
    assert thread_of(pool) is thread
    assert thread.is_alive()
    stage.until(lambda: pool.workers()[0].state != "stuck")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("place", ["came_back", "absorb", "interrupt"])
def test_interrupts_that_strike_on_the_way_back_do_no_harm(stage, monkeypatch, caplog, place, times):
    """The guard sends the thread to the gate again, however often it is struck before it gets there."""
    left = [times]

    def struck_before(function: Any) -> Any:
        def call(self: Any, ctx: Any) -> Any:
            slot = self.slot if isinstance(self, Loop) else self._slot
            if left[0] and threading.current_thread() is thread and slot.stuck is ctx:
                left[0] -= 1
                strike(pool, stage)
            return function(self, ctx)

        return call

    run = _spin_until_cancelled
    pool = stage.eager_pool([run], retry=stage.once)
    thread = thread_of(pool)
    owner = Loop if place == "came_back" else Gate
    if place != "interrupt":
        monkeypatch.setattr(owner, place, struck_before(getattr(owner, place)))
    task = pool.dispatch("spin", timeout=0.01, interrupt_on_timeout=place == "interrupt")
    assert isinstance(task.exception(stage.within), AttemptTimeout)
    stage.until(lambda: pool.workers()[0].state != "stuck")
    assert pool.dispatch("x").result(stage.within) == "x"
    assert thread_of(pool) is thread
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_second_interrupt_that_strikes_as_the_guard_lets_go_of_the_first(stage, monkeypatch, caplog):
    """The jump back to the head of a loop is a point at which it can strike."""
    serve = Loop.serve
    struck: list[object] = []

    def struck_twice(self: Any) -> None:
        if not struck:
            struck.append(self)
            raise_interrupted_and_leave_one_pending()
        serve(self)

    monkeypatch.setattr(Loop, "serve", struck_twice)
    pool = stage.eager_pool([str])
    thread = thread_of(pool)
    assert pool.dispatch("x").result(stage.within) == "x"
    assert struck
    assert thread_of(pool) is thread
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def raise_interrupted_and_leave_one_pending() -> None:
    """Raise, and have one more strike later on: with no step of Python in between where it could."""
    here, kind = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Interrupted)
    leave_one = functools.partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, here, kind)
    raise_one = functools.partial((_ for _ in ()).throw, Interrupted())
    list(map(operator.call, [leave_one, raise_one]))


def test_nothing_is_raised_once_the_thread_was_struck_on_its_way_back(over):
    """So there are two strikes at the most: that one, and one that was under way meanwhile."""
    gate, attempt = over
    with pytest.raises(Interrupted):
        gate.interrupt(attempt.context)
    gate.struck = attempt.context
    assert not gate.interrupt(attempt.context)
    gate.repeat()
    assert gate.absorb(attempt.context)


def test_interrupts_in_a_storm_from_one_operator_do_not_kill_the_thread(stage, caplog):
    """As often as a thread can be hit, at every place where it can be."""
    before = sys.getswitchinterval()
    gc.collect()
    gc.disable()  # what strikes a finalizer is dropped, and not what this is about
    sys.setswitchinterval(1e-6)
    try:
        pool = stage.eager_pool([_spin_until_cancelled], retry=stage.once)
        worker, thread = pool.workers()[0].id, thread_of(pool)
        for _ in range(100):
            task = pool.dispatch("spin")
            while not task.done():
                pool.interrupt_worker(worker, task="drop", force=True)
            for _ in range(3):
                pool.interrupt_worker(worker, task="drop", force=True)
    finally:
        sys.setswitchinterval(before)
        gc.enable()
    stage.until(lambda: pool.workers()[0].state != "stuck")
    assert pool.dispatch("x").result(stage.within) == "x"
    assert thread_of(pool) is thread
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_nothing_is_raised_once_the_thread_has_come_by(over):
    gate, attempt = over
    attempt._slot.stuck = None
    assert not gate.interrupt(attempt.context), "it was not taken over"
    attempt._slot.stuck = attempt.context
    assert not gate.absorb(attempt.context)
    assert not gate.interrupt(attempt.context), "it has come by"


def test_interrupt_that_is_put_off_as_the_gate_opens_strikes_all_the_same(over):
    """Whoever raises finds the gate barred, and the thread opens it before the interrupt is put off."""
    _, attempt = over

    class Opening(Gate):
        looks = iter([True, False])

        @property
        def barred(self):
            return next(self.looks)

        @barred.setter
        def barred(self, _):
            pass

    gate = Opening(attempt._slot)
    gate._thread_id = threading.get_ident()
    with pytest.raises(Interrupted):
        gate.interrupt(attempt.context)
    assert gate._deferred is None
    gate.unbar()
    assert gate.absorb(attempt.context)


def test_interrupt_that_has_not_struck_is_taken_back(over):
    """It was raised, and the thread gets to the gate before it strikes: it never will."""
    gate, attempt = over
    struck = 0
    try:
        gate.interrupt(attempt.context)
    except Interrupted:
        struck += 1
    assert gate.absorb(attempt.context)
    for _ in range(1000):
        pass
    assert struck == 1


def test_waiting_for_a_task_can_leave_no_lock_behind(monkeypatch):
    """Taking the lock is one step, with no Python code in it where an interrupt could strike."""

    def enter(self: threading.Condition) -> None:
        raise AssertionError("an interrupt could strike here")

    pool = ManualPool([str])
    task = pool.dispatch("x")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "__enter__", enter)
        with pytest.raises(TimeoutError):
            task.result(timeout=0.001)
        task.add_done_callback(lambda task: None)
        pool.claim().run()
    assert task.result() == "x"


def test_interrupt_waits_until_a_call_of_the_pool_is_over(stage, monkeypatch):
    """Code that runs may use its pool; struck in the middle of that, it would leave the pool in pieces."""
    inside, go_on = threading.Event(), threading.Event()
    seen: list[str] = []

    def dispatch_inside(data: object) -> None:
        if data != "outer":
            return
        try:
            pool.dispatch("inner", delay=3600)
            seen.append("returned")
        except Interrupted:
            seen.append("struck")
            raise

    pool = stage.eager_pool([dispatch_inside], retry=stage.once)
    submit = pool._engine.scheduler.submit

    def slow_submit(task: Any, *arguments: Any) -> None:
        if task.data == "inner":
            pool._engine.lock.release()
            inside.set()
            while not go_on.is_set():
                pass
            pool._engine.lock.acquire()
            seen.append("entered")
        submit(task, *arguments)

    monkeypatch.setattr(pool._engine.scheduler, "submit", slow_submit)
    task = pool.dispatch("outer")
    assert inside.wait(stage.within)
    assert pool.cancel_task(task, interrupt=True)
    go_on.set()
    stage.until(lambda: len(seen) == 2)
    assert seen == ["entered", "struck"]
    assert pool.stats().delayed == 1
    assert pool.dispatch("x").result(stage.within) is None


def test_attempt_that_is_over_before_it_has_begun_does_not_begin(stage, caplog):
    """A listener that hears of the start ends it; what is raised then must not strike the listener."""
    ran: list[object] = []

    def hear(event: Any) -> None:
        if type(event).__name__ == "AttemptStarted" and event.task.data == "x":
            assert pool.cancel_task(event.task, interrupt=True)

    pool = stage.eager_pool([ran.append], listeners=[hear])
    task = pool.dispatch("x")
    stage.until(task.done)
    assert task.cancelled()
    pool.dispatch("y").result(stage.within)
    assert ran == ["y"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("first", ["success", "timeout"])
def test_success_and_timeout_at_the_same_instant(first):
    """Whoever gets the attempt out of its box has it; the other comes too late."""
    pool = ManualPool([str], timeout=5, retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x")
    attempt = pool.claim()
    pool.clock._now += 5
    if first == "success":
        attempt.finish("in time")
        pool.clock.advance(0)
        assert task.result() == "in time"
        assert pool.stats().succeeded == 1
    else:
        pool.clock.advance(0)
        attempt.finish("too late")
        assert isinstance(task.exception(), AttemptTimeout)
        assert pool.stats().succeeded == 0
    assert pool.stats().ended == 1


def test_timeout_strikes_as_the_thread_reaches_for_its_success(stage):
    pool = stage.eager_pool([lambda data: data], timeout=3600, retry=RetryPolicy(attempts=2, delay=0))

    def expire() -> None:
        [ctx] = next(iter(pool._workers)).slot.running
        ctx._expires = 0.0
        stage.start(pool._engine.watchdog.catch_up).result(stage.within)

    put_box(pool, expire)
    task = pool.dispatch("x")
    assert task.result(stage.within) == "x"
    assert [attempt.outcome.value for attempt in task.history] == ["timed_out", "succeeded"]
    assert pool.stats().succeeded == 1


def test_on_success_may_dispatch_and_is_told_that_it_can_not_close(stage, caplog):
    answers: list[Any] = []

    def on_success(task: Any) -> None:
        if task.data == "first":
            answers.append(pool.dispatch("second"))
            pool.close()

    pool = stage.eager_pool([str], on_success=on_success)
    pool.dispatch("first").result(stage.within)
    stage.until(lambda: answers)
    assert answers[0].result(stage.within) == "second"
    stage.until(lambda: "WrongThread" in caplog.text)
    assert not pool.closed
    pool.close(timeout=stage.within)


def test_on_success_may_close_by_force(stage):
    refused: list[BaseException] = []

    def on_success(task: Any) -> None:
        pool.force_close()
        try:
            pool.dispatch("second")
        except PoolClosed as error:
            refused.append(error)

    pool = stage.eager_pool([str] * 2, on_success=on_success)
    assert pool.dispatch("first").result(stage.within) == "first"
    stage.until(lambda: refused)


def test_interrupt_that_strikes_a_finalizer_is_raised_once_more(stage, interrupts_dropped_by_python):
    """CPython drops what is raised in one, and the code runs on."""
    finalizing: list[bool] = []

    class Resource:
        def __del__(self) -> None:
            finalizing.append(True)
            while not interrupts_dropped_by_python:
                pass

    def finalize_and_spin(data: object) -> object:
        if data == "spin":
            Resource()
            while True:
                pass
        return data

    pool = stage.eager_pool([finalize_and_spin], retry=stage.once, grace=0.02)
    task = pool.dispatch("spin")
    stage.until(lambda: finalizing)
    assert pool.cancel_task(task, interrupt=True)
    assert pool.dispatch("x").result(stage.within) == "x"
    assert interrupts_dropped_by_python == [Interrupted]


def test_interrupt_that_strikes_as_a_call_of_the_pool_returns_counts_as_one(stage):
    """The resource may be half-used then, and is made anew."""
    made: list[int] = []

    def use_the_pool(data: object) -> object:
        while data == "spin":
            pool.queue_size  # noqa: B018 - it is looked at for as long as it lasts
            pool.dispatch("y", delay=3600).cancel()
        return data

    def make() -> Any:
        made.append(1)
        return use_the_pool

    pool = stage.eager_pool([WorkerSpec(factory=make)], retry=stage.once)
    for n in range(1, 20):
        task = pool.dispatch("spin")
        stage.until(task.running)
        assert pool.cancel_task(task, interrupt=True)
        assert pool.dispatch("x").result(stage.within) == "x"
        assert len(made) in {n, n + 1}
        made[:] = [1] * (n + 1)


def test_interrupt_that_was_swallowed_counts_as_one(stage):
    """The resource may be half-used, whatever the code has made of the interrupt."""
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        return swallow

    def swallow(data: object) -> object:
        try:
            return _spin_until_cancelled(data, until_struck=True)
        except BaseException:  # noqa: BLE001 - that is the point
            return "late"

    pool = stage.eager_pool(
        [WorkerSpec(factory=make)], retry=stage.once, timeout=0.01, interrupt_on_timeout=True
    )
    assert isinstance(pool.dispatch("spin").exception(stage.within), AttemptTimeout)
    assert pool.dispatch("x", timeout=None).result(stage.within) == "x"
    assert len(made) == 2


def _spin_until_cancelled(data: object, *, until_struck: bool = False) -> object:
    from retrypool import current_context

    if data == "spin":
        ctx = current_context()
        while until_struck or not ctx.cancelled:
            pass
    return data
