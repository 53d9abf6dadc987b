"""Tasks that are found by their keys: in memory until they have ended, and in the storage after that."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from retrypool.clock import Clock
from retrypool.errors import StorageError
from retrypool.model.preparing import new_task
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task, TaskOwner
from retrypool.storage.base import Storage
from retrypool.storage.records import StoredEnd

__all__ = ["Keys"]

ENDED_KEYS = 1000
"""How many ended tasks are found by their keys in memory, before their ends are seen to be durable."""

AnyTask = Task[Any, Any]


class _Pending:
    """A key whose task is on its way into the storage."""

    def __init__(self) -> None:
        self.settled = threading.Event()


class Keys:
    """The keys of a pool's tasks. One key is one task, whoever dispatches it at the same time."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        # Reentrant: the garbage collector may end a map while it is held.
        self._lock = threading.RLock()  # for what follows
        self._by_key: dict[str, AnyTask | _Pending] = {}
        self._ended: deque[str] = deque()  # keys in _by_key whose tasks have ended

    def find_or_make(
        self,
        key: str,
        data: Any,
        settings: TaskSettings,
        owner: TaskOwner,
        make: Callable[[], AnyTask],
    ) -> tuple[AnyTask, bool]:
        """Return the task of this key, waiting, running or ended; or what `make` makes, and True."""
        known = self._known(key, data, settings, owner)
        if known is not None:
            return known, False
        try:
            task = make()
        except BaseException:
            self._release(key)
            raise
        self._release(key, task)
        return task, True

    def remember(self, key: str, task: AnyTask) -> None:
        """Know a task that waits again."""
        with self._lock:
            self._by_key[key] = task

    def forget(self, key: str, task: AnyTask) -> None:
        """Let the key of a task that was cancelled be free again."""
        with self._lock:
            if self._by_key.get(key) is task:
                del self._by_key[key]

    def _known(self, key: str, data: Any, settings: TaskSettings, owner: TaskOwner) -> AnyTask | None:
        """Return the task of this key if there is one: waiting, running or ended.

        If there is none, the key belongs to the caller from then on, who calls `_release` with what came
        of it.
        """
        while True:
            with self._lock:
                found = self._by_key.get(key)
                if found is None or (isinstance(found, Task) and found.cancelled()):
                    self._by_key[key] = _Pending()
                    break
            if isinstance(found, Task):
                return found
            found.settled.wait()
        try:
            end = self._storage.find(key)
        except BaseException:
            self._release(key)
            raise
        if end is None:
            return None
        self._release(key)
        return self._of_end(end, data, settings, owner)

    def _release(self, key: str, task: AnyTask | None = None) -> None:
        """Say what became of a key that `known` gave to the caller: a task, or nothing."""
        with self._lock:
            pending = self._by_key.pop(key, None)
            if task is not None and not task.cancelled():
                self._by_key[key] = task
        if isinstance(pending, _Pending):
            pending.settled.set()

    def _of_end(self, end: StoredEnd, data: Any, settings: TaskSettings, owner: TaskOwner) -> AnyTask:
        """Return an ended task, as the storage knows it."""
        now = self._clock.monotonic()
        ended = min(now, now - self._clock.time() + end.ended)
        task: AnyTask = new_task(end.id, data, settings, owner, ended)
        if end.succeeded and end.problem is None:
            task._end_as_stored(ended, self._storage.codec.decode(end.result or "null"), None)
            return task
        if end.succeeded:
            error: BaseException = StorageError(
                self._storage.where, f"task {end.id} succeeded, but its result was not stored: {end.problem}"
            )
        elif end.error is not None:
            error = self._storage.codec.decode_error(end.error)
        else:
            error = StorageError(self._storage.where, f"task {end.id} is dead, of an error that is not known")
        task._end_as_stored(ended, None, error)
        return task

    def has_ended(self, key: str) -> None:
        """Let go of ended tasks, once their ends are durable and the storage will answer for them."""
        with self._lock:
            self._ended.append(key)
            if len(self._ended) < ENDED_KEYS:
                return
            ended, self._ended = self._ended, deque()
        try:
            self._storage.flush()
        except StorageError:
            with self._lock:
                self._ended.extendleft(ended)
            return
        with self._lock:
            for each in ended:
                found = self._by_key.get(each)
                if isinstance(found, Task):
                    if found.done():
                        del self._by_key[each]
                    else:  # it ends at this very moment
                        self._ended.append(each)
