"""Running a chunk: one claim, one context, one clock for several items, each of which may fail by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from retrypool.callbacks import traceback_of
from retrypool.model.chunk import PENDING, Chunk
from retrypool.model.context import Context, begin
from retrypool.model.preparing import new_task
from retrypool.model.task import Task
from retrypool.states import TaskState
from retrypool.threads.interrupt import shielded
from retrypool.threads.works import Works

__all__ = ["run_chunk"]


def run_chunk(engine: Works, ctx: Context, run: Callable[..., Any], *, takes_context: bool) -> None:
    """Run the items of a chunk one after the other, on the thread of their worker."""
    chunk: Chunk = ctx._task.data
    slot, items, results, failed = ctx._slot, chunk.items, chunk.results, chunk.failed
    todo: Iterable[tuple[int, Any]] = enumerate(items)
    if chunk.begun:  # an attempt before this one has come so far
        todo = [(at, item) for at, item in todo if results[at] is PENDING and at not in failed]
    chunk.begun = True
    succeeded = 0
    for place, item in todo:
        if ctx._reason is not None:
            ctx.check()
        try:
            results[place] = run(ctx, item) if takes_context else run(item)
        except BaseException as error:
            if ctx.cancelled:  # it was taken over; the error may be what that has brought about
                raise
            slot.succeeded += succeeded
            succeeded = 0
            failed[place] = _fail(engine, ctx, item, error)
        else:
            succeeded += 1
    slot.succeeded += succeeded - 1  # the chunk itself is counted as one
    chunk.complete = not failed


@shielded
def _fail(engine: Works, ctx: Context, item: Any, error: BaseException) -> Task[Any, Any]:
    """Make a task of an item whose first attempt has just failed, and find out what becomes of it."""
    slot, chunk = ctx._slot, ctx._task
    seq = engine.scheduler.backlog.next_seq()
    task: Task[Any, Any] = new_task(seq, item, chunk._settings, engine, chunk._dispatched)
    task._completion = chunk.data.reporter
    task._slot = slot
    task._phase = TaskState.RUNNING
    slot.failed += 1
    traceback = traceback_of(error)
    if traceback is not None:  # without the frame of the caller, which holds all the other items
        BaseException.with_traceback(error, traceback.tb_next)
    own = begin(task, slot, ctx._started, ctx._expires)
    engine.attempts.failed(slot, own, error, engine.monotonic())
    return task
