"""What a worker can know and do while it runs a task, and how it is told to stop."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, cast

from retrypool.checks import Duration, seconds
from retrypool.ctrl_c import here
from retrypool.errors import AttemptTimeout, InvalidValue, NoContext
from retrypool.model.cancel import CancelToken
from retrypool.model.task import Task

if TYPE_CHECKING:
    from retrypool.clock import Clock
    from retrypool.model.settings import TaskSettings
    from retrypool.model.slots import Slot
    from retrypool.model.task import TaskOwner
    from retrypool.policy.rates import Rate

__all__ = ["Context", "attempts_at", "begin", "current_context"]

log = logging.getLogger("retrypool")

_UNLIMITED = float("inf")

# Taken only to make the token of an attempt, so that two threads that ask for it get the same one. Reentrant:
# the garbage collector may run while it is held.
_making = threading.RLock()


def _remake_lock() -> None:
    """After a fork: a thread that the child does not have may have held it."""
    global _making  # noqa: PLW0603 - there is one for all attempts
    _making = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remake_lock)


class Context:
    """One attempt, as the worker that makes it sees it: the first argument of `run`.

    It goes with its attempt: what is over for the pool, because its time ran out or because it was
    cancelled, stays `cancelled` for whoever still holds the context.
    """

    # An attempt is told apart by its context: one is made for each. `_reason` is written once, by whoever
    # took the context out of its slot's box. Handshake H10: write `_reason`, then read `_token`; make
    # `_token`, then read `_reason`.
    __slots__ = (
        "_cost",
        "_expires",
        "_reason",
        "_slot",
        "_started",
        "_taken",
        "_task",
        "_token",
        "_withheld",
        "attempt",
    )

    # What the attempt has sent to a drain that wants it only if it succeeds. Set for such attempts alone.
    _withheld: list[object]

    # Made by `begin`: a class without `__init__` is called in half the time.
    _task: Task[Any, Any]
    _slot: Slot
    _started: float
    _expires: float
    _reason: object
    _token: CancelToken | None
    _cost: float | None  # what `settle` has said
    _taken: dict[Any, float] | None  # what it has cost by rates with a cost of their own
    attempt: int
    """The number of this attempt, from 1."""

    @property
    def _clock(self) -> Clock:
        return self._task._owner.clock

    @property
    def task_id(self) -> int:
        """The id of the task."""
        return self._task.id

    @property
    def name(self) -> str | None:
        """The name of the task."""
        return self._task.name

    @property
    def idempotency_key(self) -> str:
        """A text that no other task has, and that is the same in all attempts of this one.

        With a storage it is the same in other processes, too. For interfaces that take one, so that a
        request that is made again is carried out once.
        """
        task = self._task
        return f"{task._owner.identity}-{task.id}"

    @property
    def options(self) -> Mapping[str, object]:
        """The options of the task: its own, or else the pool's."""
        return self._task.options

    @property
    def worker_id(self) -> int:
        """The id of the worker that makes the attempt."""
        return self._slot.id

    @property
    def group(self) -> str:
        """The group of the worker."""
        return self._slot.group.name

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
                if self._token is None:
                    self._token = CancelToken(clock=self._clock)
                token = self._token
            if self._reason is not None:
                token.cancel(self._reason)
        return token

    @property
    def stopping(self) -> bool:
        """Whether the worker has been asked to leave: a good moment to come to an end."""
        return self._slot.retired

    def settle(self, actual: float, rate: Rate | None = None) -> None:
        """Correct how many calls this attempt counts as, for the rates of the group and the pool.

        For interfaces that count tokens or rows, and tell afterwards. Of several rates it is for the one
        that has a `cost` of its own, or for all if none has; if more than one has, `rate` says which. May be
        called more than once: the last word holds. Raises `InvalidType` or `InvalidValue` for what is no
        number, 0 or more, and for a rate that is none of them.
        """
        self._task._owner.settle(self._slot, self, actual, rate)

    def restart(self) -> None:
        """Have this worker started afresh before its next task, as `WorkerFault(restart=True)` has."""
        self._task._owner.restart(self._slot)

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
        """Release the task, which did not succeed in this attempt.

        Its error's traceback holds the frame of `run`, and that holds this context: without the task
        in it there is no cycle.
        """
        task = self._task
        if self._cost is None and task._record is not None:
            self._cost = task._record.cost
        past = _Past()
        past.id, past._owner, past._settings = task.id, task._owner, task._told
        self._task = cast(Any, past)

    def _cancel(self, reason: object) -> None:
        """Mark the attempt as over, and why."""
        self._reason = reason
        token = self._token
        if token is not None:
            token.cancel(reason)

    def __repr__(self) -> str:
        state = "over" if self.cancelled else "running"
        return f"<Context of task {self.task_id}, attempt {self.attempt}: {state}>"


def begin(task: Task[Any, Any], slot: Slot, started: float, expires: float) -> Context:
    """Return the context of an attempt that starts now."""
    ctx = Context()
    ctx._task = task
    ctx._slot = slot
    ctx._started = started
    ctx._expires = expires
    record = task._record
    ctx.attempt = 1 if record is None else record.entries + 1
    ctx._reason = ctx._token = ctx._cost = ctx._taken = None
    return ctx


def attempts_at(slot: Slot, dropped: list[object]) -> list[Context]:
    """Return the context of what runs at `slot`, if anything does. Called under the pool's lock.

    The first attempt of a plain task stands in the box as that task until somebody wants its context, which
    is put in its place: first in, then the task out, so that the box is never empty meanwhile (handshake H5).
    If the worker has gone on to another one in between, that is given its context. A finalizer that runs
    then, and looks here, finds both, and leaves them as they are. `dropped` gets what this may be the last to
    hold.
    """
    running = slot.running
    while held := running[:]:
        dropped.append(held)
        task = held[0]
        if not isinstance(task, Task):
            break
        ctx = begin(task, slot, task._started, _UNLIMITED)
        dropped.append(ctx)
        running.insert(0, ctx)
        try:
            running.remove(task)
        except ValueError:  # the attempt has just ended
            running.remove(ctx)
    return held[:1]


class _Past:
    """What a context still knows of its task when its attempt is over."""

    __slots__ = ("_owner", "_settings", "id")
    _record = None

    _owner: TaskOwner
    _settings: TaskSettings
    id: int

    @property
    def name(self) -> str | None:
        """The name of the task."""
        return self._settings.name

    @property
    def options(self) -> Mapping[str, object]:
        """The options of the task."""
        return self._settings.options


def current_context() -> Context:
    """Return the context of the attempt that this thread makes.

    For workers that are plain functions. Raises `NoContext` in any other thread.
    """
    slot = slot_here()
    if slot is not None:
        running = slot.running[-1:]
        attempt: Any = running[0] if running else slot.stuck
        if isinstance(attempt, Task):
            slot.asks = True
            attempt = attempt._owner.attempt_at(slot)
        if attempt is not None:
            found: Context = attempt
            return found
    raise NoContext


def slot_here() -> Slot | None:
    """Return the slot that this thread works at, if it does."""
    slot: Slot | None = here.slot
    return slot


def occupy(slot: Slot | None) -> None:
    """Bind this thread to `slot`, for `current_context`."""
    here.slot = slot
