"""What a user sees while a pool works: in a log file, in a real terminal, in a table."""

import io
import os
import re
import subprocess
import sys
import threading
from typing import Any

import pytest

from retrypool import InvalidType, InvalidValue, MissingExtra, Pool, Rate, RetryPolicy, WorkerSpec, fixed
from retrypool.observe import progress as progress_module
from retrypool.testing import ManualPool


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


# -- plain lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_map_writes_a_line_at_its_end(capsys: Any, ordered: bool) -> None:
    with Pool([len] * 2, name="p") as pool:
        assert sorted(pool.map(["a", "bc", "def"], progress=True, ordered=ordered)) == [1, 2, 3]
    (line,) = lines(capsys)
    assert re.fullmatch(r"p: 3 of 3 in \d+ s, \S+/s; running 0, retries 0, dead 0", line)


def test_map_writes_a_line_from_time_to_time(capsys: Any, monkeypatch: Any, stage: Any) -> None:
    monkeypatch.setattr(progress_module._Lines, "interval", 0.001)
    gate = stage.gate()
    written = threading.Event()

    def run(data: str) -> int:
        if data == "b":
            gate.hold()
        return len(data)

    write = progress_module._Lines._write
    monkeypatch.setattr(
        progress_module._Lines,
        "_write",
        lambda self, text: (write(self, text), written.set() if text.startswith("1 of 2") else None),
    )
    pool = stage.pool([run], name="p")
    results = pool.map(["a", "b"], progress=True)
    assert next(results) == 1
    assert written.wait(stage.within)
    gate.open()
    assert list(results) == [1]
    shown = [line for line in lines(capsys) if line.startswith("p: 1 of 2")]
    assert re.fullmatch(r"p: 1 of 2, \S+/s, .* left; running 1, retries 0, dead 0", shown[0])


def test_number_of_items_can_be_told(capsys: Any) -> None:
    with Pool([len], name="p") as pool:
        assert list(pool.map(iter(["a", "b"]), progress=True)) == [1, 1]
        assert list(pool.map((data for data in "ab"), progress=True)) == [1, 1]
        assert list(pool.map((data for data in "ab"), progress=4)) == [1, 1]
    known, unknown, told = lines(capsys)
    assert known.startswith("p: 2 of 2 in")
    assert unknown.startswith("p: 2 in")
    assert told.startswith("p: 2 of 4 in")


def test_retries_and_dead_tasks_are_counted_from_the_start(capsys: Any) -> None:
    with Pool([int], name="p", retry=RetryPolicy(attempts=2, delay=fixed(0)), health=None) as pool:
        before = pool.dispatch("before")
        assert before.exception()
        pool.wait()
        capsys.readouterr()
        assert len(list(pool.map("x1", progress=True, return_exceptions=True))) == 2
        pool.wait()
    assert [line for line in lines(capsys) if line.endswith("running 0, retries 1, dead 1")]


def test_wait_shows_all_that_the_pool_has(capsys: Any, stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([lambda data: gate.hold() or data], name="p")
    for number in range(3):
        pool.dispatch(number)
    gate.wait_until_reached()
    gate.open()
    assert pool.wait(stage.within, progress=True)
    assert re.match(r"p: (\d) of \1 in", lines(capsys)[-1])


def test_as_completed_shows_its_tasks(capsys: Any) -> None:
    with Pool([len], name="p") as pool:
        tasks = [pool.dispatch(data) for data in ("a", "bc")]
        assert {task.result() for task in pool.as_completed(tasks, progress=True)} == {1, 2}
    assert lines(capsys)[-1].startswith("p: 2 of 2 in")


def test_iteration_that_ends_early_ends_the_display(capsys: Any) -> None:
    with Pool([len], name="p") as pool:
        results = pool.map(["a"] * 1000, progress=True)
        next(results)
        results.close()
        unused = pool.map(["a"], progress=True)
        del unused
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize(("value", "error"), [(-1, InvalidValue), ("yes", InvalidType), (None, InvalidType)])
def test_progress_that_makes_no_sense_is_refused_at_the_call(value: Any, error: type[Exception]) -> None:
    with Pool([len]) as pool:
        with pytest.raises(error, match="progress"):
            pool.map(["a"], progress=value)
        with pytest.raises(InvalidType, match="progress"):
            pool.wait(progress=value)
        with pytest.raises(InvalidType, match="progress"):
            pool.as_completed([], progress=value)


def test_what_map_refuses_is_refused_at_the_call_all_the_same() -> None:
    with Pool([len]) as pool, pytest.raises(InvalidType, match="iterable"):
        pool.map(3, progress=True)  # type: ignore[call-overload]


def test_no_stderr_is_no_error(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Pool([len]) as pool:
        assert list(pool.map(["a"], progress=True)) == [1]


# -- in a terminal -------------------------------------------------------------------------------

SCRIPT = """
import sys
for name in {without!r}:
    sys.modules[name] = None
from retrypool import Pool
with Pool([len] * 2, name="bar") as pool:
    assert sum(pool.map(["x"] * 500, progress=True)) == 500
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(
    ("without", "pattern"),
    [
        ((), r"bar: 100%\|.*\| 500/500 .*running 0, retries 0, dead 0"),
        (("tqdm", "tqdm.auto"), r"bar .*500/500.*running 0, retries 0, dead 0"),
        (
            ("tqdm", "tqdm.auto", "rich", "rich.progress"),
            r"bar: 500 of 500 in .*running 0, retries 0, dead 0",
        ),
    ],
    ids=["tqdm", "rich", "neither"],
)
def test_bar_is_drawn_in_a_real_terminal(without: tuple[str, ...], pattern: str) -> None:
    if "tqdm" not in without:
        pytest.importorskip("tqdm")
    elif "rich" not in without:
        pytest.importorskip("rich")
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 120, 0, 0))
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(without=without)], stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    assert child.wait(30) == 0, written.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())
    assert re.search(pattern, plain), plain


def test_bar_starts_no_thread_that_stays(monkeypatch: Any) -> None:
    """The fixture of all tests sees to it that no thread is left."""
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Pool([len], name="p") as pool:
        assert list(pool.map(["a"], progress=True)) == [1]
    assert "p: 100%" in sys.stderr.getvalue()  # type: ignore[attr-defined]


# -- the table -----------------------------------------------------------------------------------


@pytest.fixture
def console() -> Any:
    rich_console = pytest.importorskip("rich.console")
    return rich_console.Console(file=io.StringIO(), width=140, force_terminal=False)


def test_table_shows_each_worker(console: Any) -> None:
    def fail(data: str) -> None:
        raise OSError(data)

    workers = [
        WorkerSpec(len, name="token-a"),
        WorkerSpec(fail, name="token-b", group="backup", rate=Rate(5)),
        WorkerSpec(str.upper, name="token-c"),
    ]
    pool = ManualPool(workers, name="api", retry=RetryPolicy(attempts=1), health=None)
    pool.cordon_worker(2, "revoked")
    with pool.live(console=console) as live:
        pool.dispatch("x")
        attempt = pool.claim(0)
        pool.clock.advance(0.25)
        attempt.finish(1)
        pool.dispatch("x")
        pool.claim(1).run()
        pool.dispatch("abc")
        pool.claim(0)
        pool.clock.advance(7)
        console.print(live.table())
    text = console.file.getvalue()
    assert "api: 0 queued, 0 delayed, 1 running, 2 ended" in text
    assert re.search(r"token-a\s+│ active\s+│ task 3 for 7\.0 s\s+│\s+1 │\s+│ 0\.2 s │ 0\.2 s │", text)
    assert re.search(r"token-b \(backup\) │ active\s+│\s+│\s+1 │\s+1 │.*│ \S+ of 5 │", text)
    assert "cordoned: revoked" in text
    pool.force_close()


def test_table_renews_itself_and_is_left_as_it_was_at_the_end(console: Any, stage: Any) -> None:
    with Pool([len] * 2, name="api") as pool, pool.live(interval=0.01, console=console):
        list(pool.map(["a"] * 10))
    assert "10 ended" in console.file.getvalue()
    assert not pool._engine.observers.wants_ended


def test_table_says_how_long_a_group_cools(console: Any) -> None:
    from retrypool import Throttled

    def slow(data: str) -> None:
        raise Throttled(retry_after=42)

    pool = ManualPool([slow])
    pool.dispatch("x")
    pool.claim().run()
    with pool.live(console=console) as live:
        console.print(live.table())
    assert "cooling for 42.0 s" in console.file.getvalue()
    pool.force_close()


def test_table_without_rich_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with Pool([len]) as pool, pytest.raises(MissingExtra, match=r"retrypool\[progress\]"):
        pool.live()


def test_interval_that_makes_no_sense_is_refused() -> None:
    with Pool([len]) as pool, pytest.raises(InvalidValue, match="interval"):
        pool.live(interval=0)


# -- workers -------------------------------------------------------------------------------------


def test_workers_of_a_closed_pool_have_stopped() -> None:
    with Pool([len] * 2) as pool:
        pool.dispatch("a")
    assert [worker.state for worker in pool.workers()] == ["stopped"] * 2
    assert pool.stats().workers == 0
    manual = ManualPool([len])
    manual.close()
    assert [worker.state for worker in manual.workers()] == ["stopped"]


def test_worker_that_still_runs_when_its_pool_is_closed_by_force_is_stopping(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    pool.dispatch("a")
    gate.wait_until_reached()
    pool.force_close()
    assert [worker.state for worker in pool.workers()] == ["stopping"]
    gate.open()


def test_worker_tells_since_when_it_runs_what_it_runs() -> None:
    pool = ManualPool([len])
    assert pool.workers()[0].busy_for is None
    pool.dispatch("a")
    attempt = pool.claim()
    pool.clock.advance(3)
    assert pool.workers()[0].busy_for == 3
    attempt.finish(1)
    pool.close()
