"""What a worker knows and can do while it runs."""

import contextvars
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

from retrypool import AttemptTimeout, CancelToken, RetryPolicy, WorkerSpec, current_context
from retrypool.errors import NoContext
from retrypool.model import context
from retrypool.testing import FakeClock, ManualPool

colour: "contextvars.ContextVar[str]" = contextvars.ContextVar("colour", default="none")


def test_context_tells_of_its_task_attempt_and_worker():
    pool = ManualPool(
        [WorkerSpec(str, group="red"), WorkerSpec(str, group="blue")],
        retry=RetryPolicy(attempts=3, delay=0),
        options={"deep": False},
    )
    task = pool.dispatch("x", name="page 1", options={"deep": True})
    first = pool.claim()
    ctx = first.context
    assert (ctx.task_id, ctx.name, ctx.attempt) == (task.id, "page 1", 1)
    assert (ctx.worker_id, ctx.group) == (first.worker_id, "red")
    assert ctx.options == {"deep": True}
    assert (ctx.remaining, ctx.deadline, ctx.cancelled, ctx.stopping) == (None, None, False, False)
    assert f"task {task.id}" in repr(ctx)
    first.fail(OSError())
    assert pool.claim().context.attempt == 2
    pool.dispatch("y")
    pool.force_close()


def test_options_of_a_task_replace_those_of_its_pool_whole():
    pool = ManualPool([str] * 2, options={"a": 1, "b": 2})
    pool.dispatch("x")
    pool.dispatch("y", options={"a": 3})
    assert pool.claim().context.options == {"a": 1, "b": 2}
    assert pool.claim().context.options == {"a": 3}
    pool.force_close()


def test_remaining_runs_down_and_never_means_for_ever_to_a_socket():
    pool = ManualPool([str], timeout=5, retry=RetryPolicy(attempts=1))
    pool.dispatch("x")
    ctx = pool.claim().context
    assert ctx.remaining == 5
    pool.clock.advance(4)
    assert ctx.remaining == 1
    pool.clock.advance(1)
    assert ctx.remaining == 0.001
    assert ctx.deadline == 5


def test_check_raises_the_timeout():
    pool = ManualPool([str], timeout=1, retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x")
    ctx = pool.claim().context
    ctx.check()
    pool.clock.advance(1)
    assert ctx.cancelled
    with pytest.raises(AttemptTimeout) as raised:
        ctx.check()
    assert raised.value.args == task.exception().args == (1, "timeout")
    with pytest.raises(AttemptTimeout):
        ctx.sleep(1000)


def test_check_says_why_it_was_cancelled():
    pool = ManualPool([str])
    task = pool.dispatch("x", cancel=(token := CancelToken()))
    ctx = pool.claim().context
    token.cancel("the user has left")
    with pytest.raises(CancelledError, match="the user has left"):
        ctx.check()
    assert task.cancelled()
    assert "over" in repr(ctx)


def test_sleep_takes_its_time_when_nothing_happens(stage):
    clock = FakeClock()
    entered = threading.Event()

    def nap(ctx: Any, data: object) -> str:
        entered.set()
        ctx.sleep(3600)
        return "rested"

    pool = stage.eager_pool([_Runs(nap)], clock=clock)
    task = pool.dispatch("x")
    assert entered.wait(stage.within)
    stage.until(lambda: clock._sleepers)
    clock.advance(3600)
    assert task.result(stage.within) == "rested"


@pytest.mark.parametrize("how", ["timeout", "cancel_task", "token", "pool token"])
def test_sleep_wakes_and_raises_when_the_attempt_is_over(stage, how):
    """The worker is back at once, and serves the next task, without any interrupt."""
    raised: list[BaseException] = []
    asleep, pool_token = threading.Event(), CancelToken()

    def nap(ctx: Any, data: object) -> str:
        if data == "quick":
            return "quick"
        asleep.set()
        try:
            ctx.sleep(3600)
        except BaseException as error:
            raised.append(error)
            raise
        return "rested"

    pool = stage.eager_pool([_Runs(nap)], retry=stage.once, cancel=pool_token)
    token = CancelToken()
    task = pool.dispatch("x", cancel=token, timeout=0.02 if how == "timeout" else None)
    assert asleep.wait(stage.within)
    match how:
        case "cancel_task":
            assert pool.cancel_task(task)
        case "token":
            token.cancel("enough")
        case "pool token":
            pool_token.cancel("enough")
    expected = AttemptTimeout if how == "timeout" else CancelledError
    with pytest.raises(expected):
        task.result(stage.within)
    stage.until(lambda: raised)
    assert type(raised[0]) is expected
    if how != "pool token":
        assert pool.dispatch("quick", timeout=None).result(stage.within) == "quick"


@pytest.mark.parametrize("duration", [-1, float("nan"), "1"])
def test_sleep_refuses_what_is_no_duration(duration):
    pool = ManualPool([str])
    pool.dispatch("x")
    ctx = pool.claim().context
    with pytest.raises((ValueError, TypeError)):
        ctx.sleep(duration)
    pool.force_close()


def test_current_context_is_that_of_the_attempt(stage):
    pool = stage.eager_pool([lambda data: (current_context().task_id, current_context().attempt)])
    task = pool.dispatch("x")
    assert task.result(stage.within) == (task.id, 1)


def test_current_context_is_known_to_late_code_too(stage):
    """Code that runs on past its timeout still asks whether anybody waits for it."""
    seen = []

    def run_on(data: object) -> None:
        while not current_context().cancelled:
            pass
        seen.append(current_context().task_id)

    pool = stage.eager_pool([run_on], timeout=0.01, retry=stage.once)
    task = pool.dispatch("x")
    assert isinstance(task.exception(stage.within), AttemptTimeout)
    stage.until(lambda: seen)
    assert seen == [task.id]


def test_current_context_outside_of_a_worker_is_an_error():
    with pytest.raises(NoContext):
        current_context()


@pytest.mark.parametrize(("copy", "seen"), [(True, "red"), (False, "none")])
def test_context_variables_of_the_dispatcher_are_seen_if_asked_for(stage, copy, seen):
    pool = stage.eager_pool([lambda data: colour.get()], copy_context=copy)
    reset = colour.set("red")
    task = pool.dispatch("x")
    colour.reset(reset)
    assert task.result(stage.within) == seen


def test_each_attempt_has_a_copy_of_the_context_of_its_own(stage):
    """What one attempt sets, the next does not see; and one that is late does not block the next."""
    seen = []

    def fail_once(data: object) -> str:
        seen.append(colour.get())
        colour.set("changed")
        if len(seen) == 1:
            raise OSError("once")
        return "done"

    pool = stage.eager_pool([fail_once] * 2)
    reset = colour.set("red")
    task = pool.dispatch("x", copy_context=True)
    colour.reset(reset)
    assert task.result(stage.within) == "done"
    assert seen == ["red", "red"]


def test_token_of_an_attempt_goes_with_it():
    pool = ManualPool([str] * 2, timeout=1, retry=RetryPolicy(attempts=2, delay=0))
    pool.dispatch("x")
    token = pool.claim().context.token
    told: list[object] = []
    token.on_cancel(lambda token: told.append(token.reason))
    pool.clock.advance(1)
    assert token.cancelled
    assert isinstance(told[0], AttemptTimeout)
    assert not pool.claim().context.token.cancelled
    pool.force_close()


def test_threads_that_ask_for_the_token_at_once_get_the_same_one(stage, monkeypatch):
    pool = ManualPool([str])
    pool.dispatch("x")
    ctx = pool.claim().context
    both = threading.Barrier(2)

    class Slow(CancelToken):
        __slots__ = ()

        def __init__(self, **options: Any) -> None:
            both.wait(1) if not both.broken else None
            super().__init__(**options)

    def make(**options: Any) -> CancelToken:
        try:
            return Slow(**options)
        except threading.BrokenBarrierError:
            return CancelToken(**options)

    monkeypatch.setattr(context, "CancelToken", make)
    one, other = stage.start(lambda: ctx.token), stage.start(lambda: ctx.token)
    assert one.result(stage.within) is other.result(stage.within)
    pool.force_close()


class _Runs:
    def __init__(self, run: Any) -> None:
        self.run = run


def test_token_that_is_made_as_the_attempt_ends_is_cancelled(stage, monkeypatch):
    """The attempt is over between the making of the token and its being seen."""
    seen = []

    class EndsTheAttempt(CancelToken):
        def __init__(self, **options):
            super().__init__(**options)
            if not seen:
                seen.append(True)
                pool.cancel_task(task)

    def run(ctx, data):
        monkeypatch.setattr(context, "CancelToken", EndsTheAttempt)
        token = ctx.token
        monkeypatch.undo()
        return seen.append(token.cancelled)

    class Worker:
        pass

    Worker.run = lambda self, ctx, data: run(ctx, data)
    pool = stage.pool([Worker()])
    task = pool.dispatch("x")
    stage.until(lambda: len(seen) == 2)
    assert seen == [True, True]
