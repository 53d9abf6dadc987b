"""`python -m retrypool run`: from a file to a file, whatever comes between."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retrypool.__main__ import main
from retrypool.cli.run import rate_from
from retrypool.sources import MemoryQueue

FULL_SIZE = bool(os.environ.get("RETRYPOOL_FULL_SIZE"))

PAGES = """
import os, sys, time

def double(item):
    if item == "bad":
        raise ValueError("a bad item")
    return item["n"] * 2 if isinstance(item, dict) else len(item)

def slow(item):
    time.sleep(0.005)
    return item

class Made:
    def run(self, ctx, item):
        return [ctx.attempt, item]

def several():
    return [double, double]

def nothing():
    return []

one = Made()
number = 7

class Needs:
    def __init__(self, token): ...
    def run(self, ctx, item): ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pages.py").write_text(PAGES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pages", raising=False)
    return tmp_path


def run(*arguments: object) -> int:
    return main(["run", *map(str, arguments)])


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def results(path: str | Path) -> dict[str, Any]:
    found = {line["key"]: line["result"] for line in lines(path)}
    assert len(found) == len(lines(path))
    return found


def items(number: int, path: str = "in.jsonl") -> None:
    Path(path).write_text("".join(f'{{"id": "item-{n}", "n": {n}}}\n' for n in range(1, number + 1)))


def test_each_line_has_a_result(here: Path) -> None:
    items(100)
    code = run("pages:double", "--workers", 3, "--input", "in.jsonl", "--output", "out.jsonl")
    assert code == 0
    assert results("out.jsonl") == {str(n): 2 * n for n in range(1, 101)}


def test_key_is_a_field(here: Path) -> None:
    items(5)
    arguments = ("--input", "in.jsonl", "--output", "out.jsonl", "--key", "id")
    assert run("pages.py:several", *arguments, "--journal", "run.db") == 0
    assert results("out.jsonl") == {f"item-{n}": 2 * n for n in range(1, 6)}


def test_csv_and_lines(here: Path) -> None:
    Path("in.csv").write_text('name,note\nann,"two\nlines"\nbob,x\n')
    assert run("pages:one", "--input", "in.csv", "--output", "out.jsonl", "--key", "name") == 0
    assert results("out.jsonl") == {
        "ann": [1, {"name": "ann", "note": "two\nlines"}],
        "bob": [1, {"name": "bob", "note": "x"}],
    }
    Path("in.txt").write_text("one\n\nthree\r\n")
    assert run("pages:double", "--workers", 1, "--input", "in.txt", "--output", "lines.jsonl") == 0
    assert results("lines.jsonl") == {"1": 3, "3": 5}


def test_dead_tasks_are_told_apart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.txt").write_text("good\nbad\n")
    code = run("pages:double", "--workers", 1, "--input", "in.txt", "--output", "out.jsonl", "--attempts", 1)
    assert code == 3
    assert {line["key"]: line.get("error") for line in lines("out.jsonl")} == {
        "1": None,
        "2": "ValueError: a bad item",
    }
    assert "1 succeeded, 1 dead" in capsys.readouterr().err


def test_bad_lines_are_dead_and_keep_nobody_up(here: Path) -> None:
    Path("in.jsonl").write_bytes(
        b'{"id": 1, "n": 1}\nno json\n{"n": 2}\n{"id": [], "n": 3}\n\xff\xfe\n{"id": "five", "n": 5}\n'
    )
    arguments = ("--input", "in.jsonl", "--output", "out.jsonl", "--key", "id", "--journal", "run.db")
    assert run("pages:several", *arguments) == 3
    found = {line["key"]: line.get("result", line.get("error")) for line in lines("out.jsonl")}
    assert (found["1"], found["five"], found["5"][:17]) == (2, 10, "line 5 is no JSON")
    assert "line 2 is no JSON" in found["2"]
    assert "no field 'id'" in found["3"]
    assert "neither a text nor a number" in found["4"]


def test_pipes(here: Path) -> None:
    command = [sys.executable, "-P", "-m", "retrypool", "run", "pages.py:double", "--workers", "2"]
    done = subprocess.run(command, input='{"n": 1}\n{"n": 2}\n', capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ['{"key": "1", "result": 2}', '{"key": "2", "result": 4}']


def test_same_command_does_nothing_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items(50)
    arguments = ("pages:several", "--input", "in.jsonl", "--output", "out.jsonl", "--journal", "run.db")
    assert run(*arguments) == 0
    before = Path("out.jsonl").read_text()
    assert run(*arguments, "--progress") == 0
    assert Path("out.jsonl").read_text() == before
    assert "50 were done before" in capsys.readouterr().err
    items(60)
    assert run(*arguments) == 0
    assert len(results("out.jsonl")) == 60


def test_lost_output_is_written_again_from_the_journal(here: Path) -> None:
    items(50)
    arguments = ("pages:several", "--input", "in.jsonl", "--output", "out.jsonl", "--journal", "run.db")
    assert run(*arguments) == 0
    whole = Path("out.jsonl").read_bytes()
    Path("out.jsonl").write_bytes(whole[: len(whole) // 2])  # torn, in the middle of a line
    assert run("pages:nothing_of_the_kind", *arguments[1:]) == 2
    assert run(*arguments) == 0
    assert results("out.jsonl") == {str(n): 2 * n for n in range(1, 51)}


def test_requeued_task_is_run_and_written_again(here: Path) -> None:
    Path("in.txt").write_text("good\nbad\n")
    arguments = (
        "pages:double",
        "--workers",
        1,
        "--input",
        "in.txt",
        "--output",
        "out.jsonl",
        "--journal",
        "run.db",
    )
    assert run(*arguments) == 3
    assert main(["inspect", "run.db", "--requeue"]) == 0
    Path("pages.py").write_text(PAGES.replace('item == "bad"', "False"))
    sys.modules.pop("pages", None)
    assert run(*arguments) == 0
    assert lines("out.jsonl")[-1] == {"key": "2", "result": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pages",), "write MODULE:NAME"),
        (("nowhere:x",), "no module 'nowhere'"),
        (("nowhere.py:x",), "no file nowhere.py"),
        (("pages:absent",), "has no 'absent'"),
        (("pages:double",), "--workers N"),
        (("pages:Made",), "--workers N"),
        (("pages:number",), "no list of workers"),
        (("pages:nothing",), "no workers at all"),
        (("pages:Needs", "--workers", 2), "could not be made without arguments"),
        (("pages:several", "--input", "absent.jsonl"), "can't be read"),
        (("pages:several", "--input", "in.jsonl", "--output", "no/out.jsonl"), "can't be written"),
        (("pages:several", "--input", "in.jsonl", "--output", "pages.py"), "is there already"),
        (("pages:several", "--input", "in.jsonl", "--journal", "pages.py"), "not a database"),
        (
            ("pages:several", "--input", "in.jsonl", "--output", "pages.py", "--journal", "j.db"),
            "has not written",
        ),
        (("pages:several", "--input", "in.csv", "--key", "absent"), "no column 'absent'"),
        (("pages:several", "--source", "nonsense"), "redis://"),
        (("pages:several", "--source", "redis://x#y", "--journal", "j.db"), "leave them out"),
    ],
)
def test_what_can_not_begin_says_why(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], message: str
) -> None:
    items(1)
    Path("in.csv").write_text("a,b\n1,2\n")
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_rates() -> None:
    assert [(r.limit, r.per) for r in map(rate_from, ("10", "10/s", "100/min", "20/10s", "5/2m"))] == [
        (10, 1),
        (10, 1),
        (100, 60),
        (20, 10),
        (5, 120),
    ]
    for text in ("", "x", "0", "1/0", "1/parsec", "-1"):
        with pytest.raises(Exception, match="rate"):
            rate_from(text)


def test_source_in_place_of_a_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = MemoryQueue("pages")
    source.send({"n": 4}, key="four")
    source.send("bad")
    monkeypatch.setattr("retrypool.sources.from_url", lambda url: source)
    command = ("pages:several", "--source", "memory://#pages", "--idle", "0.1", "--attempts", "1")
    assert run(*command, "--output", "out.jsonl") == 3
    assert "1 succeeded, 1 dead" in capsys.readouterr().err
    found = {line["key"]: line.get("result", line.get("error")) for line in lines("out.jsonl")}
    assert found.pop("four") == 8
    assert list(found.values()) == ["ValueError: a bad item"]


# -- signals and kills, of real processes ----------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    start = [sys.executable, "-P", "-m", "retrypool", "run", "pages.py:slow", "--workers", "4"]
    return [*start, "--input", "in.jsonl", "--output", "out.jsonl", *map(str, arguments)]


def started(*arguments: object) -> "subprocess.Popen[str]":
    """The command, when it has written something."""
    child = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 20
    while time.monotonic() < until and child.poll() is None:
        if Path("out.jsonl").exists() and Path("out.jsonl").stat().st_size:
            break
        time.sleep(0.01)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_ends_in_good_order_and_says_how_to_go_on(here: Path, number: signal.Signals) -> None:
    items(800)
    Path("pages.py").write_text(
        PAGES.replace("time.sleep(0.005)", "time.sleep(0.05)")
    )  # it can't be too quick
    with started("--journal", "run.db") as child:
        child.send_signal(number)
        _, told = child.communicate(timeout=20)
    assert child.returncode == 128 + number
    assert "give the same command again" in told
    assert len(results("out.jsonl")) < 800
    Path("pages.py").write_text(PAGES.replace("time.sleep(0.005)", "pass"))
    done = subprocess.run(command("--journal", "run.db"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(results("out.jsonl")) == 800


def test_second_signal_ends_at_once(here: Path) -> None:
    Path("pages.py").write_text(
        PAGES.replace("time.sleep(0.005)", "time.sleep(0.005 if item['n'] < 9 else 30)")
    )
    items(100)
    with started("--journal", "run.db") as child:
        child.send_signal(signal.SIGINT)
        assert child.stderr
        assert "once more to end at once" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=10)
    assert child.returncode == -signal.SIGINT


def test_signal_while_it_waits_for_its_input(here: Path) -> None:
    start = [sys.executable, "-P", "-m", "retrypool", "run", "pages.py:double", "--workers", "1"]
    with subprocess.Popen(
        start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b'{"n": 1}\n')
        child.stdin.flush()
        # It is there while the next line is waited for.
        assert child.stdout.readline() == b'{"key": "1", "result": 2}\n'
        child.send_signal(signal.SIGTERM)
        told = child.stderr.read() if child.stderr else b""
        assert child.wait(20) == 128 + signal.SIGTERM, told


@pytest.mark.timeout(600)
def test_killed_again_and_again_each_line_is_there_once(here: Path) -> None:
    """50,000 lines and 20 kills at full size."""
    number, kills = (50_000, 20) if FULL_SIZE else (2_000, 4)
    items(number)
    Path("pages.py").write_text(PAGES.replace("time.sleep(0.005)", "time.sleep(0.001)"))
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    journal = ("--journal", "run.db", "--key", "id")
    began = time.monotonic()
    killed = 0
    while killed < kills:
        with subprocess.Popen(command(*journal), stderr=subprocess.DEVNULL) as child:
            longest = 1.6 if FULL_SIZE else 0.9
            timer = threading.Timer(chance.uniform(0.3, longest), child.kill)
            timer.start()
            child.wait()
            timer.cancel()
        if child.returncode == 0:
            break
        killed += 1
    done = subprocess.run(command(*journal), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = Counter(line["key"] for line in lines("out.jsonl"))
    assert len(counted) == number, f"seed {seed}"
    assert max(counted.values()) == 1, f"seed {seed}: {counted.most_common(3)}"
    assert results("out.jsonl")["item-7"] == {"id": "item-7", "n": 7}
    print(f"{number} lines, {killed} kills, {time.monotonic() - began:.1f} s, seed {seed}")  # noqa: T201
