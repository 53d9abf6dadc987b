"""How those who wait for a task learn that it has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Any, Protocol

from retrypool.callbacks import call_guarded, call_ours
from retrypool.ctrl_c import acquire

__all__ = ["ANNOUNCED", "Announced", "Bell", "Completion", "Reporter", "Standby"]


class Standby(Protocol):
    """The pool of a task, as far as a thread that waits for the task does something for it."""

    def stand_by(self) -> None:
        """Do what nobody else might do. Called by the main thread every now and then."""

    def wake_another(self) -> None:
        """Wake a worker for what waits beside the task, if anything does."""


class Completion:
    """Those who wait for one task. Made on first use: a task that nobody waits for has none."""

    __slots__ = ("announced", "bells", "callbacks", "lock", "waiters")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        # All of these under `lock`.
        self.announced = False  # whether those who wait have been told
        self.bells: list[threading.Lock] = []  # each held, until it is rung by being released
        self.callbacks: list[Callable[[Any], object] | Reporter] = []
        self.waiters: list[Any] = []  # those of concurrent.futures.wait and as_completed

    def wait(self, timeout: float | None, ended: Callable[[], bool], pool: Standby) -> bool:
        """Wait until the bells are rung, unless it has `ended`; return False if `timeout` seconds pass.

        The main thread stands by for the pool every now and then.
        """
        bell = threading.Lock()
        bell.acquire()
        with self.lock:
            if ended():
                return True
            self.bells.append(bell)
        rung = False
        try:
            rung = acquire(bell, timeout, pool.stand_by)
        finally:
            if not rung:  # its time is over, or a Ctrl-C
                with self.lock:
                    if bell in self.bells:
                        self.bells.remove(bell)
        return rung or ended()

    def add(self, callback: Callable[[Any], object] | Reporter, ended: Callable[[], bool]) -> bool:
        """Have `callback` called with the task once that has ended; return False if it has `ended`."""
        with self.lock:
            if ended():
                return False
            self.callbacks.append(callback)
            return True

    def announce(self, task: Future[Any]) -> None:
        """Tell those who wait that `task` has ended, unless they know. Called outside locks."""
        with self.lock:
            if self.announced:
                return
            self.announced = True
            callbacks, self.callbacks = self.callbacks, []
            for waiter in self.waiters:
                if task.cancelled():
                    waiter.add_cancelled(task)
                elif task.exception() is not None:
                    waiter.add_exception(task)
                else:
                    waiter.add_result(task)
            self.ring()
        for callback in callbacks:
            if isinstance(callback, Reporter):
                callback.announce(task)
            else:
                call_guarded("done callback", callback, task)

    def ring(self) -> None:
        """Wake those who wait. Under `lock`."""
        bells, self.bells = self.bells, []
        for bell in bells:
            bell.release()


class Reporter:
    """Has `report(task)` called for each of many tasks, on the thread that ends it.

    It stands in a task's place for a completion, and one serves any number of tasks: what a done callback
    does, without a condition for each. In a race with somebody who begins to wait for the task it may be
    called twice, so `report` must take no notice of a second call.
    """

    __slots__ = ("report",)

    def __init__(self, report: Callable[[Any], object]) -> None:
        self.report = report

    def announce(self, task: Any, /) -> None:
        """Report the end of a task. Called by whoever ends it, outside locks. Raises nothing."""
        call_ours("reporter", self.report, task)

    def end(self) -> None:
        """Ignore further tasks, and release the callback."""
        self.report = _ignore


class Bell(Reporter):
    """One thread waits for one task, as nearly always: a lock that the end releases is all that takes.

    A worker that is about to begin the task may call that thread before the end, to have it wake another
    worker for what else waits. If the task is a quick one, nobody was woken in vain: the thread is on its way
    up when that ends.
    """

    __slots__ = ("attended", "called", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.attended = False  # by who waits: it will look at `called` before it goes; its own thread
        self.called = False  # to wake another worker; whoever runs the task

    def call(self) -> bool:
        """Have who waits wake another worker; return False if nobody will."""
        if not self.attended:
            return False
        self.called = True
        self.report(None)
        return self.attended  # handshake H18

    def wait(self, timeout: float | None, ended: Callable[[], bool], pool: Standby) -> bool:
        """Wait for the end, and wake another worker if called meanwhile; return False if it has not come."""
        until = None if timeout is None else monotonic() + timeout
        try:
            self.attended = True
            rung = ended() or acquire(self.lock, timeout, pool.stand_by)
            self._leave(pool)
        except BaseException:  # it may have come between the call and what that asks for
            self._leave(pool)
            raise
        if rung and not ended():
            rung = acquire(self.lock, None if until is None else max(0.0, until - monotonic()), pool.stand_by)
        return rung

    def _leave(self, pool: Standby) -> None:
        self.attended = False
        if self.called:  # handshake H18: written first, read afterwards
            pool.wake_another()

    def announce(self, _task: Any, /) -> None:
        """Wake the one who waits, unless that has been done."""
        try:
            self.lock.release()
        except RuntimeError:
            pass

    report = announce  # a method in place of the attribute, which would be a reference to itself


def _ignore(_task: object) -> None:
    """Do nothing."""


class Announced:
    """The completion of a task that had ended before anybody asked for one: nobody ever waits here.

    One serves all such tasks. It has no state, so whoever takes it for a lock is in nobody's way.
    """

    __slots__ = ()

    announced = True

    @property
    def lock(self) -> Announced:
        """What concurrent.futures takes before it looks at the task."""
        return self

    waiters = lock

    def add(self, _callback: object, _ended: object) -> bool:
        """Say that the task has ended."""
        return False

    def announce(self, _task: object) -> None:
        """Tell nobody: nobody waits."""

    def acquire(self) -> bool:
        """Take nothing."""
        return True

    def release(self) -> None:
        """Give nothing back."""

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        """Give nothing back."""

    def append(self, _waiter: object) -> None:
        """Forget a waiter, who finds the task ended."""

    def remove(self, _waiter: object) -> None:
        """Forget a waiter."""


ANNOUNCED = Announced()
