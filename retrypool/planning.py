"""The part of a pool's interface that is about schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Generic, get_args

from typing_extensions import TypeVar, Unpack

from retrypool.checks import Duration, seconds, timestamp, zone
from retrypool.collect.schedule import Schedule
from retrypool.core.schedules import Overlap, Plan
from retrypool.core.timers import SAME, Moment
from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.settings import TaskOptions, TaskSettings
from retrypool.policy.recurrence import Cron, Grid, Recurrence
from retrypool.threads.engine import Engine

__all__ = ["Planning"]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)

SHORTEST_STEP = 0.001


class Planning(Generic[T, R]):
    """Making schedules and looking at them. A base of `Pool`, and of nothing else."""

    _engine: Engine[T, R]
    _settings: TaskSettings

    def schedule(
        self,
        data: T | Callable[[datetime], T],
        *,
        every: Duration | None = None,
        cron: str | None = None,
        tz: tzinfo | str | None = None,
        start: datetime | Duration | None = None,
        until: datetime | Duration | None = None,
        times: int | None = None,
        jitter: Duration = 0,
        overlap: Overlap = "skip",
        **options: Unpack[TaskOptions],
    ) -> Schedule[T, R]:
        """Dispatch `data` over and over, `every` so many seconds, or at the times of a `cron` expression.

        A function is called with the time of the tick, an aware datetime, and returns the data. That
        happens on the pool's own timer thread, so it should be quick; what it raises is logged, and the
        tick is skipped.

        - `start`: the first tick, as an aware datetime or in seconds from now; default: one step from
          now. With `cron`, no tick comes before it.
        - `until`: no tick comes after it. `times`: how many tasks there will be.
        - `jitter`: each tick comes up to so many seconds late, at random; the ticks after it do not.
        - `overlap`: what becomes of a tick while the last task has not ended: `"skip"` or `"queue"`.
        - `tz`: the zone (or its name) that `cron` is read in, and that datetimes are told in; default:
          that of `start`, else UTC.
        - all options of `dispatch` but `at`, for each of the tasks; `name` is the schedule's, too.

        The ticks of `every` lie on a grid that does not drift and, once begun, takes no notice when the
        wall clock is set; `cron` follows the wall clock, and notices within a minute. Ticks that were
        missed while the pool was paused or the machine asleep become one. A schedule keeps no pool open:
        `close` ends it before anything else.

        `cron` needs the extra `retrypool[cron]`: `MissingExtra` is raised without. Raises `PoolClosed`
        too, and `InvalidType` or `InvalidValue` for what makes no sense.
        """
        engine = self._engine
        if "at" in options:
            raise InvalidValue("at", options["at"], "left out: say `start` for the first tick")
        settings = self._settings.having(options)
        if overlap not in get_args(Overlap):
            raise InvalidValue("overlap", overlap, f"one of {', '.join(map(repr, get_args(Overlap)))}")
        if times is not None:
            if isinstance(times, bool) or not isinstance(times, int):
                raise InvalidType("times", times, "a whole number")
            if times < 1:
                raise InvalidValue("times", times, "1 or more")
        if tz is not None:
            where = zone("tz", tz)
        else:
            where = (start.tzinfo if isinstance(start, datetime) else None) or UTC
        spread = seconds("jitter", jitter)
        now, wall = engine.monotonic(), engine.clock.time()
        begin = _moment("start", start, now)
        end = _moment("until", until, now)
        ticks: Recurrence
        base = 0.0
        if (every is None) is (cron is None):
            raise InvalidValue("every", every, "given if cron is not, and left out if it is")
        if cron is not None:
            dated, rhythm = True, f"cron {cron!r}"
            ticks = Cron(cron, where)
            first = (
                ticks.after(wall) if begin is None else _first(ticks, max(wall, _on_wall(begin, now, wall)))
            )
        else:
            assert every is not None
            step = seconds("every", every, positive=True)
            if step < SHORTEST_STEP:
                raise InvalidValue("every", every, f"at least {SHORTEST_STEP} seconds")
            if spread > step:
                raise InvalidValue("jitter", jitter, f"no more than every ({step:g} s)")
            anchor, dated = (now + step, False) if begin is None else begin
            rhythm = f"every {step:g} s"
            ticks = Grid(anchor, step)
            base = anchor if dated else wall + (anchor - now)
            if dated and anchor <= wall:  # begun long ago: it is on its grid already
                base = anchor
                ticks = Grid(now - (wall - anchor), step)
                dated = False
            first = _first(ticks, wall if dated else now)
        plan = Plan(
            ticks,
            dated=dated,
            base=base,
            start=None if begin is None else _on_wall(begin, now, wall),
            until=end,
            times=times,
            jitter=spread,
            draw=engine.chance,
            overlap=overlap,
        )
        made: Schedule[T, R] = Schedule(engine, plan, data, settings, where, rhythm)
        with engine.lock:
            if refusal := engine.closing_refusal():
                raise refusal
            schedules = engine.scheduler.schedules
            schedules.read(now, wall)
            schedules.add(plan, first)
            happened = engine.decided()
        engine.act(happened)
        return made

    def schedules(self) -> list[Schedule[T, R]]:
        """Return the schedules that are not over, paused ones included, in the order they were made."""
        with self._engine.lock:
            plans = list(self._engine.scheduler.schedules.plans)
        return [plan.owner for plan in plans]


def _moment(what: str, value: datetime | Duration | None, now: float) -> Moment | None:
    """Return a date, or so many seconds from now, as a moment."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return timestamp(what, value), True
    try:
        return now + seconds(what, value), False
    except InvalidType:
        raise InvalidType(what, value, "a datetime with a time zone, or seconds from now") from None


def _on_wall(moment: Moment, now: float, wall: float) -> float:
    time, dated = moment
    return time if dated else wall + (time - now)


def _first(ticks: Recurrence, moment: float) -> float | None:
    """Return the first tick that is not before `moment`."""
    latest = ticks.latest(moment)
    return latest if latest is not None and latest >= moment - SAME else ticks.after(moment)
