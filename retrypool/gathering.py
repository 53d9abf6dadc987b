"""The part of a pool's interface that is about what comes of its tasks."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, get_args, overload

from typing_extensions import TypeVar, Unpack

from retrypool.checks import Duration, optional_seconds
from retrypool.collect.map import as_they_come, in_order
from retrypool.collect.results import TaskResult
from retrypool.collect.task_group import OnError, TaskGroup
from retrypool.errors import InvalidType, InvalidValue, WrongThread
from retrypool.model.settings import MapOptions, TaskOptions, TaskSettings
from retrypool.model.task import Task
from retrypool.threads.engine import Engine
from retrypool.threads.workers import Workers

if TYPE_CHECKING:
    from retrypool.executor import PoolView

__all__ = ["Gathering"]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)


class Gathering(Generic[T, R]):
    """Mapping, grouping and results. A base of `Pool`, and of nothing else."""

    _engine: Engine[T, R]
    _workers: Workers[T, R]
    _settings: TaskSettings

    @overload
    def map(
        self,
        iterable: Iterable[T],
        *,
        window: int | None = None,
        ordered: bool = True,
        timeout: Duration | None = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[MapOptions],
    ) -> Generator[R, None, None]: ...
    @overload
    def map(
        self,
        iterable: Iterable[T],
        *,
        window: int | None = None,
        ordered: bool = True,
        timeout: Duration | None = None,
        return_exceptions: bool,
        **options: Unpack[MapOptions],
    ) -> Generator[R | BaseException, None, None]: ...
    def map(
        self,
        iterable: Iterable[T],
        *,
        window: int | None = None,
        ordered: bool = True,
        timeout: Duration | None = None,
        return_exceptions: bool = False,
        **options: Unpack[MapOptions],
    ) -> Generator[Any, None, None]:
        """Iterate over the results of running each item of `iterable`, which may be infinite.

        Lazy, like the built-in `map`: it begins when the first result is asked for. It pulls items on
        the thread that iterates, until there is a result to give or `window` items are in flight or
        wait to be consumed (default: 32 for each worker, 128 at least). So memory stays flat.

        - `ordered`: in the order of the items, or else as they end.
        - `timeout`: seconds from this call after which waiting for a result raises `TimeoutError`. A
          limit for each attempt is the pool's `timeout`.
        - `return_exceptions`: yield the error of an item that failed for good, in its place. Otherwise
          it is raised there, and that ends the iteration.
        - Options as in `dispatch`, checked once. In a bounded queue, items wait for room.

        What the iterable raises, or the pool that is closed meanwhile, is raised after the results of
        the items before. When the iteration ends early, by an error, a `break`, `close()` or Ctrl-C,
        what is left is cancelled, running attempts too. Raises `PoolClosed`, `NoWorkers`, `WrongThread`
        in a worker of the pool, and `InvalidType` or `InvalidValue`.

        >>> from retrypool import Pool
        >>> with Pool([len] * 2) as pool:
        ...     list(pool.map(["a", "bcd", "ef"]))
        [1, 3, 2]
        """
        until = _until(timeout)
        for what, flag in (("ordered", ordered), ("return_exceptions", return_exceptions)):
            if not isinstance(flag, bool):
                raise InvalidType(what, flag, "True or False")
        width = max(128, 32 * len(list(self._workers))) if window is None else _positive("window", window)
        settings = self._settings.having(options)
        try:
            items = iter(iterable)
        except TypeError:
            raise InvalidType("iterable", iterable, "something to iterate over") from None
        self._check_open("map()")
        mapped = in_order if ordered else as_they_come
        return mapped(self._engine, settings, items, width, until, return_exceptions)

    def as_completed(
        self, tasks: Iterable[Task[T, R]], timeout: Duration | None = None
    ) -> Iterator[Task[T, R]]:
        """Iterate over `tasks` as they end; those that have ended come first.

        Raises `TimeoutError` if they have not all ended `timeout` seconds after this call, and
        `InvalidType` for what is no task.
        """
        if not isinstance(tasks, Iterable):
            raise InvalidType("tasks", tasks, "an iterable of tasks")
        known = list(tasks)
        for task in known:
            if not isinstance(task, Task):
                raise InvalidType("a task", task, "what dispatch() returned")
        return _as_they_end(known, _until(timeout))

    def group(self, *, on_error: OnError = "collect", **options: Unpack[TaskOptions]) -> TaskGroup[T, R]:
        """Return a context manager whose `dispatch` makes tasks, and whose end waits for all of them.

        What it does about tasks that fail for good:

        - `"collect"`: waits for all, then raises their errors as one `ExceptionGroup`, in the order of
          dispatch.
        - `"cancel"`: as soon as one has failed, cancels the others, running ones too, and raises what
          has failed in the same way.
        - `"ignore"`: nothing. `group.results()` tells, as it does in all cases.

        Tasks that somebody has cancelled count as ended, not as failed, unless the pool was closed
        meanwhile and gave them up. An exception in the block, or a Ctrl-C while it waits at its end,
        cancels all tasks of the group and goes on as it is. Groups may stand inside of groups. `options`
        are those of `dispatch`, for all tasks of the group. Raises `PoolClosed`, `NoWorkers`,
        `InvalidType`, `InvalidValue`, and `WrongThread` in a worker of the pool, which would wait for
        itself.

        >>> from retrypool import Pool
        >>> with Pool([len] * 2) as pool:
        ...     with pool.group() as group:
        ...         tasks = group.dispatch_many(["a", "bcd"])
        ...     [result.value for result in group.results()]
        [1, 3]
        """
        if on_error not in get_args(OnError):
            raise InvalidValue("on_error", on_error, "'collect', 'cancel' or 'ignore'")
        settings = self._settings.having(options)
        self._check_open("group()")
        return TaskGroup(self._engine, settings, on_error)

    def results(self) -> list[TaskResult[T, R]]:
        """Return what has come of every task that has ended, in order of dispatch; also after `close`.

        Only of a pool made with `keep_results=True`: it holds on to all of its tasks, data and results.
        Otherwise results go when the caller lets go of their tasks, and this raises `InvalidValue`. A
        task that was requeued is told of once, with what came of it last.
        """
        engine = self._engine
        kept = engine.kept
        if kept is None:
            raise InvalidValue("keep_results", False, "True for results(): Pool(..., keep_results=True)")
        with engine.lock:
            tasks = sorted(kept.items())
        return [TaskResult.of(task) for _, task in tasks if task.done()]

    def errors(self) -> list[BaseException]:
        """Return the last error of each dead task that the pool keeps, in the order of dispatch."""
        with self._engine.lock:
            dead = sorted(self._engine.scheduler.dead.items())
        return [task.error for _, task in dead if task.error is not None]

    def as_executor(self) -> PoolView:
        """Return a `concurrent.futures.Executor` that runs its calls on this pool.

        The data that the workers get are callables without arguments: a worker makes the call with
        `data()`, around which it may do what it is there for. Retries, timeouts and all else are the
        pool's. `shutdown` ends the executor: it waits for what was submitted through it, and leaves the
        pool open.

        >>> from retrypool import Pool
        >>> with Pool([lambda call: call()] * 2) as pool:
        ...     pool.as_executor().submit(pow, 2, 5).result()
        32
        """
        from retrypool.executor import PoolView

        return PoolView(self._engine, self._settings)

    def _check_open(self, call: str) -> None:
        if self._engine.here:
            raise WrongThread(call)
        if refusal := self._engine.refusal():
            raise refusal


def _as_they_end(tasks: list[Task[T, R]], until: float | None) -> Generator[Task[T, R], None, None]:
    # The clock of the one below starts when it is first asked.
    left = None if until is None else max(0.0, until - time.monotonic())
    # It reads what `Task` has as properties in place of attributes.
    ended: Iterator[Any] = concurrent.futures.as_completed(tasks, left)  # type: ignore[arg-type]
    yield from ended


def _until(timeout: Duration | None) -> float | None:
    seconds = optional_seconds("timeout", timeout)
    return None if seconds is None else time.monotonic() + seconds


def _positive(what: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(what, value, "a whole number, 1 or more")
    if value < 1:
        raise InvalidValue(what, value, "1 or more")
    return value
