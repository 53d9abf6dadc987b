"""`map`: runs any number of items through a pool, a bounded number at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

from retrypool.callbacks import call_ours
from retrypool.checks import Duration, count, flag, optional_seconds
from retrypool.collect.results import TaskResult
from retrypool.ctrl_c import acquire
from retrypool.errors import InvalidType, QueueFull
from retrypool.model.completion import Bell, Reporter
from retrypool.model.context import slot_here
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task
from retrypool.states import TaskState
from retrypool.threads.engine import Engine

__all__ = ["as_completed", "map_items"]

T = TypeVar("T")
R = TypeVar("R")

_SUCCEEDED = TaskState.SUCCEEDED
_DEAD = TaskState.DEAD
_CANCELLED = TaskState.CANCELLED
_RETRYING = TaskState.RETRYING

MOST_WINDOWS = 16
"""How many windows of items are in hand at the most, by default, while one of them is late."""

_SOON = 0.02
"""Seconds after which the first item is late."""


def map_items(
    engine: Engine[T, R],
    settings: TaskSettings,
    iterable: Iterable[T],
    *,
    window: int | None,
    workers: int,
    ordered: bool,
    timeout: Duration | None,
    return_exceptions: bool,
    key: Callable[[T], str] | None = None,
    on_end: Callable[[Task[T, R]], object] | None = None,
) -> Generator[Any, None, None]:
    """Check what `Pool.map` was given, and return the generator that does it.

    `on_end` is called with each task that ends, on the thread that ends it; see `Reporter` for how often.
    """
    until = _until(timeout)
    if key is not None and not callable(key):
        raise InvalidType("key", key, "a function of the item that returns its key")
    width = max(128, 32 * workers) if window is None else count("window", window, least=1)
    most = MOST_WINDOWS * width if window is None else width
    items = begun(engine, iterable, ordered=ordered, return_exceptions=return_exceptions)
    if ordered:
        return in_order(engine, settings, items, width, most, until, return_exceptions, on_end, key)
    return as_they_come(engine, settings, items, width, most, until, return_exceptions, on_end, key)


def begun(
    engine: Engine[Any, Any], iterable: Iterable[T], *, ordered: bool, return_exceptions: bool
) -> Iterator[T]:
    """Check what every kind of `map` is given, and return the iterator over the items."""
    flag("ordered", ordered)
    flag("return_exceptions", return_exceptions)
    try:
        items = iter(iterable)
    except TypeError:
        raise InvalidType("iterable", iterable, "something to iterate over") from None
    engine.check_open("map()")
    return items


# Both functions below are generators of the same build. Each round pulls items until there is a result
# to yield or the window is full, then yields one result. So a slow iterable does not hold back results
# that are there, and a quick one keeps the window full while the workers are busy.
#
# What the iterable raises, and a refusal of the pool, is kept until the results before it are out. What
# ends the generator, a `close` by the garbage collector too, comes by `finally`, where all is given up twice:
# a Ctrl-C may strike on the way to the first time. No local name holds a result, or a task whose error is
# raised: a traceback would keep it.
#
# No loop in a `try` ends with a condition: CPython from 3.12 on makes two jumps of the one back to its head
# then, and the second is in no `try`. A Ctrl-C that strikes there would pass by `finally`.


def in_order(
    engine: Engine[T, R],
    settings: TaskSettings,
    items: Iterator[T],
    window: int,
    most: int,
    until: float | None,
    errors: bool,
    on_end: Callable[[Task[T, R]], object] | None = None,
    key: Callable[[T], str] | None = None,
) -> Generator[R | BaseException | None, None, None]:
    """Yield results in the order of the items.

    While the first item is late, for a delay between two attempts or because it is slow, more than `window`
    items are pulled as others end, up to `most`, so that the workers have something to do.
    """
    tasks: deque[Task[T, R]] = deque()
    reporter = None if on_end is None else Reporter(on_end)
    dispatch = _way_in(engine, settings, until, tasks.append, reporter, key)
    more, trouble = True, None
    limit = window
    try:
        while True:
            if more and len(tasks) < limit:
                try:
                    for item in items:
                        dispatch(item)
                        phase = tasks[0]._phase
                        if (
                            len(tasks) >= limit
                            or phase is _SUCCEEDED
                            or phase is _DEAD
                            or phase is _CANCELLED
                        ):
                            break
                        del item
                    else:
                        more = False
                except Exception as error:  # noqa: BLE001 - raised below
                    trouble, more = error, False
                item, limit = None, window  # type: ignore[assignment]
            if not tasks:
                break
            if tasks[0]._phase is not _SUCCEEDED:
                half = window // 2
                if more and window <= len(tasks) < most and is_held_up(engine, tasks[0], tasks, half, until):
                    limit = min(most, len(tasks) + half)
                    continue
                tasks[0]._wait(None if until is None else _left(until))
                if len(tasks) >= window and tasks[-1]._phase is _SUCCEEDED:  # the workers ran out of items
                    limit = window = min(2 * window, most)
                if errors and tasks[0]._phase is not _SUCCEEDED:
                    yield TaskResult.of(tasks.popleft()).error
                    continue
                yield tasks.popleft().result()
            else:
                yield tasks.popleft()._outcome
        if trouble is not None:
            raise trouble
    finally:
        trouble = None
        try:
            engine.cancelling.give_up(tasks)
        finally:
            engine.cancelling.give_up(tasks)
            tasks.clear()


def is_held_up(
    engine: Engine[Any, Any], first: Task[Any, Any], tasks: deque[Task[T, R]], half: int, until: float | None
) -> bool:
    """Wait for the first task. Return whether it is late, and all but about `half` others ended before it."""
    if slot_here() is not None:
        return False  # a worker, which may wait for its own pool only where that can be told
    left = inf if until is None else _left(until)
    if first._phase is not _RETRYING:
        with suppress(TimeoutError):
            first._wait(min(left, _SOON))
            return False
    bell = Bell()
    first._report_to(bell)
    middle = len(tasks) - half
    for place in range(max(1, middle - 4), min(len(tasks), middle + 4)):  # several: one may be late itself
        tasks[place]._report_to(bell)
    timeout = None if until is None else _left(until)
    return acquire(bell.lock, timeout, engine.stand_by) and not first.done()


def as_they_come(
    engine: Engine[T, R],
    settings: TaskSettings,
    items: Iterator[T],
    window: int,
    most: int,
    until: float | None,
    errors: bool,
    on_end: Callable[[Task[T, R]], object] | None = None,
    key: Callable[[T], str] | None = None,
) -> Generator[R | BaseException | None, None, None]:
    """Yield results in the order in which the tasks end."""
    inbox: _Inbox[T, R] = _Inbox(on_end)
    ended = inbox.tasks
    pending: set[Task[T, R]] = set()
    again: list[Task[T, R]] = []  # of these: an entry for each further item of the same key
    note = pending.add if key is None else partial(_note, pending, again)
    dispatch = _way_in(engine, settings, until, note, inbox, key)
    more, trouble = True, None
    try:
        while True:
            if more:
                try:
                    for item in items:
                        dispatch(item)
                        if ended or len(pending) + len(again) >= window:
                            break
                        del item
                    else:
                        more = False
                except Exception as error:  # noqa: BLE001 - raised below
                    trouble, more = error, False
                item = None  # type: ignore[assignment]
            if not pending:
                break
            if not ended:
                inbox.wait(until, "map()")
                if len(ended) >= len(pending) >= window:  # the workers ran out of items
                    window = min(2 * window, most)
            try:
                pending.remove(ended[0])
            except KeyError:  # it was told of twice
                ended.popleft()
                continue
            if again and ended[0] in again:
                again.remove(ended[0])
                pending.add(ended[0])
                ended.append(ended[0])
            if ended[0]._phase is _SUCCEEDED:
                yield ended.popleft()._outcome
            elif errors:
                yield TaskResult.of(ended.popleft()).error
            else:
                yield ended.popleft().result()
        if trouble is not None:
            raise trouble
    finally:
        trouble = None
        try:
            engine.cancelling.give_up(pending)
        finally:
            engine.cancelling.give_up(pending)
            pending.clear()
            again.clear()
            inbox.end()


def _note(pending: set[Task[T, R]], again: list[Task[T, R]], task: Task[T, R]) -> None:
    if task in pending:
        again.append(task)
    else:
        pending.add(task)


def _way_in(
    engine: Engine[T, R],
    settings: TaskSettings,
    until: float | None,
    note: Callable[[Task[T, R]], object],
    reporter: Reporter | None = None,
    key: Callable[[T], str] | None = None,
) -> Callable[[T], object]:
    """Return a function that dispatches an item. It waits for room in a bounded queue, until `until`."""
    if settings.block_timeout is None and engine.queue_limit is not None:
        if until is not None:
            return _until_there_is_room(engine, settings, until, note, reporter, key)
        settings = replace(settings, block_timeout=inf)
    # Stored soon will do: whoever runs this again gives the item again.
    return engine.intake.entrance(settings, reporter, note, key=key, later=True)


def _until_there_is_room(
    engine: Engine[T, R],
    settings: TaskSettings,
    until: float,
    note: Callable[[Task[T, R]], object],
    reporter: Reporter | None,
    key: Callable[[T], str] | None,
) -> Callable[[T], object]:
    def dispatch(item: T) -> None:
        patient = replace(settings, block_timeout=_left(until))
        try:
            engine.intake.entrance(patient, reporter, note, key=key, later=True)(item)
        except QueueFull:
            raise TimeoutError("there was no room in the queue for the next item in time") from None

    return dispatch


class _Inbox(Reporter, Generic[T, R]):
    """A queue of tasks that have ended, read by one thread."""

    # A task that ends is appended, and then _waits is looked at; the reader sets _waits, and then looks
    # for tasks. One of the two sees the other. The bell may be rung once too often, never too seldom.
    __slots__ = ("_add", "_bell", "_on_end", "_waits", "tasks")

    def __init__(self, on_end: Callable[[Task[T, R]], object] | None = None) -> None:
        self._on_end = on_end
        self.tasks: deque[Task[T, R]] = deque()
        self._add: Callable[[Task[T, R]], object] = self.tasks.append
        self._waits = False
        self._bell = threading.Lock()
        self._bell.acquire()

    def announce(self, task: Task[T, R], /) -> None:
        """Add a task. Called on the thread that ends it."""
        on_end = self._on_end  # looked at once: `end` may come in between
        if on_end is not None:
            call_ours("callback of map()", on_end, task)
        self._add(task)
        if self._waits:
            self._waits = False
            with suppress(RuntimeError):  # somebody else has just rung
                self._bell.release()

    report = announce  # a method in place of the attribute, which would be a reference to itself

    def end(self) -> None:
        """Ignore further tasks, and release those that are there."""
        self._on_end, self._add = None, id
        self.tasks.clear()

    def wait(self, until: float | None, call: str) -> None:
        """Wait until there is a task. Raises `TimeoutError` that names `call`."""
        while True:
            self._waits = True
            if self.tasks:
                return
            left = None if until is None else _left(until)
            if not acquire(self._bell, left) and not self.tasks:
                raise TimeoutError(f"no result within the timeout of {call}")


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def as_completed(tasks: Iterable[Task[T, R]], timeout: Duration | None) -> Generator[Task[T, R], None, None]:
    """Yield `tasks` as they end; those that have ended come first. Raises as `Pool.as_completed` says."""
    if not isinstance(tasks, Iterable):
        raise InvalidType("tasks", tasks, "an iterable of tasks")
    known = list(tasks)
    for task in known:
        if not isinstance(task, Task):
            raise InvalidType("a task", task, "what dispatch() returned")
    return _as_they_end(known, _until(timeout))


def _as_they_end(tasks: list[Task[T, R]], until: float | None) -> Generator[Task[T, R], None, None]:
    # Not by concurrent.futures: it waits for a condition, and what strikes a thread in there gets it wrong.
    pending = dict.fromkeys(tasks)
    for task in list(filter(Task.done, pending)):
        del pending[task]
        yield task
    inbox: _Inbox[T, R] = _Inbox()
    for task in pending:
        task._report_to(inbox)
    number = len(pending)
    try:
        while True:
            if not pending:
                break
            if not inbox.tasks:
                try:
                    inbox.wait(until, "as_completed()")
                except TimeoutError:
                    raise TimeoutError(f"{len(pending)} (of {number}) futures unfinished") from None
            task = inbox.tasks.popleft()
            try:
                del pending[task]
            except KeyError:  # it has been told of twice
                continue
            yield task
    finally:
        inbox.end()  # tasks that have not ended know it


def _until(timeout: Duration | None) -> float | None:
    seconds = optional_seconds("timeout", timeout)
    return None if seconds is None else time.monotonic() + seconds
