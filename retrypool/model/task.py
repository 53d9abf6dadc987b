"""What `dispatch` returns, and what is kept of it: tasks, attempts, dead tasks.

A `Task` is a `concurrent.futures.Future` that costs little: the `Condition` that a `Future` carries is
made when somebody first waits, and the history when there is more than one attempt to tell of.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from typing_extensions import override

from retrypool.callbacks import call_guarded
from retrypool.checks import checked_timeout
from retrypool.ctrl_c import shielded
from retrypool.model.completion import ANNOUNCED, Announced, Bell, Reporter, Standby
from retrypool.model.completion import Completion as _Completion
from retrypool.model.record import Attempt, DeadTask, Record, succeeded
from retrypool.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrypool.clock import Clock
    from retrypool.model.settings import TaskSettings
    from retrypool.model.slots import Slot

__all__ = ["Attempt", "DeadTask", "Record", "Task"]

T = TypeVar("T")
R = TypeVar("R")

_SUCCEEDED = TaskState.SUCCEEDED
_DEAD = TaskState.DEAD
_CANCELLED = TaskState.CANCELLED
_RUNNING = TaskState.RUNNING
# A tuple: it is searched by identity first, where a set would call the slow hash of an enum member.
_ENDED = (_SUCCEEDED, _DEAD, _CANCELLED)

# The names that concurrent.futures uses, for its `wait` and `as_completed`. A cancelled task has
# has always notified its waiters: "CANCELLED_AND_NOTIFIED".
_FUTURE_STATES = {
    TaskState.SUCCEEDED: "FINISHED",
    TaskState.DEAD: "FINISHED",
    TaskState.CANCELLED: "CANCELLED_AND_NOTIFIED",
    TaskState.RUNNING: "RUNNING",
}


class TaskOwner(Standby, Protocol):
    """What a task needs of its pool."""

    @property
    def clock(self) -> Clock: ...
    @property
    def identity(self) -> str: ...
    def cancel_waiting(self, task: Task[Any, Any]) -> bool: ...
    def wait_begins(self, task: Task[Any, Any], timeout: float | None) -> Slot | None: ...
    def attempt_at(self, slot: Slot) -> Any: ...
    def restart(self, slot: Slot) -> None: ...
    def settle(self, slot: Slot, ctx: Any, actual: float, rate: Any = None) -> None: ...


# Taken to install a completion, so that two waiters agree on one, and to take a reporter out. Reentrant:
# the garbage collector may run while it is held, and end other tasks.
_install = threading.RLock()


def _remake_lock() -> None:
    """After a fork: a thread that the child does not have may have held it."""
    global _install  # noqa: PLW0603 - there is one for all tasks
    _install = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remake_lock)


class Task(Future[R], Generic[T, R]):
    """One item of data on its way through the pool, and the future of its result.

    It is a `concurrent.futures.Future`, and everything that takes one takes it: `wait`,
    `as_completed`, `asyncio.wrap_future`. `result()` returns what `run` returned, or raises the last
    error that the worker raised.
    """

    # Who may write what:
    #   _phase, _outcome   whoever owns the task: its dispatcher, then the worker that runs it, or
    #                      the scheduler under the pool's lock once it has withdrawn the task
    #   _slot              the worker that claims it (H3: before it reads _withdrawn), and the worker
    #                      that puts it back (before it puts it back)
    #   _withdrawn         the scheduler, under the pool's lock (H3: before it reads _slot): True for a
    #                      tombstone, GONE once that is counted out
    #   _record            the owner
    #   _completion        its dispatcher, before anybody else knows the task; then whoever waits or
    #                      wants to be told, under _install (before it looks at _phase)
    #   _labels            its dispatcher, before anybody else knows the task
    # `new_task` makes it (model/preparing.py). These slots stand for all that `Future.__init__` would set.
    __slots__ = (
        "_completion",
        "_dispatched",
        "_ended",
        "_labels",
        "_outcome",
        "_owner",
        "_phase",
        "_record",
        "_settings",
        "_slot",
        "_started",
        "_withdrawn",
        "data",
        "id",
    )

    if not TYPE_CHECKING:  # which take it for the constructor of any class
        __init__ = object.__init__

    data: T
    id: int
    _settings: TaskSettings
    _owner: TaskOwner
    _dispatched: float
    _phase: TaskState
    _withdrawn: bool | Literal["gone"]
    _labels: Mapping[str, Any] | None
    _completion: _Completion | Announced | Reporter | None
    _outcome: Any  # the result, or the error
    _slot: Slot | None
    _record: Record | None
    _started: float
    _ended: float

    # -- what it is ------------------------------------------------------------------------------

    @property
    def state(self) -> TaskState:
        """Where the task stands now."""
        return self._phase

    @property
    def name(self) -> str | None:
        """The name it was dispatched with."""
        return self._settings.name if self._labels is None else self._told.name

    @property
    def _deadline(self) -> float | None:
        """The moment on the pool's clock at which it must have ended, if it has a deadline."""
        deadline = self._settings.deadline
        return None if deadline is None else self._dispatched + deadline

    @property
    def priority(self) -> int:
        """Its priority; higher goes first."""
        return self._settings.priority

    @property
    def options(self) -> Mapping[str, object]:
        """Its options: its own mapping, or else the pool's."""
        return self._settings.options if self._labels is None else self._told.options

    @property
    def tags(self) -> frozenset[str]:
        """The tags that it was dispatched with, for callbacks and listeners to see."""
        return self._settings.tags if self._labels is None else self._told.tags

    @property
    def metadata(self) -> Mapping[str, object]:
        """What it was dispatched with for callbacks and listeners to see."""
        return self._settings.metadata if self._labels is None else self._told.metadata

    @property
    def _told(self) -> TaskSettings:
        """Its settings, labels included. Those that differ from task to task are kept beside the others."""
        return self._settings if self._labels is None else self._settings.told(self._labels)

    @property
    def history(self) -> list[Attempt]:
        """Every attempt so far that is over, the first one first. A new list each time."""
        record = self._record
        attempts = [] if record is None else list(record.history)
        if self._phase is _SUCCEEDED and self._slot is not None:  # else another process kept its result alone
            attempts.append(self._success(self._slot))
        return attempts

    def _success(self, slot: Slot) -> Attempt:
        record = self._record
        number = 1 if record is None else record.number or record.entries + 1
        return succeeded(number, slot, self._started, self._ended)

    @property
    def attempts(self) -> int:
        """How many attempts are over."""
        record = self._record
        return (0 if record is None else len(record.history)) + (self._phase is _SUCCEEDED)

    @property
    def errors(self) -> list[BaseException]:
        """What its attempts have raised so far, oldest first."""
        record = self._record
        if record is None:
            return []
        return [attempt.error for attempt in record.history if attempt.error is not None]

    @property
    def duration(self) -> float:
        """Seconds of running time over all attempts that are over."""
        record = self._record
        total = 0.0 if record is None else sum(a.duration for a in record.history)
        if self._phase is _SUCCEEDED:
            total += self._ended - self._started
        return total

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<Task {self.id}{name} {self._phase.value}>"

    def _end_as_stored(self, ended: float, result: Any, error: BaseException | None) -> None:
        """Set the end that a storage has kept. Called by whoever has just made the task."""
        self._started = self._ended = ended
        self._outcome = result if error is None else error
        self._phase = _SUCCEEDED if error is None else _DEAD

    # -- the future ------------------------------------------------------------------------------

    def done(self) -> bool:
        """Return whether the task has ended."""
        phase = self._phase
        return phase is _SUCCEEDED or phase is _DEAD or phase is _CANCELLED

    def running(self) -> bool:
        """Return whether a worker runs it now."""
        return self._phase is _RUNNING

    def cancelled(self) -> bool:
        """Return whether it ended cancelled."""
        return self._phase is _CANCELLED

    def cancel(self) -> bool:
        """Cancel the task if it waits, also between two attempts; return whether it is cancelled.

        A task that runs is not stopped, and the answer is False; see `Pool.cancel_task`.
        """
        return self._phase is _CANCELLED or self._owner.cancel_waiting(self)

    def result(self, timeout: float | None = None) -> R:
        """Return what `run` returned, waiting `timeout` seconds at the most (None: for good).

        Raises the last error of the task's worker if the task is dead, `CancelledError` if it is
        cancelled, and `TimeoutError` if it has not ended in time.
        """
        if self._phase is _SUCCEEDED:
            return self._outcome  # type: ignore[no-any-return]
        self._wait(timeout)
        phase = self._phase
        if phase is _SUCCEEDED:
            return self._outcome  # type: ignore[no-any-return]
        try:
            if phase is _CANCELLED:
                raise CancelledError(*(() if self._outcome is None else (self._outcome,)))
            raise self._outcome
        finally:
            # The error's traceback holds this frame; without `self` in it there is no cycle.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error that `result` would raise, or None if the task succeeded.

        Raises `CancelledError` and `TimeoutError` as `result` does.
        """
        self._wait(timeout)
        if self._phase is _CANCELLED:
            raise CancelledError(*(() if self._outcome is None else (self._outcome,)))
        return None if self._phase is _SUCCEEDED else self._outcome

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call `fn(task)` once the task has ended: on the thread that ends it, or now if it has."""
        completion = self._meet()
        if not completion.add(fn, self.done):
            call_guarded("done callback", fn, self)

    def set_running_or_notify_cancel(self) -> bool:
        """Raise: only its pool moves a task on."""
        raise InvalidStateError(f"{self!r} is moved on by its pool alone")

    @override
    def set_result(self, result: R) -> None:
        """Raise: only its pool ends a task."""
        raise InvalidStateError(f"{self!r} is ended by its pool alone")

    @override
    def set_exception(self, exception: BaseException | None) -> None:
        """Raise: only its pool ends a task."""
        raise InvalidStateError(f"{self!r} is ended by its pool alone")

    # -- waiting and telling ---------------------------------------------------------------------
    #
    # Handshake H6 (threads/handoff.py): whoever ends the task writes _phase, then reads _completion;
    # whoever waits writes _completion, then reads _phase.

    def _meet(self) -> _Completion | Announced:
        """Return what those who wait for this task share, which stays the same from now on."""
        if self._completion is None and self.done():
            with _install:
                if self._completion is None:
                    self._completion = ANNOUNCED
        known = self._completion
        return self._make_completion() if known is None or isinstance(known, Reporter) else known

    @shielded
    def _make_completion(self) -> _Completion | Announced:
        known = self._completion
        while known is None or isinstance(known, Reporter):
            made = _Completion()
            if known is not None:
                made.callbacks.append(known)
            with _install:
                if self._completion is known:
                    self._completion = made
            if self.done():
                self._announce()  # whoever ended it may have looked before there was a completion
            known = self._completion
        return known

    def _report_to(self, reporter: Reporter) -> None:
        """Have `reporter` told of the end, at once if that has come."""
        with _install:
            free = self._completion is None
            if free:
                self._completion = reporter
        if not free and self._meet().add(reporter, self.done):
            return
        if self.done():
            reporter.report(self)

    def _wait(self, timeout: float | None) -> None:
        if self.done():
            return
        if timeout is not None and (timeout.__class__ is not float or not timeout <= TIMEOUT_MAX):
            timeout = checked_timeout(timeout)
        slot = self._owner.wait_begins(self, timeout)
        try:
            if not self._wait_for_bell(timeout):
                raise TimeoutError(f"{self!r} has not ended within {timeout} s")
        finally:
            if slot is not None:
                slot.waits_for = None

    def _wait_for_bell(self, timeout: float | None) -> bool:
        if self._completion is None:
            bell = Bell()
            with _install:
                alone = self._completion is None
                if alone:
                    self._completion = bell
            if alone:
                return bell.wait(timeout, self.done, self._owner) or self.done()
        completion = self._meet()
        return not isinstance(completion, _Completion) or completion.wait(timeout, self.done, self._owner)

    def _announce(self) -> None:
        """Tell those who wait that the task has ended, unless they know. Called outside locks."""
        completion = self._completion
        if completion is not None:  # if `_meet` has just put another in its place, that tells it too
            completion.announce(self)

    # concurrent.futures reads these three under `_condition`. A lock does for that: a `Condition` costs more.

    @property
    def _condition(self) -> threading.RLock | Announced:  # type: ignore[override]
        return ANNOUNCED if self._completion is ANNOUNCED else self._meet().lock

    @property
    def _waiters(self) -> list[Any] | Announced:  # type: ignore[override]
        return self._meet().waiters

    def _get_snapshot(self) -> tuple[bool, bool, object, BaseException | None]:
        """Return whether it is done and cancelled, its result and its error. For asyncio, from 3.14 on."""
        phase, outcome = self._phase, self._outcome
        result, error = outcome if phase is _SUCCEEDED else None, outcome if phase is _DEAD else None
        return phase in _ENDED, phase is _CANCELLED, result, error

    @property
    def _state(self) -> str:  # type: ignore[override]
        # Who finds the task ended registers with nobody; who registers will be told. So it has not ended
        # here before those who are registered have been told, or they would be told twice.
        phase = self._phase
        if phase in _ENDED and self._completion is not ANNOUNCED and not self._meet().announced:
            return _FUTURE_STATES[_RUNNING]
        return _FUTURE_STATES.get(phase, "PENDING")
