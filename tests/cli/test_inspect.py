"""`python -m retrypool inspect`: beside an owner, on a copy, on what is no journal."""

import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from retrypool import Pool, RetryPolicy, SQLiteStorage, Throttled
from retrypool.__main__ import main

ONCE = RetryPolicy(attempts=1)


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def fail(data: object) -> object:
    raise OSError(f"no answer for {data}")


def make(path: Path) -> None:
    with Pool([fail], storage=SQLiteStorage(path), retry=ONCE) as pool:
        pool.dispatch({"a": 1}, key="k")
        pool.dispatch("second")


def test_journal_without_an_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "run.db")
    found = inspected(tmp_path / "run.db", capsys)
    assert found["owner"] is None
    assert (found["accepted"], found["succeeded"], found["waiting"], len(found["dead"])) == (2, 0, 0, 2)
    assert found["dead"][0]["data"] == {"a": 1}
    assert found["dead"][0]["error"] == "OSError: no answer for {'a': 1}"
    assert main(["inspect", str(tmp_path / "run.db")]) == 0
    told = capsys.readouterr().out
    assert "nobody works with it" in told
    assert "2 accepted: 0 succeeded, 2 dead" in told
    assert "dead: task 1 (key 'k'), attempts after 1 attempts" in told


def test_journal_beside_its_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.db"
    began, go_on = threading.Event(), threading.Event()

    def work(data: object) -> None:
        if data == "throttled":
            raise Throttled(retry_after=1000)
        began.set()
        go_on.wait(20)

    with Pool([work] * 2, storage=SQLiteStorage(path), name="the pool") as pool:
        task = pool.dispatch("long")
        pool.dispatch("waits", delay=1000)
        began.wait(20)
        found = inspected(path, capsys)
        assert found["owner"]["pool"] == "the pool"
        assert (found["running"], found["waiting"]) == (1, 1)
        assert task.id in [worker["task"] for worker in found["workers"]]
        pool.dispatch("throttled")
        until = time.monotonic() + 20
        while not found["groups"] and time.monotonic() < until:
            pool.storage.flush()  # type: ignore[union-attr]
            found = inspected(path, capsys)
        assert main(["inspect", str(path)]) == 0
        told = capsys.readouterr().out
        assert "the pool of process" in told
        assert f"runs task {task.id}" in told
        assert "cools until" in told
        go_on.set()
        pool.force_close()


def test_owner_requeues_what_another_process_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.db"
    fails = threading.Event()
    done = threading.Event()

    def work(data: object) -> object:
        if not fails.is_set():
            raise OSError("not yet")
        done.set()
        return data

    with Pool([work], storage=SQLiteStorage(path), retry=ONCE) as pool:
        task = pool.dispatch(1, key="k")
        pool.wait()
        pool.storage.flush()  # type: ignore[union-attr]
        fails.set()
        assert main(["inspect", str(path), "--requeue", str(task.id)]) == 0
        assert "was asked to requeue 1" in capsys.readouterr().out
        assert done.wait(20)
        assert pool.dispatch(1, key="k").result(20) == 1
        assert main(["inspect", str(path), "--requeue", "77"]) == 2
        assert "no dead task 77" in capsys.readouterr().err


def test_requeue_without_an_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "run.db")
    assert main(["inspect", str(tmp_path / "run.db"), "--requeue"]) == 0
    assert "2 dead tasks wait again" in capsys.readouterr().out
    with Pool([str], storage=SQLiteStorage(tmp_path / "run.db")) as pool:
        assert pool.dispatch(None, key="k").result() == "{'a': 1}"


def test_copy_in_a_place_that_can_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run.db")
    shutil.copy(tmp_path / "run.db", tmp_path / "copy.db")
    connect = sqlite3.connect

    def refusing(where: str, **options: Any) -> sqlite3.Connection:
        if "mode=ro" in str(where):
            raise sqlite3.OperationalError("unable to open database file")
        return connect(where, **options)

    monkeypatch.setattr("retrypool.cli.inspect.sqlite3.connect", refusing)
    assert len(inspected(tmp_path / "copy.db", capsys)["dead"]) == 2


def test_pickles_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.db"
    with Pool([fail], storage=SQLiteStorage(path, codec="pickle"), retry=ONCE) as pool:
        pool.dispatch({1, 2})
    assert inspected(path, capsys)["dead"][0]["data"].startswith("pickle, ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "no journal"),
        (b"some text that is no database at all" * 100, "not a database"),
    ],
)
def test_what_is_no_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    path = tmp_path / "run.db"
    if content is not None:
        path.write_bytes(content)
    assert main(["inspect", str(path)]) == 2
    assert message in capsys.readouterr().err
