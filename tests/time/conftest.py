"""Pools that are cleared away after a test, and threads that are held until the test lets them go."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from retrypool import Pool, RetryPolicy

#: Seconds after which a thread that should have come is given up. Only a test that fails waits so long.
WITHIN = 15.0


class Hang:
    """A call that hangs in C until it is let go, whatever is raised in its thread meanwhile."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self._released = threading.Lock()
        self._released.acquire()
        self.hung = 0

    def __call__(self, *_arguments: object) -> str:
        self.hung += 1
        self.begun.release()
        with self._released:
            pass
        return "too late"

    def wait_until_begun(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.begun.acquire(timeout=WITHIN), "nobody has begun"

    def release(self) -> None:
        if self._released.locked():
            self._released.release()


class Play:
    """Makes pools and hanging calls, and clears them away."""

    within = WITHIN
    at_once = RetryPolicy(attempts=3, delay=0)
    once = RetryPolicy(attempts=1)

    def __init__(self) -> None:
        self._pools: list[Pool[Any, Any]] = []
        self._hangs: list[Hang] = []
        self._threads: list[threading.Thread] = []

    def pool(self, *arguments: Any, **options: Any) -> Pool[Any, Any]:
        options.setdefault("retry", self.at_once)
        self._pools.append(Pool(*arguments, **options))
        return self._pools[-1]

    def hang(self) -> Hang:
        self._hangs.append(Hang())
        return self._hangs[-1]

    def start(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - the future tells it
                future.set_exception(error)

        self._threads.append(threading.Thread(target=call, daemon=True))
        self._threads[-1].start()
        return future

    def until(self, predicate: Callable[[], object]) -> None:
        """Wait until `predicate()` is true, for what tells nobody when it comes to be."""
        deadline = time.monotonic() + WITHIN
        while not predicate():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.0005)

    def clear(self) -> None:
        for hang in self._hangs:
            hang.release()
        for pool in self._pools:
            pool.force_close()
        for thread in self._threads:
            thread.join(WITHIN)


@pytest.fixture
def play() -> Iterator[Play]:
    it = Play()
    yield it
    it.clear()
