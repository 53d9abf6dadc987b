"""The workers of a pool: who joins, who leaves, who pauses, and what they are doing."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Literal, TypeVar, get_args
from weakref import ref

from retrypool.ctrl_c import join
from retrypool.errors import InvalidValue
from retrypool.events import WorkerAdded, WorkerCordoned, WorkerPaused, WorkerResumed
from retrypool.model.cancel import CancelToken, reason_of
from retrypool.model.slots import Slot
from retrypool.model.worker import WorkerInfo, WorkerSpec
from retrypool.threads.crews import Crew, Crews
from retrypool.threads.engine import Engine
from retrypool.threads.interrupt import shielded
from retrypool.threads.replacing import Replacing
from retrypool.threads.runner import Runner
from retrypool.threads.snapshots import info_of
from retrypool.threads.takeover import Fate

__all__ = ["Then", "Workers"]

T = TypeVar("T")
R = TypeVar("R")

Then = Literal["keep", "pause", "restart", "remove"]
"""What a worker does after it was interrupted."""


class Workers(Generic[T, R]):
    """The workers of one pool. A worker is one runner, or several if its concurrency is more than 1."""

    def __init__(self, engine: Engine[T, R], *, max_abandoned: int) -> None:
        self._engine = engine
        self.crews: Crews[T, R] = Crews(engine)
        self._replacing = Replacing(engine, self.crews, max_abandoned=max_abandoned)
        self._next_id = itertools.count().__next__
        self.find, self.tally = self.crews.find, self.crews.tally

    def __iter__(self) -> Iterator[Runner[T, R]]:
        return iter(self.crews)

    @property
    def abandoned(self) -> int:
        """How many threads were given up and have not come back."""
        return len(self.crews.abandoned)

    # -- coming ----------------------------------------------------------------------------------

    @shielded
    def add(self, specs: Sequence[WorkerSpec[T, R]]) -> list[int]:
        """Add workers, start their threads, and return their ids."""
        self._engine.steps.check("add_worker()")
        engine = self._engine
        with engine.step:
            if refusal := engine.closing_refusal():
                raise refusal
            crews = [self._enter(spec) for spec in specs]
            engine.review_guard()
        for spec, crew in zip(specs, crews, strict=True):
            self._begin(spec, crew)
        return [crew[0].slot.id for crew in crews]

    def _enter(self, spec: WorkerSpec[T, R]) -> Crew[T, R]:
        """Make the runners of a new worker, and enter them. Called under the lock."""
        fleet = self._engine.scheduler.fleet
        worker_id = self._next_id()
        name = spec.name or f"worker-{worker_id}"
        # A group of its own, also for one that is called as another is.
        own = name if name not in fleet.groups else f"{name}-{worker_id}"
        group = fleet.group(spec.group or self.crews.group_of(spec) or own, spec.rate)
        slots = [Slot(worker_id, name, group, spec.tags) for _ in range(spec.concurrency)]
        crew = tuple([self._replacing.make(slot, spec) for slot in slots])
        self._engine.admission.workers_seen.update((worker_id, group.name))
        self.crews.join(worker_id, crew)
        return crew

    def _begin(self, spec: WorkerSpec[T, R], crew: Crew[T, R]) -> None:
        """Start the threads of a new worker."""
        engine, slot = self._engine, crew[0].slot
        if engine.journal is not None:
            engine.journal.worker(slot, there=True)
        self.crews.tell(WorkerAdded, slot)
        for runner in crew:
            self._replacing.start(runner)
        if spec.cancel is not None:
            engine.bonds.bind(slot.id, spec.cancel, partial(_dismiss_by, ref(self), slot.id))

    # -- leaving ---------------------------------------------------------------------------------

    @shielded
    def remove(self, worker_id: int, timeout: float, *, force: bool) -> None:
        """Let a worker leave: asked first, then without its task, then by force, then without it."""
        self._engine.steps.check("remove_worker()")
        worker_id = self.find(worker_id)[0].slot.id
        crew = self._ask_to_leave(worker_id)
        if any(runner.thread is threading.current_thread() for runner in crew):
            return  # it leaves after the task that this call was made from
        until = time.monotonic() + timeout
        for runner in crew:
            if runner.thread.is_alive():  # not one that is just being started, which CPython refuses to join
                join(runner.thread, until - time.monotonic())
        self.dismiss(worker_id, "the worker was removed", force=force)

    def _ask_to_leave(self, worker_id: int) -> Crew[T, R]:
        """Let the runners of a worker leave after what they run; return them. No other will join them."""
        engine = self._engine
        with engine.lock:
            crew = self.crews.of(worker_id)
            for runner in crew:
                runner.dismissed = True  # now: a Ctrl-C may end the wait for it
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
        found = [self._end_attempt(runner.slot, "retry", reason, force=force) for runner in crew]
        with engine.step:
            for runner, was_found in zip(crew, found, strict=True):
                # A thread that has neither left nor been found in an attempt may have a task in hand
                # that it is just about to begin: it is forgotten once it has left.
                if was_found or runner.gone or runner.slot.idle or runner.slot.stuck is not None:
                    self.crews.forget(runner)
        engine.bonds.unbind(worker_id)

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
            self._replacing.replace_those_gone(crew)
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
        self._replacing.replace_those_gone(crew)

    @shielded
    def supplant(self, worker_id: int, spec: WorkerSpec[T, R]) -> None:
        """Put another resource in a worker's place, and let it begin with a clean slate."""
        self._engine.steps.check("replace_worker()")
        engine = self._engine
        slot = self.find(worker_id)[0].slot
        worker_id = slot.id
        self.restart(worker_id, spec)
        with engine.step:
            # Others of its group have still the resource that was told to wait, or was found ill.
            if all(other.id == worker_id for other in slot.group.slots):
                engine.scheduler.forgive(slot.group, engine.monotonic())
        if slot.cordoned_for is not None:
            self.resume(worker_id)

    def _make_unfit(self, crew: Crew[T, R]) -> None:
        engine = self._engine
        with engine.step:
            for runner in crew:
                engine.scheduler.fleet.make_unfit(runner.slot)

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

    # -- pausing and parking ---------------------------------------------------------------------

    @shielded
    def pause(self, worker_id: int) -> None:
        """Give a worker nothing more."""
        self.crews.tell(WorkerPaused, self._change(worker_id, self._engine.scheduler.fleet.pause))

    @shielded
    def resume(self, worker_id: int) -> None:
        """Give a worker tasks again that was paused or parked."""
        self.crews.tell(WorkerResumed, self._change(worker_id, self._engine.scheduler.fleet.resume))

    @shielded
    def pause_all(self) -> None:
        """Give no worker anything until `resume_all`. Raises `PoolClosed`: it runs what it has."""
        self._engine.steps.check("pause()")
        engine = self._engine
        with engine.step:
            if refusal := engine.closing_refusal():
                raise refusal
            engine.scheduler.fleet.pause_all()

    @shielded
    def resume_all(self) -> None:
        """Give the workers tasks again, but for those that were paused one by one."""
        self._engine.steps.check("resume()")
        engine = self._engine
        with engine.step:
            engine.scheduler.fleet.resume_all()
            engine.scheduler.schedules.catch_up()

    @shielded
    def cordon(self, worker_id: int, reason: str) -> None:
        """Give a worker nothing more, for good."""
        bar = self._engine.scheduler.bar
        slot = self._change(worker_id, lambda slot: bar(slot, reason))
        self.crews.tell(WorkerCordoned, slot, reason)

    @shielded
    def _change(self, worker_id: int, change: Callable[[Slot], None]) -> Slot:
        """Do something to each slot of a worker; return one of them."""
        self._engine.steps.check("a change of a worker")
        engine = self._engine
        crew = self.find(worker_id)
        with engine.step:
            for runner in crew:
                change(runner.slot)
            engine.scheduler.deadlines.expire_the_late(engine.monotonic())
            engine.review_guard()
        return crew[0].slot

    def infos(self) -> list[WorkerInfo]:
        """Return what there is to tell of each worker, in the order in which they came."""
        return self._engine.look(self._infos)

    def _infos(self) -> list[WorkerInfo]:
        now, held = self._engine.monotonic(), self._engine.scheduler.dropped
        return [info_of(crew, now, held) for crew in self.crews.all()]


def _dismiss_by(workers: ref[Workers[Any, Any]], worker_id: int, token: CancelToken) -> None:
    """Let a worker leave whose token was cancelled. The token does not keep the pool."""
    its = workers()
    if its is not None:
        its.dismiss(worker_id, reason_of(token))
