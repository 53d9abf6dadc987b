"""Chunks: their way in, and running one: one claim, one context, one clock for several items.

Each of the items may fail by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from retrypool.callbacks import traceback_of
from retrypool.model.chunk import PENDING, Chunk
from retrypool.model.completion import Reporter
from retrypool.model.context import Context
from retrypool.model.preparing import new_task
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Record, Task
from retrypool.states import TaskState
from retrypool.threads.interrupt import shielded
from retrypool.threads.works import Works

__all__ = ["chunk_entrance", "run_chunk", "takes_chunks"]

AnyTask = Task[Any, Any]


def takes_chunks(engine: Works, settings: TaskSettings) -> bool:
    """Return whether several items may go as one task: nobody looks at each, and none has a limit."""
    observers = engine.observers
    told = engine.guarded or observers.talkative or observers.wants_started or not engine.threaded
    return settings.plain and settings.span == inf and not told and engine.races is None


def chunk_entrance(
    engine: Works, settings: TaskSettings, reporter: Reporter | None, note: Callable[[AnyTask], object]
) -> Callable[[list[Any]], None]:
    """Return a function that dispatches several items as one task. See `Intake.entrance`.

    Ask `takes_chunks` before.
    """
    arrive = engine.intake.way_in(settings)
    next_id, monotonic, parked = engine.scheduler.backlog.next_seq, engine.monotonic, engine.parked

    def make(items: list[Any]) -> AnyTask:
        task: AnyTask = new_task(next_id(), Chunk(items, reporter), settings, engine, monotonic())
        task._completion = reporter
        task._record = record = Record(task.id)
        record.wrapped = True
        record.cost = float(len(items))
        return task

    @shielded
    def dispatch_with_care(items: list[Any]) -> None:
        if refusal := engine.refusal(settings):
            raise refusal
        task = make(items)
        with engine.lock:
            line = engine.injector.open_line(settings.priority)
            if line is None:
                engine.scheduler.submit(task, engine.monotonic())
            else:
                line.append(task)
        engine.wake_called()
        if engine.guarded:  # handshake H2
            engine.intake.look_again(task)
        if parked and not engine.waking.searching:
            engine.waking.wake_one()
        note(task)

    def dispatch(items: list[Any]) -> None:
        # The steps of `Intake.entrance`, in the same order.
        if arrive is None or engine.guarded:
            dispatch_with_care(items)
            return
        task = make(items)
        try:
            arrive(task)
            if engine.guarded:
                engine.intake.look_again(task)
            if parked and not engine.waking.searching:
                engine.waking.wake_one()
            note(task)
        except BaseException:  # a Ctrl-C; or a refusal, where it does no harm
            engine.intake.take_back(task, note)
            raise

    return dispatch


def run_chunk(
    engine: Works, ctx: Context, chunk: Chunk, run: Callable[..., Any], *, takes_context: bool
) -> None:
    """Run the items of a chunk one after the other, on the thread of their worker."""
    slot, results, failed = ctx._slot, chunk.results, chunk.failed
    ctx.check()  # read first: whoever takes it over cancels the context, and exchanges these after that
    todo = iter(chunk.items[len(results) :] if results else chunk.items)
    item: Any = None
    if takes_context:
        run = partial(run, ctx)
    try:
        while True:
            try:
                for item in todo:
                    if ctx._reason is not None:
                        ctx.check()
                    results.append(run(item))  # by its name, which CPython makes one instruction of
                break
            except BaseException as error:
                if ctx.cancelled:  # it was taken over; the error may be what that has brought about
                    raise
                place = len(results)
                slot.succeeded += chunk.count()
                _fail(engine, ctx, chunk.items[place], error, partial(failed.__setitem__, place))
                results.append(PENDING)
        if not ctx.cancelled:
            slot.succeeded += chunk.count(1)
    finally:
        # The frame of `run` leads to this one, and the tracebacks of all that has failed lead there.
        del chunk, ctx, run, results, failed, item, todo


@shielded
def _fail(
    engine: Works, ctx: Context, item: Any, error: BaseException, note: Callable[[AnyTask], object]
) -> None:
    """Make a task of an item whose first attempt has just failed, and find out what becomes of it.

    `note` is called with it first of all: an interrupt that comes meanwhile strikes as this returns.
    """
    slot, chunk = ctx._slot, ctx._task
    seq = engine.scheduler.backlog.next_seq()
    task: AnyTask = new_task(seq, item, chunk._settings, engine, chunk._dispatched)
    task._completion = chunk.data.reporter
    task._slot = slot
    task._phase = TaskState.RUNNING
    note(task)
    slot.failed += 1
    traceback = traceback_of(error)
    if traceback is not None:  # without the frame of the caller, which holds all the other items
        BaseException.with_traceback(error, traceback.tb_next)
    task._started = ctx._started
    engine.attempts.failed(slot, task, error, engine.monotonic())
