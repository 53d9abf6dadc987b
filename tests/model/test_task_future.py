"""A task is a `concurrent.futures.Future`, in whatever order things happen to it."""

import gc
import logging
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import pytest

from retrypool import Pool, RetryPolicy, Task, TaskState

#: Only a test that fails waits so long.
WITHIN = 20.0

ONCE = RetryPolicy(attempts=1)


class Held:
    """A worker that holds each task until it is told to go on, or to fail."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self._go = threading.Event()

    def run(self, ctx: Any, data: object) -> object:
        self.started.set()
        assert self._go.wait(WITHIN)
        if isinstance(data, BaseException):
            raise data
        return data

    def go(self) -> None:
        self._go.set()


@pytest.fixture
def held() -> Iterator[Held]:
    worker = Held()
    yield worker
    worker.go()


@pytest.fixture
def pool(held: Held) -> Iterator[Pool[Any, Any]]:
    pool: Pool[Any, Any] = Pool([held], retry=ONCE)
    yield pool
    held.go()
    pool.close(timeout=WITHIN)


def in_threads(count: int, function: Callable[[], object]) -> "list[Future[Any]]":
    """Call `function` in so many threads, and return once all of them are about to."""
    ready = threading.Barrier(count + 1)
    futures: list[Future[Any]] = [Future() for _ in range(count)]

    def call(future: "Future[Any]") -> None:
        ready.wait(WITHIN)
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - the future tells it
            future.set_exception(error)

    for future in futures:
        threading.Thread(target=call, args=(future,), daemon=True).start()
    ready.wait(WITHIN)
    return futures


# -- result and exception ----------------------------------------------------------------------------


def test_task_is_a_future(pool: Pool[Any, Any]) -> None:
    assert isinstance(pool.dispatch("x"), Future)


def test_result_and_exception_of_a_success(pool: Pool[Any, Any], held: Held) -> None:
    task = pool.dispatch("x")
    held.go()
    assert task.result() == "x"
    assert task.result(timeout=0) == "x"
    assert task.exception() is None
    assert (task.done(), task.running(), task.cancelled()) == (True, False, False)


def test_result_and_exception_of_a_dead_task_are_the_error_of_the_worker(
    pool: Pool[Any, Any], held: Held
) -> None:
    error = OSError("down")
    task = pool.dispatch(error)
    held.go()
    with pytest.raises(OSError, match="down") as caught:
        task.result(WITHIN)
    assert caught.value is error
    assert task.exception() is error
    assert (task.done(), task.running(), task.cancelled()) == (True, False, False)


def test_traceback_ends_where_the_worker_raised_also_when_it_is_raised_again() -> None:
    def deepest(data: object) -> None:
        raise OSError(data)

    def worker(data: object) -> None:
        deepest(data)

    with Pool([worker], retry=ONCE) as pool:
        task = pool.dispatch("x")
    for _ in range(2):
        with pytest.raises(OSError, match="x") as caught:
            task.result()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["worker", "deepest"]


def test_task_that_runs_says_so_and_has_no_result_yet(pool: Pool[Any, Any], held: Held) -> None:
    task = pool.dispatch("x")
    assert held.started.wait(WITHIN)
    assert (task.done(), task.running(), task.cancelled()) == (False, True, False)
    with pytest.raises(TimeoutError, match="has not ended"):
        task.result(timeout=0)
    with pytest.raises(TimeoutError, match="has not ended"):
        task.exception(timeout=0.001)
    held.go()
    assert task.result(WITHIN) == "x"


def test_many_threads_wait_for_one_task(pool: Pool[Any, Any], held: Held) -> None:
    task, failing = pool.dispatch("x"), pool.dispatch(OSError("down"))
    results = in_threads(16, lambda: task.result(WITHIN))
    errors = in_threads(16, lambda: failing.exception(WITHIN))
    held.go()
    assert {each.result(WITHIN) for each in results} == {"x"}
    assert {str(each.result(WITHIN)) for each in errors} == {"down"}


def test_one_thread_gives_up_waiting_and_the_others_do_not(pool: Pool[Any, Any], held: Held) -> None:
    task = pool.dispatch("x")
    others = in_threads(4, lambda: task.result(WITHIN))
    with pytest.raises(TimeoutError):
        task.result(timeout=0.001)
    held.go()
    assert [each.result(WITHIN) for each in others] == ["x"] * 4


def test_only_its_pool_moves_a_task_on(pool: Pool[Any, Any], held: Held) -> None:
    task = pool.dispatch("x")
    with pytest.raises(InvalidStateError):
        task.set_result("y")
    with pytest.raises(InvalidStateError):
        task.set_exception(OSError())
    with pytest.raises(InvalidStateError):
        task.set_running_or_notify_cancel()
    held.go()
    assert task.result(WITHIN) == "x"


def test_nothing_holds_a_task_that_has_ended_but_who_wants_it(pool: Pool[Any, Any], held: Held) -> None:
    """Neither the worker that waits for the next one, nor the pool."""

    class Data:
        pass

    data = Data()
    gone = weakref.ref(data)
    gc.disable()
    try:
        task = pool.dispatch(data)
        held.go()
        assert pool.wait(WITHIN)
        assert task.result() is data
        del task, data
        assert gone() is None
    finally:
        gc.enable()


# -- cancel ------------------------------------------------------------------------------------------


def test_task_that_waits_can_be_cancelled(pool: Pool[Any, Any], held: Held) -> None:
    pool.dispatch("first")
    assert held.started.wait(WITHIN)
    task = pool.dispatch("x")
    waiting = in_threads(2, lambda: task.result(WITHIN))
    assert task.cancel() is True
    assert task.cancel() is True
    assert (task.done(), task.running(), task.cancelled()) == (True, False, True)
    for each in waiting:
        assert isinstance(each.exception(WITHIN), CancelledError)
    with pytest.raises(CancelledError):
        task.exception()
    held.go()
    assert pool.wait(WITHIN)
    assert task.history == []


def test_task_that_runs_cannot_be_cancelled(pool: Pool[Any, Any], held: Held) -> None:
    task = pool.dispatch("x")
    assert held.started.wait(WITHIN)
    assert task.cancel() is False
    held.go()
    assert task.result(WITHIN) == "x"


@pytest.mark.parametrize("data", ["x", OSError("down")])
def test_task_that_has_ended_cannot_be_cancelled(pool: Pool[Any, Any], held: Held, data: object) -> None:
    task = pool.dispatch(data)
    held.go()
    task.exception(WITHIN)
    state = task.state
    assert task.cancel() is False
    assert task.state is state


def test_task_that_waits_between_two_attempts_can_be_cancelled() -> None:
    failed = threading.Event()

    def fail(data: object) -> None:
        raise OSError(data)

    policy = RetryPolicy(delay=600, max_delay=None)
    with Pool([fail], retry=policy, on_retry=lambda *_: failed.set()) as pool:
        task = pool.dispatch("x")
        assert failed.wait(WITHIN)
        while task.state is not TaskState.RETRYING:
            pool.wait(timeout=0.001)
        assert task.cancel() is True
    assert task.cancelled()
    assert [str(error) for error in task.errors] == ["x"]


# -- done callbacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["x", OSError("down")])
def test_done_callbacks_are_called_once_in_order(pool: Pool[Any, Any], held: Held, data: object) -> None:
    task = pool.dispatch(data)
    called: list[tuple[int, Any, bool]] = []
    for number in range(3):
        task.add_done_callback(lambda it, number=number: called.append((number, it, it.done())))
    assert called == []
    held.go()
    assert pool.wait(WITHIN)
    assert called == [(0, task, True), (1, task, True), (2, task, True)]


def test_done_callback_of_a_task_that_has_ended_is_called_at_once(pool: Pool[Any, Any], held: Held) -> None:
    task = pool.dispatch("x")
    held.go()
    assert task.result(WITHIN) == "x"
    called: list[object] = []
    task.add_done_callback(lambda it: called.append((it, threading.current_thread())))
    assert called == [(task, threading.current_thread())]


def test_done_callback_of_a_task_that_is_cancelled_is_called(pool: Pool[Any, Any], held: Held) -> None:
    pool.dispatch("first")
    assert held.started.wait(WITHIN)
    task = pool.dispatch("x")
    called: list[object] = []
    task.add_done_callback(called.append)
    task.cancel()
    assert called == [task]


@pytest.mark.parametrize("error", [OSError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("data", ["x", OSError("down")])
def test_done_callback_that_raises_is_logged_and_changes_nothing(
    pool: Pool[Any, Any],
    held: Held,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
    data: object,
) -> None:
    """Neither for the callbacks after it, nor for the worker on whose thread it runs."""

    def careless(task: object) -> None:
        raise error("careless")

    task = pool.dispatch(data)
    called: list[object] = []
    task.add_done_callback(careless)
    task.add_done_callback(called.append)
    with caplog.at_level(logging.ERROR, logger="retrypool"):
        held.go()
        after = pool.dispatch("after")
        assert after.result(WITHIN) == "after"
    assert called == [task]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [error]


def test_done_callback_that_raises_at_once_is_logged(
    pool: Pool[Any, Any], held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    task = pool.dispatch("x")
    held.go()
    task.result(WITHIN)
    with caplog.at_level(logging.ERROR, logger="retrypool"):
        task.add_done_callback(lambda it: 1 / 0)
    assert len(caplog.records) == 1


def test_done_callback_may_dispatch(pool: Pool[Any, Any], held: Held) -> None:
    more: list[Task[Any, Any]] = []
    task = pool.dispatch("x")
    task.add_done_callback(lambda it: more.append(pool.dispatch("y")))
    held.go()
    assert pool.wait(WITHIN)
    assert [each.result(WITHIN) for each in more] == ["y"]
