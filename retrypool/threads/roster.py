"""The workers of a pool: who joins, who leaves, who pauses, and what they are doing."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, get_args

from retrypool.context import CancelToken
from retrypool.core.seat import Seat
from retrypool.errors import InvalidValue, WorkerNotFound
from retrypool.events import (
    WorkerAdded,
    WorkerEvent,
    WorkerFailed,
    WorkerPaused,
    WorkerRemoved,
    WorkerReplaced,
    WorkerResumed,
    WorkerStuck,
)
from retrypool.threads.attempts import Fate, reason_of
from retrypool.threads.engine import Engine
from retrypool.threads.runner import Runner
from retrypool.worker import AnyWorker, WorkerInfo, WorkerSpec

__all__ = ["Roster", "Then", "as_spec"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

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
    def of(cls, seat: Seat) -> Tally:
        """Return what has been counted at `seat`."""
        return cls(seat.succeeded, seat.failed, seat.timed_out, seat.retried)

    def move_to(self, seat: Seat) -> None:
        """Let `seat`, where nobody works yet, begin with these counts."""
        seat.succeeded, seat.failed = self.succeeded, self.failed
        seat.timed_out, seat.retried = self.timed_out, self.retried

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.timed_out + other.timed_out,
            self.retried + other.retried,
        )


class Roster(Generic[T, R]):
    """The workers of one pool."""

    # _runners and _abandoned are written under the engine's lock.
    def __init__(self, engine: Engine[T, R], *, max_abandoned: int) -> None:
        self._engine = engine
        self._max_abandoned = max_abandoned
        self._runners: dict[int, Runner[T, R]] = {}
        self._abandoned: set[Runner[T, R]] = set()  # whose threads have not come back yet
        self._next_id = itertools.count().__next__
        self.departed = Tally()
        engine.on_stuck = self._replace_stuck

    def __iter__(self) -> Iterator[Runner[T, R]]:
        return iter(list(self._runners.values()))

    @property
    def abandoned(self) -> int:
        """How many threads were given up and have not come back."""
        return len(self._abandoned)

    def find(self, worker_id: int) -> Runner[T, R]:
        """Return the worker of this id. Raises `WorkerNotFound`."""
        runner = self._runners.get(worker_id) if isinstance(worker_id, int) else None
        if runner is None:
            raise WorkerNotFound(worker_id, tuple(self._runners))
        return runner

    def tally(self) -> Tally:
        """Return the counts of all attempts, those of workers that have left included."""
        total = Tally() + self.departed
        for runner in self:
            total += Tally.of(runner.seat)
        return total

    # -- coming ----------------------------------------------------------------------------------

    def add(self, spec: WorkerSpec[T, R]) -> Runner[T, R]:
        """Add a worker and start its thread."""
        engine, scheduler = self._engine, self._engine.scheduler
        with engine.lock:
            if refusal := engine.closing_refusal():
                raise refusal
            worker_id = self._next_id()
            name = spec.name or f"worker-{worker_id}"
            seat = Seat(worker_id, name, scheduler.staff.group(spec.group or name))
            runner = Runner(engine, seat, spec, self._has_left)
            self._runners[worker_id] = runner
            scheduler.add(seat)
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)
        self._tell(WorkerAdded, seat)
        if engine.threaded:
            runner.thread.start()
        if spec.cancel is not None:
            engine.follow(spec.cancel, lambda token: self._dismiss(runner, reason_of(token)))
        return runner

    # -- leaving ---------------------------------------------------------------------------------

    def remove(self, worker_id: int, timeout: float, *, force: bool) -> None:
        """Let a worker leave: asked first, then without its task, then by force, then without it."""
        runner = self.find(worker_id)
        self._ask_to_leave(runner)
        if runner.thread is threading.current_thread():
            return  # it leaves after the task that this call was made from
        if runner.thread.ident is not None:
            runner.thread.join(timeout)
        self._dismiss(runner, f"{runner.seat.name} was removed", force=force)

    def _ask_to_leave(self, runner: Runner[T, R]) -> None:
        engine = self._engine
        runner.stop.set()
        with engine.lock:
            engine.scheduler.retire(runner.seat, engine.monotonic())
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)

    def _dismiss(self, runner: Runner[T, R], reason: str, *, force: bool = False) -> None:
        """Let a worker leave at once: its task is run elsewhere, and its thread is not waited for."""
        engine, seat = self._engine, runner.seat
        self._ask_to_leave(runner)
        self._end_attempt(seat, "retry", reason, force=force)
        with engine.lock:
            if self._runners.get(seat.id) is runner:
                del self._runners[seat.id]
                engine.scheduler.remove(seat)
                self.departed += Tally.of(seat)
                if runner.thread.is_alive():
                    self._abandoned.add(runner)
            happened = engine.decided()
        engine.act(happened)

    def _has_left(self, runner: Runner[T, R]) -> None:
        """Take notice of the end of a worker's thread."""
        engine, seat = self._engine, runner.seat
        with engine.lock:
            engine.scheduler.retire(seat, engine.monotonic())
            engine.review_guard()
            self._abandoned.discard(runner)
            happened = engine.decided()
        engine.act(happened)
        if runner.error is None:
            self._tell(WorkerRemoved, seat)
        else:
            now = engine.monotonic()
            engine.observers.tell(WorkerFailed(now, seat.id, seat.name, seat.group.name, runner.error))

    # -- in between ------------------------------------------------------------------------------

    def interrupt(self, worker_id: int, task: Fate, then: Then, *, force: bool) -> bool:
        """End what a worker runs, decide its task's fate and what the worker does next."""
        runner = self.find(worker_id)
        for what, value, choices in (("task", task, get_args(Fate)), ("then", then, get_args(Then))):
            if value not in choices:
                raise InvalidValue(what, value, f"one of {', '.join(map(repr, choices))}")
        seat = runner.seat
        if then == "pause":  # before its task is ended, so that it gets no other
            self.pause(worker_id)
        elif then == "restart":
            self._make_unfit(seat)
        ended = self._end_attempt(seat, task, f"{seat.name} was interrupted", force=force)
        if then == "remove":
            self._dismiss(runner, f"{seat.name} was removed", force=force)
        elif then == "restart" and seat.stuck is not None:
            self._replace(runner)
        return ended

    def restart(self, worker_id: int) -> None:
        """Have a worker stopped, made anew and started, after what it runs."""
        runner = self.find(worker_id)
        self._make_unfit(runner.seat)
        if runner.seat.stuck is not None:
            self._replace(runner)

    def _make_unfit(self, seat: Seat) -> None:
        engine = self._engine
        with engine.lock:
            engine.scheduler.staff.make_unfit(seat)
            happened = engine.decided()
        engine.act(happened)

    def _end_attempt(self, seat: Seat, fate: Fate, reason: str, *, force: bool) -> bool:
        """End the attempt at `seat`, if there is one; with `force`, interrupt also one that is over."""
        attempts = self._engine.attempts
        with self._engine.lock:
            stuck = seat.stuck
            taken = [ctx for ctx in seat.running[:] if attempts.take_over(seat, ctx)]
        for ctx in taken:
            attempts.end(seat, ctx, fate, reason, interrupt=force)
        if force and stuck is not None:
            seat.interrupt(stuck)
        return bool(taken)

    # -- stuck -----------------------------------------------------------------------------------

    def _replace_stuck(self, event: WorkerStuck) -> None:
        runner = self._runners.get(event.worker_id)
        if runner is not None and runner.seat.stuck is not None:
            log.warning("%s has not come back from an attempt that is over", runner.seat.name)
            self._replace(runner)

    def _replace(self, old: Runner[T, R]) -> None:
        """Give a stuck worker that has a factory a new thread, if not too many were given up already."""
        engine, scheduler = self._engine, self._engine.scheduler
        seat = old.seat
        if old.spec.factory is None:
            return
        with engine.lock:
            if self._runners.get(seat.id) is not old or seat.stuck is None or engine.closed:
                return
            if len(self._abandoned) >= self._max_abandoned:
                log.error(
                    "%s is not replaced: max_abandoned=%d threads are given up already",
                    seat.name,
                    self._max_abandoned,
                )
                return
            fresh = Seat(seat.id, seat.name, seat.group)
            fresh.paused = seat.paused
            Tally.of(seat).move_to(fresh)
            runner = Runner(engine, fresh, replace(old.spec, worker=None), self._has_left)
            self._runners[seat.id] = runner
            self._abandoned.add(old)
            old.stop.set()
            scheduler.add(fresh)  # before the old one goes, so that its group stays
            scheduler.retire(seat, engine.monotonic())
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)
        self._tell(WorkerReplaced, fresh)
        if engine.threaded:
            runner.thread.start()

    # -- pausing and looking ---------------------------------------------------------------------

    def pause(self, worker_id: int) -> None:
        """Give a worker nothing more."""
        engine = self._engine
        seat = self.find(worker_id).seat
        with engine.lock:
            engine.scheduler.staff.pause(seat)
            happened = engine.decided()
        engine.act(happened)
        self._tell(WorkerPaused, seat)

    def resume(self, worker_id: int) -> None:
        """Give a paused worker tasks again."""
        engine = self._engine
        seat = self.find(worker_id).seat
        with engine.lock:
            engine.scheduler.staff.resume(seat)
            happened = engine.decided()
        engine.act(happened)
        self._tell(WorkerResumed, seat)

    def _tell(self, kind: type[WorkerEvent], seat: Seat) -> None:
        engine = self._engine
        engine.observers.tell(kind(engine.monotonic(), seat.id, seat.name, seat.group.name))

    def infos(self) -> list[WorkerInfo]:
        """Return what there is to tell of each worker, in the order in which they came."""
        now = self._engine.monotonic()
        with self._engine.lock:
            return [_info(runner, now) for runner in self._runners.values()]


def _info(runner: Runner[Any, Any], now: float) -> WorkerInfo:
    seat = runner.seat
    group = seat.group
    attempt = seat.running[-1:] or ([seat.stuck] if seat.stuck is not None else [])
    return WorkerInfo(
        id=seat.id,
        name=seat.name,
        group=group.name,
        state=_state(runner, bool(seat.running), now),
        task_id=attempt[0].task_id if attempt else None,
        succeeded=seat.succeeded,
        failed=seat.failed + seat.timed_out,
        error=runner.error,
        cooling_until=group.until if group.cooling(now) else None,
    )


def _state(runner: Runner[Any, Any], runs: bool, now: float) -> str:
    seat = runner.seat
    if runner.error is not None:
        return "failed"
    if seat.retired:
        return "stopping"
    if seat.stuck is not None:
        return "stuck"
    if not runner.ready and runner.engine.threaded:
        return "starting"
    if seat.paused:
        return "paused"
    if seat.group.probe is seat:
        return "probing"
    if seat.group.cooling(now):
        return "cooling"
    return "running" if runs else "idle"


def as_spec(
    worker: AnyWorker[T, R] | WorkerSpec[T, R] | None,
    *,
    factory: Callable[[], AnyWorker[T, R]] | None = None,
    name: str | None = None,
    group: str | None = None,
    cancel: CancelToken | None = None,
) -> WorkerSpec[T, R]:
    """Return `worker` as a spec, with the options that are given in place of its own."""
    spec = worker if isinstance(worker, WorkerSpec) else None
    if spec is None:
        return WorkerSpec(worker, factory=factory, name=name, group=group, cancel=cancel)  # type: ignore[arg-type]
    return WorkerSpec(
        spec.worker,
        factory=factory or spec.factory,
        name=name or spec.name,
        group=group or spec.group,
        cancel=cancel or spec.cancel,
    )
