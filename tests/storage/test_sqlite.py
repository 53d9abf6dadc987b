"""What only a file can do: be cut, be full, be somebody else's."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from retrypool.errors import InvalidType, InvalidValue, StorageError
from retrypool.storage import commits as commits_module
from retrypool.storage import schema
from retrypool.storage.owner import read_owner
from retrypool.storage.records import (
    Accepted,
    Succeeded,
)
from retrypool.storage.sqlite import SQLiteStorage

FULL_SIZE = bool(os.environ.get("RETRYPOOL_FULL_SIZE"))


def accepted(number: int, key: str | None = None) -> Accepted:
    return Accepted(number, key, 1000.0, None, None, f'"data {number}"')


def opened(path: Path, **options: object) -> SQLiteStorage:
    storage = SQLiteStorage(path, **options)  # type: ignore[arg-type]
    storage.open("a pool")
    return storage


# -- a file that was cut -----------------------------------------------------------------------------


def test_log_that_was_cut_opens_to_a_committed_prefix(tmp_path: Path) -> None:
    """As a power cut may leave it, in the middle of a commit."""
    storage = opened(tmp_path / "run.db")
    number = 0
    for _ in range(30):
        size = random.randint(1, 20)
        storage.write([accepted(number + n) for n in range(1, size + 1)])
        number += size
        storage.enter(Succeeded(number, None, None, 1.0, 1))
    wal = (tmp_path / "run.db-wal").read_bytes()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for cut in range(200 if FULL_SIZE else 30):
        there = tmp_path / f"cut-{cut}.db"
        shutil.copy(tmp_path / "run.db", there)
        Path(f"{there}-wal").write_bytes(wal[: chance.randrange(len(wal))])
        copy = SQLiteStorage(there)
        try:
            copy.open("a pool")
        except StorageError as error:  # cut before even the schema was there
            pytest.fail(str(error))
        last = copy.last_id()
        found = {task.id for task in copy.tasks()}
        ended = copy.counts().succeeded
        assert len(found) + ended == last, f"seed {seed}"
        assert copy._open().read("PRAGMA integrity_check") == [("ok",)]
        copy.close()
    storage.close()


# -- no room -----------------------------------------------------------------------------------------


def test_full_disk_fails_the_write_and_nothing_else(tmp_path: Path) -> None:
    storage = opened(tmp_path / "run.db")
    storage.write([accepted(1, "one")])
    db = storage._open()._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    big = "x" * 100_000
    storage.enter(Succeeded(1, "one", f'"{big}"', 1.0, 1))
    with pytest.raises(StorageError, match="full"):
        storage.write([Accepted(2, None, 1.0, None, None, f'"{big}"')])
    assert storage.trouble is not None
    with pytest.raises(StorageError, match="full"):
        storage.flush()
    storage.write([accepted(3)])  # there is room for a little still
    assert storage.find("one") is None
    db.execute("PRAGMA max_page_count = 1000000")
    storage.write([accepted(4)])
    assert storage.trouble is None
    end = storage.find("one")
    assert end is not None
    assert end.result == f'"{big}"'
    assert [task.id for task in storage.tasks()] == [3, 4]
    storage.close()


def test_what_could_not_be_committed_is_tried_again_by_itself(tmp_path: Path) -> None:
    storage = opened(tmp_path / "run.db")
    storage.write([accepted(1, "one")])
    commits = storage._open()
    other = sqlite3.connect(tmp_path / "run.db", isolation_level=None)
    commits._db.execute("PRAGMA busy_timeout = 0")
    other.execute("BEGIN IMMEDIATE")  # somebody else has the file
    storage.enter(Succeeded(1, "one", "1", 1.0, 1))
    with pytest.raises(StorageError, match="locked"):
        storage.write([accepted(2)])
    other.execute("ROLLBACK")
    other.close()
    until = time.monotonic() + 30
    while storage.find("one") is None and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert storage.find("one") is not None
    storage.close()


def test_one_that_is_at_fault_fails_alone(tmp_path: Path) -> None:
    """Others that are committed with it must not suffer for it."""
    storage = opened(tmp_path / "run.db")
    storage.write([accepted(1)])
    commits = storage._open()
    results: dict[int, object] = {}

    def write(number: int) -> None:
        try:
            storage.write([accepted(number)])
        except StorageError as error:
            results[number] = error
        else:
            results[number] = "stored"

    with commits._lock:  # they all arrive while another one commits
        threads = [threading.Thread(target=write, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 30
        while len(commits._tickets) < 3 and time.monotonic() < until:
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    assert isinstance(results.pop(1), StorageError)  # this id is taken
    assert results == {2: "stored", 3: "stored"}
    storage.close()


def test_interrupt_in_the_middle_of_a_commit_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = opened(tmp_path / "run.db")
    commits = storage._open()
    count, strikes = commits._count, [KeyboardInterrupt()]

    def struck(batch: object) -> None:
        count(batch)  # type: ignore[arg-type]
        if strikes:
            raise strikes.pop()

    monkeypatch.setattr(commits, "_count", struck)
    with pytest.raises(KeyboardInterrupt):
        storage.write([accepted(1)])
    storage.write([accepted(2)])
    assert [task.id for task in storage.tasks()] == [1, 2]
    storage.close()


def test_long_batch_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits_module, "LONGEST_BATCH", 100)
    storage = opened(tmp_path / "run.db")
    storage.write([accepted(number) for number in range(1, 51)])
    assert [task.id for task in storage.tasks()] == list(range(1, 51))
    storage.close()


# -- whose it is -------------------------------------------------------------------------------------


def test_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    source = f"""
        import sys
        from retrypool.storage.sqlite import SQLiteStorage
        storage = SQLiteStorage({str(path)!r})
        storage.open("the first")
        print("open", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin
        assert first.stdout
        assert first.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match=f"the first of process {first.pid} on .* since"):
            opened(path)
        owner = read_owner(path)
        assert owner is not None
        assert owner["pid"] == first.pid
        first.stdin.close()
    assert read_owner(path) is None
    opened(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    storage = opened(tmp_path / "run.db")
    go_on, child_waits = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on[1])
        os.write(child_waits[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    os.read(child_waits[0], 1)
    storage.close()
    opened(tmp_path / "run.db").close()
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)
    for end in (*go_on, *child_waits):
        os.close(end)


def test_one_path_by_two_names_has_one_owner(tmp_path: Path) -> None:
    storage = opened(tmp_path / "run.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "run.db")
    with pytest.raises(StorageError, match="belongs to a pool of this process"):
        opened(tmp_path / "link.db")
    storage.close()


# -- files that are no journals ------------------------------------------------------------------------


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="it is a directory"):
        opened(tmp_path)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="folder does not exist"):
        opened(tmp_path / "no" / "run.db")


def test_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs(x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="database of another program"):
        opened(path)
    assert path.read_bytes() == before


def test_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are long enough to be taken for something\n" * 50)
    with pytest.raises(StorageError, match="not a database"):
        opened(path)
    assert path.read_text().startswith("my notes")


def test_journal_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    opened(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(StorageError, match=r"newer version .* upgrade retrypool"):
        opened(path)


def test_journal_of_another_codec(tmp_path: Path) -> None:
    opened(tmp_path / "run.db", codec="pickle").close()
    with pytest.raises(StorageError, match="open it with codec='pickle'"):
        opened(tmp_path / "run.db")


def test_path_that_can_not_be_written(tmp_path: Path) -> None:
    if os.name == "posix" and os.geteuid() == 0:
        folder = Path("/proc/self")  # root may write anywhere else
    else:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
    with pytest.raises(StorageError, match="can't be written"):
        opened(folder / "run.db")


def test_journal_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    db = sqlite3.connect(path, isolation_level=None)
    for statement in schema._STEPS[1]:
        db.execute(statement)
    facts = {"identity": "abc", "codec": "json", "last_id": 1, "accepted": 1, "succeeded": 0, "cancelled": 0}
    db.executemany("INSERT INTO meta VALUES(?, ?)", list(facts.items()))
    db.execute("INSERT INTO task(id, accepted, data) VALUES(1, 5.0, '7')")
    db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    db.close()
    storage = opened(path)
    assert [(task.id, task.data) for task in storage.tasks()] == [(1, "7")]
    assert storage.identity == "abc"
    assert storage._open().read("PRAGMA user_version") == [(schema.VERSION,)]
    storage.close()


# -- keep_ended ----------------------------------------------------------------------------------------


def end(storage: SQLiteStorage, numbers: range, ended: float) -> None:
    storage.write([accepted(number, f"key {number}") for number in numbers])
    for number in numbers:
        storage.enter(Succeeded(number, f"key {number}", "1", ended, 1))
    storage.flush()


def test_only_so_many_ended_tasks_are_kept(tmp_path: Path) -> None:
    storage = opened(tmp_path / "run.db", keep_ended=100)
    for first in range(1, 5001, 500):
        end(storage, range(first, first + 500), time.time())
    assert storage.counts().kept <= 100 + commits_module.TRIM_EVERY
    assert storage.counts().succeeded == 5000
    assert storage.find("key 5000") is not None
    assert storage.find("key 1") is None
    storage.close()


def test_ended_tasks_are_kept_for_so_long(tmp_path: Path) -> None:
    storage = opened(tmp_path / "run.db", keep_ended=timedelta(hours=1))
    end(storage, range(1, 101), time.time() - 7200)
    end(storage, range(101, 201), time.time())
    storage.close()
    storage = opened(tmp_path / "run.db", keep_ended=(1000, timedelta(hours=1)))
    end(storage, range(201, 202), time.time())
    assert storage.find("key 100") is None
    assert storage.find("key 101") is not None
    storage.close()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep_ended": -1}, InvalidValue),
        ({"keep_ended": timedelta(-1)}, InvalidValue),
        ({"keep_ended": "all"}, InvalidType),
        ({"keep_ended": True}, InvalidType),
        ({"keep_ended": (1, 2)}, InvalidType),
        ({"durability": "none"}, InvalidValue),
    ],
)
def test_options_that_make_no_sense(
    tmp_path: Path, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        SQLiteStorage(tmp_path / "run.db", **options)  # type: ignore[arg-type]


def test_path_that_is_none() -> None:
    with pytest.raises(InvalidType, match="path"):
        SQLiteStorage(None)  # type: ignore[arg-type]


def test_path_that_means_memory_to_sqlite() -> None:
    with pytest.raises(InvalidValue, match=r"MemoryStorage\(\)"):
        SQLiteStorage(":memory:")


def test_storage_that_is_not_open(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="give it to a Pool"):
        SQLiteStorage(tmp_path / "run.db").counts()
