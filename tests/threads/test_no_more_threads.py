"""The system gives no thread for a while: that is logged, and tried again."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retrypool import RetryPolicy, TaskState, WorkerSpec
from retrypool.clock import SystemClock


class Shortage:
    """Lets threads with some word in their name not start while it lasts."""

    def __init__(self) -> None:
        self.word: str | None = None
        self.refused = threading.Semaphore(0)

    def refuse(self, word: str) -> None:
        self.word = word

    def end(self) -> None:
        self.word = None


@pytest.fixture
def shortage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shortage]:
    it = Shortage()
    start = threading.Thread.start

    def start_if_possible(thread: threading.Thread) -> None:
        if it.word is not None and it.word in thread.name:
            it.refused.release()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_possible)
    yield it
    it.end()


def wait_until_refused(shortage: Shortage, times: int = 1) -> None:
    for _ in range(times):
        assert shortage.refused.acquire(timeout=20)


def test_worker_that_gets_no_thread_is_started_later(
    stage: Any, shortage: Shortage, caplog: pytest.LogCaptureFixture
) -> None:
    shortage.refuse("worker")
    pool = stage.pool([lambda data: data])
    wait_until_refused(shortage, times=2)
    task = pool.dispatch("x")
    assert [info.state for info in pool.workers()] == ["starting"]
    shortage.end()
    assert task.result(stage.within) == "x"
    pool.close(timeout=stage.within)
    assert "can't be started" in caplog.text


def test_pool_closes_while_a_worker_gets_no_thread(stage: Any, shortage: Shortage) -> None:
    pool = stage.pool([lambda data: data])
    assert pool.dispatch("x").result(stage.within) == "x"
    shortage.refuse("worker")
    added = pool.add_worker(lambda data: data)
    pool.close(timeout=stage.within)
    assert added in {info.id for info in pool.workers()}


def test_worker_that_gets_no_thread_can_be_removed(stage: Any, shortage: Shortage) -> None:
    pool = stage.pool([lambda data: data])
    shortage.refuse("worker")
    added = pool.add_worker(lambda data: data)
    pool.remove_worker(added)
    assert added not in {info.id for info in pool.workers()}
    shortage.end()
    assert pool.dispatch("x").result(stage.within) == "x"
    pool.close(timeout=stage.within)


def test_stuck_worker_is_replaced_once_there_is_a_thread_again(stage: Any, shortage: Shortage) -> None:
    """Until then timeouts and delays go on as ever."""
    gate = stage.gate()

    def make() -> Callable[[str], str]:
        def run(data: str) -> str:
            if data == "hang":
                gate.hold()
            return data

        return run

    pool = stage.pool([WorkerSpec(factory=make)], grace=0.05, retry=RetryPolicy(attempts=1))
    assert pool.dispatch("first").result(stage.within) == "first"
    hung = pool.dispatch("hang", timeout=0.05)
    gate.wait_until_reached()
    shortage.refuse("worker")
    assert isinstance(hung.exception(stage.within), TimeoutError)
    wait_until_refused(shortage, times=2)
    delayed = pool.dispatch("late", delay=0.01)
    stage.until(lambda: delayed.state is TaskState.QUEUED)
    shortage.end()
    assert delayed.result(stage.within) == "late"
    gate.open()
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("waits_by", ["result", "wait", "nobody"])
def test_delays_are_kept_while_the_watchdog_gets_no_thread(
    stage: Any, shortage: Shortage, waits_by: str
) -> None:
    """Who has nothing else to do stands in for it."""
    shortage.refuse("watchdog")
    pool = stage.pool([lambda data: data])
    task = pool.dispatch("x", delay=0.01)
    if waits_by == "result":
        assert task.result(stage.within) == "x"
    elif waits_by == "wait":
        assert pool.wait(stage.within)
    else:
        stage.until(task.done)
    pool.close(timeout=stage.within)


def test_timeouts_are_kept_while_the_watchdog_gets_no_thread(stage: Any, shortage: Shortage) -> None:
    """Not even an idle worker is there: who waits for the result stands in."""
    gate = stage.gate()
    shortage.refuse("watchdog")
    pool = stage.pool([gate.hold], retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x", timeout=0.01)
    assert isinstance(task.exception(stage.within), TimeoutError)
    gate.open()
    pool.close(timeout=stage.within)


def test_watchdog_goes_on_whatever_it_meets(stage: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(SystemClock):
        left = 0

        def time(self) -> float:  # type: ignore[override]
            if self.left and "watchdog" in threading.current_thread().name:
                self.left -= 1
                raise SystemExit("no time")
            return 0.0

    clock = Breaks()
    pool = stage.pool([lambda data: data], clock=clock)
    assert pool.dispatch("x", delay=0.001).result(stage.within) == "x"
    clock.left = 3
    assert pool.dispatch("y", delay=0.001).result(stage.within) == "y"
    assert clock.left == 0
    pool.close(timeout=stage.within)
    assert "goes on after an error" in caplog.text
