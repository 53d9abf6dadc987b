"""`map(chunk=)`: several items at a time, for calls that take less time than handing them to a thread."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from retrypool.checks import Duration, count
from retrypool.collect.map import MOST_WINDOWS, _Inbox, _left, _until, begun, is_held_up, map_items
from retrypool.collect.results import TaskResult
from retrypool.model.chunk import Chunk
from retrypool.model.completion import Reporter
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task
from retrypool.states import TaskState
from retrypool.threads.chunks import chunk_entrance, takes_chunks
from retrypool.threads.engine import Engine

__all__ = ["map_chunks"]

T = TypeVar("T")
R = TypeVar("R")

AnyTask = Task[Any, Any]

_SUCCEEDED = TaskState.SUCCEEDED


CHUNKS = 16
"""How many chunks for each worker are in hand by default, so that threads are switched seldom."""

MOST_ITEMS = 10_000
"""How many items these chunks may have."""


def map_chunks(
    engine: Engine[T, R],
    settings: TaskSettings,
    iterable: Iterable[T],
    *,
    chunk: int,
    window: int | None,
    workers: int,
    ordered: bool,
    timeout: Duration | None,
    return_exceptions: bool,
    key: Callable[[T], str] | None = None,
    on_end: Callable[[Task[T, R]], object] | None = None,
) -> Generator[Any, None, None]:
    """Check what `Pool.map` was given, and return the generator that does it.

    Items are dispatched one by one where each must be a task of its own: where a listener or callback hears
    of each, or each has a time limit.
    """
    size = min(count("chunk", chunk, least=1), sys.maxsize)  # islice takes no more
    if size == 1 or key is not None or on_end is not None or not takes_chunks(engine, settings):
        return map_items(
            engine,
            settings,
            iterable,
            window=window,
            workers=workers,
            ordered=ordered,
            timeout=timeout,
            return_exceptions=return_exceptions,
            key=key,
            on_end=on_end,
        )
    until = _until(timeout)
    if window is None:
        least = max(128, 32 * workers, 2 * size * workers)
        width = max(least, min(CHUNKS * size * workers, MOST_ITEMS))
        late, quick = MOST_WINDOWS * least, max(width, MOST_ITEMS)
    else:
        width = late = quick = count("window", window, least=1)
    items = begun(engine, iterable, ordered=ordered, return_exceptions=return_exceptions)
    source = _Source(engine, settings, items, min(size, width))
    most, more = max(1, width // size), max(1, quick // size)
    if ordered:
        return _in_order(source, most, more, max(most, late // size), until, errors=return_exceptions)
    return _as_they_come(source, most, more, until, errors=return_exceptions)


class _Source:
    """Makes tasks of chunks out of an iterator."""

    def __init__(
        self, engine: Engine[Any, Any], settings: TaskSettings, items: Iterator[Any], size: int
    ) -> None:
        self.engine = engine
        self.trouble: BaseException | None = None  # what the iterator or the pool has raised
        self.ended = False
        self._settings = settings
        self._items = items
        self._size = size

    def way_in(
        self, note: Callable[[AnyTask], object], reporter: Reporter | None = None
    ) -> Callable[[], None]:
        """Return a function that dispatches the next chunk, if there is more, and calls `note(task)`."""
        dispatch = chunk_entrance(self.engine, self._settings, reporter, note)

        def dispatch_next() -> None:
            batch: list[Any] = []
            try:
                batch.extend(islice(self._items, self._size))  # what came before an error is in there too
                self.ended = len(batch) < self._size
            except Exception as error:  # noqa: BLE001 - raised after the results before it
                self.trouble, self.ended = error, True
            if batch:
                try:
                    dispatch(batch)
                except Exception as error:  # noqa: BLE001 - the same
                    self.trouble, self.ended = error, True

        return dispatch_next

    def end(self, tasks: Iterable[AnyTask]) -> None:
        """Cancel the tasks that are left."""
        self.trouble = None
        self.engine.cancelling.give_up(tasks)
        self.engine.cancelling.give_up([failed for task in tasks for failed in _failed_of(task)])


def _failed_of(task: AnyTask) -> list[AnyTask]:
    return list(task.data.failed.values()) if isinstance(task.data, Chunk) else []


# No local name below holds a result, or a task whose error is raised: a traceback would keep it. All is given
# up twice at the end: a Ctrl-C may strike on the way to the first time. See map.py for how loops end.


def _in_order(
    source: _Source, most: int, more: int, ahead: int, until: float | None, *, errors: bool
) -> Generator[Any, None, None]:
    """Yield results in the order of the items.

    With `most` chunks in hand; up to `more` where calls are quick, and `ahead` while a result is late.
    """
    tasks: deque[AnyTask] = deque()
    dispatch_next = source.way_in(tasks.append)
    half = most // 2

    def wait(task: AnyTask) -> None:
        while not source.ended and len(tasks) < ahead and is_held_up(source.engine, task, tasks, half, until):
            limit = min(ahead, len(tasks) + max(half, 1))
            while not source.ended and len(tasks) < limit and not task.done():
                dispatch_next()
        task._wait(None if until is None else _left(until))

    try:
        while True:
            while True:
                if source.ended or len(tasks) >= most or (tasks and tasks[0].done()):
                    break
                dispatch_next()
            if not tasks:
                break
            if not tasks[0].done():
                wait(tasks[0])
                if len(tasks) >= most and tasks[-1]._phase is _SUCCEEDED:  # the workers ran out of items
                    most = min(2 * most, more)
            if tasks[0].data.failed or tasks[0]._phase is not _SUCCEEDED:
                yield from _each_of(tasks[0], wait, errors=errors)
            else:
                results = tasks[0].data.results
                results.reverse()
                for _ in range(len(results)):
                    yield results.pop()  # whoever consumes it decides for how long it is kept
            tasks.popleft()
        if source.trouble is not None:
            raise source.trouble
    finally:
        try:
            source.end(tasks)
        finally:
            source.end(tasks)
            tasks.clear()


def _each_of(task: AnyTask, wait: Callable[[AnyTask], object], *, errors: bool) -> Generator[Any, None, None]:
    chunk: Chunk = task.data
    for place in range(len(chunk.items)):
        if chunk.has_result(place):
            yield _take(chunk, place)
            continue
        failed = chunk.failed.get(place, task)
        if failed is not task:
            wait(failed)
        yield _outcome(failed, errors=errors)


def _take(chunk: Chunk, place: int) -> Any:
    try:
        return chunk.results[place]
    finally:
        chunk.results[place] = None  # whoever consumes it decides for how long it is kept


def _outcome(task: AnyTask, *, errors: bool) -> Any:
    """Return the result of a task that has ended, or its error if these are wanted; else raise it."""
    try:
        error = TaskResult.of(task).error if errors else None
        return task.result() if error is None else error
    finally:
        del task


def _as_they_come(
    source: _Source, most: int, more: int, until: float | None, *, errors: bool
) -> Generator[Any, None, None]:
    """Yield results as the chunks end, and those of items that failed at first as they end.

    With `most` chunks in hand, and up to `more` where calls are quick.
    """
    inbox: _Inbox[Any, Any] = _Inbox()
    pending: set[AnyTask] = set()
    dispatch_next = source.way_in(pending.add, inbox)
    chunks = 0
    try:
        while True:
            while True:
                if source.ended or chunks >= most or inbox.tasks:
                    break
                dispatch_next()
                chunks += 1
            if not (pending or inbox.tasks):  # one told of twice may have kept the next chunk back
                break
            if not inbox.tasks:
                inbox.wait(until, "map()")
                if chunks >= most and len(inbox.tasks) >= len(pending):  # the workers ran out of items
                    most = min(2 * most, more)
            if inbox.tasks[0] not in pending:  # it was told of twice
                inbox.tasks.popleft()
                continue
            if not isinstance(inbox.tasks[0].data, Chunk):
                pending.discard(inbox.tasks[0])
                yield _outcome(inbox.tasks.popleft(), errors=errors)
                continue
            chunks -= 1
            # One that ends from now on is reported; one that has ended before is there already.
            failed = _failed_of(inbox.tasks[0])
            pending.update(failed)
            pending.discard(inbox.tasks[0])
            inbox.tasks.extend(each for each in failed if each.done())
            if failed or inbox.tasks[0]._phase is not _SUCCEEDED:
                del failed
                yield from _those_of(inbox.tasks.popleft(), errors=errors)
            else:
                results = inbox.tasks.popleft().data.results
                results.reverse()
                for _ in range(len(results)):
                    yield results.pop()
        if source.trouble is not None:
            raise source.trouble
    finally:
        try:
            source.end(pending)
        finally:
            source.end(pending)
            pending.clear()
            inbox.end()


def _those_of(task: AnyTask, *, errors: bool) -> Generator[Any, None, None]:
    chunk: Chunk = task.data
    for place in range(len(chunk.items)):
        if chunk.has_result(place):
            yield _take(chunk, place)
        elif place not in chunk.failed:
            yield _outcome(task, errors=errors)
