"""The workers of a pool: who joins, who leaves, who pauses, and what they are doing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from retrypool.core.seat import Seat
from retrypool.errors import WorkerNotFound
from retrypool.events import Event, WorkerAdded, WorkerEvent, WorkerPaused, WorkerResumed
from retrypool.task import Outcome
from retrypool.threads.engine import Engine
from retrypool.threads.runner import Runner
from retrypool.worker import AnyWorker, WorkerInfo, WorkerSpec

__all__ = ["Roster"]

T = TypeVar("T")
R = TypeVar("R")


class Roster(Generic[T, R]):
    """The workers of one pool."""

    def __init__(self, engine: Engine[T, R]) -> None:
        self._engine = engine
        self._runners: dict[int, Runner[T, R]] = {}  # written under the engine's lock
        self._next_id = itertools.count().__next__
        self.departed_succeeded = 0  # attempts of workers that have been removed
        self.departed_failed = 0
        self.departed_retried = 0

    def __iter__(self) -> Iterator[Runner[T, R]]:
        return iter(list(self._runners.values()))

    def __len__(self) -> int:
        return len(self._runners)

    def find(self, worker_id: int) -> Runner[T, R]:
        """Return the worker of this id. Raises `WorkerNotFound`."""
        runner = self._runners.get(worker_id) if isinstance(worker_id, int) else None
        if runner is None:
            raise WorkerNotFound(worker_id, tuple(self._runners))
        return runner

    def add(self, spec: WorkerSpec[T, R]) -> Runner[T, R]:
        """Add a worker and start its thread."""
        engine, scheduler = self._engine, self._engine.scheduler
        with engine.lock:
            if refusal := engine.closing_refusal():
                raise refusal
            worker_id = self._next_id()
            name = spec.name or f"worker-{worker_id}"
            seat = Seat(worker_id, name, scheduler.staff.group(spec.group or name))
            runner = Runner(engine, seat, spec)
            self._runners[worker_id] = runner
            scheduler.add(seat)
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)
        engine.observers.tell(WorkerAdded(engine.monotonic(), seat.id, seat.name, seat.group.name))
        if engine.threaded:
            runner.thread.start()
        return runner

    def remove(self, worker_id: int, timeout: float) -> None:
        """Let a worker leave: after its task, or without it once `timeout` seconds have passed."""
        engine, scheduler = self._engine, self._engine.scheduler
        runner = self.find(worker_id)
        seat = runner.seat
        runner.stop.set()
        with engine.lock:
            scheduler.retire(seat, engine.monotonic())
            engine.review_guard()
            happened = engine.decided()
        engine.act(happened)
        if runner.thread is threading.current_thread():
            return  # it leaves after the task that this call was made from
        if runner.thread.ident is not None:
            runner.thread.join(timeout)
        self._take_task_from(runner)
        with engine.lock:
            if self._runners.pop(worker_id, None) is not None:
                scheduler.remove(seat)
                self.departed_succeeded += seat.succeeded
                self.departed_failed += seat.failed + seat.timed_out
                self.departed_retried += seat.retried
            happened = engine.decided()
        engine.act(happened)

    def _take_task_from(self, runner: Runner[T, R]) -> None:
        """Let the task of a worker that does not come to an end be run elsewhere."""
        engine, seat = self._engine, runner.seat
        with engine.lock:
            taken = [ctx for ctx in seat.running[:] if engine.take_over(seat, ctx)]
        for ctx in taken:
            ctx._cancel(f"{seat.name} was removed")
            engine.take_away(seat, ctx, Outcome.WITHDRAWN)

    def pause(self, worker_id: int) -> None:
        """Give a worker nothing more."""
        engine = self._engine
        seat = self.find(worker_id).seat
        with engine.lock:
            engine.scheduler.staff.pause(seat)
            happened = engine.decided()
        self._tell(WorkerPaused, seat, happened)

    def resume(self, worker_id: int) -> None:
        """Give a paused worker tasks again."""
        engine = self._engine
        seat = self.find(worker_id).seat
        with engine.lock:
            engine.scheduler.staff.resume(seat)
            happened = engine.decided()
        self._tell(WorkerResumed, seat, happened)

    def _tell(self, kind: type[WorkerEvent], seat: Seat, happened: list[Event]) -> None:
        engine = self._engine
        engine.act(happened)
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
    worker: AnyWorker[T, R] | WorkerSpec[T, R], *, name: str | None = None, group: str | None = None
) -> WorkerSpec[T, R]:
    """Return `worker` as a spec, with the options that are given in place of its own."""
    if not isinstance(worker, WorkerSpec):
        return WorkerSpec(worker, name=name, group=group)
    return WorkerSpec(worker.worker, name=name or worker.name, group=group or worker.group)
