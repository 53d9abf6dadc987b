"""The threads of workers: started, tried again if that fails, and replaced when they do not come back."""

from __future__ import annotations

import logging
from functools import partial
from typing import Generic, TypeVar

from retrypool.callbacks import described
from retrypool.events import WorkerAdded, WorkerFailed, WorkerRemoved, WorkerReplaced, WorkerStuck
from retrypool.model.describe import worker_fields
from retrypool.model.slots import Group, Slot
from retrypool.model.worker import WorkerSpec
from retrypool.threads.crews import Crew, Crews
from retrypool.threads.engine import Engine
from retrypool.threads.runner import Runner
from retrypool.threads.watchdog import FIRST_PAUSE, LONGEST_PAUSE

__all__ = ["Replacing"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 300.0
"""Seconds for which tasks wait for a worker that worked, and can't be started afresh."""


class Replacing(Generic[T, R]):
    """Sees to it that each worker of a pool has the threads that it should have."""

    def __init__(self, engine: Engine[T, R], crews: Crews[T, R], *, max_abandoned: int) -> None:
        self._engine = engine
        self._crews = crews
        self._max_abandoned = max_abandoned
        engine.on_stuck = self._replace_stuck
        self._on_leave = self._has_left  # bound once, for all runners

    def make(self, slot: Slot, spec: WorkerSpec[T, R]) -> Runner[T, R]:
        """Return a runner for `slot` whose thread is to be started."""
        return Runner(self._engine, slot, spec, self._on_leave)

    # -- started ---------------------------------------------------------------------------------

    def start(self, runner: Runner[T, R], pause: float = FIRST_PAUSE) -> None:
        """Start the thread of a runner; if the system has none to give, try again after `pause` seconds."""
        engine = self._engine
        try:
            runner.start()
        except (RuntimeError, MemoryError):
            if engine.exiting:
                raise
            log.warning("%s can't be started now: that is tried again", runner.thread.name, exc_info=True)
            again = partial(self._start_late, runner, min(2 * pause, LONGEST_PAUSE))
            with engine.step:
                engine.scheduler.timers.add(engine.monotonic() + pause, engine.run_errand, again)

    def _start_late(self, runner: Runner[T, R], pause: float) -> None:
        """Start a runner that got no thread before, unless it is not wanted any more."""
        if runner in self._crews and not runner.slot.retired:
            self.start(runner, pause)

    # -- at its end ------------------------------------------------------------------------------

    def _has_left(self, runner: Runner[T, R]) -> None:
        """Record the end of a runner's thread."""
        engine, crews, slot = self._engine, self._crews, runner.slot
        reason = "" if runner.error is None else described(runner.error)
        with engine.step:
            leaves = slot.retired
            engine.scheduler.retire(slot, engine.monotonic())
            runner.gone = True
            crews.abandoned.discard(runner)
            # A worker has left once all its threads have.
            last = all(one.gone for one in crews.of(slot.id))
            if runner.dismissed:
                crews.forget(runner)
            elif runner.error is not None and not leaves:
                self._try_later(runner, reason)
        if last and (leaves or runner.error is None):
            engine.bonds.unbind(slot.id)
        if runner.error is not None:
            crews.tell(WorkerFailed, slot, runner.error)
        elif last:
            crews.tell(WorkerRemoved, slot)

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

    def _start_again(self, old: Runner[T, R]) -> None:
        """Try once more to start a worker that could not be started."""
        engine = self._engine
        with engine.step:
            fleet = engine.scheduler.fleet
            if old not in self._crews or engine.exiting:
                return
            given_up = engine.closed and (engine.scheduler.over or old.slot not in fleet.returning)
            fleet.returning.discard(old.slot)
            if given_up:
                return
            # By its name: others of its crew may have begun it anew.
            group = fleet.group(old.slot.group.name, old.spec.rate)
            runner = self._stand_in(old, group, old.next_spec if old.can_be_remade else old.spec)
            runner.failed_starts, runner.failing_since = old.failed_starts + 1, old.failing_since
        self._crews.tell(WorkerAdded, runner.slot)
        self.start(runner)

    # -- stuck -----------------------------------------------------------------------------------

    def replace_those_gone(self, crew: Crew[T, R]) -> None:
        """Let others stand in for those who are stuck, and those who could not be started."""
        for runner in crew:
            if runner.error is not None:
                self._start_again(runner)
            elif runner.slot.stuck is not None and runner.can_be_remade:
                self._replace(runner)

    def _replace_stuck(self, _event: WorkerStuck) -> None:
        """Replace those who have not come back in time; where that can't be, don't count on them."""
        engine = self._engine
        with engine.lock:
            overstayed, engine.overstayed = engine.overstayed, set()
        for runner in self._crews:
            slot = runner.slot
            if slot in overstayed:
                runner.interrupt_again()
                if not (runner.can_be_remade and self._replace(runner)):
                    with engine.step:
                        slot.given_up = slot.stuck is not None  # until it comes back

    def _replace(self, old: Runner[T, R]) -> bool:
        """Give a stuck worker a new thread and a new resource, if not too many were given up already.

        Returns whether there is somebody again.
        """
        engine, crews, slot = self._engine, self._crews, old.slot
        with engine.step:
            if old not in crews or slot.stuck is None:
                return True  # it was seen to, or has come back
            if slot.retired or engine.exiting:
                return False
            runner = None
            if len(crews.abandoned) < self._max_abandoned:
                crews.abandoned.add(old)
                runner = self._stand_in(old, slot.group, old.next_spec)
        if runner is None:
            fields = worker_fields(engine.name, "worker_not_replaced", slot)
            log.error("%s is not replaced: max_abandoned threads are given up", slot.name, extra=fields)
            return False
        crews.tell(WorkerReplaced, runner.slot)
        self.start(runner)
        return True

    def _stand_in(self, old: Runner[T, R], group: Group, spec: WorkerSpec[T, R]) -> Runner[T, R]:
        """Put a new runner in the place of `old`. Called under the lock."""
        runner = self.make(Slot(old.slot.id, old.slot.name, group, old.slot.tags), spec)
        self._crews.exchange(old, runner)
        self._engine.review_guard()
        return runner
