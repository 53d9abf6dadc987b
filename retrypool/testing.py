"""For tests: a clock that moves when told, a pool stepped by hand, and fleets simulated in virtual time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from typing import Any, Generic, Literal, NamedTuple

from typing_extensions import TypeVar, override

from retrypool.checks import Duration, seconds
from retrypool.clock import Clock
from retrypool.ctrl_c import shielded
from retrypool.errors import InvalidType, InvalidValue, RetryPoolError, Throttled
from retrypool.model.context import Context, begin, occupy
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.model.worker import AnyWorker, WorkerSpec, run_of
from retrypool.policy.rates import Bucket, Rate
from retrypool.pool import Pool
from retrypool.states import TaskState

__all__ = [
    "FakeClock",
    "ManualAttempt",
    "ManualPool",
    "SimulatedCall",
    "Simulation",
    "WorkerModel",
    "simulate",
]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)


class FakeClock(Clock):
    """A clock that stands still until `advance` is called. Good for `Pool(clock=…)` and `ManualPool`.

    >>> clock = FakeClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic()
    2.5
    """

    def __init__(self, *, start: float = 0.0, time: float = 1_700_000_000.0) -> None:
        self._now = start
        self._offset = time - start
        self._lock = threading.Lock()  # guards what follows
        self._sleepers: list[_Sleeper] = []
        self._followers: list[Callable[[], object]] = []

    @override
    def monotonic(self) -> float:
        return self._now

    @override
    def time(self) -> float:
        return self._now + self._offset

    def set_time(self, time: float) -> None:
        """Set the wall clock, which `monotonic` takes no notice of."""
        self._offset = time - self._now

    def advance(self, duration: Duration) -> None:
        """Let so many seconds pass: wake who has waited long enough, then tell who follows."""
        with self._lock:
            self._now += seconds("duration", duration)
            for sleeper in self._sleepers:
                if sleeper.until <= self._now:
                    sleeper.late = True
                    with suppress(RuntimeError):  # somebody else has just released it
                        sleeper.lock.release()
            followers = list(self._followers)
        for follower in followers:
            follower()

    def follow(self, follower: Callable[[], object]) -> None:
        """Have `follower()` called after each `advance`."""
        self._followers.append(follower)

    @override
    def acquire(self, lock: threading.Lock, timeout: float | None) -> bool:
        if timeout is None:
            return lock.acquire()
        sleeper = _Sleeper(lock, self._now + timeout)
        with self._lock:
            if sleeper.until <= self._now:
                return lock.acquire(blocking=False)
            self._sleepers.append(sleeper)
        lock.acquire()
        with self._lock:
            self._sleepers.remove(sleeper)
        return not sleeper.late

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g}>"


class _Sleeper:
    def __init__(self, lock: threading.Lock, until: float) -> None:
        self.lock = lock
        self.until = until
        self.late = False


class ManualPool(Pool[T, R]):
    """A pool without threads. `claim` does what a worker thread does first, and the rest is the test's.

    Everything else is as in `Pool`, in virtual time: `clock` is a `FakeClock`, and advancing it does
    what is due.

    >>> pool = ManualPool([str.upper])
    >>> task = pool.dispatch("x")
    >>> pool.claim().run()
    >>> task.result()
    'X'
    """

    _threaded = False

    def __init__(
        self,
        workers: Iterable[AnyWorker[T, R] | WorkerSpec[T, R]] = (),
        *,
        clock: FakeClock | None = None,
        **options: Any,
    ) -> None:
        self.clock = FakeClock() if clock is None else clock
        super().__init__(workers, clock=self.clock, **options)
        self.clock.follow(self._engine.watchdog.catch_up)

    def claim(self, worker_id: int | None = None) -> ManualAttempt[T, R] | None:
        """Let a worker (default: the first one that gets something) take a task.

        Returns the attempt, which is under way now, or None if there is nothing for it. Raises
        `InvalidValue` for a worker that is busy.
        """
        if worker_id is not None:
            slots = [runner.slot for runner in self._workers.find(worker_id)]
            return self._claim(next((slot for slot in slots if _is_free(slot)), slots[0]))
        for runner in self._workers:
            if _is_free(runner.slot) and (attempt := self._claim(runner.slot)):
                return attempt
        return None

    @shielded
    def _claim(self, slot: Slot) -> ManualAttempt[T, R] | None:
        if not _is_free(slot):
            raise InvalidValue("the worker", slot.id, "one that runs nothing")
        if slot.unfit:  # a thread would make its worker anew now
            next(runner for runner in self._workers if runner.slot is slot).restart()
        self._engine.scheduler.fleet.unpark(slot)
        slot.idle = False
        task: Task[T, R] | None = self._engine.claim(slot)
        return None if task is None else ManualAttempt(self, slot, task)

    @override
    def close(self, timeout: Duration | None = None, *, delayed: Literal["run", "cancel"] = "run") -> None:
        """Close the pool. There is nothing to wait for: raises `CloseTimeout` if tasks are left."""
        super().close(0 if timeout is None else timeout, delayed=delayed)


def _is_free(slot: Slot) -> bool:
    return not slot.running and slot.stuck is None


class ManualAttempt(Generic[T, R]):
    """An attempt that a test ends as it likes. `context` is what `run` would receive."""

    def __init__(self, pool: ManualPool[T, R], slot: Slot, task: Task[T, R]) -> None:
        self.task = task
        self.worker_id = slot.id
        self._pool = pool
        self._engine = pool._engine
        self._slot = slot
        self.context = self._begin(slot, task)

    def _begin(self, slot: Slot, task: Task[T, R]) -> Context:
        """Begin the attempt, in the steps that a worker thread takes."""
        engine, settings = self._engine, task._settings
        task._phase = TaskState.RUNNING
        now = engine.monotonic()
        span = settings.span
        expires = engine.attempts.expiry(task, now) if span is None else now + span
        ctx = begin(task, slot, now, expires)
        if settings.wraps_up:
            ctx._withheld = []
        slot.running.append(ctx)
        engine.watchdog.expect(expires)
        if engine.observers.wants_started:
            engine.observers.tell(engine.attempts.starting(ctx))
        if engine.scheduler.fleet.is_measured(slot):
            engine.attempts.measure(slot, ctx, task.data)
        return ctx

    @shielded
    def finish(self, result: R) -> None:
        """End the attempt with a result. If it is over already, nothing comes of that."""
        if self._still_ours():
            self._slot.idle = True
            self._engine.attempts.finish(self._slot, self.context, result)

    @shielded
    def fail(self, error: BaseException) -> None:
        """End the attempt with an error. If it is over already, nothing comes of that."""
        if self._still_ours():
            self._slot.failed += 1
            self._slot.idle = True
            self._engine.attempts.failed(self._slot, self.context, error, self._engine.monotonic())

    def run(self) -> None:
        """Run the worker itself, on this thread, and end the attempt with what comes of it."""
        run, takes_context = run_of(self._pool._workers.find(self.worker_id)[0].worker)
        occupy(self._slot)
        try:
            data = self.task.data
            result = run(self.context, data) if takes_context else run(data)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the task failed of it
            self.fail(error)
        else:
            self.finish(result)
        finally:
            occupy(None)

    def _still_ours(self) -> bool:
        try:
            self._slot.running.remove(self.context)
        except ValueError:
            if self._slot.stuck is self.context:
                self._engine.takeovers.came_back(self._slot)
                self._slot.idle = True
            return False
        return True


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
            if _is_free(slot) and (attempt := self._pool._claim(slot)) is not None:
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
            attempt.finish(None)
            self._succeeded += 1
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
            trace=self._trace,
        )
