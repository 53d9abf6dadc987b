"""What `Pool.schedule` returns: data that becomes a task over and over."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, Generic, TypeVar

from retrypool.checks import date
from retrypool.core.schedules import Plan
from retrypool.ctrl_c import is_ctrl_c
from retrypool.errors import PoolClosed, RetryPoolError
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task
from retrypool.threads.engine import Engine

__all__ = ["Schedule"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")


class Schedule(Generic[T, R]):
    """Data that becomes a task at each tick, until the schedule or its pool comes to an end.

    All that it says is as of now. Made by `Pool.schedule`.
    """

    def __init__(
        self,
        engine: Engine[T, R],
        plan: Plan,
        data: T | Callable[[datetime], T],
        settings: TaskSettings,
        tz: tzinfo,
        rhythm: str,
    ) -> None:
        self._engine = engine
        self._plan = plan  # under the engine's lock
        self._data = data
        self._settings = settings
        self._tz = tz
        self._rhythm = rhythm
        self._context = contextvars.copy_context()
        plan.owner = self

    @property
    def name(self) -> str | None:
        """The name of the schedule, and of its tasks."""
        return self._settings.name

    @property
    def next_run(self) -> datetime | None:
        """When it ticks next, in its time zone; None while it is paused, and once it is over."""
        engine, plan = self._engine, self._plan
        with engine.lock:
            if plan.next is None:
                return None
            now, wall = engine.monotonic(), engine.clock.time()
            return date(plan.label(plan.next, now, wall) + plan.due - plan.next, self._tz)

    @property
    def runs(self) -> int:
        """How many tasks it has dispatched."""
        return self._plan.runs

    @property
    def skipped(self) -> int:
        """How many ticks were let go: the last task was not over, or there was no data or no worker.

        Ticks that were missed and merged into one are not counted.
        """
        return self._plan.skipped

    @property
    def last_task(self) -> Task[T, R] | None:
        """The task that it dispatched last."""
        return self._plan.last_task

    @property
    def paused(self) -> bool:
        """Whether its ticks pass without effect."""
        return self._plan.paused

    @property
    def over(self) -> bool:
        """Whether it will not tick any more."""
        return self._plan.over

    def pause(self) -> None:
        """Let its ticks pass until `resume`. The task that it dispatched last is left alone."""
        self._change(self._engine.scheduler.schedules.pause)

    def resume(self) -> None:
        """Let it tick again, from the next tick on: those that passed are not made up for."""
        self._change(self._engine.scheduler.schedules.resume)

    def cancel(self) -> None:
        """Let it tick no more. The task that it dispatched last is left alone."""
        self._change(self._engine.scheduler.schedules.cancel)

    def _change(self, change: Callable[[Plan], None]) -> None:
        engine = self._engine
        with engine.lock:
            engine.scheduler.schedules.read(engine.monotonic(), engine.clock.time())
            change(self._plan)
            happened = engine.decided()
        engine.act(happened)

    # -- a tick ----------------------------------------------------------------------------------

    def fire(self, tick: float) -> None:
        """Make a task of a tick. Called outside the lock, and never twice at once: see `Plan.making`."""
        engine = self._engine
        task: Task[T, R] | None = None
        try:
            # A copy: a data function may be still in it, when its thread was told to end the pool.
            task = self._context.copy().run(self._dispatch, tick)
        except PoolClosed:
            pass  # and so the schedule is over
        except RetryPoolError as error:
            log.warning("%r skips a tick: %s", self, error)
        except BaseException as error:
            # As with callbacks: a Ctrl-C is for the program, and only the main thread gets one.
            if is_ctrl_c(error):
                raise
            log.exception("%r skips a tick: its data could not be made", self)
        finally:
            with engine.lock:
                engine.scheduler.schedules.made(self._plan, task)
                happened = engine.decided()
            engine.act(happened)

    def _dispatch(self, tick: float) -> Task[T, R]:
        data: Any = self._data
        if callable(data):
            data = data(date(tick, self._tz))
        return self._engine.dispatch(data, self._settings)

    def __repr__(self) -> str:
        plan = self._plan
        name = "" if self.name is None else f" {self.name!r}"
        state = "over" if plan.over else "paused" if plan.paused else "active"
        return f"<Schedule{name} {self._rhythm}, {state}: {plan.runs} runs, {plan.skipped} skipped>"
