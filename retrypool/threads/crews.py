"""Who runs for each worker of a pool, and what those have counted who run no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MethodType
from typing import Any, Generic, TypeVar

from retrypool.checks import as_id
from retrypool.errors import WorkerNotFound
from retrypool.events import WorkerEvent
from retrypool.model.slots import Slot
from retrypool.model.worker import WorkerSpec, is_same
from retrypool.threads.engine import Engine
from retrypool.threads.runner import Runner

__all__ = ["Crew", "Crews", "Tally"]

T = TypeVar("T")
R = TypeVar("R")

Crew = tuple[Runner[T, R], ...]
"""The runners of one worker."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of attempts."""

    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    retried: int = 0

    @classmethod
    def of(cls, slot: Slot) -> Tally:
        """Return what has been counted at `slot`."""
        return cls(slot.succeeded, slot.failed, slot.timed_out, slot.retried)

    def move_to(self, slot: Slot) -> None:
        """Let `slot`, where nobody works yet, begin with these counts."""
        slot.succeeded, slot.failed = self.succeeded, self.failed
        slot.timed_out, slot.retried = self.timed_out, self.retried

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.timed_out + other.timed_out,
            self.retried + other.retried,
        )


class Crews(Generic[T, R]):
    """The runners of one pool, by the id of their worker."""

    # Written under the engine's lock; a crew is replaced, never changed.
    def __init__(self, engine: Engine[T, R]) -> None:
        self._engine = engine
        self._crews: dict[int, tuple[Runner[T, R], ...]] = {}
        self.abandoned: set[Runner[T, R]] = set()  # whose threads were given up, and have not come back yet
        self._departed = Tally()

    def __iter__(self) -> Iterator[Runner[T, R]]:
        return iter([runner for crew in self.all() for runner in crew])

    def __contains__(self, runner: Runner[T, R]) -> bool:
        return runner in self.of(runner.slot.id)

    def all(self) -> list[Crew[T, R]]:
        """Return the crews, in the order in which the workers came."""
        return list(self._crews.values())

    def of(self, worker_id: int) -> Crew[T, R]:
        """Return the runners of a worker: none if there is no such worker."""
        return self._crews.get(worker_id, ())

    def find(self, worker_id: int) -> Crew[T, R]:
        """Return the runners of the worker of this id. Raises `WorkerNotFound`."""
        id_ = as_id(worker_id)
        crew = None if id_ is None else self._crews.get(id_)
        if crew is None:
            raise WorkerNotFound(worker_id, tuple(self._crews))
        return crew

    def tally(self) -> Tally:
        """Return the counts of all attempts, those of workers that have left included."""
        total = self._departed
        for runner in self:
            total += Tally.of(runner.slot)
        return total

    def group_of(self, spec: WorkerSpec[T, R]) -> str | None:
        """Return the name of the group that has the same object for a worker, if neither says otherwise.

        Called under the lock.
        """
        worker = spec.worker
        if spec.group is not None or worker is None:
            return None
        # All are looked through for each that joins: so in a few bytecodes.
        bound = isinstance(worker, MethodType)
        for crew in self._crews.values():
            other = crew[0].spec.worker
            if other is worker or (bound and is_same(other, worker)):
                known = crew[0]
                if known.spec.group is None and not known.slot.retired:
                    return known.slot.group.name
        return None

    def join(self, worker_id: int, crew: Crew[T, R]) -> None:
        """Enter the runners of a new worker. Called under the lock."""
        self._crews[worker_id] = crew
        for runner in crew:
            self._engine.scheduler.add(runner.slot)

    def exchange(self, old: Runner[T, R], new: Runner[T, R]) -> None:
        """Let `new` have the place of `old`, with what that has counted. Called under the lock."""
        scheduler, slot, fresh = self._engine.scheduler, old.slot, new.slot
        fresh.paused, fresh.cordoned_for = slot.paused, slot.cordoned_for
        Tally.of(slot).move_to(fresh)
        fresh.failures, fresh.lost = slot.failures, slot.lost
        new.worked_before = old.ready or old.worked_before
        self._crews[slot.id] = tuple(new if one is old else one for one in self.of(slot.id))
        scheduler.add(fresh)  # before the old one goes, so that its group stays
        scheduler.retire(slot, self._engine.monotonic())
        slot.wake()
        scheduler.remove(slot)

    def forget(self, runner: Runner[T, R]) -> None:
        """Count a runner no more; if its thread lives on, it is abandoned. Called under the lock."""
        engine, worker_id = self._engine, runner.slot.id
        if runner not in self:
            return
        if others := tuple(one for one in self.of(worker_id) if one is not runner):
            self._crews[worker_id] = others
        else:
            del self._crews[worker_id]
            if engine.journal is not None:
                engine.journal.worker(runner.slot, there=False)
        engine.scheduler.fleet.returning.discard(runner.slot)
        engine.scheduler.remove(runner.slot)
        self._departed += Tally.of(runner.slot)
        if not runner.gone and runner.thread.ident is not None:
            self.abandoned.add(runner)

    def tell(self, kind: type[WorkerEvent], slot: Slot, *more: Any) -> None:
        """Tell listeners of something that has happened to a worker."""
        engine = self._engine
        engine.observers.tell(kind(engine.monotonic(), slot.id, slot.name, slot.group.name, *more))
