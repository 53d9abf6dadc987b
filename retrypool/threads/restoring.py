"""What a pool finds in its storage: dead tasks, groups, and the tasks that go on."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from gc import disable, enable, isenabled
from typing import Any

from retrypool.core.scheduler import Scheduler
from retrypool.errors import StorageError, TaskLost
from retrypool.model.preparing import new_task, prepare
from retrypool.model.record import Attempt
from retrypool.model.settings import TaskSettings
from retrypool.model.task import DeadTask, Task, TaskOwner
from retrypool.states import DeadReason, Outcome
from retrypool.storage.records import StoredDead, StoredTask
from retrypool.threads.journal import Journal

__all__ = ["restore"]

log = logging.getLogger("retrypool")


def restore(
    journal: Journal, scheduler: Scheduler, owner: TaskOwner, known: Callable[[Task[Any, Any]], None] | None
) -> int:
    """Put what the storage holds back to where it was; return how many tasks wait. Under the pool's lock.

    `known` is told of each task before it may be run.

    What can't be read (its class is gone, its policy has no name any more) is dead, and says why: it must
    not keep all the others from going on.
    """
    return _Restoring(journal, scheduler, owner, known).run()


class _Restoring:
    def __init__(
        self,
        journal: Journal,
        scheduler: Scheduler,
        owner: TaskOwner,
        known: Callable[[Task[Any, Any]], None] | None,
    ) -> None:
        self.known = known
        self.journal = journal
        self.storage = journal.storage
        self.codec = journal.storage.codec
        self.scheduler = scheduler
        self.owner = owner
        self.now = journal.clock.monotonic()
        self.wall = journal.clock.time()
        self.ahead = self.now - self.wall  # pool time less wall time
        self._settings: dict[str | None, TaskSettings] = {}

    def run(self) -> int:
        for state in self.storage.groups():
            if state.state is not None:
                self._group(state.name, json.loads(state.state))
        for dead in self.storage.dead():
            self._dead(dead)
        number = 0
        with _no_collection():
            for stored in self.storage.tasks():
                self._task(stored)
                number += 1
        return number

    def _group(self, name: str, state: dict[str, Any]) -> None:
        until = state.get("until")
        self.scheduler.fleet.recall(
            name,
            until=None if until is None else until + self.ahead,
            ejected=bool(state.get("ejected")),
            ejections=int(state.get("ejections", 0)),
            throttles=int(state.get("throttles", 0)),
        )

    def _settings_of(self, text: str | None) -> TaskSettings:
        settings = self._settings.get(text)
        if settings is None:
            if len(self._settings) > 1000:  # each task may have its own
                self._settings.clear()
            settings = self._settings[text] = self.journal.options.settings_from(text)
        return settings

    def _task(self, stored: StoredTask) -> None:
        scheduler = self.scheduler
        try:
            settings = self._settings_of(stored.options)
            data = self.codec.decode(stored.data)
            task: Task[Any, Any] = new_task(
                stored.id, data, settings, self.owner, stored.accepted + self.ahead
            )
            prepare(task, True)
        except Exception as error:  # noqa: BLE001 - it is somebody's code: a class, a version
            self._unreadable(stored, error)
            return
        record = task._record
        assert record is not None
        record.key = stored.key
        if stored.key is not None:
            self.journal.keys.remember(stored.key, task)
        if stored.entries or stored.history:
            record.history = self._attempts(stored.history)
            record.stored = len(record.history)
            record.entries = stored.entries
            record.inherited = max(0, len(record.history) - stored.entries)
            record.charged = stored.charged
            record.uncharged = stored.uncharged
            record.running_time = stored.running_time
            names = json.loads(stored.tried)
            if names:
                record.tried = frozenset(scheduler.fleet.expected(name) for name in names)
        if self.known is not None:
            self.known(task)
        if stored.losses >= self.storage.max_losses:
            log.error("task %s is dead: its process ended %s times while it ran", stored.id, stored.losses)
            scheduler.bury(task, DeadReason.LOST, TaskLost(stored.losses), self.now)
            return
        delay = 0.0 if stored.due is None else stored.due - self.wall
        scheduler.restore(task, delay, self.now)

    def _unreadable(self, stored: StoredTask, error: Exception) -> None:
        log.error("task %s can't be read from %s: %s", stored.id, self.storage.where, error)
        task: Task[Any, Any] = new_task(stored.id, None, self.journal.defaults, self.owner, self.now)
        prepare(task, True)
        why = StorageError(self.storage.where, f"task {stored.id} can't be read: {error}")
        why.__cause__ = error
        self.scheduler.bury(task, DeadReason.UNRECOVERABLE, why, self.now)

    def _dead(self, stored: StoredDead) -> None:
        data: Any = None
        settings = self.journal.defaults
        try:
            settings = self._settings_of(stored.options)
            data = self.codec.decode(stored.data)
        except Exception as error:  # noqa: BLE001 - as above; it is dead already
            log.error("the data of dead task %s can't be read: %s", stored.id, error)
        dead: DeadTask[Any] = DeadTask(
            stored.id,
            settings.name,
            data,
            DeadReason(stored.reason),
            None if stored.error is None else self.codec.decode_error(stored.error),
            tuple(self._attempts(stored.history)),
            settings.options,
            settings,
        )
        self.scheduler.endings.dead[stored.id] = dead
        self.journal.remember_dead(stored.id, stored.key)

    def _attempts(self, texts: tuple[str, ...]) -> list[Attempt]:
        found = itertools.chain.from_iterable(json.loads(text) for text in texts)
        return [self._attempt(facts) for facts in found]

    def _attempt(self, facts: dict[str, Any]) -> Attempt:
        error = facts["error"]
        return Attempt(
            facts["number"],
            facts["worker"],
            facts["group"],
            facts["started"] + self.ahead,
            facts["ended"] + self.ahead,
            Outcome(facts["outcome"]),
            None if error is None else self.codec.decode_error(error),
        )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking at a million new objects over and over: none is garbage."""
    was_enabled = isenabled()
    disable()
    try:
        yield
    finally:
        if was_enabled:
            enable()
