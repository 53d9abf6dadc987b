"""What a worker can know and do while it runs a task, and how it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from retrypool.clock import Clock, SystemClock
from retrypool.ctrl_c import in_main_thread
from retrypool.durations import Duration, optional_seconds, seconds
from retrypool.errors import AttemptTimeout, InvalidValue, NoContext

if TYPE_CHECKING:
    from retrypool.core.seat import Seat
    from retrypool.core.settings import TaskSettings
    from retrypool.task import Task

__all__ = ["CancelToken", "Context", "current_context"]

log = logging.getLogger("retrypool")

_UNLIMITED = float("inf")

# Taken only to make the token of an attempt, so that two threads that ask for it get the same one.
_making = threading.Lock()


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
            log.exception("on_cancel callback %r raised", callback)

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
    return "cancelled" if token.reason is None else str(token.reason)


class Context:
    """One attempt, as the worker that makes it sees it: the first argument of `run`.

    It goes with its attempt: what is over for the pool, because its time ran out or because it was
    cancelled, stays `cancelled` for whoever still holds the context.
    """

    # An attempt is told apart by its context: one is made for each. `_reason` is written once, by
    # whoever took the context out of its seat's box, before it looks at `_token`; `_token` is made by
    # whoever needs one, who looks at `_reason` after that.
    __slots__ = (
        "_clock",
        "_cost",
        "_expires",
        "_reason",
        "_seat",
        "_started",
        "_task",
        "_token",
        "_withheld",
        "attempt",
    )

    # What the attempt has sent to a drain that wants it only if it succeeds. Set for such attempts alone.
    _withheld: list[object]

    def __init__(
        self, task: Task[Any, Any], seat: Seat, clock: Clock, started: float, expires: float
    ) -> None:
        self._task = task
        self._seat = seat
        self._clock = clock
        self._started = started
        self._expires = expires
        self._reason: object = None
        self._token: CancelToken | None = None
        self._cost: float | None = None  # what `settle` has said
        record = task._record
        self.attempt = 1 if record is None else record.entries + 1  # the number of this attempt

    @property
    def task_id(self) -> int:
        """The id of the task."""
        return self._task.id

    @property
    def name(self) -> str | None:
        """The name of the task."""
        return self._task.name

    @property
    def options(self) -> Mapping[str, object]:
        """The options of the task: its own, or else the pool's."""
        return self._task.options

    @property
    def worker_id(self) -> int:
        """The id of the worker that makes the attempt."""
        return self._seat.id

    @property
    def group(self) -> str:
        """The group of the worker."""
        return self._seat.group.name

    @property
    def deadline(self) -> float | None:
        """The moment at which the attempt will be over, on the pool's clock; None: no limit."""
        return None if self._expires == _UNLIMITED else self._expires

    @property
    def remaining(self) -> float | None:
        """Seconds until the attempt will be over; None: no limit.

        Fit to be a socket's timeout: never less than a millisecond, because 0 would mean another thing
        to a socket.
        """
        if self._expires == _UNLIMITED:
            return None
        return max(0.001, self._expires - self._clock.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is over already: nobody waits for what it does."""
        return self._reason is not None

    def send(self, value: object) -> bool:
        """Put a value into the `Drain` that the task was dispatched with; return whether it was taken.

        What an attempt sends that is over already is dropped, and so is what comes after the drain was
        closed. A `Drain(commit="success")` gets it once the attempt has succeeded. Raises `InvalidValue`
        if the task has no drain.
        """
        drain = self._task._settings.drain
        if drain is None:
            raise InvalidValue("the task's drain", None, "a Drain, given with dispatch(..., drain=...)")
        if self._reason is not None:
            return False
        if drain.withholds:
            self._withheld.append(value)
            return not drain.closed
        return drain.send(value)

    @property
    def token(self) -> CancelToken:
        """A token that is cancelled with the attempt, to hand on to what can watch one."""
        token = self._token
        if token is None:
            with _making:
                token = self._token
                if token is None:
                    self._token = token = CancelToken(clock=self._clock)
            if self._reason is not None:
                token.cancel(self._reason)
        return token

    @property
    def stopping(self) -> bool:
        """Whether the worker has been asked to leave: a good moment to come to an end."""
        return self._seat.retired

    def settle(self, actual: float) -> None:
        """Say how many calls this attempt really counted as, for the rate of the group and the pool.

        For interfaces that count tokens or rows, and tell afterwards. May be called more than once: the
        last word holds. Raises `InvalidType` or `InvalidValue` for what is no number, 0 or more.
        """
        self._task._owner.settle(self._seat, self, actual)

    def check(self) -> None:
        """Raise if the attempt is over: `AttemptTimeout` if it was for time, else `CancelledError`."""
        reason = self._reason
        if isinstance(reason, AttemptTimeout):
            # Another one: this context is in the traceback of what is raised, and has hold of `reason`.
            raise AttemptTimeout(reason.seconds, reason.limit)
        if reason is not None:
            raise CancelledError(reason)

    def sleep(self, duration: Duration) -> None:
        """Wait `duration` seconds, or raise as `check` does, as soon as the attempt is over."""
        self.token.wait(seconds("duration", duration))
        self.check()

    def _let_go(self) -> None:
        """Let go of the task, which did not succeed in this attempt.

        Its error's traceback holds the frame of `run`, and that holds this context: without the task
        in it there is no cycle.
        """
        task = self._task
        if self._cost is None and task._record is not None:
            self._cost = task._record.cost
        self._task = _Past(task.id, task._settings)  # type: ignore[assignment]

    def _cancel(self, reason: object) -> None:
        """Say that the attempt is over, and why."""
        self._reason = reason
        token = self._token
        if token is not None:
            token.cancel(reason)

    def __repr__(self) -> str:
        state = "over" if self.cancelled else "running"
        return f"<Context of task {self.task_id}, attempt {self.attempt}: {state}>"


class _Past:
    """What a context still knows of its task when its attempt is over."""

    __slots__ = ("_settings", "id")
    _record = None

    def __init__(self, id: int, settings: TaskSettings) -> None:
        self.id = id
        self._settings = settings

    @property
    def name(self) -> str | None:
        """The name of the task."""
        return self._settings.name

    @property
    def options(self) -> Mapping[str, object]:
        """The options of the task."""
        return self._settings.options


_thread = threading.local()


def current_context() -> Context:
    """Return the context of the attempt that this thread makes.

    For workers that are plain functions. Raises `NoContext` in any other thread.
    """
    seat = seat_here()
    if seat is not None:
        running = seat.running[-1:]
        attempt = running[0] if running else seat.stuck
        if attempt is not None:
            return attempt
    raise NoContext


def seat_here() -> Seat | None:
    """Return the seat that this thread works at, if it does."""
    return getattr(_thread, "seat", None)


def sit_down(seat: Seat | None) -> None:
    """Let this thread be the one that works at `seat`, for `current_context`."""
    _thread.seat = seat
