"""The peers: each opens a pool for a function and yields how to run a batch through it.

All do the same: submit every item, then take the result of every item, in order.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from time import monotonic
from typing import Any

from .cost import Cost, Meter, middle
from .harness import Goal, Measure, Row, within

Function = Callable[[Any], Any]
Batch = Callable[[Sequence[Any]], list[Any]]
Opened = AbstractContextManager[Batch]


@dataclass(frozen=True)
class Peer:
    """A way to run a function over items on so many workers."""

    label: str
    open: Callable[[Function, int], Opened]
    needs: str | None = None
    floor: bool = False

    def row(self, measure: Measure, size: int, label: str | None = None) -> Row:
        return Row(label or self.label, measure, size, self.needs, self.floor)


def per_task(peer: Peer, function: Function, workers: int, items: Callable[[int], Sequence[Any]]) -> Measure:
    """Microseconds per task, from the first submit to the last result, on a pool that is warm.

    `function` returns True when it did its work, and the results are checked.
    """

    def measure(size: int) -> float:
        with peer.open(function, workers) as run_batch:

            def once() -> Cost:
                batch = items(size)
                with Meter() as meter:
                    results = run_batch(batch)
                if results != [True] * size:
                    raise AssertionError(f"{peer.label} lost work")
                return meter.per(size)

            run_batch(items(10 * workers))
            return middle(once)

    return measure


def _futures(submit: Callable[..., Any], function: Function) -> Batch:
    def run_batch(items: Sequence[Any]) -> list[Any]:
        return [future.result() for future in [submit(function, item) for item in items]]

    return run_batch


@contextmanager
def _open_executor(
    function: Function, workers: int, wrap: Callable[[Function], Function] | None = None
) -> Iterator[Batch]:
    with ThreadPoolExecutor(workers) as executor:
        yield _futures(executor.submit, wrap(function) if wrap else function)


@contextmanager
def _open_simple_queue(function: Function, workers: int) -> Iterator[Batch]:
    tasks: SimpleQueue[Any] = SimpleQueue()
    results: SimpleQueue[Any] = SimpleQueue()
    stop = object()

    def loop() -> None:
        while (item := tasks.get()) is not stop:
            results.put(function(item))

    def run_batch(items: Sequence[Any]) -> list[Any]:
        for item in items:
            tasks.put(item)
        return [results.get() for _ in items]

    threads = [threading.Thread(target=loop) for _ in range(workers)]
    for thread in threads:
        thread.start()
    yield run_batch
    for _ in threads:
        tasks.put(stop)
    for thread in threads:
        thread.join()


class _Future:
    """What a task must be at the least: waited for on demand, with an error or a result, and three times."""

    __slots__ = ("began", "bell", "data", "done", "ended", "error", "queued", "result")

    ended: float

    def __init__(self, data: Any) -> None:
        self.data = data
        self.done = False
        self.bell: threading.Lock | None = None
        self.error: BaseException | None = None
        self.queued = monotonic()

    def get(self) -> Any:
        if not self.done:
            bell = threading.Lock()
            bell.acquire()
            self.bell = bell
            if not self.done:
                bell.acquire()
        if self.error is not None:
            raise self.error
        return self.result


@contextmanager
def _open_bare_futures(function: Function, workers: int) -> Iterator[Batch]:
    tasks: SimpleQueue[_Future | None] = SimpleQueue()
    history: deque[tuple[float, ...]] = deque(maxlen=10_000)

    def loop() -> None:
        while (task := tasks.get()) is not None:
            task.began = monotonic()
            try:
                task.result = function(task.data)
            except BaseException as error:  # noqa: BLE001 - as a pool does
                task.error = error
            task.ended = monotonic()
            history.append((task.queued, task.began, task.ended))
            task.done = True
            if task.bell is not None:
                task.bell.release()

    def submit(item: Any) -> _Future:
        task = _Future(item)
        tasks.put(task)
        return task

    threads = [threading.Thread(target=loop) for _ in range(workers)]
    for thread in threads:
        thread.start()
    yield lambda items: [task.get() for task in [submit(item) for item in items]]
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        thread.join()


@contextmanager
def _open_multiprocessing(function: Function, workers: int) -> Iterator[Batch]:
    with ThreadPool(workers) as pool:
        submit = pool.apply_async

        def run_batch(items: Sequence[Any]) -> list[Any]:
            return [pending.get() for pending in [submit(function, (item,)) for item in items]]

        yield run_batch


@contextmanager
def _open_pebble(function: Function, workers: int) -> Iterator[Batch]:
    from pebble import ThreadPool as PebblePool

    with PebblePool(max_workers=workers) as pool:
        yield _futures(pool.submit, function)


@contextmanager
def _open_more_executors(
    function: Function, workers: int, add: Callable[[Any], Any] | None = None
) -> Iterator[Batch]:
    from more_executors import Executors

    logging.getLogger("more_executors").setLevel(logging.CRITICAL)
    logging.getLogger("RetryExecutor").setLevel(logging.CRITICAL)
    executor = Executors.thread_pool(max_workers=workers)
    with add(executor) if add else executor as layered:
        yield _futures(layered.submit, function)


@contextmanager
def _open_retrypool(
    function: Function,
    workers: int,
    pool_options: Callable[[], dict[str, Any]] = dict,
    *,
    alike: bool = True,
) -> Iterator[Batch]:
    from retrypool import Pool

    resources = [function] * workers if alike else [partial(function) for _ in range(workers)]
    with Pool(resources, **pool_options()) as pool:
        dispatch = pool.dispatch

        def run_batch(items: Sequence[Any]) -> list[Any]:
            return [task.result() for task in [dispatch(item) for item in items]]

        yield run_batch


def with_tenacity(attempts: int = 3, delay: float = 0) -> Callable[[Function], Function]:
    """The decorator as its documentation shows it."""
    import tenacity

    return tenacity.retry(
        stop=tenacity.stop_after_attempt(attempts), wait=tenacity.wait_fixed(delay), reraise=True
    )


def with_stamina(attempts: int = 3) -> Callable[[Function], Function]:
    """No wait, no total timeout, and no hooks: its log line per retry would dominate."""
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])
    return stamina.retry(
        on=Exception, attempts=attempts, timeout=None, wait_initial=0, wait_max=0, wait_jitter=0
    )


def by_hand(attempts: int = 3) -> Callable[[Function], Function]:
    """The loop that everybody has written once."""

    def wrap(function: Function) -> Function:
        def retrying(item: Any) -> Any:
            for attempt in range(1, attempts + 1):
                try:
                    return function(item)
                except Exception:
                    if attempt == attempts:
                        raise
            return None

        return retrying

    return wrap


def with_timer(seconds: float) -> Callable[[Function], Function]:
    """A `threading.Timer` per attempt, the usual answer to "how do I time a thread out?"."""

    def wrap(function: Function) -> Function:
        def guarded(item: Any) -> Any:
            expired = threading.Event()
            timer = threading.Timer(seconds, expired.set)
            timer.start()
            try:
                return function(item)
            finally:
                timer.cancel()

        return guarded

    return wrap


def executor_tenacity(attempts: int = 3, delay: float = 0) -> Peer:
    def open_it(function: Function, workers: int) -> Opened:
        return _open_executor(function, workers, with_tenacity(attempts, delay))

    return Peer("ThreadPoolExecutor + tenacity", open_it, needs="tenacity")


def executor_by_hand(attempts: int = 3) -> Peer:
    open_it = partial(_open_executor, wrap=by_hand(attempts))
    return Peer("ThreadPoolExecutor + for … try", open_it)


def executor_stamina(attempts: int = 3) -> Peer:
    def open_it(function: Function, workers: int) -> Opened:
        return _open_executor(function, workers, with_stamina(attempts))

    return Peer("ThreadPoolExecutor + stamina", open_it, needs="stamina")


def executor_timer(seconds: float) -> Peer:
    open_it = partial(_open_executor, wrap=with_timer(seconds))
    return Peer("ThreadPoolExecutor + Timer", open_it)


def more_executors_retry(attempts: int = 3) -> Peer:
    def add(executor: Any) -> Any:
        return executor.with_retry(max_attempts=attempts, sleep=0, max_sleep=0)

    open_it = partial(_open_more_executors, add=add)
    return Peer("more-executors with_retry", open_it, needs="more_executors")


def more_executors_timeout(seconds: float) -> Peer:
    open_it = partial(_open_more_executors, add=lambda executor: executor.with_timeout(seconds))
    return Peer("more-executors with_timeout", open_it, needs="more_executors")


def retrypool(
    label: str = "retrypool", pool_options: Callable[[], dict[str, Any]] = dict, *, alike: bool = True
) -> Peer:
    """`pool_options` is called when the pool is made, so that this module needs no retrypool.

    The workers are one group if they are `alike`, or each is a group of its own.
    """
    return Peer(label, partial(_open_retrypool, pool_options=pool_options, alike=alike), needs="retrypool")


def over_the_floor(share: float) -> Goal:
    """We cost at most so many times what the least that a pool must do costs."""
    return within(share, BARE_FUTURES.label)


SIMPLE_QUEUE = Peer("SimpleQueue loop (floor)", _open_simple_queue, floor=True)
BARE_FUTURES = Peer("SimpleQueue + futures (floor)", _open_bare_futures, floor=True)
EXECUTOR = Peer("ThreadPoolExecutor", _open_executor)
MULTIPROCESSING = Peer("multiprocessing ThreadPool", _open_multiprocessing)
PEBBLE = Peer("pebble", _open_pebble, needs="pebble")
MORE_EXECUTORS = Peer("more-executors", _open_more_executors, needs="more_executors")
RETRYPOOL = retrypool()
