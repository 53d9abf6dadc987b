"""`PoolExecutor` and `Pool.as_executor`: what CPython's own tests do not say."""

import asyncio
import gc
import itertools
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from typing import Any

import pytest

from retrypool import AttemptTimeout, InvalidType, InvalidValue, PoolExecutor, RetryPolicy, Throttled, fixed

AT_ONCE = RetryPolicy(attempts=3, delay=fixed(0))


class Thing:
    """Something that can be watched."""


class Flaky:
    """Fails a number of times before it works."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error or OSError("not yet")

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return self.calls


# -- PoolExecutor --------------------------------------------------------------------------------


def test_call_is_made_once_by_default() -> None:
    flaky = Flaky(failures=1)
    with PoolExecutor(2) as executor:
        future = executor.submit(flaky)
    assert isinstance(future.exception(), OSError)
    assert flaky.calls == 1


def test_call_is_retried_on_request() -> None:
    flaky = Flaky(failures=2)
    with PoolExecutor(2, retry=AT_ONCE) as executor:
        assert executor.submit(flaky).result() == 3


def test_call_that_is_not_charged_is_made_again_with_its_arguments() -> None:
    flaky = Flaky(failures=1, error=Throttled(retry_after=0.001))
    with PoolExecutor(1) as executor:
        assert executor.submit(lambda call: call(), flaky).result(10) == 2


def test_attempt_that_takes_too_long_ends_its_future() -> None:
    release = threading.Event()
    with PoolExecutor(1, timeout=0.01) as executor:
        future = executor.submit(release.wait, 10)
        assert isinstance(future.exception(10), AttemptTimeout)
        release.set()


def test_call_finds_a_thread_while_another_is_still_at_one_that_took_too_long() -> None:
    release = threading.Event()
    with PoolExecutor(2, timeout=0.01) as executor:
        assert isinstance(executor.submit(release.wait, 10).exception(10), AttemptTimeout)
        executor.submit(release.set)
        assert len(executor._threads) == 2
        assert release.wait(10)


def test_threads_start_with_the_first_call_and_bear_the_prefix() -> None:
    before = threading.active_count()
    with PoolExecutor(2, thread_name_prefix="crew") as executor:
        assert threading.active_count() == before
        name = executor.submit(lambda: threading.current_thread().name).result()
    assert name in {"crew_0", "crew_1"}


def test_initializer_runs_in_each_thread_before_its_first_call() -> None:
    local = threading.local()

    def prepare(value: int) -> None:
        local.value = value

    with PoolExecutor(3, initializer=prepare, initargs=(7,)) as executor:
        assert set(executor.map(lambda _: local.value, range(20))) == {7}


def test_pending_calls_fail_with_the_initializer(caplog: pytest.LogCaptureFixture) -> None:
    begin = threading.Event()

    def prepare() -> None:
        begin.wait(10)
        raise ValueError("no resource")

    executor = PoolExecutor(2, initializer=prepare)
    futures = [executor.submit(pow, 2, 2) for _ in range(5)]
    begin.set()
    assert {type(future.exception(10)) for future in futures if not future.cancelled()} <= set(
        BrokenExecutor.__subclasses__()
    )
    with pytest.raises(BrokenExecutor):
        executor.submit(pow, 2, 2)
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert "no resource" in caplog.text


def test_map_with_a_buffer_pulls_as_results_are_consumed() -> None:
    pulled: list[int] = []
    items = (pulled.append(n) or n for n in itertools.count())
    with PoolExecutor(2) as executor:
        results = executor.map(lambda n: n, items, buffersize=3)
        assert pulled == [0, 1, 2]
        assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
        assert len(pulled) == 8
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("size", "error"), [(0, InvalidValue), ("3", InvalidType), (True, InvalidType)])
def test_buffer_that_makes_no_sense_is_refused_at_the_call(size: Any, error: type[Exception]) -> None:
    with PoolExecutor(1) as executor, pytest.raises(error):
        executor.map(pow, [1], [2], buffersize=size)


def test_map_that_is_dropped_cancels_what_is_left() -> None:
    release = threading.Event()
    with PoolExecutor(1) as executor:
        results = executor.map(lambda n: n and release.wait(10), range(50))
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
        release.set()
        executor.shutdown()
        assert executor._pool is not None
        assert executor._pool.stats().succeeded <= 2


def test_shutdown_without_waiting_lets_the_calls_run() -> None:
    release = threading.Event()
    executor = PoolExecutor(1)
    futures = [executor.submit(release.wait, 10) for _ in range(3)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 2)
    release.set()
    assert [future.result(10) for future in futures] == [True] * 3


def test_shutdown_in_its_own_worker_does_not_hang() -> None:
    executor = PoolExecutor(1)
    with pytest.raises(RuntimeError, match="wait for itself"):
        executor.submit(executor.shutdown).result(10)
    executor.shutdown()


def test_executor_that_is_dropped_ends_its_threads_after_their_work() -> None:
    """The fixture of all tests sees to it that no thread is left."""
    release = threading.Event()
    executor = PoolExecutor(2)
    futures = [executor.submit(release.wait, 10) for _ in range(5)]
    known = weakref.ref(executor)
    del executor
    gc.collect()
    assert known() is None
    release.set()
    assert [future.result(10) for future in futures] == [True] * 5


def test_finished_future_lets_go_of_the_arguments(no_garbage: None) -> None:
    thing = Thing()
    known = weakref.ref(thing)
    with PoolExecutor(1) as executor:
        future = executor.submit(id, thing)
        assert future.result() == id(thing)
        del thing
    assert known() is None


def test_failed_calls_are_not_kept() -> None:
    with PoolExecutor(1) as executor:
        for _ in range(20):
            assert executor.submit(divmod, 1, 0).exception()
        assert executor._pool is not None
        assert executor._pool.dead_count == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": 1.5}, TypeError),
        ({"initializer": "start"}, TypeError),
        ({"retry": 3}, TypeError),
        ({"timeout": -1}, ValueError),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        PoolExecutor(**options)


def test_event_loop_runs_functions_in_it() -> None:
    async def main(executor: Executor) -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, 2, n) for n in range(5)))

    with PoolExecutor(2) as executor:
        assert asyncio.run(main(executor)) == [1, 2, 4, 8, 16]


SCRIPT = """
import time
from retrypool import PoolExecutor
with PoolExecutor(1) as executor:
    executor.submit(print, "runs", flush=True)
    for _ in range(100):
        executor.submit(time.sleep, 1)
    while True:  # a signal that comes just before a sleep does not end it
        time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_one_ctrl_c_ends_the_script() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in err


# -- Pool.as_executor ----------------------------------------------------------------------------


class Connected:
    """A worker that makes the call with something of its own around it."""

    def __init__(self) -> None:
        self.calls = 0

    def run(self, ctx: Any, call: Any) -> Any:
        self.calls += 1
        return call()


def test_workers_of_the_pool_make_the_calls(stage: Any) -> None:
    workers = [Connected(), Connected()]
    pool = stage.pool(workers, retry=AT_ONCE)
    with pool.as_executor() as executor:
        assert list(executor.map(pow, range(20), itertools.repeat(2))) == [n * n for n in range(20)]
        assert executor.submit(Flaky(failures=1)).result() == 2
    assert sum(worker.calls for worker in workers) == 22


def test_shutdown_waits_for_its_own_calls_and_leaves_the_pool_open(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([Connected(), Connected()])
    other = pool.dispatch(gate.hold)
    with pool.as_executor() as executor:
        future = executor.submit(pow, 2, 2)
    assert future.done()
    assert not other.done()
    with pytest.raises(RuntimeError):
        executor.submit(pow, 2, 2)
    gate.open()
    assert pool.dispatch(lambda: 3).result() == 3


def test_shutdown_cancels_its_own_pending_calls_on_request(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([Connected()])
    pool.dispatch(gate.hold)
    gate.wait_until_reached()
    waits = pool.dispatch(lambda: "waits")
    executor = pool.as_executor()
    future = executor.submit(pow, 2, 2)
    executor.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        future.result()
    gate.open()
    assert waits.result() == "waits"


def test_call_that_the_pool_refuses_is_not_waited_for(stage: Any) -> None:
    pool = stage.pool([Connected()])
    executor = pool.as_executor()
    pool.close()
    with pytest.raises(RuntimeError):
        executor.submit(pow, 2, 2)
    executor.shutdown()


def test_executor_of_a_bounded_pool_does_not_hang(stage: Any) -> None:
    """Submitting waits for room, and those who make it have something to tell the executor."""
    pool = stage.pool([Connected() for _ in range(2)], max_queue=1)
    with pool.as_executor() as executor:
        futures = [executor.submit(pow, n, 2) for n in range(100)]
    assert [future.result() for future in futures] == [n * n for n in range(100)]


def test_shutdown_of_a_view_in_a_worker_does_not_hang(stage: Any) -> None:
    executor = stage.pool([Connected()]).as_executor()
    with pytest.raises(RuntimeError, match="wait for itself"):
        executor.submit(executor.shutdown).result(stage.within)


def test_map_keeps_the_executor_that_it_needs_for_the_rest() -> None:
    seen = []
    for result in PoolExecutor(2).map(str, range(15), buffersize=1):
        seen.append(result)
        gc.collect()
    assert seen == [str(n) for n in range(15)]


@pytest.mark.parametrize("options", [{"initargs": 5}, {"thread_name_prefix": 5}])
def test_executor_refuses_what_makes_no_sense(options: Any) -> None:
    with pytest.raises(InvalidType, match=next(iter(options))):
        PoolExecutor(1, **options)


def test_map_refuses_a_timeout_that_is_none() -> None:
    with PoolExecutor(1) as executor, pytest.raises(InvalidType, match="timeout"):
        executor.map(str, [1], timeout="x")  # type: ignore[arg-type]
