"""A storage that lasts no longer than its process."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from retrypool.errors import StorageError
from retrypool.storage.base import Storage
from retrypool.storage.records import (
    Accepted,
    Cancelled,
    Counts,
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
    StoredDead,
    StoredEnd,
    StoredTask,
    Succeeded,
    WorkerState,
)

__all__ = ["MemoryStorage"]


class MemoryStorage(Storage):
    """A storage that lasts as long as this object: for tests, and for keys in one process.

    It can be given to one pool after the other, and the next one goes on where the last one stopped.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._identity = uuid.uuid4().hex[:12]
        # All of it under the lock.
        self._lock = threading.Lock()
        self._owner: str | None = None
        self._last_id = 0
        self._tasks: dict[int, StoredTask] = {}
        self._started: dict[int, int] = {}
        self._dead: dict[int, StoredDead] = {}
        self._ended: dict[str, StoredEnd] = {}
        self._groups: dict[str, GroupState] = {}
        self._schedules: dict[str, ScheduleState] = {}
        self._running: dict[int, int] = {}
        self._accepted = self._succeeded = self._cancelled = 0

    @property
    def identity(self) -> str:
        """A text that no other journal has."""
        return self._identity

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return "the storage in memory"

    def open(self, pool: str) -> None:
        """Take possession."""
        with self._lock:
            if self._owner is not None:
                raise StorageError(self.where, f"it belongs to {self._owner} already")
            self._owner = pool
            lost = set(self._running.values())
            self._running.clear()
            for task_id, task in self._tasks.items():
                if task_id in lost or self._started.get(task_id, 0) > task.entries:
                    self._tasks[task_id] = replace(task, losses=task.losses + 1)
            self._started.clear()

    def close(self) -> None:
        """Give up possession."""
        with self._lock:
            self._owner = None
            self._running.clear()
            self._started.clear()

    def abandon(self) -> None:
        """Forget the owner, as if its process had died."""
        with self._lock:
            self._owner = None

    def last_id(self) -> int:
        """Return the highest id that a task has had."""
        return self._last_id

    def tasks(self) -> Iterator[StoredTask]:
        """Iterate over the tasks that have not ended."""
        with self._lock:
            return iter(sorted(self._tasks.values(), key=lambda task: task.id))

    def dead(self) -> Iterator[StoredDead]:
        """Iterate over the dead tasks."""
        with self._lock:
            return iter(list(self._dead.values()))

    def groups(self) -> Iterator[GroupState]:
        """Iterate over the groups that were told something."""
        with self._lock:
            return iter(list(self._groups.values()))

    def schedules(self) -> Iterator[ScheduleState]:
        """Iterate over the schedules that are not over."""
        with self._lock:
            return iter(list(self._schedules.values()))

    def write(self, records: Sequence[Record]) -> None:
        """Keep records."""
        self._apply(records)

    def enter(self, record: Record) -> None:
        """Keep a record."""
        self._apply((record,))

    def begin(self, slot: int, task_id: int) -> None:
        """Record that a worker runs a task."""
        self._running[slot] = task_id

    def finish(self, slot: int) -> None:
        """Record that a worker does not run a task any more."""
        self._running.pop(slot, None)

    def flush(self) -> None:
        """Do nothing: it is all there."""

    def find(self, key: str) -> StoredEnd | None:
        """Return how the task of this key has ended."""
        with self._lock:
            for dead in self._dead.values():
                if dead.key == key:
                    attempts = len(dead.history)
                    return StoredEnd(dead.id, False, None, dead.error, attempts, dead.ended)
            return self._ended.get(key)

    def counts(self) -> Counts:
        """Return how many tasks there are and were."""
        with self._lock:
            return Counts(
                self._accepted,
                self._succeeded,
                self._cancelled,
                len(self._tasks),
                len(self._dead),
                len(self._ended),
            )

    def _apply(self, records: Iterable[Record]) -> None:
        with self._lock:
            for record in records:
                self._take(record)

    def _take(self, record: Record) -> None:
        match record:
            case Accepted():
                self._tasks[record.id] = StoredTask(*record)
                self._last_id = max(self._last_id, record.id)
                self._accepted += 1
            case Started():
                self._started[record.id] = record.attempt
            case Failed():
                self._fail(record)
            case Done():
                self._succeeded += self._tasks.pop(record.id, None) is not None
            case Succeeded():
                self._accomplish(record)
            case Died():
                self._bury(record)
            case Cancelled():
                self._cancelled += self._tasks.pop(record.id, None) is not None
            case Requeued():
                dead = self._dead.pop(record.id)
                self._tasks[dead.id] = StoredTask(
                    dead.id,
                    dead.key,
                    record.accepted,
                    None,
                    dead.options,
                    dead.data,
                    history=dead.history,
                )
            case Pulled():
                self._dead.pop(record.id, None)
            case GroupState():
                self._groups.pop(record.name, None)
                if record.state is not None:
                    self._groups[record.name] = record
            case ScheduleState():
                self._schedules[record.name] = record
            case ScheduleOver():
                self._schedules.pop(record.name, None)
            case WorkerState():
                pass

    def _fail(self, record: Failed) -> None:
        task = self._tasks.get(record.id)
        if task is not None:
            self._tasks[record.id] = replace(
                task,
                due=record.due,
                entries=record.entries,
                charged=record.charged,
                uncharged=record.uncharged,
                running_time=record.running_time,
                tried=record.tried,
                history=(*task.history, *filter(None, (record.attempt,))),
            )

    def _accomplish(self, record: Succeeded) -> None:
        if self._tasks.pop(record.id, None) is not None:
            self._succeeded += 1
            if record.key is not None:
                self._ended[record.key] = StoredEnd(
                    record.id, True, record.result, None, record.attempts, record.ended, record.problem
                )

    def _bury(self, record: Died) -> None:
        task = self._tasks.pop(record.id, None)
        if task is not None:
            self._dead[task.id] = StoredDead(
                task.id,
                task.key,
                task.accepted,
                task.options,
                task.data,
                record.reason,
                record.error,
                record.ended,
                (*task.history, *filter(None, (record.attempt,))),
            )
