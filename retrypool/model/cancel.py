"""A flag that says stop, and why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from weakref import ref

from retrypool.callbacks import call_guarded, call_ours, shown, text_of
from retrypool.checks import Duration, optional_seconds, seconds
from retrypool.clock import Clock, SystemClock
from retrypool.ctrl_c import shielded

__all__ = ["CancelToken", "Following", "reason_of"]


_SYSTEM = SystemClock()


class Following:
    """What a pool's own callback on a token is known by: a Ctrl-C does not end it half way."""

    __slots__ = ()


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

    # There is no lock: a signal handler, a finalizer and a child process after a fork may all cancel a token.
    # One atomic append cancels it. Who adds a waiter, a child or a callback does that and then looks whether
    # the token is cancelled; who cancels it does that and then looks who is there. Each of them is taken out,
    # atomically, by one who finds it, and is told by that one.
    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_children",
        "_clock",
        "_parent",
        "_reasons",
        "_waiters",
        "deadline",
    )

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = _SYSTEM if clock is None else clock
        self._reasons: list[tuple[object]] = []  # the first one is the reason
        # A child keeps its parent, so that the way up stays whole; a parent does not keep its children.
        self._parent: CancelToken | None = None
        self._children: dict[ref[CancelToken], None] = {}
        self._callbacks: dict[object, Callable[[CancelToken], object]] = {}
        self._waiters: list[threading.Lock] = []
        self.deadline: float | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it is time to stop."""
        deadline = self.deadline
        if not self._reasons and deadline is not None and self._clock.monotonic() >= deadline:
            self.cancel("its time is over")
        return bool(self._reasons)

    @property
    def reason(self) -> object:
        """What it was cancelled for."""
        return self._reasons[0][0] if self._reasons else None

    def cancel(self, reason: object = None) -> bool:
        """Cancel the token and its children; return whether that is news."""
        news = False
        if not self._reasons:
            mine = (reason,)
            self._reasons.append(mine)
            news = self._reasons[0] is mine
        self._tell()
        return news

    @shielded
    def _tell(self) -> None:
        """Tell whoever has not been told yet that the token is cancelled."""
        while self._waiters:
            with suppress(IndexError, RuntimeError):  # somebody was quicker: another one, or the clock
                self._waiters.pop(0).release()
        for known in list(self._children):
            self._children.pop(known, None)
            child = known()
            if child is not None:
                child.cancel(self.reason)
        for key in list(self._callbacks):
            callback = self._callbacks.pop(key, None)
            if callback is not None:
                call = call_ours if isinstance(key, Following) else call_guarded
                call("on_cancel callback", callback, self)

    def child(self) -> CancelToken:
        """Return a token that is cancelled with this one, and that can be cancelled alone."""
        child = CancelToken(clock=self._clock)
        child.deadline = self.deadline
        child._parent = self
        self._children[ref(child, partial(_forget, self._children))] = None
        if self._reasons:
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
        self._waiters.append(waiter)
        try:
            if not self._reasons:
                left = None if until is None else until - self._clock.monotonic()
                self._clock.acquire(waiter, left)
        finally:
            with suppress(ValueError):
                self._waiters.remove(waiter)
        return self.cancelled

    def on_cancel(self, callback: Callable[[CancelToken], object]) -> Callable[[], None]:
        """Have `callback(token)` called once, when the token is cancelled, or now if it is.

        A token made with `after` is noticed to be over when somebody looks at it or waits for it.
        What it raises is logged. Returns a function that takes the callback back.
        """
        key = object()
        self._listen(key, callback)
        return partial(self._take_back, key)

    def _listen(self, key: object, callback: Callable[[CancelToken], object]) -> None:
        self._callbacks[key] = callback
        if self._reasons:
            self._tell()

    def _take_back(self, key: object) -> None:
        self._callbacks.pop(key, None)

    def __repr__(self) -> str:
        state = f"cancelled: {shown(self.reason)}" if self._reasons else "not cancelled"
        return f"<CancelToken {state}>"


def _forget(children: dict[ref[CancelToken], None], child: ref[CancelToken]) -> None:
    children.pop(child, None)


def reason_of(token: CancelToken) -> str:
    """Return what is to be said of what ends because `token` was cancelled."""
    return "cancelled" if token.reason is None else text_of(token.reason)
