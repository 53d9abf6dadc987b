"""The head's half, against a far side whose every answer the test decides."""

import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from retrypool import InvalidType, MissingExtra, Outcome, Pool, RetryPolicy, WorkerFault, WorkerLost, fixed
from retrypool.remote import worker as remote
from retrypool.remote.engine import EngineClosed
from retrypool.remote.host import Host
from retrypool.testing import FakeClock

from .conftest import LoopCluster
from .test_remote_workers import caller, echo, wait_for

AT_ONCE = RetryPolicy(attempts=2, delay=fixed(0))


@pytest.fixture(autouse=True)
def short_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BEAT", 0.01)


def test_far_side_that_is_gone_is_noticed_while_its_answer_is_awaited(loop_cluster: LoopCluster) -> None:
    """The line to a process that was stopped stays silent: only the engine knows."""
    began, go = threading.Event(), threading.Event()

    class Waiter:
        def run(self, ctx: Any, data: Any) -> Any:
            if data == "wait" and not began.is_set():
                began.set()
                go.wait(10)
                return "late"
            return "elsewhere"

    def make(token: str) -> Waiter:
        return Waiter()

    # By reference: the far side is in this process, and its events are ours.
    workers = [_by_reference(spec, make) for spec in loop_cluster.workers(echo(), ["a", "b"])]
    with Pool(workers) as pool:
        task = pool.dispatch("wait")
        assert began.wait(10)
        loop_cluster.places[0].why = "a test says so"
        assert task.result(10) == "elsewhere"
        fault = task.history[0]
        assert fault.outcome is Outcome.WORKER_FAULT
        assert isinstance(fault.error, WorkerFault)
        assert isinstance(fault.error.error, WorkerLost)
        assert fault.error.error.why == "a test says so"
        go.set()
        assert pool.dispatch("next", worker=fault.worker_id).result(10) == "elsewhere"
        assert len(loop_cluster.places) >= 3
    assert task.result() == "elsewhere"


class _Reference:
    """Unpickles to what it was made of, in the same process."""

    known: dict[int, Any] = {}  # noqa: RUF012 - one for the module

    def __init__(self, value: Any) -> None:
        self.number = len(self.known)
        self.known[self.number] = value

    def __reduce__(self) -> Any:
        return _look_up, (self.number,)


def _look_up(number: int) -> Any:
    return _Reference.known[number]


def _by_reference(spec: Any, factory: Any) -> Any:
    import pickle

    spec.factory.args[0].packed = pickle.dumps((_Reference(factory), "token"))
    return spec


def test_far_side_that_does_not_come_is_given_up_after_the_start_timeout(loop_cluster: LoopCluster) -> None:
    never: list[Future[Any]] = []

    def place() -> "Future[Any]":
        never.append(Future())
        return never[-1]

    loop_cluster.place_now = place
    with Pool(loop_cluster.workers(echo(), ["a"], start_timeout=0.05), retry=AT_ONCE) as pool:
        error = pool.dispatch(1).exception(20)
        assert isinstance(error, WorkerFault)
        assert "not there after 0.05 s" in str(error)
        loop_cluster.place_now = loop_cluster._place
        assert pool.dispatch(1).result(20) == ("a", 1)
        # What comes too late is not kept.
        late = loop_cluster._place().result()
        never[0].set_result(late)
        assert late.host is None


def test_start_that_outlasts_an_attempt_goes_on_for_the_next(loop_cluster: LoopCluster) -> None:
    asked: list[Future[Any]] = []

    def place() -> "Future[Any]":
        asked.append(Future())
        return asked[-1]

    loop_cluster.place_now = place
    # On a clock that stands still no attempt is over, however slow this machine is.
    with Pool(loop_cluster.workers(echo(), ["a"]), retry=RetryPolicy(attempts=1), clock=FakeClock()) as pool:
        error = pool.dispatch(1, timeout=0.1).exception(20)
        assert isinstance(error, WorkerFault)  # a timeout would be the task's fault
        assert "still being made" in str(error)
        asked[0].set_result(loop_cluster._place().result())
        assert pool.dispatch(2).result(20) == ("a", 2)
    assert len(asked) == 1


def test_engine_that_is_closed_fails_tasks_at_once(loop_cluster: LoopCluster) -> None:
    """It is nobody's illness: no other worker can help, and none is put aside."""

    def place() -> "Future[Any]":
        closed: Future[Any] = Future()
        closed.set_exception(EngineClosed("the cluster was shut down"))
        return closed

    loop_cluster.place_now = place
    with Pool(loop_cluster.workers(echo(), ["a", "b", "c", "d"]), retry=AT_ONCE) as pool:
        for task in pool.dispatch_many(range(100)):
            error = task.exception(20)
            assert isinstance(error, WorkerLost)
            assert "shut down" in str(error)
            assert len(task.history) == 2


def test_word_that_comes_before_its_call_is_said_again(
    loop_cluster: LoopCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began = str(tmp_path / "began")
    tell = Host.tell
    words: list[int] = []

    async def deaf_at_first(self: Host, hand: str, call: int, *, interrupt: bool) -> bool:
        words.append(call)
        return len(words) > 2 and await tell(self, hand, call, interrupt=interrupt)

    monkeypatch.setattr(Host, "tell", deaf_at_first)

    def patient(ctx: Any) -> str:
        Path(began).write_text("yes\n")
        ctx.token.wait(20)
        return "too late"

    with Pool(loop_cluster.workers(caller(), ["a"]), retry=AT_ONCE) as pool:
        task = pool.dispatch(patient)
        wait_for(Path(began))
        assert pool.cancel_task(task)
        assert pool.dispatch(lambda ctx: "next").result(20) == "next"
    assert len(words) >= 3


def test_argument_that_can_not_be_sent_is_refused_without_being_shown(loop_cluster: LoopCluster) -> None:
    class Secret:
        def __repr__(self) -> str:
            return "the password"

        def __reduce__(self) -> Any:
            raise TypeError("stays here")

    with pytest.raises(InvalidType, match="stays here") as caught:
        loop_cluster.workers(echo(), [Secret()])
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(("engine", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_missing_engine_is_named(engine: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"retrypool\[{engine}\]"):
        if engine == "dask":
            from retrypool.dask import dask_workers

            dask_workers(None, echo(), "a")  # type: ignore[arg-type]
        else:
            from retrypool.ray import ray_workers

            ray_workers(echo(), ["a"])
