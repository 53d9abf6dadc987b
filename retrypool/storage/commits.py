"""How records get into the file: a thread that waits commits everything that has arrived.

There is no writer thread for records that somebody waits for: handing over the work and waiting for the
answer would cost two thread switches for each commit. Instead, a thread that waits for its records takes the
lock and commits all that has arrived, its own and that of others; those who had to wait for the lock mostly
find their own committed. Records that nobody waits for are committed by a thread that wakes up 2 ms after the
first of them was entered.

Order. Records of one kind are carried out in the order in which they came; the kinds in the order of
`schema.KINDS`, which is that of a task's life. They are taken out of their queues in the opposite order of
kinds: if the end of a task is found, its beginning has been found before, or is found now.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from retrypool.errors import StorageError
from retrypool.storage.records import (
    Accepted,
    Cancelled,
    Done,
    GroupState,
    Record,
    ScheduleState,
    Succeeded,
    WorkerState,
)
from retrypool.storage.schema import KINDS, statements_for

__all__ = ["Commits"]

log = logging.getLogger("retrypool")

LINGER = 0.002
"""Seconds that the thread waits for more after the first record that nobody waits for."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds after which it tries again what could not be committed."""

WISHES_EVERY = 1.0
"""Seconds after which the thread looks whether somebody who inspects the journal has asked for something."""

TRIM_EVERY = 1000
"""Ends after which those are dropped that `keep_ended` does not want any more."""

_dumps = json.JSONEncoder(separators=(",", ":")).encode

LONGEST_BATCH = 64 << 20
"""Characters of JSON for one statement: SQLite takes a thousand million."""

# Of these the last record for a name, or an id, is the one that counts.
_LAST_COUNTS = (GroupState, ScheduleState, WorkerState)

# The second is for what is too long to be given to SQLite.
_ERRORS = (sqlite3.Error, OverflowError)

_COUNT = """UPDATE meta SET value = CASE name WHEN 'accepted' THEN value + ? WHEN 'succeeded' THEN value + ?
WHEN 'cancelled' THEN value + ? ELSE max(value, ?) END
WHERE name IN ('accepted', 'succeeded', 'cancelled', 'last_id')"""

_Batch = dict[type[Record], list[Any]]


class _Ticket:
    """Records that a thread waits for, and whether they were committed."""

    __slots__ = ("done", "error", "records")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.done = False
        self.error: BaseException | None = None


class Commits:
    """The connection that writes, and what is to be written."""

    def __init__(
        self,
        db: sqlite3.Connection,
        reader: sqlite3.Connection,
        where: str,
        keep_number: int | None,
        keep_age: float | None,
        grant: Callable[[int], None],
    ) -> None:
        self._db = db  # under _lock
        self._reader = reader  # under _reading
        self._where = where
        self._keep_number = keep_number
        self._keep_age = keep_age
        self._grant = grant
        self._looked = time.monotonic()  # when the thread last looked for wishes
        # Held by whoever commits. Reentrant: the garbage collector may call what writes in the middle of it.
        self._lock = threading.RLock()
        self._busy = False  # a commit is under way; under _lock
        self._reading = threading.RLock()
        # Anybody appends; whoever holds _lock takes out.
        self._tickets: deque[_Ticket] = deque()
        self._entered: dict[type[Record], deque[Any]] = {kind: deque() for kind in KINDS}
        self._ends_since_trim = TRIM_EVERY  # so that what is too old goes with the first commit
        self._number = 0  # of commits
        self._landed = False  # whether the last commit was carried out though it raised
        self.trouble: StorageError | None = None
        # The thread: _called is set by whoever has entered something, after that; the thread clears it
        # before it looks for what was entered. So what is entered after it has looked calls it again.
        self._called = False
        self._bell = threading.Semaphore(0)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    # -- in ------------------------------------------------------------------------------------------

    def enter(self, record: Record) -> None:
        """Have a record committed soon."""
        self._entered[record.__class__].append(record)
        self._call()

    def _call(self) -> None:
        """Have the thread commit soon."""
        if not self._called:
            self._called = True
            self._bell.release()
            if self._thread is None:
                self._start_thread()

    def write(self, records: Sequence[Record]) -> None:
        """Commit records, and whatever else has arrived. Raises `StorageError`, and none is stored then."""
        ticket = _Ticket(records)
        self._tickets.append(ticket)
        with self._lock:
            if self._busy:  # in the middle of a commit of this very thread: the next one takes it
                self._call()
                return
            if not ticket.done:
                self._commit_all()
        if ticket.error is not None:
            raise ticket.error

    def flush(self) -> None:
        """Commit whatever has arrived. Raises `StorageError`."""
        with self._lock:
            self._commit_all()
            if self.trouble is not None:
                raise self.trouble

    def close(self) -> None:
        """Commit whatever has arrived, and close the file. Raises `StorageError`, and closes it too then."""
        self._closing.set()
        self._bell.release()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        try:
            self.flush()
        finally:
            with self._lock, self._reading:
                self._reader.close()
                self._db.close()

    # -- looking -------------------------------------------------------------------------------------

    def read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query, as of the last commit. Raises `StorageError`."""
        with self._reading:
            try:
                return self._reader.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StorageError(self._where, str(error)) from error

    # -- the thread ----------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._linger, name="retrypool-journal", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is on its way out: `close` commits it
                    return
                self._thread = thread

    def _linger(self) -> None:
        pause = FIRST_PAUSE
        while True:
            called = self._bell.acquire(timeout=WISHES_EVERY)
            if time.monotonic() - self._looked >= WISHES_EVERY:
                self._grant_wishes()
            if self._closing.is_set():
                return
            if not called:
                continue
            commits = -1
            while commits != self._number:  # as long as others commit, they take all of it with them
                commits = self._number
                if self._closing.wait(LINGER):
                    return
            self._called = False
            with self._lock:
                self._commit_all()
            if self.trouble is None:
                pause = FIRST_PAUSE
                continue
            if self._closing.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            if not self._called:  # try it again, without anybody's call
                self._called = True
                self._bell.release()

    def _grant_wishes(self) -> None:
        """Carry out the requests of another process that inspects the journal."""
        self._looked = time.monotonic()
        try:
            wishes = self.read("SELECT seq, task FROM wish WHERE wish = 'requeue' ORDER BY seq")
            if wishes:
                with self._lock:
                    self._db.execute("DELETE FROM wish WHERE seq <= ?", (wishes[-1][0],))
        except (StorageError, *_ERRORS):
            return  # another time
        for _, task_id in wishes:
            self._grant(task_id)

    # -- committing, under the lock --------------------------------------------------------------------

    def _commit_all(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            self._commit_taken(*self._take())
        finally:
            self._busy = False

    def _commit_taken(self, tickets: list[_Ticket], batch: _Batch) -> None:
        if not tickets and not batch:
            return
        written = [ticket.records for ticket in tickets]
        interrupt: BaseException | None = None
        while True:
            try:
                self._commit(written, batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
                self._put_back(batch)
                if tickets:
                    self._commit_apart(tickets)
                if batch:
                    self._note(error)
            except BaseException as struck:  # noqa: BLE001 - a Ctrl-C, which goes on below
                # Others wait for this commit, who have nothing to do with it.
                interrupt = struck
                if not self._landed:
                    continue
            break
        for ticket in tickets:
            ticket.done = True
        if interrupt is not None:
            raise interrupt

    def _commit_apart(self, tickets: list[_Ticket]) -> None:
        """Commit tickets one by one, so that a faulty one fails alone."""
        for ticket in tickets:
            try:
                self._commit([ticket.records], {})
            except Exception as error:  # noqa: BLE001 - as above
                ticket.error = StorageError(self._where, f"it could not be written: {error}")
                ticket.error.__cause__ = error

    def _note(self, error: Exception) -> None:
        if self.trouble is None:
            log.error(
                "%s can't be written: %s. Ends of tasks wait in memory until it can", self._where, error
            )
        self.trouble = StorageError(self._where, f"it can't be written: {error}")

    def _take(self) -> tuple[list[_Ticket], _Batch]:
        batch: _Batch = {}
        for kind in reversed(KINDS):
            queue = self._entered[kind]
            if queue:
                batch[kind] = [queue.popleft() for _ in range(len(queue))]
        tickets = [self._tickets.popleft() for _ in range(len(self._tickets))]
        return tickets, batch

    def _put_back(self, batch: _Batch) -> None:
        for kind, records in batch.items():
            self._entered[kind].extendleft(reversed(records))

    def _commit(self, written: Sequence[Sequence[Record]], entered: _Batch) -> None:
        batch: _Batch = {kind: list(records) for kind, records in entered.items()}
        for records in written:
            for record in records:
                batch.setdefault(record.__class__, []).append(record)
        db = self._db
        begun = self._landed = False
        try:
            db.execute("BEGIN IMMEDIATE")
            begun = True
            for kind in KINDS:
                if kind in batch:
                    self._carry_out(kind, batch[kind])
            self._count(batch)
            self._trim(len(batch.get(Succeeded, ())))
            db.execute("COMMIT")
            self._number += 1
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            else:
                self._landed = begun
            raise
        if entered and self.trouble is not None:
            log.warning("%s can be written again", self._where)
            self.trouble = None

    def _carry_out(self, kind: type[Record], records: list[Any]) -> None:
        if kind in _LAST_COUNTS:
            records = list({record[0]: record for record in records}.values())
        text = _dumps(records)
        if len(text) > LONGEST_BATCH and len(records) > 1:
            half = len(records) // 2
            self._carry_out(kind, records[:half])
            self._carry_out(kind, records[half:])
            return
        for statement in statements_for(kind):
            self._db.execute(statement, (text,))

    def _count(self, batch: _Batch) -> None:
        accepted = batch.get(Accepted, ())
        succeeded = len(batch.get(Succeeded, ())) + len(batch.get(Done, ()))
        cancelled = len(batch.get(Cancelled, ()))
        if accepted or succeeded or cancelled:
            last_id = max((record.id for record in accepted), default=0)
            self._db.execute(_COUNT, (len(accepted), succeeded, cancelled, last_id))

    def _trim(self, ends: int) -> None:
        """Drop ended tasks that are too many, or too old."""
        if self._keep_number is None and self._keep_age is None:
            return
        self._ends_since_trim += ends
        if self._ends_since_trim < TRIM_EVERY:
            return
        self._ends_since_trim = 0
        if self._keep_number is not None:
            self._db.execute(
                "DELETE FROM ended WHERE seq <= (SELECT seq FROM ended ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (self._keep_number,),
            )
        if self._keep_age is not None:
            self._db.execute(
                "DELETE FROM ended WHERE seq < coalesce((SELECT seq FROM ended WHERE ended >= ?"
                " ORDER BY seq LIMIT 1), 9e18)",
                (time.time() - self._keep_age,),
            )
