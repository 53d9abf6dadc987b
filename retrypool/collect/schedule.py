"""What `Pool.schedule` returns: data that becomes a task over and over."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from retrypool.callbacks import log_broken
from retrypool.checks import Duration, date, optional_count, seconds, timestamp, zone
from retrypool.core.schedules import Overlap, Plan
from retrypool.core.timers import SAME, Moment
from retrypool.ctrl_c import is_ctrl_c, lowered, shielded
from retrypool.errors import InvalidType, InvalidValue, PoolClosed, RetryPoolError
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task
from retrypool.policy.recurrence import Cron, Grid, Recurrence
from retrypool.storage.records import ScheduleOver, ScheduleState
from retrypool.threads.engine import Engine

if TYPE_CHECKING:
    from retrypool.collect.stored_schedule import StoredSchedule
    from retrypool.threads.journal import Journal

__all__ = ["Schedule", "make_schedule", "restore_schedules"]

SHORTEST_STEP = 0.001

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")


class Schedule(Generic[T, R]):
    """Data that becomes a task at each tick, until the schedule or its pool comes to an end.

    Its properties show the state at the moment of the call. Made by `Pool.schedule`.
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
        self._stored: StoredSchedule | None = None  # if its pool has a storage, and it has a name

    @property
    def name(self) -> str | None:
        """The name of the schedule, and of its tasks."""
        return self._settings.name

    @property
    def next_run(self) -> datetime | None:
        """The time of the next tick, in its time zone; None while it is paused and after its end."""
        engine, plan = self._engine, self._plan
        with engine.lock:
            if plan.next is None:
                return None
            now, wall = engine.monotonic(), engine.clock.time()
            due = plan.label(plan.next, now, wall) + plan.due - plan.next
        return date(due, self._tz)  # outside the lock: the zone may be of a class of the user's

    @property
    def runs(self) -> int:
        """How many tasks it has dispatched."""
        return self._plan.runs

    @property
    def skipped(self) -> int:
        """How many ticks had no effect: the last task had not ended, or there was no data or no worker.

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
        """Dispatch nothing until `resume`. The task that it dispatched last is not affected."""
        self._change(self._engine.scheduler.schedules.pause)

    def resume(self) -> None:
        """Dispatch again, from the next tick on. Ticks missed during the pause are not made up for."""
        self._change(self._engine.scheduler.schedules.resume)

    def cancel(self) -> None:
        """End the schedule. The task that it dispatched last is not affected."""
        self._change(self._engine.scheduler.schedules.cancel)

    @shielded
    def _change(self, change: Callable[[Plan], None]) -> None:
        engine = self._engine
        engine.steps.check("a change of a schedule")
        with engine.lock:
            engine.scheduler.schedules.read(engine.monotonic(), engine.clock.time())
            change(self._plan)
            happened = engine.decided()
        self._note()
        engine.act(happened)

    def _note(self) -> None:
        """Store its state. A pool that is closed has ended it for this process alone."""
        engine, stored, plan = self._engine, self._stored, self._plan
        if stored is None or engine.journal is None:
            return
        record: ScheduleOver | ScheduleState
        with engine.lock:
            if engine.closed:
                return
            if plan.over:
                record = ScheduleOver(stored.name)
                engine.journal.schedules.pop(stored.name, None)
                self._stored = None
            else:
                record = stored.state(plan, engine.monotonic(), engine.clock.time())
        engine.journal.storage.enter(record)

    # -- a tick ----------------------------------------------------------------------------------

    @shielded
    def fire(self, tick: float) -> None:
        """Make a task of a tick. Called outside the lock, and never twice at once: see `Plan.making`."""
        engine = self._engine
        task: Task[T, R] | None = None
        try:
            # A copy: a data function may be still in it, when its thread was told to end the pool.
            context = self._context.copy()
            task = lowered(lambda: context.run(self._dispatch, tick))
        except PoolClosed:
            pass  # and so the schedule is over
        except RetryPoolError as error:
            log.warning("%r skips a tick: %s", self, error)
        except BaseException as error:
            # As with callbacks: a Ctrl-C is for the program, and only the main thread gets one.
            if is_ctrl_c(error):
                raise
            log_broken("%r skips a tick: its data could not be made", self)
        finally:
            with engine.lock:
                engine.scheduler.schedules.made(self._plan, task)
                happened = engine.decided()
            self._note()
            engine.act(happened)

    def _dispatch(self, tick: float) -> Task[T, R]:
        data: Any = self._data
        if callable(data):
            data = data(date(tick, self._tz))
        return self._engine.intake.dispatch(data, self._settings)

    def __repr__(self) -> str:
        plan = self._plan
        name = "" if self.name is None else f" {self.name!r}"
        state = "over" if plan.over else "paused" if plan.paused else "active"
        return f"<Schedule{name} {self._rhythm}, {state}: {plan.runs} runs, {plan.skipped} skipped>"


@shielded
def make_schedule(
    engine: Engine[T, R],
    settings: TaskSettings,
    data: T | Callable[[datetime], T],
    *,
    every: Duration | None,
    cron: str | None,
    tz: tzinfo | str | None,
    start: datetime | Duration | None,
    until: datetime | Duration | None,
    times: int | None,
    jitter: Duration,
    overlap: Overlap,
) -> Schedule[T, R]:
    """Check what `Pool.schedule` was given, and add the schedule to the pool."""
    if overlap not in get_args(Overlap):
        raise InvalidValue("overlap", overlap, f"one of {', '.join(map(repr, get_args(Overlap)))}")
    optional_count("times", times, least=1)
    if tz is not None:
        where = zone("tz", tz)
    else:
        where = (start.tzinfo if isinstance(start, datetime) else None) or UTC
    spread = seconds("jitter", jitter)
    now, wall = engine.monotonic(), engine.clock.time()
    begin = _moment("start", start, now)
    end = _moment("until", until, now)
    ticks: Recurrence
    first: float | None
    base = 0.0
    if (every is None) is (cron is None):
        raise InvalidValue("every", every, "given if cron is not, and left out if it is")
    if cron is not None:
        dated, rhythm = True, f"cron {cron!r}"
        ticks = Cron(cron, where)
        first = ticks.after(wall) if begin is None else _first(ticks, max(wall, _on_wall(begin, now, wall)))
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
    engine.steps.check("schedule()")
    journal = engine.journal
    if journal is not None and settings.name is not None:
        from retrypool.collect.stored_schedule import StoredSchedule

        each = None if every is None else seconds("every", every)
        made._stored = StoredSchedule(
            journal, settings, data, plan, every=each, cron=cron, tz=where, now=now, wall=wall
        )
    with engine.lock:
        if refusal := engine.closing_refusal():
            raise refusal
        schedules = engine.scheduler.schedules
        schedules.read(now, wall)
        if journal is not None and made._stored is not None:
            before = _taken_over(engine, journal, made._stored.name, now, wall)
            journal.schedules[made._stored.name] = made
            if before is not None:
                going_on = made._stored.go_on(plan, before, now, wall)
                first = first if going_on is None else going_on
        schedules.add(plan, first)
        state = None if made._stored is None else made._stored.state(plan, now, wall)
        happened = engine.decided()
    if journal is not None and state is not None:
        try:
            journal.storage.write((state,))
        except BaseException:
            made.cancel()
            raise
    engine.act(happened)
    return made


def _taken_over(
    engine: Engine[Any, Any], journal: Journal, name: str, now: float, wall: float
) -> ScheduleState | None:
    """Return the state of the schedule of this name, which another one replaces. Under the lock."""
    before = journal.schedules.get(name)
    if not isinstance(before, Schedule):
        return before if isinstance(before, ScheduleState) else None
    stored, before._stored = before._stored, None
    if stored is None or before._plan.over:
        return None
    state = stored.state(before._plan, now, wall)
    engine.scheduler.schedules.cancel(before._plan)
    return state


def restore_schedules(engine: Engine[Any, Any], journal: Journal) -> None:
    """Restore the schedules that the storage holds.

    A schedule whose data comes from a function waits until `Pool.schedule` is called with its name.
    """
    from retrypool.collect.stored_schedule import options_of, rhythm_of

    for state in list(journal.storage.schedules()):
        journal.schedules[state.name] = state
        if state.data is None:
            continue
        try:
            settings = journal.options.settings_from(options_of(state))
            data = journal.storage.codec.decode(state.data)
            made: Schedule[Any, Any] = make_schedule(engine, settings, data, **rhythm_of(state))
        except Exception as error:  # noqa: BLE001 - a class, a zone, an extra that is not there any more
            log.error("schedule %r can't be gone on with: %s", state.name, error)
            continue
        if state.paused:
            made.pause()


def _moment(what: str, value: datetime | Duration | None, now: float) -> Moment | None:
    """Return a date, or a number of seconds from now, as a moment."""
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
