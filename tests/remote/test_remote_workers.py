"""What a remote worker does, wherever it lives. Classes are local: no far process can import this file."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from retrypool import (
    AttemptTimeout,
    DeadReason,
    Drain,
    Outcome,
    Pool,
    RemoteError,
    RetryPolicy,
    Throttled,
    Unrecoverable,
    WorkerFault,
    current_context,
    fixed,
)

pytest.importorskip("cloudpickle")  # by which local classes travel

ONCE = RetryPolicy(attempts=1)


def echo() -> type:
    class Echo:
        def __init__(self, token: str) -> None:
            self.token = token

        def run(self, ctx: Any, data: Any) -> Any:
            return self.token, data

    return Echo


def caller() -> type:
    """A worker that calls what it is given."""

    class Caller:
        def __init__(self, token: str) -> None:
            self.token = token

        def run(self, ctx: Any, function: Any) -> Any:
            return function(ctx)

    return Caller


def wait_for(path: Path, seconds: float = 20.0) -> str:
    """Wait until a far process has written a file, whose last line ends it."""
    until = time.monotonic() + seconds
    while not (path.exists() and (text := path.read_text()).endswith("\n")):
        assert time.monotonic() < until, f"{path.name} was not written"
        time.sleep(0.01)
    return text


def test_every_task_is_answered_by_one_of_the_workers(cluster: Any) -> None:
    with Pool(cluster.workers(echo(), ["a", "b", "c", "d"])) as pool:
        answers = list(pool.map(range(200)))
    assert [data for _, data in answers] == list(range(200))
    assert {token for token, _ in answers} <= set("abcd")
    assert [worker.name for worker in pool.workers()] == [f"Echo-{n}" for n in range(4)]


def test_far_side_sees_its_part_of_the_context(cluster: Any) -> None:
    class Teller:
        def __init__(self, token: str) -> None:
            pass

        def run(self, ctx: Any, data: Any) -> Any:
            assert current_context() is ctx
            ctx.check()
            told = (
                ctx.task_id,
                ctx.name,
                ctx.attempt,
                ctx.worker_id,
                ctx.group,
                dict(ctx.options),
                ctx.cancelled,
            )
            if ctx.attempt == 1:
                raise ValueError("once more")
            return (*told, ctx.remaining, ctx.deadline is not None, ctx.stopping, repr(ctx))

    again = RetryPolicy(attempts=2, delay=fixed(0))
    with Pool(cluster.workers(Teller, ["a"], group="quota"), timeout=60, retry=again) as pool:
        task = pool.dispatch(None, name="page", options={"deep": True})
        *told, remaining, limited, stopping, shown = task.result()
    assert told == [task.id, "page", 2, 0, "quota", {"deep": True}, False]
    assert 0 < remaining <= 60
    assert (limited, stopping) == (True, False)
    assert shown == f"<Context of task {task.id}, attempt 2: running>"


def test_far_side_has_all_that_a_context_has(loop_cluster: Any) -> None:
    def read(ctx: Any) -> list[str]:
        names = [name for name in dir(type(ctx)) if not name.startswith("_")]
        for name in names:
            getattr(ctx, name)
        return names

    with Pool(loop_cluster.workers(caller(), ["a"])) as pool:
        assert set(pool.dispatch(read).result()) >= {"attempt", "remaining", "token"}
        for word in ("settle", "sleep"):
            assert pool.dispatch(lambda ctx, word=word: getattr(ctx, word)(0)).result() is None
        for word in ("restart", "check"):
            assert pool.dispatch(lambda ctx, word=word: getattr(ctx, word)()).result() is None


def test_function_of_the_data_is_a_worker_too(cluster: Any) -> None:
    def make(token: str) -> Any:
        return lambda data: (token, data, current_context().attempt)

    with Pool(cluster.workers(make, ["a"], name="lambda")) as pool:
        assert pool.dispatch(1).result() == ("a", 1, 1)
        assert pool.workers()[0].name == "lambda-0"


def test_error_comes_back_with_its_traceback_and_the_name_of_the_host(cluster: Any) -> None:
    class TooMuch(ValueError):
        pass

    def deep_down(ctx: Any) -> None:
        raise TooMuch("of it", 7)

    with Pool(cluster.workers(caller(), ["a"]), retry=ONCE) as pool:
        task = pool.dispatch(deep_down)
        error = task.exception()
        host = pool.workers()[0].host
    assert type(error) is TooMuch
    assert error.args == ("of it", 7)
    assert "in deep_down" in str(error.__cause__)
    assert f"raised on {host}" in error.__notes__


@pytest.mark.parametrize("way", ["does not pickle", "does not unpickle", "can't even be shown"])
def test_error_that_can_not_be_sent_comes_back_as_a_substitute(cluster: Any, way: str) -> None:
    class Awkward(Exception):
        def __init__(self, code: int, *, text: str) -> None:
            super().__init__(f"{text} {code}")
            if way == "does not pickle":
                self.lock = threading.Lock()

        def __str__(self) -> str:
            if way == "can't even be shown":
                raise RuntimeError("no")
            return super().__str__()

    def fail(ctx: Any) -> None:
        raise Awkward(7, text="no page")

    with Pool(cluster.workers(caller(), ["a"]), retry=ONCE) as pool:
        error = pool.dispatch(fail).exception()
    assert isinstance(error, RemoteError)
    assert "Awkward" in error.kind
    assert "no page 7" in str(error) or way == "can't even be shown"
    assert "in fail" in str(error.__cause__) or way == "can't even be shown"


def test_substitute_says_the_same_of_whose_fault_it_is(cluster: Any) -> None:
    class Busy(Throttled):
        def __init__(self, *, seconds: float) -> None:
            super().__init__("busy", retry_after=seconds)

    class Wrong(Unrecoverable):
        def __init__(self, *, page: str) -> None:
            super().__init__(f"no {page}")

    class Ill(WorkerFault):
        def __init__(self, *, what: str) -> None:
            super().__init__(what)

    def fail(kind: type, **arguments: Any) -> Any:
        def call(ctx: Any) -> str:
            if ctx.attempt == 1:
                raise kind(**arguments)
            return "done"

        return call

    with Pool(cluster.workers(caller(), ["a", "b"])) as pool:
        wrong = pool.dispatch(fail(Wrong, page="page"))
        assert isinstance(wrong.exception(), Unrecoverable)
        ill = pool.dispatch(fail(Ill, what="the disk"))
        assert ill.result() == "done"
        assert ill.history[0].outcome is Outcome.WORKER_FAULT
        busy = pool.dispatch(fail(Busy, seconds=0.05))
        assert busy.result() == "done"
        assert busy.history[0].outcome is Outcome.THROTTLED
        assert busy.history[0].error.retry_after == 0.05  # type: ignore[union-attr]


def test_what_can_not_be_sent_ends_the_task_at_once_and_says_so(cluster: Any) -> None:
    class Lock:
        def __reduce__(self) -> Any:
            raise TypeError("no lock travels")

    with Pool(cluster.workers(caller(), ["a"])) as pool:
        data = pool.dispatch(Lock())
        options = pool.dispatch(lambda ctx: 1, options={"lock": Lock()})
        result = pool.dispatch(lambda ctx: threading.Lock())
        for task in (data, options, result):
            assert isinstance(task.exception(), Unrecoverable)
            assert len(task.history) == 1
        assert "data" in str(data.exception())
        assert "no lock travels" in str(data.exception())
        assert "result" in str(result.exception())
        assert pool.dispatch(lambda ctx: 2).result() == 2
        assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.UNRECOVERABLE] * 3


def test_what_is_sent_and_settled_arrives_at_the_head(cluster: Any) -> None:
    def work(ctx: Any) -> str:
        ctx.settle(3)
        for line in range(3):
            assert ctx.send((ctx.attempt, line))
        if ctx.attempt == 1:
            raise ValueError("cut off")
        return "done"

    every, whole = Drain[Any](), Drain[Any](commit="success")
    with Pool(cluster.workers(caller(), ["a"]), retry=RetryPolicy(delay=fixed(0))) as pool:
        assert pool.dispatch(work, drain=every).result() == "done"
        assert pool.dispatch(work, drain=whole).result() == "done"
        none = pool.dispatch(lambda ctx: ctx.send(1), retry=ONCE)
        assert "drain" in str(none.exception())
    assert sorted(every) == [(n, line) for n in (1, 2) for line in range(3)]
    assert sorted(whole) == [(2, line) for line in range(3)]


def test_hooks_run_on_the_far_side(cluster: Any, tmp_path: Path) -> None:
    folder = str(tmp_path)

    class Owner:
        def __init__(self, token: str) -> None:
            self.home = threading.get_ident()
            self.said = ["made"]

        def on_start(self) -> None:
            self.said.append("started")

        def on_pause(self) -> None:
            self.said.append("paused")

        def on_resume(self) -> None:
            self.said.append("resumed")

        def on_stop(self) -> None:
            same = threading.get_ident() == self.home
            text = f"{os.getpid()} {same} {' '.join(self.said)}\n"
            Path(folder, "stopped").write_text(text)

        def run(self, ctx: Any, data: Any) -> Any:
            return os.getpid(), list(self.said)

    with Pool(cluster.workers(Owner, ["a"])) as pool:
        pid, said = pool.dispatch(0).result()
        assert said == ["made", "started"]
        pool.pause_worker(0)
        until = time.monotonic() + 10
        while pool.workers()[0].state != "paused":
            assert time.monotonic() < until
        pool.resume_worker(0)
        pool.dispatch(1).result()
    written = wait_for(tmp_path / "stopped").split()
    assert written[:4] == [str(pid), "True", "made", "started"]
    assert (pid == os.getpid()) is (not cluster.has_processes)


def test_worker_that_can_not_be_made_is_a_fault_and_others_do_its_work(cluster: Any) -> None:
    class Picky:
        def __init__(self, token: str) -> None:
            if token == "bad":
                raise PermissionError("revoked")

        def run(self, ctx: Any, data: Any) -> Any:
            return data

    with Pool(cluster.workers(Picky, ["bad", "good"])) as pool:
        tasks = pool.dispatch_many(range(20))
        assert [task.result() for task in tasks] == list(range(20))
        faults = [
            attempt for task in tasks for attempt in task.history if attempt.outcome is not Outcome.SUCCEEDED
        ]
        assert {attempt.outcome for attempt in faults} <= {Outcome.WORKER_FAULT}
        assert pool.dead_tasks() == []


def test_when_no_worker_can_be_made_tasks_fail_as_their_policy_says(cluster: Any) -> None:
    """It is a bug, not an illness: to wait for better days would be to hang."""

    class Broken:
        def __init__(self, token: str) -> None:
            raise PermissionError("revoked")

        def run(self, ctx: Any, data: Any) -> Any:
            return data

    with Pool(cluster.workers(Broken, ["a", "b"]), retry=RetryPolicy(attempts=2, delay=fixed(0))) as pool:
        tasks = pool.dispatch_many(range(10))
        for task in tasks:
            error = task.exception(30)
            assert isinstance(error, PermissionError)
            assert "__init__" in str(error.__cause__)
    assert {dead.reason for dead in pool.dead_tasks()} == {DeadReason.ATTEMPTS}


@pytest.mark.parametrize("way", ["context", "fault", "fault that does not pickle"])
def test_far_side_can_ask_to_be_started_afresh(cluster: Any, way: str) -> None:
    class Locked(WorkerFault):
        def __init__(self, *, what: str) -> None:
            super().__init__(what, restart=True)

    class Aging:
        def __init__(self, token: str) -> None:
            self.calls = 0

        def run(self, ctx: Any, data: Any) -> int:
            self.calls += 1
            if self.calls == 2:
                if way == "fault":
                    raise WorkerFault("worn out", restart=True)
                if way != "context":
                    raise Locked(what="worn out")
                ctx.restart()
            return self.calls

    with Pool(cluster.workers(Aging, ["a"]), retry=RetryPolicy(delay=fixed(0))) as pool:
        calls = [pool.dispatch(n).result(30) for n in range(4)]
    assert calls == ([1, 2, 1, 2] if way == "context" else [1, 1, 1, 1])


def test_attempt_that_is_over_is_given_up_on_the_far_side(cluster: Any, tmp_path: Path) -> None:
    """The head does not wait for it, and the code there is told by its own context."""
    path = str(tmp_path / "noticed")

    def patient(ctx: Any) -> str:
        if ctx.attempt > 1:
            return "elsewhere"
        try:
            ctx.sleep(60)
        except BaseException as error:
            Path(path).write_text(f"{type(error).__name__}\n")
            raise
        return "too late"

    with Pool(cluster.workers(caller(), ["a", "b"])) as pool:
        list(pool.map([lambda ctx: 1] * 8))  # both are there
        task = pool.dispatch(patient, timeout=0.2)
        assert task.result() == "elsewhere"
        assert task.history[0].outcome is Outcome.TIMED_OUT
        # By its own clock, or by the head's word: whichever comes first.
        assert wait_for(tmp_path / "noticed").strip() in ("AttemptTimeout", "CancelledError")


def test_cancelled_task_is_told_so_on_the_far_side(cluster: Any, tmp_path: Path) -> None:
    began, noticed = tmp_path / "began", tmp_path / "noticed"
    texts = str(began), str(noticed)

    def patient(ctx: Any) -> None:
        Path(texts[0]).write_text("yes\n")
        try:
            ctx.sleep(60)
        finally:
            Path(texts[1]).write_text(f"{ctx.cancelled}\n")

    with Pool(cluster.workers(caller(), ["a"])) as pool:
        task = pool.dispatch(patient)
        wait_for(began)
        assert pool.cancel_task(task)
        assert wait_for(noticed) == "True\n"
        assert pool.dispatch(lambda ctx: "next").result() == "next"
    assert task.cancelled()


def test_interrupt_ends_python_code_on_the_far_side(cluster: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "cleaned")

    def spin(ctx: Any) -> str:
        if ctx.attempt > 1:
            return "elsewhere"
        try:
            while True:
                pass
        finally:
            Path(path).write_text("yes\n")

    with Pool(cluster.workers(caller(), ["a", "b"]), interrupt_on_timeout=True) as pool:
        list(pool.map([lambda ctx: 1] * 8))
        task = pool.dispatch(spin, timeout=0.3)
        assert task.result() == "elsewhere"
        assert isinstance(task.errors[0], AttemptTimeout)
        if not cluster.can_kill:
            wait_for(tmp_path / "cleaned")
        assert [pool.dispatch(lambda ctx: 1).result() for _ in range(8)] == [1] * 8
    assert pool.stats().abandoned == 0


def test_host_is_named_by_explain_and_in_the_table_of_workers(cluster: Any, tmp_path: Path) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    texts = str(began), str(go)

    def hold(ctx: Any) -> None:
        Path(texts[0]).write_text("yes\n")
        while not Path(texts[1]).exists():
            ctx.sleep(0.01)

    with Pool(cluster.workers(caller(), ["a"])) as pool:
        assert pool.workers()[0].host is None
        task = pool.dispatch(hold)
        wait_for(began)
        host = pool.workers()[0].host
        assert host is not None
        assert "process" in host
        assert pool.explain(task).startswith(f"runs on Caller-0, on {host}, since ")
        go.write_text("go")


def test_other_version_there_is_refused_with_a_clear_error(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrypool.remote.worker.PYTHON", "3.9")
    with Pool(cluster.workers(echo(), ["a"]), retry=RetryPolicy(attempts=2, delay=fixed(0))) as pool:
        error = pool.dispatch(1).exception()
    assert isinstance(error, RemoteError)
    assert "version mismatch" in str(error)
    assert "Python 3.9" in str(error)


def test_two_hundred_hands(cluster: Any) -> None:
    options = {"per_process": 70} if cluster.name == "ray" else {}
    with Pool(cluster.workers(echo(), range(200), **options)) as pool:
        pool.pause()
        tasks = [pool.dispatch(n, worker=n % 200) for n in range(600)]
        pool.resume()
        assert [task.result() for task in tasks] == [(n % 200, n) for n in range(600)]
    assert pool.dead_tasks() == []
