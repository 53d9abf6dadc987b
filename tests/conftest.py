"""What every test gets: no thread is left behind, generated tests repeat in CI, a stage if it wants one."""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import settings

from retrypool import Interrupted, Pool, RetryPolicy

# A test that starts another Python gets the same retrypool there, whatever the current folder is.
os.environ["PYTHONSAFEPATH"] = "1"

# What a shell runs in the background ignores Ctrl-C, and so does all that is started from there.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes an example slow, never wrong: no deadline.
settings.register_profile("local", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "local")

#: How long a thread that was told to end may take to do so. Only a test that fails waits this long.
GRACE = 5.0


@pytest.fixture
def interrupts_dropped_by_python(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that struck a finalizer or the callback of a weak reference, and are raised once more.

    Python reports them, pytest warns of that, and warnings are errors. But any interrupt may strike there.
    """
    dropped: list[Any] = []
    report = sys.unraisablehook

    def sort(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, Interrupted):
            dropped.append(unraisable.exc_type)
        else:
            report(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", sort)
    return dropped


def stays(thread: threading.Thread) -> bool:
    """Whether a thread is of an engine that keeps it for the whole process."""
    return thread.name.startswith("Dask-")


@pytest.fixture(autouse=True)
def no_thread_left_behind(interrupts_dropped_by_python: list[Any]) -> Iterator[None]:
    """Fails a test that leaves a thread running.

    Set up before a test's own fixtures, so it looks after they have closed their pools. The threads
    are joined here, inside the test, so that an exception in one of them is this test's failure
    too: pytest warns of it, and warnings are errors.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + GRACE
    # Ask again after each join: a thread may start another on its way out.
    while new := [thread for thread in threading.enumerate() if thread not in before and not stays(thread)]:
        left = deadline - time.monotonic()
        if left <= 0:
            names = ", ".join(sorted(repr(thread.name) for thread in new))
            pytest.fail(f"threads left behind: {names}")
        new[0].join(left)


#: Seconds after which a thread that should have come is given up. Only a test that fails waits so long.
WITHIN = 20.0


class Gate:
    """A place where threads are held until the test lets them pass."""

    def __init__(self) -> None:
        self._came = threading.Semaphore(0)
        self._opened = threading.Event()
        self.reached = False

    def hold(self, *_arguments: object) -> None:
        self.reached = True
        self._came.release()
        if not self._opened.wait(WITHIN):
            raise TimeoutError("nobody opened the gate")

    def wait_until_reached(self, times: int = 1) -> None:
        for _ in range(times):
            assert self._came.acquire(timeout=WITHIN), "nobody came to the gate"

    def open(self) -> None:
        self._opened.set()


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


class Stage:
    """Makes pools, gates, hanging calls and threads for one test, and clears them away after it."""

    within = WITHIN
    at_once = RetryPolicy(attempts=3, delay=0)
    once = RetryPolicy(attempts=1)
    kind: type[Pool[Any, Any]] = Pool  # of the pools that it makes

    def __init__(self) -> None:
        self._gates: list[Gate] = []
        self._hangs: list[Hang] = []
        self._pools: list[Pool[Any, Any]] = []
        self._threads: list[threading.Thread] = []

    def gate(self) -> Gate:
        self._gates.append(Gate())
        return self._gates[-1]

    def hang(self) -> Hang:
        self._hangs.append(Hang())
        return self._hangs[-1]

    def pool(self, *arguments: Any, **options: Any) -> Pool[Any, Any]:
        """Return a pool that is closed by force at the end, if it is still open then."""
        self._pools.append(self.kind(*arguments, **options))
        return self._pools[-1]

    def eager_pool(self, *arguments: Any, **options: Any) -> Pool[Any, Any]:
        """Return a pool whose retries wait for no delay."""
        return self.pool(*arguments, **{"retry": self.at_once, **options})

    def start(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> "Future[Any]":
        """Call `function` in a thread of its own, and return the future of what comes of it."""
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments, **options))
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

    def lock_is_held(self, pool: Pool[Any, Any]) -> bool:
        """Whether another thread holds the lock of `pool`."""
        lock = pool._engine.lock
        if not lock.acquire(blocking=False):
            return True
        lock.release()
        return False

    def clear(self) -> None:
        for gate in self._gates:
            gate.open()
        for hang in self._hangs:
            hang.release()
        for pool in self._pools:
            pool.force_close()
        for thread in self._threads:
            thread.join(WITHIN)


@pytest.fixture
def stage() -> Iterator[Stage]:
    it = Stage()
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
