"""The door to a storage: what happens to tasks, told as records, and tasks found by their keys.

The engine calls it where something is decided: a task is accepted (before anybody else knows it), an
attempt begins, an attempt failed and will be made again, a task has ended. Nothing here takes the engine's
lock, and nothing but `accept`, `pulled` and `requeued` waits for the disk, unless starts are recorded.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from retrypool.clock import Clock
from retrypool.core.scheduler import Scheduler
from retrypool.errors import InvalidType, NotStorable, StorageError
from retrypool.events import Event, GroupCooling, GroupEjected, GroupOpened, TaskCancelled, TaskDead
from retrypool.model.context import Context
from retrypool.model.record import Attempt, Record
from retrypool.model.settings import TaskSettings
from retrypool.model.slots import Group, Slot
from retrypool.model.task import DeadTask, Task
from retrypool.storage.base import Storage
from retrypool.storage.records import (
    Accepted,
    Cancelled,
    Died,
    Done,
    Failed,
    GroupState,
    Pulled,
    Requeued,
    Started,
    Succeeded,
    WorkerState,
)
from retrypool.threads.interrupt import shielded
from retrypool.threads.key_names import printable
from retrypool.threads.keys import Keys
from retrypool.threads.stored_options import StoredOptions

__all__ = ["Journal", "open_journal"]

log = logging.getLogger("retrypool")

LONGEST_TEXT = 400 << 20
"""Characters that one task's data may have: SQLite takes no more than a thousand million in a statement."""

UNTIL_IT_CAN_BE_WRITTEN = 0.5
"""Seconds after which a start is tried again that could not be recorded."""

AnyTask = Task[Any, Any]

_compact = json.JSONEncoder(separators=(",", ":")).encode


class Journal:
    """What a pool tells its storage."""

    def __init__(
        self, storage: Storage, clock: Clock, defaults: TaskSettings, group: Callable[[str], Group | None]
    ) -> None:
        self.storage = storage
        self.identity = storage.identity
        self.clock = clock
        self.defaults = defaults
        self.dead_limit: int | None = None
        # Ended by force: what is cancelled from now on waits for the next pool that opens the storage.
        self.frozen = False
        self._group = group  # finds a group by its name
        self._codec = storage.codec
        self._wall = clock.time
        self._starts = storage.record_starts
        self._begin, self._finish, self._enter = storage.begin, storage.finish, storage.enter
        self.options = StoredOptions(storage, defaults)
        self.keys = Keys(storage, clock)
        # Schedules by name: those of this process, and what is stored of others. Under the pool's lock.
        self.schedules: dict[str, Any] = {}
        self._lock = threading.RLock()  # for what follows
        self._dead: dict[int, str | None] = {}  # dead tasks, the oldest first, and their keys

    # -- the way in --------------------------------------------------------------------------------

    def accepted(self, task: AnyTask, key: str | None, due: float | None) -> Accepted:
        """Return what is stored of a new task. Raises `NotStorable` and `InvalidValue` for what can't be."""
        record = task._record
        assert record is not None
        record.key = key
        data = self._codec.encode("data", task.data)
        if len(data) > LONGEST_TEXT:
            raise NotStorable("data", None, f"it is too long ({len(data):,} characters as text)")
        return Accepted(task.id, key, self._wall(), due, self.options.text_of(task._told), data)

    def accept(self, task: AnyTask, key: str | None, *, later: bool) -> None:
        """Store a new task: durable when it returns, or, if it may be later, soon. Raises `StorageError`.

        Later is for those who give it again if the process dies before. They are told of what could not be
        stored before it.
        """
        stored = self.accepted(task, key, self._due(task._settings))
        if not later:
            self.storage.write((stored,))
        elif (trouble := self.storage.trouble) is not None:
            raise trouble
        else:
            self._enter(stored)

    def accept_all(self, tasks: Sequence[AnyTask], settings: TaskSettings) -> None:
        """Store many new tasks, or none. Raises `StorageError`."""
        due = self._due(settings)
        self.storage.write([self.accepted(task, None, due) for task in tasks])

    def _due(self, settings: TaskSettings) -> float | None:
        """Return when a task that is dispatched now is due, on the wall clock; None: at once."""
        return self._wall() + settings.delay if settings.delay > 0 else settings.at

    def take_back(self, tasks: Iterable[AnyTask]) -> None:
        """Forget new tasks that the pool refused after they had been stored."""
        for task in tasks:
            self._enter(Cancelled(task.id))

    # -- attempts ----------------------------------------------------------------------------------

    def begin(self, ctx: Context, slot: Slot, task: AnyTask) -> None:
        """Note that an attempt begins. Raises if it is over before its start could be recorded."""
        self._begin(slot.id, task.id)
        if self._starts:
            while not self._record_start(task.id, ctx.attempt):
                ctx.sleep(UNTIL_IT_CAN_BE_WRITTEN)  # the disk is full, say: it may have room again

    @shielded
    def _record_start(self, task_id: int, attempt: int) -> bool:
        try:
            self.storage.write((Started(task_id, attempt),))
        except StorageError:
            return False
        return True

    def failed(self, slot: Slot | None, task: AnyTask, delay: float) -> None:
        """Note that an attempt did not succeed, and when the next may be made."""
        record = task._record
        if record is None or self.frozen:
            return
        if slot is not None:
            self._finish(slot.id)
        wall = self._wall()
        self._enter(
            Failed(
                task.id,
                wall + delay if delay > 0 else None,
                record.entries,
                record.charged,
                record.uncharged,
                record.running_time,
                _compact(sorted(printable(group.name) for group in record.tried)),
                self._new_attempts(record),
            )
        )

    def over(self, slot: Slot) -> None:
        """Note that the attempt at `slot` is over, of which there is nothing else to note."""
        self._finish(slot.id)

    def before(self, remember: Callable[[AnyTask, Record], None]) -> Callable[[AnyTask, Record], None]:
        """Return what notes that a task has succeeded, and then calls `remember`."""

        def note(task: AnyTask, record: Record) -> None:
            self._succeeded(task, record)
            remember(task, record)

        return note

    def _succeeded(self, task: AnyTask, record: Record) -> None:
        """Note that a task has succeeded. Never raises: its worker has more to do."""
        key, slot = record.key, task._slot
        attempts = record.entries + 1
        if slot is not None:
            self._finish(slot.id)
        if key is None and attempts == 1:
            self._enter(Done(task.id))
            return
        text: str | None = None
        problem: str | None = None
        if key is not None:
            try:
                found = self._codec.encode("the result", task._outcome)
                if len(found) > LONGEST_TEXT:
                    problem = f"it is too long ({len(found):,} characters as text)"
                else:
                    text = found
            except Exception as error:  # noqa: BLE001 - whatever it is: the task has succeeded all the same
                problem = str(error)
            if problem is not None:
                log.error("the result of task %s (key %r) is not stored: %s", task.id, key, problem)
        self._enter(Succeeded(task.id, key, text, self._wall(), attempts, problem))
        if key is not None:
            self.keys.has_ended(key)

    def _new_attempts(self, record: Record) -> str | None:
        """Return as JSON those attempts that are not stored yet."""
        fresh = record.history[record.stored :]
        record.stored = len(record.history)
        return _compact([self._attempt(attempt) for attempt in fresh]) if fresh else None

    def _attempt(self, attempt: Attempt) -> dict[str, Any]:
        behind = self._wall() - self.clock.monotonic()
        error = attempt.error
        return {
            "number": attempt.number,
            "worker": attempt.worker_id,
            "group": printable(attempt.group),
            "started": attempt.started + behind,
            "ended": attempt.ended + behind,
            "outcome": attempt.outcome.value,
            "error": None if error is None else self._codec.encode_error(error),
        }

    # -- ends that the scheduler tells of -------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """Note what concerns the storage of what has happened."""
        match event:
            case TaskDead(task=task, dead=dead):
                self._died(task, dead)
            case TaskCancelled(task=task):
                self._cancelled(task)
            case GroupCooling(group=name) | GroupEjected(group=name) | GroupOpened(group=name):
                self.group_changed(name)

    def _died(self, task: AnyTask, dead: DeadTask[Any]) -> None:
        record = task._record
        key = None if record is None else record.key
        self._enter(
            Died(
                task.id,
                dead.reason.value,
                None if dead.error is None else self._codec.encode_error(dead.error),
                self._wall(),
                None if record is None else self._new_attempts(record),
                len(dead.history),
            )
        )
        if key is not None:
            self.keys.has_ended(key)
        dropped = []
        with self._lock:
            self._dead[task.id] = key
            while self.dead_limit is not None and len(self._dead) > self.dead_limit:
                oldest = next(iter(self._dead))
                del self._dead[oldest]
                dropped.append(oldest)
        for task_id in dropped:
            self._enter(Pulled(task_id))

    def _cancelled(self, task: AnyTask) -> None:
        if self.frozen:
            return
        record = task._record
        self._enter(Cancelled(task.id))
        if record is not None and record.key is not None:
            self.keys.forget(record.key, task)

    # -- dead tasks ----------------------------------------------------------------------------------

    def pulled(self, task_id: int) -> None:
        """Forget a dead task. Raises `StorageError`."""
        self.storage.write((Pulled(task_id),))
        with self._lock:
            self._dead.pop(task_id, None)

    def requeued(self, task: AnyTask) -> None:
        """Note that a dead task waits again, as this one. Raises `StorageError`."""
        with self._lock:
            key = self._dead.get(task.id)
        self.storage.write((Requeued(task.id, self._wall()),))
        record = task._record
        assert record is not None
        record.key = key
        with self._lock:
            self._dead.pop(task.id, None)
        if key is not None:
            self.keys.remember(key, task)

    def remember_dead(self, task_id: int, key: str | None) -> None:
        """Know a dead task that was restored."""
        with self._lock:
            self._dead[task_id] = key

    # -- the fleet -----------------------------------------------------------------------------------

    def worker(self, slot: Slot, *, there: bool) -> None:
        """Note that a worker has come or gone, for those who look at the journal."""
        group = printable(slot.group.name) if there else None
        self._enter(WorkerState(slot.id, printable(slot.name), group))

    def group_changed(self, name: str) -> None:
        """Note what a group was told: until when it is given nothing."""
        group = self._group(name)
        if group is not None:
            state = state_of(group, self._wall() - self.clock.monotonic())
            self._enter(GroupState(printable(name), state))

    # -- the end -------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Leave what waits to the next pool that opens the storage: what is cancelled now is not over."""
        self.frozen = True

    def close(self) -> None:
        """Make everything durable, and give the storage free. Raises `StorageError`."""
        self.storage.on_wish = None
        self.storage.close()


def open_journal(
    storage: Storage, pool: str, clock: Clock, defaults: TaskSettings, scheduler: Scheduler
) -> Journal:
    """Take possession of `storage` for the pool of this name. Raises `StorageError`."""
    if not isinstance(storage, Storage):
        raise InvalidType("storage", storage, "a storage, such as SQLiteStorage('run.db')")
    storage.open(pool)
    try:
        scheduler.backlog.next_seq = itertools.count(storage.last_id() + 1).__next__
        journal = Journal(storage, clock, defaults, scheduler.fleet.groups.get)
        journal.dead_limit = scheduler.endings.dead_limit
    except BaseException:
        storage.close()
        raise
    return journal


def state_of(group: Group, behind: float) -> str | None:
    """Return as JSON what speaks against a group; None: nothing. `behind` is wall time less pool time."""
    if group.until is None and not group.ejections and not group.throttles:
        return None
    return _compact(
        {
            "until": None if group.until is None else group.until + behind,
            "ejected": group.ejected,
            "ejections": group.ejections,
            "throttles": group.throttles,
        }
    )
