"""The table of the README's section *When a call hangs*, line by line."""

import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from retrypool import AttemptTimeout, CloseTimeout, Interrupted, WorkerSpec
from retrypool.testing import FakeClock

README = Path(__file__).parents[2] / "README.md"


class Case:
    """Code that hangs on `"hang"`, and what is seen of it."""

    def __init__(self) -> None:
        self.begun = False  # the code is where it hangs
        self.seen: list[str] = []
        self.let_go = threading.Event()
        self.lock = threading.Lock()

    def run(self, ctx: Any, data: object) -> object:
        return self.hang(ctx) if data == "hang" else data

    def hang(self, ctx: Any) -> object:
        raise NotImplementedError

    def spin(self) -> None:
        """Called inside the block that is tested, as the README advises."""
        self.begun = True
        while not self.let_go.is_set():
            pass


class LooksAtItsContext(Case):
    def hang(self, ctx: Any) -> object:
        try:
            self.begun = True
            ctx.sleep(7200)
        except AttemptTimeout:
            self.seen.append("told")
            raise
        return "slept"


class GivesTheTimeToItsSocket(Case):
    def hang(self, ctx: Any) -> object:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            with socket.create_connection(server.getsockname(), timeout=ctx.remaining) as connection:
                try:
                    connection.recv(1)
                except TimeoutError:
                    self.seen.append("told")
                    raise
        return None


class Spins(Case):
    def hang(self, ctx: Any) -> object:
        self.spin()
        return "late"


class CatchesException(Case):
    def hang(self, ctx: Any) -> object:
        while not self.let_go.is_set():
            try:
                self.spin()
            except Exception:  # noqa: BLE001 - that is the point
                self.seen.append("caught")
        return "late"


class CatchesEverything(Case):
    def hang(self, ctx: Any) -> object:
        while not self.let_go.is_set():
            try:
                self.spin()
            except BaseException as error:  # noqa: BLE001 - that is the point
                self.seen.append(type(error).__name__)
        return "late"


class SleepsInC(Case):
    def hang(self, ctx: Any) -> object:
        self.begun = True
        with self.lock:  # held by the test: no timeout, no Python code until it is free
            pass
        for _ in range(1000):
            pass
        self.seen.append("went on")
        return "late"


class HoldsALock(Case):
    def hang(self, ctx: Any) -> object:
        with self.lock:
            self.seen.append("locked")
            self.spin()
        return "late"


class CleansUp(Case):
    def hang(self, ctx: Any) -> object:
        try:
            self.spin()
        finally:
            self.seen.append("cleaned up")
            raise ValueError("in place of the interrupt")


def over(stage: Any, case: Case, *, interrupt: bool, **options: Any) -> Any:
    """Let an attempt of `case` that hangs time out, and return the pool."""
    clock = FakeClock()
    pool = stage.eager_pool(
        [WorkerSpec(case, **options)], clock=clock, retry=stage.once, grace=5, interrupt_on_timeout=interrupt
    )
    task = pool.dispatch("hang", timeout=3600)
    stage.until(lambda: case.begun and pool._engine.watchdog.wakes_at == 3600)
    clock.advance(3600)
    assert isinstance(task.exception(stage.within), AttemptTimeout)
    if isinstance(case, CatchesEverything) and interrupt:
        stage.until(lambda: case.seen)
    stage.until(lambda: pool._engine.watchdog.wakes_at == 3605)
    clock.advance(5)
    return pool


def comes_back(stage: Any, pool: Any) -> None:
    assert pool.dispatch("next").result(stage.within) == "next"


def stays_away(stage: Any, pool: Any) -> None:
    """Its worker is still in there, although it was given the time to leave."""
    stage.until(lambda: pool.workers()[0].state == "stuck")
    next(iter(pool._workers)).thread.join(0.05)
    assert pool.workers()[0].state == "stuck"


@pytest.mark.parametrize("interrupt", [True, False])
def test_code_that_looks_at_its_context_comes_back_by_itself(stage, interrupt):
    case = LooksAtItsContext()
    comes_back(stage, over(stage, case, interrupt=interrupt))
    assert case.seen == ["told"] or interrupt


@pytest.mark.parametrize("interrupt", [True, False])
def test_code_that_gives_its_time_to_its_socket_comes_back_by_itself(stage, interrupt):
    pool = stage.eager_pool([GivesTheTimeToItsSocket()], retry=stage.once, interrupt_on_timeout=interrupt)
    error = pool.dispatch("hang", timeout=0.05).exception(stage.within)
    assert isinstance(error, TimeoutError)
    comes_back(stage, pool)


@pytest.mark.parametrize("kind", [Spins, CatchesException, CatchesEverything, HoldsALock])
def test_code_that_spins_is_left_alone_without_an_interrupt(stage, kind):
    """The task goes on elsewhere; the worker is occupied until its code returns."""
    case = kind()
    pool = over(stage, case, interrupt=False)
    stays_away(stage, pool)
    case.let_go.set()
    comes_back(stage, pool)


@pytest.mark.parametrize("kind", [Spins, CatchesException])
def test_code_that_spins_is_stopped_by_an_interrupt(stage, kind):
    """`except Exception` does not hold it up: it is no `Exception`."""
    case = kind()
    comes_back(stage, over(stage, case, interrupt=True))
    assert case.seen == []


def test_code_that_catches_everything_swallows_the_interrupt(stage):
    case = CatchesEverything()
    pool = over(stage, case, interrupt=True)
    stage.until(lambda: case.seen == ["Interrupted"] * 2)
    stays_away(stage, pool)
    assert pool.interrupt_worker(pool.workers()[0].id, force=True) is False
    stage.until(lambda: case.seen == ["Interrupted"] * 3)
    case.let_go.set()
    comes_back(stage, pool)


def test_code_in_c_is_struck_when_it_returns_to_python(stage):
    case = SleepsInC()
    with case.lock:
        pool = over(stage, case, interrupt=True)
        stays_away(stage, pool)
    comes_back(stage, pool)
    assert case.seen == []


def test_code_in_c_is_left_behind_if_there_is_a_factory(stage):
    case = SleepsInC()
    with case.lock:
        pool = over(stage, case, interrupt=True, factory=lambda: case)
        comes_back(stage, pool)
        assert pool.stats().abandoned == 1
    stage.until(lambda: pool.stats().abandoned == 0)


def test_lock_is_released_when_the_code_that_holds_it_is_interrupted(stage):
    case = HoldsALock()
    pool = over(stage, case, interrupt=True)
    comes_back(stage, pool)
    assert case.seen == ["locked"]
    assert case.lock.acquire(timeout=stage.within)


def test_cleaning_up_is_done_and_what_it_raises_is_discarded(stage):
    case = CleansUp()
    pool = over(stage, case, interrupt=True)
    comes_back(stage, pool)
    assert case.seen == ["cleaned up"]
    assert pool.dead_tasks()[0].attempts == 1


def test_interrupt_is_no_exception():
    assert not issubclass(Interrupted, Exception)


def test_every_row_of_the_table_is_tested_here():
    section = README.read_text(encoding="utf-8").partition("## When a call hangs")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!Your code|---)(.*?) \|", section, re.MULTILINE)
    assert len(rows) == len(Case.__subclasses__()), rows


# -- a socket that never answers ---------------------------------------------------------------------


def test_hung_worker_holds_up_neither_the_others_nor_its_task_nor_close(stage):
    """One of four hangs in `recv`. No timeout was given to the socket, and nobody will ever send."""
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        connection, _ = server.accept()
        reading = threading.Event()

        def read(data: object) -> object:
            reading.set()
            client.recv(1)
            return "late"

        def quick(data: object) -> object:
            return data

        pool = stage.eager_pool(
            [WorkerSpec(read, name="hung")] + [quick] * 3, timeout=0.2, retry=stage.at_once
        )
        for worker in pool.workers()[1:]:
            pool.pause_worker(worker.id)
        hung = pool.dispatch("hung")
        assert reading.wait(stage.within)
        for worker in pool.workers()[1:]:
            pool.resume_worker(worker.id)
        tasks = pool.dispatch_many(range(1000))
        assert [task.result(stage.within) for task in tasks] == list(range(1000))
        assert hung.result(stage.within) == "hung"
        first, second = hung.history
        assert isinstance(first.error, AttemptTimeout)
        assert second.worker_id != first.worker_id
        started = time.monotonic()
        with pytest.raises(CloseTimeout) as raised:
            pool.close(timeout=0.1)
        assert time.monotonic() - started < stage.within
        assert raised.value.running == (f"hung (stuck in task {hung.id}, which is over)",)
        connection.sendall(b"x")
        connection.close()
        pool.close(timeout=stage.within)
