"""`inspect`: what a journal holds, beside its owner or without one."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from retrypool import RetryPoolError, StorageError
from retrypool.cli.errors import USAGE, CommandError
from retrypool.storage.owner import CELLS, cells_of, read_owner
from retrypool.storage.records import Requeued
from retrypool.storage.schema import check_schema
from retrypool.storage.sqlite import SQLiteStorage

__all__ = ["add_inspect"]

MOST_SHOWN = 20


def add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    inspect = commands.add_parser(
        "inspect",
        help="tell what a journal holds",
        description="Tell what a journal holds: counts, workers, dead tasks. Works beside the process that"
        " owns the journal, and on a copy.",
    )
    inspect.add_argument("journal", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="everything, as JSON")
    inspect.add_argument(
        "--requeue",
        nargs="*",
        type=int,
        metavar="ID",
        help="give dead tasks fresh attempts: these, or all; a living owner does it within a second",
    )
    inspect.set_defaults(run=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    path = Path(arguments.journal)
    try:
        if arguments.requeue is not None:
            print(_requeue(path, arguments.requeue))
        else:
            facts = facts_of(path)
            print(json.dumps(facts, indent=2) if arguments.json else told(facts))
    except (CommandError, RetryPoolError) as error:
        print(f"retrypool: {error}", file=sys.stderr)
        return USAGE
    except sqlite3.Error as error:
        print(f"retrypool: {path}: {error}", file=sys.stderr)
        return USAGE
    return 0


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal to look at it, changing nothing. Raises `StorageError` for what is none."""
    if not path.is_file():
        raise StorageError(str(path), "there is no such file")
    try:
        db = _connected(path)
    except sqlite3.Error as error:
        raise StorageError(str(path), f"it is no journal: {error}") from None
    with closing(db):
        version = check_schema(db, str(path))
        if version == 0:
            raise StorageError(str(path), "it is empty, and no journal")
        yield db


def _connected(path: Path) -> sqlite3.Connection:
    where = path.resolve().as_uri()
    try:
        return _opened(f"{where}?mode=ro")
    except sqlite3.OperationalError:
        # A copy in a folder that can't be written: nobody else can change it either.
        return _opened(f"{where}?immutable=1")


def _opened(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def facts_of(path: Path) -> dict[str, Any]:
    """Return the facts of a journal, fit for JSON."""
    owner = read_owner(path)
    cells = cells_of(path)
    with reading(path) as db:
        db.execute("BEGIN")  # all of it as of one moment
        meta = dict(db.execute("SELECT name, value FROM meta"))
        waiting, retrying, lost = db.execute(
            "SELECT count(*), coalesce(sum(entries > 0), 0), coalesce(sum(losses > 0), 0) FROM task"
        ).fetchone()
        kept = db.execute("SELECT count(*) FROM ended").fetchone()[0]
        workers = [
            {"id": i, "name": name, "group": group, "task": cells[i % CELLS] or None if cells else None}
            for i, name, group in db.execute("SELECT id, name, grp FROM worker ORDER BY id")
        ]
        groups = {name: json.loads(state) for name, state in db.execute("SELECT name, state FROM grp")}
        schedules = [
            {"name": name, "next": at, "runs": runs, "skipped": skipped, "paused": bool(paused)}
            for name, at, runs, skipped, paused in db.execute(
                "SELECT name, next, runs, skipped, paused FROM schedule"
            )
        ]
        dead = [
            {
                "id": i,
                "key": key,
                "reason": reason,
                "error": _error(error),
                "ended": ended,
                "attempts": attempts,
                "data": _data(data, meta["codec"]),
            }
            for i, key, reason, error, ended, attempts, data in db.execute(
                "SELECT id, key, reason, error, ended,"
                " (SELECT count(*) FROM attempt WHERE task = dead.id), data FROM dead ORDER BY seq"
            )
        ]
    running = len({task for task in cells if task}) if owner else 0
    return {
        "journal": str(path),
        "owner": owner,
        "codec": meta["codec"],
        "accepted": meta["accepted"],
        "succeeded": meta["succeeded"],
        "cancelled": meta["cancelled"],
        "waiting": waiting - min(running, waiting),
        "running": running,
        "retrying": retrying,
        "lost": lost,
        "kept": kept,
        "workers": workers if owner else [],
        "groups": groups,
        "schedules": schedules,
        "dead": dead,
    }


def told(facts: dict[str, Any]) -> str:
    """Return the facts of a journal as text for people."""
    owner = facts["owner"]
    lines = [f"{facts['journal']}: {_owned(owner)}"]
    lines.append(
        f"  {facts['accepted']:,} accepted: {facts['succeeded']:,} succeeded, {len(facts['dead']):,} dead,"
        f" {facts['cancelled']:,} cancelled, {facts['running']:,} running, {facts['waiting']:,} waiting"
        f" ({facts['retrying']:,} of them tried before); {facts['kept']:,} results kept"
    )
    if facts["lost"]:
        lines.append(f"  {facts['lost']:,} unfinished ran when a process ended")
    for worker in facts["workers"]:
        doing = f"runs task {worker['task']}" if worker["task"] else "idle"
        lines.append(f"  {worker['name']} (group {worker['group']}): {doing}")
    for name, state in facts["groups"].items():
        if state.get("until"):
            why = "ejected" if state.get("ejected") else "cools"
            lines.append(f"  group {name}: {why} until {_when(state['until'])}")
    for schedule in facts["schedules"]:
        at = "paused" if schedule["paused"] else _when(schedule["next"]) if schedule["next"] else "over"
        lines.append(f"  schedule {schedule['name']}: next {at}, {schedule['runs']} runs")
    for task in facts["dead"][:MOST_SHOWN]:
        key = "" if task["key"] is None else f" (key {task['key']!r})"
        lines.append(
            f"  dead: task {task['id']}{key}, {task['reason']} after {task['attempts']} attempts,"
            f" {_when(task['ended'])}: {task['error']}"
        )
    if len(facts["dead"]) > MOST_SHOWN:
        lines.append(f"  ... and {len(facts['dead']) - MOST_SHOWN:,} more: --json tells of all")
    return "\n".join(lines)


def _owned(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "nobody works with it"
    return f"{owner.get('pool')} of process {owner.get('pid')} works with it ({owner.get('command')})"


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _error(text: str | None) -> str | None:
    if text is None:
        return None
    facts = json.loads(text)
    return f"{facts['type'].removeprefix('builtins.')}: {facts['text']}"


def _data(text: str, codec: str) -> Any:
    # A pickle is not read here: to look at a journal must not run what is in it.
    return json.loads(text) if codec == "json" else f"pickle, {len(text)} characters"


def _requeue(path: Path, ids: list[int]) -> str:
    with reading(path) as db:
        codec = db.execute("SELECT value FROM meta WHERE name = 'codec'").fetchone()[0]
        dead = [row[0] for row in db.execute("SELECT id FROM dead ORDER BY seq")]
    unknown = sorted(set(ids) - set(dead))
    if unknown:
        raise CommandError(f"{path} has no dead task {unknown[0]}")
    chosen = ids or dead
    if read_owner(path) is not None:
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO wish(wish, task) VALUES('requeue', ?)", [(i,) for i in chosen])
            db.execute("COMMIT")
        return f"its owner was asked to requeue {len(chosen):,} dead tasks"
    storage = SQLiteStorage(path, codec=codec)
    storage.open("inspect")
    try:
        storage.write([Requeued(i, time.time()) for i in chosen])
    finally:
        storage.close()
    return f"{len(chosen):,} dead tasks wait again"
