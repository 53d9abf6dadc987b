"""The tables of an SQLite journal, how an older one becomes a newer one, and the statements for records.

Every statement takes a whole batch, as JSON: `json_each` turns it into rows inside of SQLite, so that the
interpreter's lock is given up once for a batch and not once for a row.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Sequence

from retrypool.errors import StorageError
from retrypool.storage.records import (
    Accepted,
    Cancelled,
    Died,
    Done,
    Failed,
    GroupState,
    Pulled,
    Record,
    Requeued,
    ScheduleOver,
    ScheduleState,
    Started,
    Succeeded,
    WorkerState,
)

__all__ = ["APPLICATION_ID", "VERSION", "apply_schema", "check_schema", "statements_for"]

APPLICATION_ID = 0x7270_6A31  # "rpj1", in the header of the file
VERSION = 2
OLDEST_SQLITE = (3, 24, 0)  # json_each, and ON CONFLICT

# What makes a journal of the version before into one of this version. A new version adds an entry; what is
# there is never changed, because files of all of these versions exist.
_STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        """CREATE TABLE task(
            id INTEGER PRIMARY KEY, key TEXT, accepted REAL NOT NULL, due REAL, options TEXT,
            data TEXT NOT NULL, entries INT NOT NULL DEFAULT 0, charged INT NOT NULL DEFAULT 0,
            uncharged INT NOT NULL DEFAULT 0, running_time REAL NOT NULL DEFAULT 0, tried TEXT,
            started INT NOT NULL DEFAULT 0, losses INT NOT NULL DEFAULT 0)""",
        """CREATE TABLE attempt(seq INTEGER PRIMARY KEY, task INT NOT NULL, about TEXT NOT NULL)""",
        "CREATE INDEX attempt_of_task ON attempt(task)",
        """CREATE TABLE dead(
            seq INTEGER PRIMARY KEY, id INT NOT NULL UNIQUE, key TEXT, accepted REAL NOT NULL,
            options TEXT, data TEXT NOT NULL, reason TEXT NOT NULL, error TEXT, ended REAL NOT NULL)""",
        "CREATE INDEX dead_by_key ON dead(key) WHERE key IS NOT NULL",
        # Appended to in the order of the ends, so that the oldest are the first.
        """CREATE TABLE ended(
            seq INTEGER PRIMARY KEY, id INT NOT NULL, key TEXT NOT NULL UNIQUE, result TEXT,
            attempts INT NOT NULL, ended REAL NOT NULL, problem TEXT)""",
        "CREATE TABLE grp(name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE schedule(
            name TEXT PRIMARY KEY, spec TEXT NOT NULL, data TEXT, next REAL, runs INT NOT NULL,
            skipped INT NOT NULL, paused INT NOT NULL) WITHOUT ROWID""",
        "CREATE TABLE worker(id INTEGER PRIMARY KEY, name TEXT NOT NULL, grp TEXT NOT NULL)",
    ),
    # Wishes of those who look at a journal while its owner is at work.
    2: ("CREATE TABLE wish(seq INTEGER PRIMARY KEY, wish TEXT NOT NULL, task INT)",),
}


def check_schema(db: sqlite3.Connection, where: str) -> int:
    """Return the version of the journal in `db`, 0 for an empty file. Raises `StorageError` for all else."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StorageError(where, f"SQLite {sqlite3.sqlite_version} is too old: a journal needs 3.24")
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        if application or version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StorageError(where, "it is the database of another program, not a journal")
        return 0
    if version > VERSION:
        raise StorageError(
            where,
            f"it was written by a newer version (its schema is {version}, this one knows {VERSION}):"
            " upgrade retrypool",
        )
    return version


def apply_schema(db: sqlite3.Connection, where: str, codec: str) -> None:
    """Make an empty file a journal, or an older journal one of this version, in one transaction."""
    version = check_schema(db, where)
    if version < VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            for step in range(version + 1, VERSION + 1):
                for statement in _STEPS[step]:
                    db.execute(statement)
            if version == 0:
                facts = {"identity": uuid.uuid4().hex[:12], "codec": codec, "made": time.time()}
                counters = dict.fromkeys(("last_id", "accepted", "succeeded", "cancelled"), 0)
                db.executemany("INSERT INTO meta VALUES(?, ?)", [*facts.items(), *counters.items()])
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
    found = db.execute("SELECT value FROM meta WHERE name = 'codec'").fetchone()[0]
    if found != codec:
        raise StorageError(where, f"its codec is {found!r}: open it with codec={found!r}")


def _rows(*columns: int | str) -> str:
    """Return the columns of a batch: those of each record by number, or an expression."""
    return ", ".join(c if isinstance(c, str) else f"json_extract(value, '$[{c}]')" for c in columns)


_FROM_BATCH = "FROM json_each(?)"

# In the order in which they are carried out for one batch. What is entered for one task comes in this
# order, too, but for what `write` does with dead tasks, which comes alone.
_STATEMENTS: dict[type[Record], tuple[str, ...]] = {
    Accepted: (
        f"""INSERT INTO task(id, key, accepted, due, options, data)
            SELECT {_rows(0, 1, 2, 3, 4, 5)} {_FROM_BATCH}""",
    ),
    Started: (
        f"""WITH batch(id, attempt) AS (SELECT {_rows(0, 1)} {_FROM_BATCH})
            UPDATE task SET started = (SELECT max(attempt) FROM batch WHERE batch.id = task.id)
            WHERE id IN (SELECT id FROM batch)""",
    ),
    Failed: (
        # The last one of a task in the batch counts. The insertion never inserts: it is an update of
        # many rows, for versions of SQLite that know no UPDATE FROM.
        f"""INSERT INTO task(id, due, entries, charged, uncharged, running_time, tried, accepted, data)
            SELECT {_rows(0, 1, 2, 3, 4, 5, 6, "0", "''")} {_FROM_BATCH}
            WHERE json_extract(value, '$[0]') IN (SELECT id FROM task)
            ON CONFLICT(id) DO UPDATE SET due = excluded.due, entries = excluded.entries,
            charged = excluded.charged, uncharged = excluded.uncharged,
            running_time = excluded.running_time, tried = excluded.tried""",
        f"""INSERT INTO attempt(task, about) SELECT {_rows(0, 7)} {_FROM_BATCH}
            WHERE json_extract(value, '$[7]') IS NOT NULL
            AND json_extract(value, '$[0]') IN (SELECT id FROM task)""",
    ),
    Done: (f"DELETE FROM task WHERE id IN (SELECT {_rows(0)} {_FROM_BATCH})",),
    Succeeded: (
        f"""INSERT INTO ended(id, key, result, ended, attempts, problem)
            SELECT {_rows(0, 1, 2, 3, 4, 5)} {_FROM_BATCH} WHERE json_extract(value, '$[1]') IS NOT NULL
            ON CONFLICT(key) DO UPDATE SET id = excluded.id, result = excluded.result,
            ended = excluded.ended, attempts = excluded.attempts, problem = excluded.problem""",
        f"DELETE FROM task WHERE id IN (SELECT {_rows(0)} {_FROM_BATCH})",
        f"""DELETE FROM attempt WHERE task IN (
            SELECT {_rows(0)} {_FROM_BATCH} WHERE json_extract(value, '$[4]') > 1)""",
    ),
    Died: (
        f"""WITH batch(id, reason, error, ended) AS (SELECT {_rows(0, 1, 2, 3)} {_FROM_BATCH})
            INSERT OR REPLACE INTO dead(id, key, accepted, options, data, reason, error, ended)
            SELECT task.id, key, accepted, options, data, reason, error, ended
            FROM batch JOIN task ON task.id = batch.id""",
        f"""INSERT INTO attempt(task, about) SELECT {_rows(0, 4)} {_FROM_BATCH}
            WHERE json_extract(value, '$[4]') IS NOT NULL
            AND json_extract(value, '$[0]') IN (SELECT id FROM task)""",
        f"DELETE FROM task WHERE id IN (SELECT {_rows(0)} {_FROM_BATCH})",
    ),
    Cancelled: (
        f"DELETE FROM attempt WHERE task IN (SELECT {_rows(0)} {_FROM_BATCH})",
        f"DELETE FROM task WHERE id IN (SELECT {_rows(0)} {_FROM_BATCH})",
    ),
    Requeued: (
        f"""WITH batch(id, accepted) AS (SELECT {_rows(0, 1)} {_FROM_BATCH})
            INSERT INTO task(id, key, accepted, options, data)
            SELECT dead.id, key, batch.accepted, options, data FROM batch JOIN dead ON dead.id = batch.id""",
        f"DELETE FROM dead WHERE id IN (SELECT {_rows(0)} {_FROM_BATCH})",
    ),
    Pulled: (
        f"""DELETE FROM attempt WHERE task IN (SELECT {_rows(0)} {_FROM_BATCH})
            AND task NOT IN (SELECT id FROM task)""",
        f"DELETE FROM dead WHERE id IN (SELECT {_rows(0)} {_FROM_BATCH})",
    ),
    GroupState: (
        f"DELETE FROM grp WHERE name IN (SELECT {_rows(0)} {_FROM_BATCH})",
        f"""INSERT OR REPLACE INTO grp(name, state) SELECT {_rows(0, 1)} {_FROM_BATCH}
            WHERE json_extract(value, '$[1]') IS NOT NULL""",
    ),
    ScheduleState: (
        f"""INSERT OR REPLACE INTO schedule(name, spec, data, next, runs, skipped, paused)
            SELECT {_rows(0, 1, 2, 3, 4, 5, 6)} {_FROM_BATCH}""",
    ),
    ScheduleOver: (f"DELETE FROM schedule WHERE name IN (SELECT {_rows(0)} {_FROM_BATCH})",),
    WorkerState: (
        f"DELETE FROM worker WHERE id IN (SELECT {_rows(0)} {_FROM_BATCH})",
        f"""INSERT OR REPLACE INTO worker(id, name, grp) SELECT {_rows(0, 1, 2)} {_FROM_BATCH}
            WHERE json_extract(value, '$[2]') IS NOT NULL""",
    ),
}

KINDS: tuple[type[Record], ...] = tuple(_STATEMENTS)


def statements_for(kind: type[Record]) -> Sequence[str]:
    """Return what is to be done with a batch of records of one kind. Each takes the batch as JSON."""
    return _STATEMENTS[kind]
