"""A pool behind the interface of `concurrent.futures.Executor`."""

from __future__ import annotations

import itertools
import logging
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures.thread import BrokenThreadPool, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from typing_extensions import override

from retrypool.checks import Duration
from retrypool.collect.view import AFTER_SHUTDOWN, Call, Mapping
from retrypool.errors import InvalidType, InvalidValue, PoolClosed, Throttled, WorkerFault
from retrypool.model.settings import TaskSettings
from retrypool.model.task import Task
from retrypool.policy.failure import FailureAction
from retrypool.policy.retry import RetryPolicy
from retrypool.pool import Pool
from retrypool.threads.exiting import exiting
from retrypool.threads.lifecycle import Lifecycle

__all__ = ["PoolExecutor"]

P = ParamSpec("P")
R = TypeVar("R")

# Whoever listens for trouble in executors listens there.
log = logging.getLogger("concurrent.futures")

_ONCE = RetryPolicy(attempts=1)

# Threads are named as those of the class that it stands in for, and counted with them.
_executor_number = getattr(ThreadPoolExecutor, "_counter", itertools.count().__next__)


class _LastCall(Call[R]):
    """A call that is made once, and lets go of the function and its arguments when it is."""

    __slots__ = ()

    @override
    def __call__(self) -> R:
        fn, args, kwargs = self._fn, self._args, self._kwargs
        del self._fn, self._args, self._kwargs
        try:
            return fn(*args, **kwargs)
        except (Throttled, WorkerFault):  # these are not charged: there may be another attempt
            self._fn, self._args, self._kwargs = fn, args, kwargs
            raise

    @override
    def __repr__(self) -> str:
        return super().__repr__() if hasattr(self, "_fn") else "<Call that was made>"


class _FuturesPool(Pool[Callable[[], Any], Any]):
    """A pool whose futures tell of errors: nobody asks the pool, and the log says nothing of them."""

    _logs_tasks = False


class PoolExecutor(Mapping, ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose calls can be retried and limited in time.

    `max_workers`, `thread_name_prefix`, `initializer` and `initargs` are those of
    `ThreadPoolExecutor`. `retry` is a `RetryPolicy` for all calls (default: a call is made once), and
    `timeout` the seconds that one attempt may take (default: any time); its future then ends with
    `AttemptTimeout`, and a thread that does not come back is replaced.

    The futures are tasks: `history`, `errors` and `duration` tell of their attempts. A thread is started
    when a call finds none that is idle, as long as there are less than `max_workers`. What was submitted
    runs to its end when the `with` block is left, by an exception too, and when the interpreter exits, as
    is usual for executors; only a Ctrl-C gives it up. Raises `InvalidType` or `InvalidValue`.

    >>> with PoolExecutor(4) as executor:
    ...     list(executor.map(pow, [2, 3], [5, 2]))
    [32, 9]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
    ) -> None:
        if max_workers is None:
            count = getattr(os, "process_cpu_count", os.cpu_count)  # 3.13 has the former
            max_workers = min(32, (count() or 1) + 4)
        if isinstance(max_workers, bool) or not isinstance(max_workers, int):
            raise InvalidType("max_workers", max_workers, "a whole number")
        if max_workers < 1:
            # The last words are those that callers of executors know.
            raise InvalidValue("max_workers", max_workers, "1 or more: max_workers must be greater than 0")
        if not isinstance(thread_name_prefix, str):
            raise InvalidType("thread_name_prefix", thread_name_prefix, "a string")
        if initializer is not None and not callable(initializer):
            raise InvalidType("initializer", initializer, "a function")
        if not isinstance(initargs, Iterable):
            raise InvalidType("initargs", initargs, "a tuple of arguments for the initializer")
        settings = TaskSettings(retry=_ONCE)
        given: dict[str, Any] = (
            {"timeout": timeout} if retry is None else {"retry": retry, "timeout": timeout}
        )
        settings = settings.having(given)
        self._max_workers = max_workers
        self._policy, self._timeout = settings.retry, settings.timeout
        self._call: type[Call[Any]] = _LastCall if settings.retry.attempts == 1 else Call
        self._crew = _Crew(
            thread_name_prefix or f"ThreadPoolExecutor-{_executor_number()}", initializer, tuple(initargs)
        )
        # Names that those who look at a ThreadPoolExecutor know. Its own constructor is not called.
        self._thread_name_prefix = self._crew.prefix
        self._initializer: Any = initializer
        self._initargs = tuple(initargs)
        # Around all that follows. The pool, `_shutdown` and `_full` are also read without it.
        self._shutdown_lock = threading.Lock()
        self._pool: _FuturesPool | None = None
        self._shutdown = False
        self._full = False  # there are as many threads as there may be
        self._threads: set[threading.Thread] = set()  # pyright: ignore[reportIncompatibleVariableOverride]
        self._submitted = 0

    @override
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have `fn(*args, **kwargs)` called by a worker, and return its future.

        Raises `RuntimeError` after `shutdown`, and `BrokenExecutor` once an initializer has failed.
        """
        if self._shutdown or self._crew.broken:
            raise self._refusal()
        call: Call[R] = self._call(fn, args, kwargs)
        pool = self._pool
        try:
            if pool is not None and self._full:
                return pool.dispatch(call)
            return self._submit_and_grow(call)
        except PoolClosed as refused:
            raise self._refusal(str(refused)) from None

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and wait until those that were taken have ended and the threads with them.

        Unless `wait` is False: then that goes on by itself, and at the latest the interpreter waits for
        it at its exit. `cancel_futures` cancels those that are not running yet.
        """
        with self._shutdown_lock:
            self._shutdown = True
            pool = self._pool
        if pool is None:
            return
        with suppress(PoolClosed):  # in a forked child there is nothing to close
            if cancel_futures:
                pool._lifecycle.cancel_waiting("the executor was shut down")
            if wait:
                pool.close()
            else:
                _close_later(pool)

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._pool is not None:
            self._shutdown = True
            self._pool.force_close()
            return False
        return super().__exit__(kind, error, traceback)

    @property
    def _broken(self) -> str:  # type: ignore[override]
        return self._crew.broken

    def _refusal(self, why: str = AFTER_SHUTDOWN) -> RuntimeError:
        """Return what `submit` raises, in the words that callers of executors know."""
        if self._crew.broken:
            return BrokenThreadPool(self._crew.broken)
        return RuntimeError(AFTER_SHUTDOWN if self._shutdown else why)

    def _submit_and_grow(self, call: Call[R]) -> Future[R]:
        """Dispatch a call, and start another thread if there are more calls than threads."""
        with self._shutdown_lock:
            pool = self._pool
            if pool is None:
                if self._shutdown:
                    raise self._refusal()
                if exiting():
                    raise RuntimeError("cannot schedule new futures after interpreter shutdown")
                self._pool = pool = self._make_pool()
            # First the call, and then the thread, which finds it there.
            task: Task[Any, R] = pool.dispatch(call)
            self._submitted += 1
            at_work = self._submitted - self._ended(pool) + self._stuck(pool)
            if not self._full and at_work > len(self._threads):
                self._grow(pool)
        return task

    def _make_pool(self) -> _FuturesPool:
        crew = self._crew
        pool = _FuturesPool(
            retry=self._policy,
            timeout=self._timeout,
            dead_limit=0,  # the futures tell; nobody asks the pool
            health=None,  # whatever fails, it is not the thread's fault
            on_failure=crew.judge if crew.initializer is not None else None,
            wait_for_workers=True,
            exit_timeout=None,
            name=crew.prefix,
        )
        crew.lifecycle = weakref.ref(pool._lifecycle)
        weakref.finalize(self, _abandon, pool).atexit = False
        return pool

    def _ended(self, pool: _FuturesPool) -> int:
        """Return how many calls have ended. An end is counted before its future tells of it."""
        scheduler = pool._engine.scheduler
        return scheduler.endings.died + scheduler.endings.cancelled + pool._workers.tally().succeeded

    def _stuck(self, pool: _FuturesPool) -> int:
        """Return how many threads are still at a call that has ended, as its time ran out."""
        if self._timeout is None:
            return 0
        return sum(slot.stuck is not None for slot in pool._engine.scheduler.fleet)

    def _grow(self, pool: _FuturesPool) -> None:
        """Start one more thread."""
        number, crew = len(self._threads), self._crew
        try:
            worker_id = pool.add_worker(
                factory=partial(crew.begin, number), name=str(number), group=crew.prefix
            )
        except PoolClosed:  # an initializer has failed already
            return
        except RuntimeError:  # the system lets no more threads start
            if not self._threads:
                raise
            return
        (runner,) = pool._workers.find(worker_id)
        runner.thread.name = f"{crew.prefix}_{number}"
        self._threads.add(runner.thread)
        self._full = len(self._threads) == self._max_workers

    def __repr__(self) -> str:
        return f"<PoolExecutor {self._crew.prefix}: {self._max_workers} workers>"


class _Crew:
    """What the threads of a `PoolExecutor` share. It does not know the executor, which may go first."""

    def __init__(
        self, prefix: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.prefix = prefix
        self.initializer = initializer
        self.broken = ""  # why there are no more calls
        self.lifecycle: weakref.ref[Lifecycle[Any, Any]] | None = None  # set before there are threads
        self._initargs = initargs

    def begin(self, number: int) -> Callable[[Callable[[], Any]], Any]:
        """Prepare a thread, and return its worker. In the thread."""
        threading.current_thread().name = f"{self.prefix}_{number}"  # also of one that replaces another
        if self.initializer is not None:
            try:
                self.initializer(*self._initargs)
            except BaseException:
                log.critical("Exception in initializer:", exc_info=True)
                self._break()
        return operator.call

    def judge(self, _task: object, _error: BaseException) -> FailureAction | None:
        """Let nothing be tried again when there is nobody left to do it."""
        return FailureAction.DEAD if self.broken else None

    def _break(self) -> None:
        self.broken = "an initializer failed: the executor takes no more calls"
        lifecycle = None if self.lifecycle is None else self.lifecycle()
        if lifecycle is not None:
            lifecycle.break_down(BrokenThreadPool(self.broken))


def _close_later(pool: Pool[Any, Any]) -> None:
    """Close a pool on a thread of its own. If there can't be one any more, the exit does it."""
    pool._lifecycle.shut()
    with suppress(RuntimeError):
        threading.Thread(
            target=_close, args=(pool,), name=f"{pool._engine.name}-closing", daemon=True
        ).start()


def _close(pool: Pool[Any, Any]) -> None:
    with suppress(PoolClosed):
        pool.close()


def _abandon(pool: Pool[Any, Any]) -> None:
    """Let the threads of an executor end that was dropped without `shutdown`, after what they have to do.

    The garbage collector may call this anywhere, also in a thread that holds a lock. So it takes none:
    a task goes the way that needs none, and does the rest on a thread of the pool.
    """
    if not pool._engine.guarded:
        pool.dispatch(partial(_close_later, pool))
