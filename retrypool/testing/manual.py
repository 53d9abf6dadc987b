"""A pool without threads, stepped by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Literal

from typing_extensions import TypeVar, override

from retrypool.checks import Duration
from retrypool.ctrl_c import shielded
from retrypool.errors import InvalidValue
from retrypool.events import AttemptStarted
from retrypool.model.context import Context, begin, occupy
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.model.worker import AnyWorker, WorkerSpec, run_of
from retrypool.pool import Pool
from retrypool.states import TaskState
from retrypool.testing.clock import FakeClock

__all__ = ["ManualAttempt", "ManualPool"]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)


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
            return self._claim(next((slot for slot in slots if is_free(slot)), slots[0]))
        for runner in self._workers:
            if is_free(runner.slot) and (attempt := self._claim(runner.slot)):
                return attempt
        return None

    @shielded
    def _claim(self, slot: Slot) -> ManualAttempt[T, R] | None:
        if not is_free(slot):
            raise InvalidValue("the worker", slot.id, "one that runs nothing")
        if slot.unfit:  # a thread would remake its worker now
            next(runner for runner in self._workers if runner.slot is slot).restart()
        self._engine.scheduler.fleet.unpark(slot)
        slot.idle = False
        task: Task[T, R] | None = self._engine.waking.claim(slot)
        hedges = self._engine.hedges
        if task is not None:
            if hedges is not None:
                hedges.expect()
            return ManualAttempt(self, slot, task)
        if hedges is not None and (found := hedges.begin(slot)) is not None:
            race, start = found
            return ManualAttempt(self, slot, race.task, race.second, start)
        return None

    @override
    def close(self, timeout: Duration | None = None, *, delayed: Literal["run", "cancel"] = "run") -> None:
        """Close the pool. There is nothing to wait for: raises `CloseTimeout` if tasks are left."""
        super().close(0 if timeout is None else timeout, delayed=delayed)


def is_free(slot: Slot) -> bool:
    """Return whether a worker could begin an attempt now."""
    return not slot.running and slot.stuck is None


class ManualAttempt(Generic[T, R]):
    """An attempt that a test ends as it likes. `context` is what `run` would receive."""

    def __init__(
        self,
        pool: ManualPool[T, R],
        slot: Slot,
        task: Task[T, R],
        context: Context | None = None,
        start: AttemptStarted | None = None,
    ) -> None:
        self.task = task
        self.worker_id = slot.id
        self._pool = pool
        self._engine = pool._engine
        self._slot = slot
        self.context = self._begin(slot, task) if context is None else context
        self._go_on(self.context, start)

    def _begin(self, slot: Slot, task: Task[T, R]) -> Context:
        """Begin the attempt, in the steps that a worker thread takes."""
        engine, settings = self._engine, task._settings
        task._phase = TaskState.RUNNING
        now = engine.monotonic()
        span = settings.span
        expires = engine.attempts.expiry(task, now) if span is None else now + span
        ctx = begin(task, slot, now, expires)
        slot.running.append(ctx)
        engine.watchdog.expect(expires)
        return ctx

    def _go_on(self, ctx: Context, start: AttemptStarted | None) -> None:
        engine, slot, task = self._engine, self._slot, self.task
        if task._settings.wraps_up:
            ctx._withheld = []
        if engine.observers.wants_started:
            engine.observers.tell(engine.attempts.starting(ctx) if start is None else start)
        if engine.scheduler.fleet.is_measured(slot):
            engine.costs.measure(slot, ctx, task.data)

    @shielded
    def finish(self, result: R) -> None:
        """End the attempt with a result. If it is over already, nothing comes of that."""
        if self._still_ours():
            self._slot.idle = True
            self._engine.successes.finish(self._slot, self.context, result)

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
