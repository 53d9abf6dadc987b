"""Fleets simulated in virtual time, by the scheduler of a `ManualPool`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

from retrypool.errors import InvalidType, RetryPoolError, Throttled
from retrypool.model.context import Context
from retrypool.model.slots import Slot
from retrypool.model.worker import AnyWorker, WorkerSpec
from retrypool.policy.rates import Bucket, Rate
from retrypool.testing.clock import FakeClock
from retrypool.testing.manual import ManualAttempt, ManualPool, is_free

__all__ = ["SimulatedCall", "Simulation", "WorkerModel", "simulate"]

Latency = float | tuple[float, float] | Callable[[random.Random], float]
"""Seconds that a call takes: always so many, uniform between two, or drawn by a function."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkerModel:
    """How a worker behaves in `simulate`. Times are in seconds of virtual time.

    - `latency`: how long a call takes that succeeds, or fails by chance.
    - `failure_rate`: the share of calls that fail by chance, with `error`.
    - `outages`: spans (from, to); a call that begins in one fails with `error` after `refusal` seconds.
    - `quota`: a `Rate`; a call beyond it is answered with `Throttled` after `refusal` seconds.
    - `behave`: decides instead of all these. Called as `behave(data, now, random)`, it returns the seconds
      that the call takes, and the error that it fails by, or None.
    """

    latency: Latency = 0.01
    failure_rate: float = 0.0
    outages: Sequence[tuple[float, float]] = ()
    quota: Rate | None = None
    error: Callable[[], BaseException] = ConnectionError
    refusal: float = 0.0001
    behave: Callable[[Any, float, random.Random], tuple[float, BaseException | None]] | None = None
    name: str | None = None
    concurrency: int = 1


class SimulatedCall(NamedTuple):
    """One call of a worker, in virtual time."""

    started: float
    ended: float
    worker: str
    data: Any
    error: BaseException | None


@dataclass(frozen=True)
class Simulation:
    """What came of a simulated run. `waste` is the number of calls that failed, `makespan` in seconds."""

    makespan: float
    calls: int
    waste: int
    succeeded: int
    dead: int
    failures: dict[str, int]  # by worker
    ejections: int
    outages: int
    hedged: int  # second attempts of tasks that took long
    trace: list[SimulatedCall]


def simulate(
    workers: Iterable[WorkerModel], tasks: int | Iterable[Any], *, seed: int = 0, **options: Any
) -> Simulation:
    """Run tasks through modelled workers in virtual time, all dispatched at its beginning.

    It is the scheduler of a `Pool` that decides, with its `options`; all chance comes from `seed`, so that a
    run can be repeated. The same model twice is the same object: those workers share a group. A call takes
    some tens of microseconds of real time, however long it is. Raises what a `Pool` raises for wrong options,
    and `RetryPoolError` if tasks are left that nothing will ever happen to.

    >>> run = simulate([WorkerModel(latency=1.0) for _ in range(5)], 20)
    >>> run.makespan, run.calls, run.waste
    (4.0, 20, 0)
    """
    return _Run(workers, tasks, seed, options).go()


class _Hand:
    """Stands for a worker in the pool, which never calls it."""

    def run(self, _ctx: Context, data: Any) -> Any:
        return data


class _Model:
    """A modelled worker at work: its model, and what it remembers."""

    def __init__(self, model: WorkerModel, chance: random.Random) -> None:
        self.model = model
        self._chance = chance
        self._bucket = None if model.quota is None else Bucket(model.quota)

    def call(self, data: Any, now: float) -> tuple[float, BaseException | None]:
        """Return how long a call takes that begins now, and what it fails by."""
        model = self.model
        if model.behave is not None:
            return model.behave(data, now, self._chance)
        if any(begin <= now < end for begin, end in model.outages):
            return model.refusal, model.error()
        if self._bucket is not None:
            wait = self._bucket.ready_at(now) - now
            if wait > 0:
                return model.refusal, Throttled(retry_after=wait)
            self._bucket.take(now, 1.0)
        error = model.error() if self._chance.random() < model.failure_rate else None
        return self._latency(), error

    def _latency(self) -> float:
        latency = self.model.latency
        if isinstance(latency, tuple):
            return self._chance.uniform(*latency)
        return latency(self._chance) if callable(latency) else latency


class _Run:
    """One simulation: the calls that are under way, and who has been woken."""

    def __init__(
        self, workers: Iterable[WorkerModel], tasks: int | Iterable[Any], seed: int, options: dict[str, Any]
    ) -> None:
        chance = random.Random(seed)
        known: dict[WorkerModel, tuple[str, _Model]] = {}
        models: list[_Model] = []
        specs: list[AnyWorker[Any, Any] | WorkerSpec[Any, Any]] = []
        for model in workers:
            if not isinstance(model, WorkerModel):
                raise InvalidType("a worker", model, "a WorkerModel")
            name = model.name or f"worker-{len(specs)}"
            group, at_work = known.setdefault(model, (name, _Model(model, chance)))
            models.append(at_work)
            specs.append(
                WorkerSpec(_Hand(), name=name, group=group, concurrency=model.concurrency)  # one object each
            )
        self._clock = FakeClock()
        self._pool: ManualPool[Any, Any] = ManualPool(specs, clock=self._clock, **options)
        self._pool._engine.chance = chance.random
        self._models = models  # by the ids of workers, which count from 0
        self._called: list[Slot] = []
        for runner in self._pool._workers:
            runner.slot.wake = partial(self._called.append, runner.slot)
            self._called.append(runner.slot)
        data = range(tasks) if isinstance(tasks, int) else list(tasks)
        self._total = len(data)
        self._pool.dispatch_many(data)
        self._ends: list[tuple[float, int, ManualAttempt[Any, Any], BaseException | None]] = []
        self._succeeded = 0
        self._trace: list[SimulatedCall] = []

    def go(self) -> Simulation:
        scheduler = self._pool._engine.scheduler
        while True:
            self._let_those_called_look()
            if self._succeeded + scheduler.endings.died + scheduler.endings.cancelled >= self._total:
                return self._result()
            wakeup = scheduler.next_wakeup()
            if self._ends and (wakeup is None or self._ends[0][0] <= wakeup):
                self._end(*heappop(self._ends))
            elif wakeup is not None:
                self._pass_until(wakeup)
                self._clock.advance(0)
            else:
                raise RetryPoolError("the simulation stands still: no worker will ever take what is left")

    def _pass_until(self, moment: float) -> None:
        self._clock._now = max(self._clock._now, moment)

    def _let_those_called_look(self) -> None:
        called = self._called
        while called:
            slot = called.pop(0)
            if is_free(slot) and (attempt := self._pool._claim(slot)) is not None:
                now, data = self._clock._now, attempt.task.data
                takes, error = self._models[slot.id].call(data, now)
                heappush(self._ends, (now + takes, len(self._trace), attempt, error))
                self._trace.append(SimulatedCall(now, now + takes, slot.name, data, error))

    def _end(
        self, when: float, _number: int, attempt: ManualAttempt[Any, Any], error: BaseException | None
    ) -> None:
        self._pass_until(when)
        if error is not None:
            attempt.fail(error)
        else:
            had_ended = attempt.task.done()
            attempt.finish(None)
            self._succeeded += attempt.task.done() and not had_ended
        self._called.append(attempt._slot)

    def _result(self) -> Simulation:
        failures: dict[str, int] = {}
        for call in self._trace:
            failures[call.worker] = failures.get(call.worker, 0) + (call.error is not None)
        quarantine = self._pool._engine.scheduler.fleet.quarantine
        return Simulation(
            makespan=self._clock._now,
            calls=len(self._trace),
            waste=sum(failures.values()),
            succeeded=self._succeeded,
            dead=self._pool._engine.scheduler.endings.died,
            failures=failures,
            ejections=quarantine.ejections,
            outages=quarantine.outages,
            hedged=self._pool.stats().hedged,
            trace=self._trace,
        )
