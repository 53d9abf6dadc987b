"""Gates to hold threads at, and hooks into the places where threads can get in each other's way."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from retrypool import Pool
from retrypool.clock import SystemClock
from retrypool.core import queue
from retrypool.core.fleet import Fleet
from retrypool.threads.parker import Parker

#: Seconds after which a thread that should have come is given up. Only a test that fails waits so long.
WITHIN = 20.0


class Gate:
    """A place where threads are held until the test lets them pass."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def hold(self, *_arguments: object) -> None:
        self._reached.set()
        if not self._opened.wait(WITHIN):
            raise TimeoutError("nobody opened the gate")

    def wait_until_reached(self) -> None:
        assert self._reached.wait(WITHIN), "nobody came to the gate"

    @property
    def reached(self) -> bool:
        return self._reached.is_set()

    def open(self) -> None:
        self._opened.set()


class Stage:
    """Makes pools, gates and threads for one test, and clears them away after it."""

    within = WITHIN

    def __init__(self) -> None:
        self._gates: list[Gate] = []
        self._pools: list[Pool[Any, Any]] = []
        self._threads: list[threading.Thread] = []

    def gate(self) -> Gate:
        self._gates.append(Gate())
        return self._gates[-1]

    def pool(self, *arguments: Any, **options: Any) -> Pool[Any, Any]:
        """Return a pool that is closed by force if the test does not close it."""
        self._pools.append(Pool(*arguments, **options))
        return self._pools[-1]

    def start(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Call `function` in a thread of its own, and return the future of what comes of it."""
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - the future tells it
                future.set_exception(error)

        self._threads.append(threading.Thread(target=call, name="background", daemon=True))
        self._threads[-1].start()
        return future

    def until(self, predicate: Callable[[], object]) -> None:
        """Wait until `predicate()` is true, for what tells nobody when it comes to be."""
        deadline = time.monotonic() + WITHIN
        while not predicate():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.0005)

    def worker_threads(self, pool: Pool[Any, Any]) -> list[threading.Thread]:
        return [runner.thread for runner in pool._workers]

    def join_workers(self, pool: Pool[Any, Any]) -> None:
        """Wait until the threads of `pool`, which was told to end, have ended."""
        for thread in self.worker_threads(pool):
            thread.join(WITHIN)
            assert not thread.is_alive(), f"{thread.name} lives on"

    def clear(self) -> None:
        for gate in self._gates:
            gate.open()
        for pool in self._pools:
            if not pool.closed:
                pool.force_close()
        for thread in self._threads:
            thread.join(WITHIN)


@pytest.fixture
def stage() -> Iterator[Stage]:
    it = Stage()
    yield it
    it.clear()


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Let threads lose the interpreter 500 times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Hooks:
    """Functions that are called once, the next time that a pool's thread comes by.

    Only pools that are made after the fixture was set up come by here.
    """

    def __init__(self) -> None:
        self._armed: dict[str, Callable[[], object]] = {}
        self.clock = HookedClock()

    def arm(self, place: str, function: Callable[[], object]) -> None:
        """Have `function()` called at `place`.

        - "appended": a task has just been appended to the injector;
        - "taken": a worker has just taken a task from the injector;
        - "nobody parked": somebody wanted to wake a parked worker, and there was none any more;
        - "parked": a worker has just been parked, and the lock is still held;
        - "asleep": a parked worker has looked for the last time, and goes to sleep.
        """
        assert place in {"appended", "taken", "nobody parked", "parked", "asleep"}
        self._armed[place] = function

    def fire(self, place: str) -> None:
        function = self._armed.pop(place, None)
        if function is not None:
            function()

    def hold_before_start(self, gate: Gate) -> None:
        """Hold the next worker that takes a task without asking, before it is seen to run it.

        Between the two it looks at the clock; such pools are made with `clock=hooks.clock`.
        """
        self.arm("taken", lambda: self.clock.call_next(threading.get_ident(), gate.hold))


class HookedClock(SystemClock):
    """The system's clock; a thread that looks at it next can be made to do something first."""

    def __init__(self) -> None:
        self._detours: dict[int | None, Callable[[], object]] = {}

    def call_next(self, thread: int | None, function: Callable[[], object]) -> None:
        """Have `function()` called when the thread of this ident looks at the clock next."""
        self._detours[thread] = function

    def monotonic(self) -> float:  # type: ignore[override]
        detour = self._detours.pop(threading.get_ident(), None) if self._detours else None
        if detour is not None:
            detour()
        return time.monotonic()


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Hooks:
    it = Hooks()

    class Line(deque[Any]):
        def append(self, task: Any) -> None:
            super().append(task)
            it.fire("appended")

        def popleft(self) -> Any:
            task = super().popleft()
            it.fire("taken")
            return task

    class Parked(dict[Any, None]):
        def popitem(self) -> Any:
            try:
                return super().popitem()
            except KeyError:
                it.fire("nobody parked")
                raise

        def __setitem__(self, slot: Any, value: None) -> None:
            super().__setitem__(slot, value)
            it.fire("parked")

    make_fleet, park = Fleet.__init__, Parker.park

    def park_after_hook(self: Parker, timeout: float | None = None) -> bool:
        it.fire("asleep")
        return park(self, timeout)

    def with_hooked_parked(self: Fleet, *arguments: Any, **options: Any) -> None:
        make_fleet(self, *arguments, **options)
        self.parked = Parked()

    monkeypatch.setattr(queue, "deque", Line)
    monkeypatch.setattr(Fleet, "__init__", with_hooked_parked)
    monkeypatch.setattr(Parker, "park", park_after_hook)
    return it
