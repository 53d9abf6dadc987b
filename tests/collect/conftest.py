"""A gate to hold worker threads at, and pools that are cleared away."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from retrypool import Pool

#: Seconds after which a thread that should have come is given up. Only a test that fails waits so long.
WITHIN = 10.0


class Gate:
    """A place where threads are held until the test lets them pass."""

    def __init__(self) -> None:
        self._came = threading.Semaphore(0)
        self._opened = threading.Event()

    def hold(self, *_arguments: object) -> None:
        self._came.release()
        if not self._opened.wait(WITHIN):
            raise TimeoutError("nobody opened the gate")

    def wait_until_reached(self, times: int = 1) -> None:
        for _ in range(times):
            assert self._came.acquire(timeout=WITHIN), "nobody came to the gate"

    def open(self) -> None:
        self._opened.set()


class Scene:
    within = WITHIN

    def __init__(self) -> None:
        self._gates: list[Gate] = []
        self._pools: list[Pool[Any, Any]] = []
        self._threads: list[threading.Thread] = []

    def gate(self) -> Gate:
        self._gates.append(Gate())
        return self._gates[-1]

    def pool(self, *arguments: Any, **options: Any) -> Pool[Any, Any]:
        self._pools.append(Pool(*arguments, **options))
        return self._pools[-1]

    def start(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> "Future[Any]":
        """Call `function` in a thread of its own, and return the future of what comes of it."""
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments, **options))
            except BaseException as error:  # noqa: BLE001 - the future tells it
                future.set_exception(error)

        self._threads.append(threading.Thread(target=call, daemon=True))
        self._threads[-1].start()
        return future

    def clear(self) -> None:
        for gate in self._gates:
            gate.open()
        for pool in self._pools:
            pool.close(timeout=WITHIN)
        for thread in self._threads:
            thread.join(WITHIN)


@pytest.fixture
def scene() -> Iterator[Scene]:
    it = Scene()
    yield it
    it.clear()


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Nothing is freed by the collector of cycles: what is gone is gone by its reference count."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Let threads lose the interpreter 500 times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
