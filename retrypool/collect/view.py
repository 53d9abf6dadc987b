"""A pool as a `concurrent.futures` executor, and what all executors here have in common."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Any, Generic, ParamSpec, TypeVar

from typing_extensions import override

from retrypool.checks import checked_timeout
from retrypool.ctrl_c import shielded
from retrypool.errors import InvalidType, InvalidValue, WrongThread
from retrypool.model.completion import Reporter
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task
from retrypool.threads.engine import Engine
from retrypool.threads.parker import Bell

__all__ = ["AFTER_SHUTDOWN", "Call", "Mapping", "PoolView"]

P = ParamSpec("P")
R = TypeVar("R")

AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"


class Call(Generic[R]):
    """A function and its arguments: what the workers of an executor's pool get as data."""

    __slots__ = ("_args", "_fn", "_kwargs")

    def __init__(self, fn: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> R:
        """Call the function and return what it returns."""
        return self._fn(*self._args, **self._kwargs)

    def __repr__(self) -> str:
        return f"<Call of {self._fn!r}>"


class Mapping(Executor):
    """What executors have in common: `map`."""

    @override
    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Return an iterator over the results of `fn` for each of the items, in their order.

        Submits all of them at once, or with a `buffersize` so many, and the next one when a result was
        consumed. `timeout` is in seconds from this call, for each result; `TimeoutError` is raised when
        it has passed. `chunksize` means nothing for threads. What is left when the iteration ends
        early is cancelled, unless it runs.
        """
        if buffersize is not None:
            if isinstance(buffersize, bool) or not isinstance(buffersize, int):
                raise InvalidType("buffersize", buffersize, "an integer or None")
            if buffersize < 1:
                raise InvalidValue("buffersize", buffersize, "None or > 0")
        until = None if timeout is None else time.monotonic() + checked_timeout(timeout)
        arguments = zip(*iterables)  # noqa: B905 - as the built-in map does
        first = arguments if buffersize is None else islice(arguments, buffersize)
        tasks = deque(self.submit(fn, *each) for each in first)
        # The generator keeps the executor alive if it needs it for the rest, and only then.
        if buffersize is None:
            return _results(tasks, until, iter(()))
        return _results(tasks, until, (self.submit(fn, *each) for each in arguments))


def _results(
    tasks: deque[Future[R]],
    until: float | None,
    rest: Iterator[Future[R]],
) -> Generator[R, None, None]:
    try:
        while True:  # not `while tasks`: see map.py for how loops end
            if not tasks:
                break
            # The first stays among the tasks while it is waited for, to be cancelled with the others.
            tasks[0].exception(None if until is None else max(0.0, until - time.monotonic()))
            tasks.extend(islice(rest, 1))
            yield tasks.popleft().result()
    finally:
        for task in tasks:
            task.cancel()


class PoolView(Mapping):
    """A pool as a `concurrent.futures` executor. Made by `Pool.as_executor`, which documents it."""

    # All under _changed. A call is counted in _entering while it is dispatched, and its task is in _pending
    # from then on until it has ended. `dispatch` may wait for room in the queue, so it is called without
    # the lock.
    def __init__(self, engine: Engine[Any, Any], settings: TaskSettings) -> None:
        self._engine = engine
        self._dispatch = engine.intake.entrance(settings, Reporter(self._ended))
        self._changed = threading.RLock()
        self._bells: set[Bell] = set()  # of those who wait for the last call
        self._pending: set[Task[Any, Any]] = set()
        self._entering = 0
        self._shut = False

    @override
    @shielded
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have `fn(*args, **kwargs)` called by a worker of the pool, and return its future.

        Raises `RuntimeError` after `shutdown`, and what `dispatch` raises.
        """
        with self._changed:
            if self._shut:
                raise RuntimeError(AFTER_SHUTDOWN)
            self._entering += 1
        task: Task[Any, R] | None = None
        try:
            task = self._dispatch(Call(fn, args, kwargs))
            return task
        finally:
            with self._changed:
                self._entering -= 1
                if task is not None and not task.done():
                    self._pending.add(task)
                self._tell_if_finished()

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the pool stays open.

        Waits for those that were submitted here, unless `wait` is False, and cancels those that are not
        running yet with `cancel_futures`. Raises `WrongThread` if it would wait in a worker of the pool.
        """
        with self._changed:
            self._shut = True
            pending = list(self._pending) if cancel_futures else []
        for task in pending:
            task.cancel()
        if wait:
            if self._engine.here:
                raise WrongThread("shutdown()")
            bell = Bell()
            try:
                while True:
                    with self._changed:
                        self._bells.add(bell)
                        if not self._unfinished:
                            return
                    bell.wait(None, self._engine.stand_by)
            finally:
                self._bells.discard(bell)

    @property
    def _unfinished(self) -> int:
        return self._entering + len(self._pending)

    def _ended(self, task: Task[Any, Any]) -> None:
        with self._changed:
            self._pending.discard(task)
            self._tell_if_finished()

    def _tell_if_finished(self) -> None:
        if self._shut and not self._unfinished:
            for bell in self._bells:
                bell.ring()

    def __repr__(self) -> str:
        return f"<PoolView of {self._engine.name}: {self._unfinished} calls unfinished>"
