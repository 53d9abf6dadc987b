"""The way in: what lets a task into a pool, quickly or with care. For dead ones, see `dead_tasks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import ref

from retrypool.core.queue import Line
from retrypool.ctrl_c import lowered
from retrypool.events import TaskDispatched, task_dispatched
from retrypool.model.completion import Reporter
from retrypool.model.context import slot_here
from retrypool.model.preparing import new_task, prepare
from retrypool.model.settings import TaskSettings
from retrypool.model.slots import Slot
from retrypool.model.task import Record, Task
from retrypool.threads.interrupt import shielded
from retrypool.threads.key_names import checked_key, without_storage
from retrypool.threads.many import dispatch_batches
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.works import Works

__all__ = ["Intake"]

MOST_ENTERED = 1024
"""Deadlines that may be entered without the lock before they are looked through with it."""

T = TypeVar("T")
R = TypeVar("R")


class Intake(Generic[T, R]):
    """Accepts the tasks of one pool."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self._next_id = engine.scheduler.backlog.next_seq
        self._monotonic = engine.clock.monotonic

    @shielded
    def way_in(self, settings: TaskSettings) -> Callable[[Task[T, R]], None] | None:
        """Return what lets a task with these settings arrive without a lock, if it may come that way.

        One that asks for certain workers may as long as all that there are will do. A worker that comes
        later, and may not take it, finds that out and files it.
        """
        engine = self._engine
        if (
            not settings.at_once
            or settings.drain is not None
            or engine.steps.in_step
            or (settings.picky and engine.refusal(settings))
        ):
            return None
        with engine.lock:
            if settings.picky and not engine.scheduler.suits_all(settings.constraints):
                return None
            line = engine.injector.open_line(settings.priority)
            slots = tuple(engine.scheduler.fleet)
        # So that its worker looks whether it may; or for the races that it may come to be in.
        recorded = settings.picky or engine.races is not None
        if line is None or (settings.plain and not recorded):
            return None if line is None else line.append

        def arrive(task: Task[T, R]) -> None:
            if recorded:
                task._record = Record(task.id, settings.retry_plain)
            if (deadline := task._deadline) is None:
                line.append(task)
            else:
                self._arrive_in_time(task, deadline, line, slots)

        return arrive

    def _arrive_in_time(self, task: Task[T, R], deadline: float, line: Line, slots: Iterable[Slot]) -> None:
        """Let a task come in that has a deadline: without the lock as long as some worker may go on."""
        engine, scheduler = self._engine, self._engine.scheduler
        entered = scheduler.timers.add_soon(deadline, scheduler.deadlines.meet, ref(task))
        line.append(task)
        if deadline < engine.watchdog.wakes_at:  # handshake H9
            engine.watchdog.expect(deadline)
        for slot in slots:
            if slot.direct:  # handshake H13: it has all that it needs to take something now
                break
        else:
            entered = MOST_ENTERED
        if entered >= MOST_ENTERED and not engine.steps.put_off(partial(self._expire_if_late, task)):
            self._expire_if_late(task)

    @shielded
    def _expire_if_late(self, task: Task[T, R]) -> None:
        engine = self._engine
        with engine.step:
            engine.scheduler.deadlines.expire_if_late(task, engine.monotonic())

    def entrance(
        self,
        settings: TaskSettings,
        reporter: Reporter | None = None,
        note: Callable[[Task[T, R]], object] = id,
        *,
        key: Callable[[T], str] | None = None,
        later: bool = False,
    ) -> Callable[[T], Task[T, R]]:
        """Return a function that dispatches with these settings, as quickly as that can be done.

        `reporter` hears of the end of each of the tasks. `note` is called with each task that was accepted:
        one whose dispatch was struck by a Ctrl-C has either been noted or been cancelled. With `later`, a
        task may be stored after it was accepted, soon: for those who give it again if the process ends
        before.
        """
        engine, fleet = self._engine, self._engine.scheduler.fleet
        if engine.journal is not None or key is not None:

            def store(data: T) -> Task[T, R]:
                name = None if key is None else checked_key("key", key(data))
                return self._dispatch_noted(note, data, settings, reporter, key=name, later=later)

            return store
        version = fleet.version
        arrive = self.way_in(settings)
        if arrive is None:
            return partial(self._dispatch_noted, note, settings=settings, reporter=reporter)
        next_id, monotonic = engine.scheduler.backlog.next_seq, engine.monotonic
        parked, depends = engine.parked, settings.depends

        def dispatch(data: T) -> Task[T, R]:
            # The steps of Pool.dispatch, in the same order.
            if engine.guarded or (depends and fleet.version != version):
                way, limit = None if depends else arrive, engine.bound
                if way is not None and limit is not None:
                    admitted: Task[T, R] | None = limit.admit(data, settings, way, reporter, note)
                    if admitted is not None:
                        return admitted
                return self._dispatch_noted(note, data, settings, reporter, arrive=way)
            task: Task[T, R] = new_task(next_id(), data, settings, engine, monotonic())
            task._completion = reporter
            try:
                arrive(task)
                if engine.guarded:
                    self.look_again(task)
                if parked and not engine.waking.searching:
                    engine.waking.wake_one()
                note(task)
            except BaseException:  # a Ctrl-C; or a refusal, where it does no harm
                self.take_back(task, note)
                raise
            return task

        return dispatch

    @shielded
    def take_back(self, task: Task[T, R], note: Callable[[Task[T, R]], object]) -> None:
        """Take back what was struck while it was dispatched; if a worker has it, have it noted."""
        self._engine.cancelling.take_back(task)
        if not task._withdrawn:
            note(task)

    @shielded
    def _dispatch_noted(
        self, note: Callable[[Task[T, R]], object], data: T, *arguments: Any, **options: Any
    ) -> Task[T, R]:
        """Do as `dispatch` does, and note the task before a Ctrl-C can strike."""
        task = self.dispatch(data, *arguments, **options)
        note(task)
        return task

    @shielded
    def dispatch(
        self,
        data: T,
        settings: TaskSettings,
        reporter: Reporter | None = None,
        *,
        key: str | None = None,
        later: bool = False,
        arrive: Callable[[Task[T, R]], None] | None = None,
    ) -> Task[T, R]:
        """Accept a task, the careful way. If the storage knows one of this key, return that.

        `arrive` is what lets it come in without the lock, where there is nothing to do but to tell of it.
        """
        engine = self._engine
        if arrive is not None and engine.announces:
            return self._announce(data, settings, reporter, arrive)
        if key is None:
            return self._dispatch(data, settings, reporter, None, later=later)
        if engine.journal is None:
            raise without_storage(key)
        if refusal := engine.closing_refusal():
            raise refusal
        engine.steps.check("dispatch(key=)")
        make = partial(self._dispatch, data, settings, reporter, key, later=later)
        task: Task[T, R]
        task, made = engine.journal.keys.find_or_make(key, data, settings, engine, make)
        if reporter is not None and not made:
            task.add_done_callback(reporter.report)
        return task

    def dispatch_all(self, items: Iterable[T], settings: TaskSettings) -> list[Task[T, R]]:
        """Accept many tasks of the same settings."""
        engine = self._engine
        if engine.journal is None or engine.queue_limit is not None:
            tasks: list[Task[T, R]] = []
            dispatch = self.entrance(settings, note=tasks.append)
            for data in items:
                dispatch(data)
            return tasks
        return dispatch_batches(engine, engine.journal, items, settings)

    def announce(self, data: T, settings: TaskSettings, arrive: Callable[[Task[T, R]], None]) -> Task[T, R]:
        """Accept a task of which listeners are told first."""
        if slot_here() is not None:
            return self.dispatch(data, settings, arrive=arrive)  # an interrupt must not strike a listener
        return self._announce(data, settings, None, arrive)

    def _announce(
        self,
        data: T,
        settings: TaskSettings,
        reporter: Reporter | None,
        arrive: Callable[[Task[T, R]], None],
    ) -> Task[T, R]:
        """Accept a task of which listeners are told first. The steps of Pool.dispatch, in the same order.

        Without a shield, which would cost more than all of this. A Ctrl-C that strikes takes the task back,
        and those who were told of it hear that it is cancelled.
        """
        engine = self._engine
        now = self._monotonic()
        task: Task[T, R] = new_task(self._next_id(), data, settings, engine, now)
        task._completion = reporter
        event = task_dispatched(now, task)
        try:
            engine.observers.dispatched(event)
            arrive(task)
            if not engine.announces:  # handshake H2
                self.look_again(task, told=True)
            if engine.parked and not engine.waking.searching:
                engine.waking.wake_one()
        except BaseException:
            engine.observers.release(event)
            engine.cancelling.take_back(task)
            raise
        return task

    def _dispatch(
        self, data: T, settings: TaskSettings, reporter: Reporter | None, key: str | None, *, later: bool
    ) -> Task[T, R]:
        engine = self._engine
        if refusal := engine.refusal(settings):
            raise refusal
        if engine.steps.in_step:
            return self._dispatch_late(data, settings, reporter)
        queue_limit = engine.queue_limit
        if queue_limit is not None:
            queue_limit.reserve(settings)
        now = engine.monotonic()
        wall = 0.0 if settings.at is None else engine.clock.time()
        task: Task[T, R] = new_task(engine.scheduler.backlog.next_seq(), data, settings, engine, now)
        task._completion = reporter if engine.kept is None else engine.kept.reporter(reporter)
        told = engine.observers.wants_dispatched
        try:
            lowered(prepare, task, engine.journal is not None, engine.hedges is not None)
            if engine.journal is not None:
                engine.journal.accept(task, key, later=later)
            if told:
                engine.observers.dispatched(TaskDispatched(now, task))
        except BaseException:  # a cost function that raises, a Ctrl-C, a full disk
            if queue_limit is not None:
                queue_limit.give_back()
            raise
        if settings.drain is not None:
            settings.drain._open_source(engine)
        spin_while_held(engine.lock)
        with engine.lock:
            refusal = engine.refusal(settings)
            if queue_limit is not None:
                queue_limit.taken -= 1  # by the task itself from here on
            if refusal is None:
                self._let_in(task, now, wall)
            elif told and not task.done():
                engine.scheduler.cancel(task, str(refusal), now)  # so that what was told of has an end
            happened = engine.decided()
        engine.act(happened)
        if refusal is not None:
            if settings.drain is not None and id(settings.drain) not in engine.drains:
                settings.drain._end_source(engine)
            if engine.journal is not None:
                engine.journal.take_back((task,))
            raise refusal
        if settings.cancel is not None:
            engine.cancelling.obey(settings.cancel, task)
        return task

    def _let_in(self, task: Task[T, R], now: float, wall: float) -> None:
        """Have a task wait for a worker, and its drain and its result for its end. Called under the lock."""
        engine, drain = self._engine, task._settings.drain
        if drain is not None:
            engine.drains[id(drain)] = drain
        if engine.kept is not None:
            engine.scheduler.dropped.append(engine.kept.add(task))
        engine.scheduler.submit(task, now, wall)

    def _dispatch_late(self, data: T, settings: TaskSettings, reporter: Reporter | None) -> Task[T, R]:
        """Make a task that is accepted after the step that this thread is in the middle of."""
        engine = self._engine
        task: Task[T, R] = new_task(
            engine.scheduler.backlog.next_seq(), data, settings, engine, engine.monotonic()
        )
        task._completion = reporter if engine.kept is None else engine.kept.reporter(reporter)
        prepare(task, engine.journal is not None, engine.hedges is not None)
        if engine.journal is not None:
            engine.journal.accept(task, None, later=True)  # this is no moment to wait for the disk
        engine.steps.put_off(partial(self._accept_late, task))
        return task

    @shielded
    def _accept_late(self, task: Task[T, R]) -> None:
        """Accept a task whose dispatch has returned already, or cancel it if the pool takes none any more."""
        engine = self._engine
        settings = task._settings
        if settings.drain is not None:
            settings.drain._open_source(engine)
        with engine.step:
            now, wall = engine.monotonic(), engine.clock.time()
            if refusal := engine.refusal(settings):
                engine.scheduler.cancel(task, str(refusal), now)
            else:
                self._let_in(task, now, wall)
        if settings.cancel is not None:
            engine.cancelling.obey(settings.cancel, task)

    @shielded
    def look_again(self, task: Task[T, R], *, told: bool = False) -> None:
        """Take a task back that was appended while the pool ceased to take any, and say why.

        If a worker has it already, or has tried it, it came in time. If listeners were told of it, they are
        told of its end.
        """
        engine = self._engine
        with engine.step:
            refusal = engine.refusal()
            if refusal is not None and (task.attempts or not engine.scheduler.withdraw(task)):
                refusal = None
            if refusal is not None and told:
                engine.scheduler.cancel(task, str(refusal), engine.monotonic())
        if refusal is not None:
            raise refusal
