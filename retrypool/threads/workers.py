"""The workers of a pool: who joins, who leaves, who pauses, and what they are doing."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar, get_args
from weakref import ref

from retrypool.callbacks import described
from retrypool.checks import as_id
from retrypool.ctrl_c import join
from retrypool.errors import InvalidValue, WorkerNotFound
from retrypool.events import (
    WorkerAdded,
    WorkerCordoned,
    WorkerEvent,
    WorkerFailed,
    WorkerPaused,
    WorkerRemoved,
    WorkerReplaced,
    WorkerResumed,
    WorkerStuck,
)
from retrypool.model.cancel import CancelToken, reason_of
from retrypool.model.describe import worker_fields
from retrypool.model.slots import Group, Slot
from retrypool.model.worker import WorkerInfo, WorkerSpec, is_same
from retrypool.threads.engine import Engine
from retrypool.threads.interrupt import shielded
from retrypool.threads.snapshots import info_of
from retrypool.threads.takeover import Fate
from retrypool.threads.watchdog import FIRST_PAUSE, LONGEST_PAUSE
from retrypool.threads.worker_thread import Runner

__all__ = ["Then", "Workers"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

Crew = tuple[Runner[T, R], ...]
"""The runners of one worker."""

PATIENCE = 300.0
"""Seconds for which tasks wait for a worker that worked, and can't be started afresh."""

Then = Literal["keep", "pause", "restart", "remove"]
"""What a worker does after it was interrupted."""


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


class Workers(Generic[T, R]):
    """The workers of one pool. A worker is one runner, or several if its concurrency is more than 1."""

    # _crews and _abandoned are written under the engine's lock; a crew is replaced, never changed.
    def __init__(self, engine: Engine[T, R], *, max_abandoned: int) -> None:
        self._engine = engine
        self._max_abandoned = max_abandoned
        self._crews: dict[int, tuple[Runner[T, R], ...]] = {}
        self._abandoned: set[Runner[T, R]] = set()  # whose threads have not come back yet
        self._next_id = itertools.count().__next__
        self.departed = Tally()
        engine.on_stuck = self._replace_stuck

    def __iter__(self) -> Iterator[Runner[T, R]]:
        return iter([runner for crew in list(self._crews.values()) for runner in crew])

    @property
    def abandoned(self) -> int:
        """How many threads were given up and have not come back."""
        return len(self._abandoned)

    def find(self, worker_id: int) -> tuple[Runner[T, R], ...]:
        """Return the runners of the worker of this id. Raises `WorkerNotFound`."""
        id_ = as_id(worker_id)
        crew = None if id_ is None else self._crews.get(id_)
        if crew is None:
            raise WorkerNotFound(worker_id, tuple(self._crews))
        return crew

    def tally(self) -> Tally:
        """Return the counts of all attempts, those of workers that have left included."""
        total = self.departed
        for runner in self:
            total += Tally.of(runner.slot)
        return total

    # -- coming ----------------------------------------------------------------------------------

    @shielded
    def add(self, spec: WorkerSpec[T, R]) -> int:
        """Add a worker, start its threads, and return its id."""
        self._engine.steps.check("add_worker()")
        engine, scheduler = self._engine, self._engine.scheduler
        with engine.lock:
            if refusal := engine.closing_refusal():
                raise refusal
            worker_id = self._next_id()
            name = spec.name or f"worker-{worker_id}"
            # A group of its own, also for one that is called as another is.
            own = name if name not in scheduler.fleet.groups else f"{name}-{worker_id}"
            group = scheduler.fleet.group(spec.group or self._group_of(spec) or own, spec.rate)
            crew = tuple(
                Runner(engine, Slot(worker_id, name, group, spec.tags), spec, self._has_left)
                for _ in range(spec.concurrency)
            )
            self._crews[worker_id] = crew
            engine.workers_seen.update((worker_id, group.name))
            for runner in crew:
                scheduler.add(runner.slot)
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)
        if engine.journal is not None:
            engine.journal.worker(crew[0].slot, there=True)
        self._tell(WorkerAdded, crew[0].slot)
        for runner in crew:
            self._start(runner)
        if spec.cancel is not None:
            engine.bonds.bind(worker_id, spec.cancel, partial(_dismiss_by, ref(self), worker_id))
        return worker_id

    def _start(self, runner: Runner[T, R], pause: float = FIRST_PAUSE) -> None:
        """Start the thread of a runner; if the system has none to give, try again after `pause` seconds."""
        engine = self._engine
        try:
            runner.start()
        except (RuntimeError, MemoryError):
            if engine.exiting:
                raise
            log.warning("%s can't be started now: that is tried again", runner.thread.name, exc_info=True)
            again = partial(self._start_late, runner, min(2 * pause, LONGEST_PAUSE))
            with engine.lock:
                engine.scheduler.timers.add(engine.monotonic() + pause, engine.run_errand, again)
                happened = engine.decided()
            engine.act(happened)

    def _start_late(self, runner: Runner[T, R], pause: float) -> None:
        """Start a runner that got no thread before, unless it is not wanted any more."""
        if runner in self._crews.get(runner.slot.id, ()) and not runner.slot.retired:
            self._start(runner, pause)

    def _group_of(self, spec: WorkerSpec[T, R]) -> str | None:
        """Return the name of the group that has the same object for a worker, if neither says otherwise."""
        if spec.group is not None or spec.worker is None:
            return None
        for crew in self._crews.values():
            known = crew[0]
            if (
                known.spec.group is None
                and not known.slot.retired
                and is_same(known.spec.worker, spec.worker)
            ):
                return known.slot.group.name
        return None

    # -- leaving ---------------------------------------------------------------------------------

    @shielded
    def remove(self, worker_id: int, timeout: float, *, force: bool) -> None:
        """Let a worker leave: asked first, then without its task, then by force, then without it."""
        self._engine.steps.check("remove_worker()")
        worker_id = self.find(worker_id)[0].slot.id
        crew = self._ask_to_leave(worker_id)
        if any(runner.thread is threading.current_thread() for runner in crew):
            for runner in crew:
                runner.dismissed = True
            return  # it leaves after the task that this call was made from
        until = time.monotonic() + timeout
        for runner in crew:
            if runner.thread.ident is not None:
                join(runner.thread, until - time.monotonic())
        self.dismiss(worker_id, "the worker was removed", force=force)

    def _ask_to_leave(self, worker_id: int) -> Crew[T, R]:
        """Let the runners of a worker leave after what they run; return them. No other will join them."""
        engine = self._engine
        with engine.lock:
            crew = self._crews.get(worker_id, ())
            for runner in crew:
                engine.scheduler.retire(runner.slot, engine.monotonic())
            engine.review_guard()
            happened = engine.decided()
        for runner in crew:
            runner.slot.wake()
        engine.act(happened)
        return crew

    @shielded
    def dismiss(self, worker_id: int, reason: str, *, force: bool = False) -> None:
        """Let a worker leave at once: its tasks are run elsewhere, and its threads are not waited for."""
        engine = self._engine
        if engine.steps.put_off(partial(self.dismiss, worker_id, reason, force=force)):
            return
        crew = self._ask_to_leave(worker_id)
        for runner in crew:
            self._end_attempt(runner.slot, "retry", reason, force=force)
        with engine.lock:
            for runner in crew:
                runner.dismissed = True
                # A thread that has neither left nor been found in an attempt may have a task in hand
                # that it is just about to begin: it is forgotten once it has left.
                if runner.gone or runner.slot.idle or runner.slot.stuck is not None:
                    self._forget(runner)
            happened = engine.decided()
        engine.act(happened)
        engine.bonds.unbind(worker_id)

    def _forget(self, runner: Runner[T, R]) -> None:
        """Count a runner no more; if its thread lives on, it is abandoned. Called under the lock."""
        worker_id = runner.slot.id
        crew = self._crews.get(worker_id, ())
        if runner not in crew:
            return
        if others := tuple(one for one in crew if one is not runner):
            self._crews[worker_id] = others
        else:
            del self._crews[worker_id]
            if self._engine.journal is not None:
                self._engine.journal.worker(runner.slot, there=False)
        self._engine.scheduler.fleet.returning.discard(runner.slot)
        self._engine.scheduler.remove(runner.slot)
        self.departed += Tally.of(runner.slot)
        if not runner.gone and runner.thread.ident is not None:
            self._abandoned.add(runner)

    def _has_left(self, runner: Runner[T, R]) -> None:
        """Take notice of the end of a runner's thread."""
        engine, slot = self._engine, runner.slot
        reason = "" if runner.error is None else described(runner.error)
        with engine.lock:
            leaves = slot.retired
            engine.scheduler.retire(slot, engine.monotonic())
            runner.gone = True
            self._abandoned.discard(runner)
            # A worker has left once all its threads have.
            last = all(one.gone for one in self._crews.get(slot.id, ()))
            if runner.dismissed:
                self._forget(runner)
            elif runner.error is not None and not leaves:
                self._try_later(runner, reason)
            happened = engine.decided()
        engine.act(happened)
        if last and (leaves or runner.error is None):
            engine.bonds.unbind(slot.id)
        if runner.error is None and last:
            self._tell(WorkerRemoved, slot)
        elif runner.error is not None:
            now = engine.monotonic()
            engine.observers.tell(WorkerFailed(now, slot.id, slot.name, slot.group.name, runner.error))

    def _try_later(self, runner: Runner[T, R], reason: str) -> None:
        """Try to start a worker again after a while; until then, tasks may have none. Under the lock.

        If it has worked before, tasks wait for it, for some minutes: the trouble may pass.
        """
        engine, fleet = self._engine, self._engine.scheduler.fleet
        now = engine.monotonic()
        assert runner.error is not None
        if (runner.ready or runner.worked_before) and runner.failing_since is None:
            runner.failing_since = now
        runner.retry_at = now + min(FIRST_PAUSE * 2.0 ** min(runner.failed_starts, 20), LONGEST_PAUSE)
        engine.scheduler.timers.add(runner.retry_at, engine.run_errand, partial(self._start_again, runner))
        if runner.failing_since is not None and now < runner.failing_since + PATIENCE:
            fleet.returning.add(runner.slot)
        engine.review_guard()
        engine.scheduler.could_not_start(runner.error, reason, now)

    # -- in between ------------------------------------------------------------------------------

    @shielded
    def interrupt(self, worker_id: int, task: Fate, then: Then, *, force: bool) -> bool:
        """End what a worker runs, decide its tasks' fate and what the worker does next."""
        self._engine.steps.check("interrupt_worker()")
        for what, value, choices in (("task", task, get_args(Fate)), ("then", then, get_args(Then))):
            if value not in choices:
                raise InvalidValue(what, value, f"one of {', '.join(map(repr, choices))}")
        crew = self.find(worker_id)
        worker_id, name = crew[0].slot.id, crew[0].slot.name
        if then == "pause":  # before its task is ended, so that it gets no other
            self.pause(worker_id)
        elif then == "restart":
            self._make_unfit(crew)
        elif then == "remove":
            self._ask_to_leave(worker_id)
        ended = [
            self._end_attempt(runner.slot, task, f"{name} was interrupted", force=force) for runner in crew
        ]
        if then == "remove":
            self.dismiss(worker_id, f"{name} was removed", force=force)
        elif then == "restart":
            self._replace_those_gone(crew)
        return any(ended)

    @shielded
    def restart(self, worker_id: int, spec: WorkerSpec[T, R] | None = None) -> None:
        """Have a worker stopped, made anew (from another spec, if given) and started, after its task."""
        self._engine.steps.check("restart_worker()")
        crew = self.find(worker_id)
        if spec is not None:
            for runner in crew:
                runner.replacement = spec
        self._make_unfit(crew)
        self._replace_those_gone(crew)

    @shielded
    def supplant(self, worker_id: int, spec: WorkerSpec[T, R]) -> None:
        """Put another resource in a worker's place, and let it begin with a clean slate."""
        self._engine.steps.check("replace_worker()")
        engine = self._engine
        slot = self.find(worker_id)[0].slot
        worker_id = slot.id
        self.restart(worker_id, spec)
        with engine.lock:
            # Others of its group have still the resource that was told to wait, or was found ill.
            if all(other.id == worker_id for other in slot.group.slots):
                engine.scheduler.forgive(slot.group, engine.monotonic())
            happened = engine.decided()
        engine.act(happened)
        if slot.cordoned_for is not None:
            self.resume(worker_id)

    def _make_unfit(self, crew: Crew[T, R]) -> None:
        engine = self._engine
        with engine.lock:
            for runner in crew:
                engine.scheduler.fleet.make_unfit(runner.slot)
            happened = engine.decided()
        engine.act(happened)

    def _end_attempt(self, slot: Slot, fate: Fate, reason: str, *, force: bool) -> bool:
        """End the attempt at `slot`, if there is one; with `force`, interrupt also one that is over."""
        engine, takeovers = self._engine, self._engine.takeovers
        with engine.lock:
            stuck = slot.stuck
            taken = [ctx for ctx in engine.scheduler.running_at(slot) if takeovers.take_over(slot, ctx)]
        for ctx in taken:
            takeovers.end(slot, ctx, fate, reason, interrupt=force)
        if force and stuck is not None:
            slot.interrupt(stuck)
        return bool(taken)

    # -- stuck -----------------------------------------------------------------------------------

    def _replace_stuck(self, _event: WorkerStuck) -> None:
        engine = self._engine
        with engine.lock:
            overstayed, engine.overstayed = engine.overstayed, set()
        for runner in self:
            if runner.slot in overstayed:
                runner.interrupt_again()
                if not (runner.can_be_remade and self._replace(runner)):
                    self._give_up(runner.slot)

    def _give_up(self, slot: Slot) -> None:
        """Don't count on a runner any more, until it comes back."""
        engine = self._engine
        with engine.lock:
            slot.given_up = slot.stuck is not None
            happened = engine.decided()
        engine.act(happened)

    def _replace_those_gone(self, crew: Crew[T, R]) -> None:
        """Let others stand in for those who are stuck, and those who could not be started."""
        for runner in crew:
            if runner.error is not None:
                self._start_again(runner)
            elif runner.slot.stuck is not None and runner.can_be_remade:
                self._replace(runner)

    def _start_again(self, old: Runner[T, R]) -> None:
        """Try once more to start a worker that could not be started."""
        engine = self._engine
        with engine.lock:
            fleet = engine.scheduler.fleet
            if old not in self._crews.get(old.slot.id, ()) or engine.exiting:
                return
            if engine.closed and (engine.scheduler.over or old.slot not in fleet.returning):
                fleet.returning.discard(old.slot)
                return
            fleet.returning.discard(old.slot)
            # By its name: others of its crew may have begun it anew.
            group = engine.scheduler.fleet.group(old.slot.group.name, old.spec.rate)
            runner = self._stand_in(old, group, old.next_spec if old.can_be_remade else old.spec)
            runner.failed_starts, runner.failing_since = old.failed_starts + 1, old.failing_since
            happened = engine.decided()
        engine.act(happened)
        self._tell(WorkerAdded, runner.slot)
        self._start(runner)

    def _replace(self, old: Runner[T, R]) -> bool:
        """Give a stuck worker a new thread and a new resource, if not too many were given up already.

        Returns whether there is somebody again.
        """
        engine, slot = self._engine, old.slot
        with engine.lock:
            crew = self._crews.get(slot.id, ())
            if old not in crew or slot.stuck is None:
                return True  # it was seen to, or has come back
            if slot.retired or engine.exiting:
                return False
            if len(self._abandoned) >= self._max_abandoned:
                fields = worker_fields(engine.name, "worker_not_replaced", slot)
                log.error("%s is not replaced: max_abandoned threads are given up", slot.name, extra=fields)
                return False
            self._abandoned.add(old)
            runner = self._stand_in(old, slot.group, old.next_spec)
            happened = engine.decided()
        engine.act(happened)
        self._tell(WorkerReplaced, runner.slot)
        self._start(runner)
        return True

    def _stand_in(self, old: Runner[T, R], group: Group, spec: WorkerSpec[T, R]) -> Runner[T, R]:
        """Put a new runner in the place of `old`, with what that has counted. Called under the lock."""
        engine, scheduler, slot = self._engine, self._engine.scheduler, old.slot
        fresh = Slot(slot.id, slot.name, group, slot.tags)
        fresh.paused, fresh.cordoned_for = slot.paused, slot.cordoned_for
        Tally.of(slot).move_to(fresh)
        fresh.failures, fresh.lost = slot.failures, slot.lost
        runner = Runner(engine, fresh, spec, self._has_left)
        runner.worked_before = old.ready or old.worked_before
        self._crews[slot.id] = tuple(runner if one is old else one for one in self._crews[slot.id])
        scheduler.add(fresh)  # before the old one goes, so that its group stays
        scheduler.retire(slot, engine.monotonic())
        slot.wake()
        scheduler.remove(slot)
        engine.review_guard()
        return runner

    # -- pausing and parking ---------------------------------------------------------------------

    @shielded
    def pause(self, worker_id: int) -> None:
        """Give a worker nothing more."""
        self._tell(WorkerPaused, self._change(worker_id, self._engine.scheduler.fleet.pause))

    @shielded
    def resume(self, worker_id: int) -> None:
        """Give a worker tasks again that was paused or parked."""
        self._tell(WorkerResumed, self._change(worker_id, self._engine.scheduler.fleet.resume))

    @shielded
    def pause_all(self) -> None:
        """Give no worker anything until `resume_all`. Raises `PoolClosed`: it runs what it has."""
        self._engine.steps.check("pause()")
        engine = self._engine
        with engine.lock:
            if refusal := engine.closing_refusal():
                raise refusal
            engine.scheduler.fleet.pause_all()
            happened = engine.decided()
        engine.act(happened)

    @shielded
    def resume_all(self) -> None:
        """Give the workers tasks again, but for those that were paused one by one."""
        self._engine.steps.check("resume()")
        engine = self._engine
        with engine.lock:
            engine.scheduler.fleet.resume_all()
            engine.scheduler.schedules.catch_up()
            happened = engine.decided()
        engine.act(happened)

    @shielded
    def cordon(self, worker_id: int, reason: str) -> None:
        """Give a worker nothing more, for good."""
        bar = self._engine.scheduler.bar
        slot = self._change(worker_id, lambda slot: bar(slot, reason))
        engine = self._engine
        engine.observers.tell(WorkerCordoned(engine.monotonic(), slot.id, slot.name, slot.group.name, reason))

    @shielded
    def _change(self, worker_id: int, change: Callable[[Slot], None]) -> Slot:
        """Do something to each slot of a worker; return one of them."""
        self._engine.steps.check("a change of a worker")
        engine = self._engine
        crew = self.find(worker_id)
        with engine.lock:
            for runner in crew:
                change(runner.slot)
            engine.scheduler.expire_the_late(engine.monotonic())
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)
        return crew[0].slot

    def _tell(self, kind: type[WorkerEvent], slot: Slot) -> None:
        engine = self._engine
        engine.observers.tell(kind(engine.monotonic(), slot.id, slot.name, slot.group.name))

    def infos(self) -> list[WorkerInfo]:
        """Return what there is to tell of each worker, in the order in which they came."""
        return self._engine.look(self._infos)

    def _infos(self) -> list[WorkerInfo]:
        now, held = self._engine.monotonic(), self._engine.scheduler.dropped
        return [info_of(crew, now, held) for crew in self._crews.values()]


def _dismiss_by(workers: ref[Workers[Any, Any]], worker_id: int, token: CancelToken) -> None:
    """Let a worker leave whose token was cancelled. The token does not keep the pool."""
    its = workers()
    if its is not None:
        its.dismiss(worker_id, reason_of(token))
