"""A journal in one SQLite file, for one process at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from retrypool.errors import InvalidType, InvalidValue, StorageError
from retrypool.storage.base import Storage
from retrypool.storage.codec import CodecName
from retrypool.storage.commits import Commits
from retrypool.storage.owner import CELLS, Ownership
from retrypool.storage.records import (
    Counts,
    GroupState,
    Record,
    ScheduleState,
    StoredDead,
    StoredEnd,
    StoredTask,
)
from retrypool.storage.schema import apply_schema

__all__ = ["Durability", "SQLiteStorage"]

Durability = Literal["process", "power"]
KeepEnded = int | timedelta | tuple[int, timedelta] | None


class SQLiteStorage(Storage):
    """A journal of a pool's tasks in the file `path`, which is made if need be: `Pool(..., storage=...)`.

    - `durability`: what a task survives once `dispatch` has returned. `"process"`: the end of the process,
      for whatever reason. `"power"`: a power cut, too; then each commit waits for the disk.
    - `record_starts`, `codec`, `max_losses`, `policies`: see `Storage`.
    - `keep_ended`: how many ended tasks that have a key are kept with their results, or for how long: a
      number, a `timedelta`, or both as a pair; default: all. A task whose end was dropped is run again if
      its key is dispatched again. Ended tasks without a key are counted, and not kept.

    The file belongs to one process: a second one gets a `StorageError` that names the first. Beside it are
    `<path>-wal` and `<path>-shm`, SQLite's own, and `<path>-owner`; copy a journal that is in use with
    SQLite's `.backup`. It must not lie on a network drive. Raises `StorageError` when the pool is made, for
    a file that is no journal, or one of a newer version, or can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        record_starts: bool = False,
        codec: CodecName = "json",
        keep_ended: KeepEnded = None,
        max_losses: int = 3,
        policies: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(codec=codec, record_starts=record_starts, max_losses=max_losses, policies=policies)
        if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
            raise InvalidType("path", path, "the path of a file")
        if os.fspath(path) == ":memory:":
            raise InvalidValue("path", path, "a file; for one process, there is MemoryStorage()")
        if durability not in get_args(Durability):
            raise InvalidValue("durability", durability, "'process' or 'power'")
        self.path = Path(path)
        self.durability = durability
        self._keep_number, self._keep_age = _limits(keep_ended)
        self._owner: Ownership | None = None
        self._commits: Commits | None = None
        self._identity = ""

    def __repr__(self) -> str:
        return f"SQLiteStorage({str(self.path)!r}, durability={self.durability!r})"

    @property
    def identity(self) -> str:
        """A text that no other journal has, and that stays the same."""
        return self._identity

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return str(self.path)

    # -- open and close --------------------------------------------------------------------------

    def open(self, pool: str) -> None:
        """Take possession of the file, for the pool of this name."""
        if self.path.is_dir():
            raise StorageError(self.where, "it is a directory, not a file")
        if not self.path.resolve().parent.is_dir():
            raise StorageError(self.where, "its folder does not exist")
        owner = Ownership(self.path, pool)
        try:
            db = self._connect(owner)
        except BaseException:
            owner.release()
            raise
        self._owner = owner
        self._commits = Commits(
            db, self._reader(), self.where, self._keep_number, self._keep_age, self._grant
        )
        self._identity = str(self._fact("identity"))

    def _connect(self, owner: Ownership) -> sqlite3.Connection:
        db = None
        try:
            db = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
            # Before anything is changed: the file may be another program's.
            apply_schema(db, self.where, self.codec.name)
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StorageError(self.where, f"SQLite can't keep a write-ahead log there (mode {mode!r})")
            db.execute(f"PRAGMA synchronous = {'FULL' if self.durability == 'power' else 'NORMAL'}")
            db.execute("PRAGMA wal_autocheckpoint = 4000")
            _count_losses(db, owner.lost)
            db.execute("DELETE FROM worker")
        except BaseException as error:
            if db is not None:
                db.close()
            if isinstance(error, sqlite3.Error):
                raise StorageError(self.where, f"it can't be opened as a journal: {error}") from error
            raise
        return db

    def _reader(self) -> sqlite3.Connection:
        """Return a connection for looking things up: it need not wait for what is being committed."""
        return sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)

    def _grant(self, task_id: int) -> None:
        if self.on_wish is not None:
            self.on_wish(task_id)

    def close(self) -> None:
        """Make what was entered durable, and give up possession."""
        commits, self._commits = self._commits, None
        owner, self._owner = self._owner, None
        try:
            if commits is not None:
                commits.close()
        finally:
            if owner is not None:
                owner.release()

    # -- what is there ---------------------------------------------------------------------------

    def last_id(self) -> int:
        """Return the highest id that a task has had."""
        return int(self._fact("last_id"))

    def tasks(self) -> Iterator[StoredTask]:
        """Iterate over the tasks that have not ended."""
        histories = self._histories("task")
        rows: list[list[Any]] = self._open().read(
            "SELECT id, key, accepted, due, options, data, entries, charged, uncharged, running_time,"
            " coalesce(tried, '[]'), losses FROM task ORDER BY id"
        )
        for row in rows:
            history = histories.get(row[0], ()) if histories else ()
            yield StoredTask(*[*row, tuple(history)])

    def dead(self) -> Iterator[StoredDead]:
        """Iterate over the dead tasks."""
        histories = self._histories("dead")
        for row in self._open().read(
            "SELECT id, key, accepted, options, data, reason, error, ended FROM dead ORDER BY seq"
        ):
            yield StoredDead(*[*row, tuple(histories.get(row[0], ()))])

    def _histories(self, table: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for task_id, about in self._open().read(
            f"SELECT task, about FROM attempt WHERE task IN (SELECT id FROM {table}) ORDER BY seq"
        ):
            found.setdefault(task_id, []).append(about)
        return found

    def groups(self) -> Iterator[GroupState]:
        """Iterate over the groups that were told something."""
        for row in self._open().read("SELECT name, state FROM grp"):
            yield GroupState(*row)

    def schedules(self) -> Iterator[ScheduleState]:
        """Iterate over the schedules that are not over."""
        for row in self._open().read("SELECT name, spec, data, next, runs, skipped, paused FROM schedule"):
            yield ScheduleState(*row)._replace(paused=bool(row[6]))

    # -- what happens ----------------------------------------------------------------------------

    def write(self, records: Sequence[Record]) -> None:
        """Make records durable, or raise `StorageError` and store none of them."""
        self._open().write(records)

    def enter(self, record: Record) -> None:
        """Have a record made durable soon."""
        commits = self._commits
        if commits is not None:
            commits.enter(record)

    def begin(self, slot: int, task_id: int) -> None:
        """Record that a worker runs a task."""
        owner = self._owner
        if owner is not None:
            owner.cells[slot % CELLS] = task_id

    def finish(self, slot: int) -> None:
        """Record that a worker does not run a task any more."""
        owner = self._owner
        if owner is not None:
            owner.cells[slot % CELLS] = 0

    def flush(self) -> None:
        """Make all that was entered durable."""
        commits = self._commits
        if commits is not None:
            commits.flush()

    @property
    def trouble(self) -> StorageError | None:
        """Why what was entered last could not be made durable."""
        commits = self._commits
        return None if commits is None else commits.trouble

    # -- what was --------------------------------------------------------------------------------

    def find(self, key: str) -> StoredEnd | None:
        """Return how the task of this key has ended."""
        commits = self._open()
        for row in commits.read(
            "SELECT id, result, attempts, ended, problem FROM ended WHERE key = ?", (key,)
        ):
            return StoredEnd(row[0], True, row[1], None, row[2], row[3], row[4])
        for row in commits.read(
            "SELECT id, error, (SELECT count(*) FROM attempt WHERE task = dead.id), ended FROM dead"
            " WHERE key = ? ORDER BY seq DESC",
            (key,),
        ):
            return StoredEnd(row[0], False, None, row[1], row[2], row[3])
        return None

    def counts(self) -> Counts:
        """Return how many tasks there are and were, as of the last commit."""
        read = self._open().read
        facts = dict(read("SELECT name, value FROM meta"))
        tables = [read(f"SELECT count(*) FROM {table}")[0][0] for table in ("task", "dead", "ended")]
        return Counts(facts["accepted"], facts["succeeded"], facts["cancelled"], *tables)

    def _fact(self, name: str) -> Any:
        return self._open().read("SELECT value FROM meta WHERE name = ?", (name,))[0][0]

    def _open(self) -> Commits:
        if self._commits is None:
            raise StorageError(self.where, "it is not open: give it to a Pool")
        return self._commits


def _count_losses(db: sqlite3.Connection, lost: set[int]) -> None:
    """Add a loss to each task that ran when the last owner's process ended."""
    ids = ",".join(map(str, sorted(lost))) or "NULL"
    db.execute(f"UPDATE task SET losses = losses + 1 WHERE started > entries OR id IN ({ids})")
    db.execute("UPDATE task SET started = 0 WHERE started > 0")


def _limits(keep_ended: object) -> tuple[int | None, float | None]:
    """Return the number and the seconds that `keep_ended` says."""
    number: int | None = None
    age: float | None = None
    expected = "a number of tasks, a timedelta, both as a pair, or None for all"
    parts = keep_ended if isinstance(keep_ended, tuple) else (keep_ended,)
    for part in parts:
        if isinstance(part, timedelta) and age is None:
            age = part.total_seconds()
            if age < 0:
                raise InvalidValue("keep_ended", keep_ended, "no negative time")
        elif isinstance(part, int) and not isinstance(part, bool) and number is None:
            number = part
            if number < 0:
                raise InvalidValue("keep_ended", keep_ended, "0 or more")
        elif part is not None or isinstance(keep_ended, tuple):
            raise InvalidType("keep_ended", keep_ended, expected)
    return number, age
