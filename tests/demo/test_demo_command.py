"""`python -m retrypool`, as a user starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import retrypool
from retrypool import demo
from retrypool.__main__ import main
from retrypool.demo.api import TOKENS, Behaviour

COMMAND = [sys.executable, "-m", "retrypool"]
PATIENCE = 50  # seconds until a command that hangs fails its test


def run_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_demo_fetches_every_page_or_says_why_not() -> None:
    done = run_command("demo", "--tasks", "40", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "every task is accounted for" in done.stdout

    foretold = Behaviour(7)
    paths = [f"/items/{n}" for n in range(1, 41)]
    missing = {path for path in paths if foretold.is_missing(path)}
    broken = {path for path in paths if foretold.is_broken(path)} - missing
    assert missing
    assert broken
    dead = dict(re.findall(r"^  task \d+  (\S+)  (\w+)$", done.stdout, re.MULTILINE))
    assert dead == dict.fromkeys(missing, "unrecoverable") | dict.fromkeys(broken, "attempts")
    assert f"40 dispatched = {40 - len(dead)} succeeded + {len(dead)} dead + 0 cancelled" in done.stdout


def test_demo_lists_every_worker_and_stays_within_a_hundred_columns() -> None:
    done = run_command("demo", "--tasks", "10")
    lines = done.stdout.splitlines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("worker ")) :]
    assert [line.split()[0] for line in table if line.startswith("token-")] == list(TOKENS)
    assert max(map(len, lines + done.stderr.splitlines())) <= 100


def test_demo_saves_a_picture_of_its_run(tmp_path: Path) -> None:
    done = run_command("demo", "--tasks", "10", "--save", str(tmp_path / "run.html"))
    assert done.returncode == 0, done.stderr
    assert "token-a" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_unaccounted_task_is_named_and_makes_the_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_unaccounted", lambda run: ["task 3 is nowhere"])
    assert main(["demo", "--tasks", "1"]) == 1
    out, err = capsys.readouterr()
    assert "UNACCOUNTED: task 3 is nowhere" in err
    assert "every task is accounted for" not in out


def test_reader_that_goes_away_early_gets_no_traceback() -> None:
    with subprocess.Popen(
        [*COMMAND, "demo", "--tasks", "10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert "10/10" in err.splitlines()[-1]


LONG_DEMO = """
import sys
from retrypool.__main__ import main
sys.exit(main(["demo", "--tasks", "5000"]))
"""


@pytest.fixture
def long_demo() -> "Iterator[tuple[subprocess.Popen[str], int]]":
    """A demo that is at work and would go on for a minute, and the port of its API."""
    with subprocess.Popen(
        [sys.executable, "-c", LONG_DEMO],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that signals to its group spare us
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found
            assert "running" in process.stderr.readline()
            yield process, int(found[1])
        finally:
            process.kill()


def assert_nothing_listens(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
class TestInterruption:
    """The API inherits the demo's stderr, so reading that to its end waits for both."""

    def test_ctrl_c_ends_the_demo_and_its_api(self, long_demo: "tuple[subprocess.Popen[str], int]") -> None:
        process, port = long_demo
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in out + err
        assert_nothing_listens(port)

    def test_api_ends_with_a_demo_that_is_killed(
        self, long_demo: "tuple[subprocess.Popen[str], int]"
    ) -> None:
        process, port = long_demo
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert_nothing_listens(port)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"retrypool {retrypool.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["demo", "--tasks", "0"], "0 is too small: it must be 1 or more"),
        (["demo", "--attempts", "-1"], "-1 is too small"),
        (["demo", "--tasks", "many"], "'many' is not a whole number"),
        (["demo", "--save", "run.png"], "'run.png' must end in .html or .json"),
        (["demo", "--speed", "9"], "unrecognized arguments: --speed 9"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err
