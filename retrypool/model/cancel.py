"""A flag that says stop, and why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

from retrypool.callbacks import log_broken, shown, text_of
from retrypool.checks import Duration, optional_seconds, seconds
from retrypool.clock import Clock, SystemClock
from retrypool.ctrl_c import in_main_thread

__all__ = ["CancelToken", "reason_of"]


class CancelToken:
    """A flag that says stop, and why; it can be waited on, and has children that stop with it.

    It only asks: code that runs has to look at it. `clock` serves `after` and `wait` (default: the
    system's).

    >>> token = CancelToken()
    >>> child = token.child()
    >>> token.cancel("enough")
    True
    >>> child.cancelled, child.reason
    (True, 'enough')
    """

    # Everything below is written under _lock, which is held for no call out of this class.
    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_cancelled",
        "_children",
        "_clock",
        "_lock",
        "_parent",
        "_waiters",
        "deadline",
        "reason",
    )

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = SystemClock() if clock is None else clock
        self._lock = threading.Lock()
        self._cancelled = False
        # A child keeps its parent, so that the way up stays whole; a parent does not keep its children.
        self._parent: CancelToken | None = None
        self._children: WeakSet[CancelToken] = WeakSet()
        self._callbacks: dict[object, Callable[[CancelToken], object]] = {}
        self._waiters: list[threading.Lock] = []
        self.reason: object = None
        self.deadline: float | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it is time to stop."""
        deadline = self.deadline
        if not self._cancelled and deadline is not None and self._clock.monotonic() >= deadline:
            self.cancel("its time is over")
        return self._cancelled

    def cancel(self, reason: object = None) -> bool:
        """Cancel the token and its children; return whether that is news."""
        with self._lock:
            if self._cancelled:
                return False
            self.reason = reason
            self._cancelled = True
            children, waiters = list(self._children), self._waiters
            callbacks, self._callbacks = list(self._callbacks.values()), {}
            self._waiters = []
        for lock in waiters:
            with suppress(RuntimeError):  # its time was over at this very moment, and the clock was quicker
                lock.release()
        for child in children:
            child.cancel(reason)
        for callback in callbacks:
            self._call(callback)
        return True

    def _call(self, callback: Callable[[CancelToken], object]) -> None:
        try:
            callback(self)
        except BaseException as error:
            # As with a pool's callbacks: a Ctrl-C is meant for the program, all else must not keep the
            # others from being told, nor end the thread that tells them.
            if not isinstance(error, Exception) and in_main_thread():
                raise
            log_broken("on_cancel callback %s raised", shown(callback))

    def child(self) -> CancelToken:
        """Return a token that is cancelled with this one, and that can be cancelled alone."""
        child = CancelToken(clock=self._clock)
        child.deadline = self.deadline
        child._parent = self
        with self._lock:
            if not self._cancelled:
                self._children.add(child)
                return child
        child.cancel(self.reason)
        return child

    def after(self, duration: Duration) -> CancelToken:
        """Return a child that is cancelled in `duration` seconds at the latest."""
        child = self.child()
        deadline = self._clock.monotonic() + seconds("duration", duration)
        child.deadline = deadline if child.deadline is None else min(deadline, child.deadline)
        return child

    def time_left(self) -> float | None:
        """Return the seconds until it is cancelled for its time; None if it has none."""
        return None if self.deadline is None else max(0.0, self.deadline - self._clock.monotonic())

    def wait(self, timeout: Duration | None = None) -> bool:
        """Wait until the token is cancelled, `timeout` seconds at the most; return whether it is."""
        limit = optional_seconds("timeout", timeout)
        until = None if limit is None else self._clock.monotonic() + limit
        if self.deadline is not None:
            until = self.deadline if until is None else min(until, self.deadline)
        waiter = threading.Lock()
        waiter.acquire()
        with self._lock:
            if self._cancelled:
                return True
            self._waiters.append(waiter)
        left = None if until is None else until - self._clock.monotonic()
        if not self._clock.acquire(waiter, left):
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self.cancelled

    def on_cancel(self, callback: Callable[[CancelToken], object]) -> Callable[[], None]:
        """Have `callback(token)` called once, when the token is cancelled, or now if it is.

        A token made with `after` is noticed to be over when somebody looks at it or waits for it.
        What it raises is logged. Returns a function that takes the callback back.
        """
        key = object()
        with self._lock:
            if not self._cancelled:
                self._callbacks[key] = callback
                return lambda: self._forget(key)
        self._call(callback)
        return lambda: None

    def _forget(self, key: object) -> None:
        with self._lock:
            self._callbacks.pop(key, None)

    def __repr__(self) -> str:
        state = f"cancelled: {self.reason!r}" if self._cancelled else "not cancelled"
        return f"<CancelToken {state}>"


def reason_of(token: CancelToken) -> str:
    """Return what is to be said of what ends because `token` was cancelled."""
    return "cancelled" if token.reason is None else text_of(token.reason)
