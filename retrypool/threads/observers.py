"""Who is told what happened: callbacks, listeners, the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from retrypool.callbacks import call_each, call_guarded, shown
from retrypool.ctrl_c import shielded
from retrypool.errors import InvalidType
from retrypool.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    Listener,
    TaskCancelled,
    TaskDead,
    TaskDispatched,
    TaskEvent,
    TaskRetrying,
    TaskSucceeded,
)
from retrypool.model.task import DeadTask, Task
from retrypool.policy.failure import FailureAction

__all__ = ["Listening", "Observers"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

Listening = Listener | Callable[[Event], object]


_Hearers = tuple[Callable[[Event], object], ...]
_Queue = list[Event | None]


class Observers(Generic[T, R]):
    """The callbacks and listeners of one pool. Whatever they raise is logged and changes nothing.

    The flags say which of the frequent events anybody wants: the others are not even made.
    """

    # All that follows the callbacks is written under _changing, and replaced, never changed: read without it.
    def __init__(
        self,
        *,
        on_success: Callable[[Task[T, R]], object] | None,
        on_failure: Callable[[Task[T, R], BaseException], FailureAction | None] | None,
        on_retry: Callable[[Task[T, R], BaseException, float], object] | None,
        on_dead: Callable[[DeadTask[T]], object] | None,
        listeners: Iterable[Listening],
    ) -> None:
        callbacks = {
            "on_success": on_success,
            "on_failure": on_failure,
            "on_retry": on_retry,
            "on_dead": on_dead,
        }
        for what, callback in callbacks.items():
            if callback is not None and not callable(callback):
                raise InvalidType(what, callback, "a function")
        self.on_success = on_success
        self.on_failure = on_failure
        self.on_retry = on_retry
        self.on_dead = on_dead
        if not isinstance(listeners, Iterable):
            raise InvalidType("listeners", listeners, "a list of listeners")
        # Reentrant: the garbage collector may run while it is held. Nothing is told under it.
        self._changing = threading.RLock()
        self._listeners: tuple[tuple[Listening, _Hearer], ...] = ()
        self._held: dict[int, _Queue] = {}  # by the id of the task; entered and taken out by who holds
        self._set([(listener, _Hearer(listener)) for listener in listeners])

    def _set(self, listeners: Iterable[tuple[Listening, _Hearer]]) -> None:
        self._listeners = tuple(listeners)
        # Filled as kinds of events come up: each kind always gets the same.
        self._by_kind: dict[type[Event], _Hearers] = {}
        self.wants_dispatched = self._wants(TaskDispatched)
        self.wants_started = self._wants(AttemptStarted)
        self.wants_ended = self._wants(AttemptEnded)
        self.wants_retrying = self._wants(TaskRetrying)
        self.wants_succeeded = self._wants(TaskSucceeded)
        self.wants_cancelled = self._wants(TaskCancelled)
        # Whether one may hear of what another does to a task before it hears of the task's dispatch.
        self._several = sum(hearer.wants(TaskDispatched) for _, hearer in self._listeners) > 1
        # Whether a success is to be told of at all.
        self.talkative = self.on_success is not None or self.wants_ended or self.wants_succeeded
        # And a failure, or a retry.
        self.attends_failures = (
            self.on_failure is not None
            or self.on_retry is not None
            or self.wants_ended
            or self.wants_retrying
        )

    def _wants(self, kind: type[Event]) -> bool:
        return any(hearer.wants(kind) for _, hearer in self._listeners)

    def add(self, listener: Listening) -> None:
        """Tell `listener` of what happens from now on."""
        hearer = _Hearer(listener)
        with self._changing:
            self._set([*self._listeners, (listener, hearer)])

    def remove(self, listener: Listening) -> None:
        """Tell `listener` nothing more; one that is not there is no error.

        By equality, not identity: each look at a method makes another object of it.
        """
        with self._changing:
            found = next((each for each in self._listeners if each[0] == listener), None)
            self._set(each for each in self._listeners if each is not found)

    def succeeded(self, task: Task[T, R]) -> None:
        """Tell `on_success`."""
        if self.on_success is not None:
            call_guarded("on_success", self.on_success, task)

    def failed(self, task: Task[T, R], error: BaseException) -> FailureAction | None:
        """Ask `on_failure` what is to be done."""
        if self.on_failure is None:
            return None
        answer = call_guarded("on_failure", self.on_failure, task, error)
        if answer is None or type(answer) is FailureAction:
            return answer
        log.error("on_failure returned %s, which is no FailureAction: the policy decides", shown(answer))
        return None

    def retrying(self, task: Task[T, R], error: BaseException, delay: float) -> None:
        """Tell `on_retry`."""
        if self.on_retry is not None:
            call_guarded("on_retry", self.on_retry, task, error, delay)

    # -- in order --------------------------------------------------------------------------------
    #
    # Whoever owns a task tells of it before anybody else can own it; so what happens to one task is told
    # in order, on the thread that causes it. Two events are told while the task may go on already: that an
    # attempt starts (its time may be up meanwhile), and that the task is dead (it may be requeued). They are
    # held before that is possible, and what happens to the task until they are told is told after them, by
    # their thread.
    #
    # What is held is the first in a queue, and the others wait behind it. Nearly always nothing comes, and
    # then no lock is taken. Handshake H17: who holds puts None in the first place, then looks whether
    # anything has come; who comes appends, then looks at the first place. If both see the other, the lock
    # decides.

    def dispatched(self, event: TaskEvent) -> None:
        """Tell that a task was dispatched. If a listener cancels it, the others hear of that after this."""
        if self._several:
            self.hold(event)
        self.tell(event)

    def hold(self, event: TaskEvent) -> None:
        """Let what happens to a task from now on wait until `event` has been told, or is released."""
        self._held.setdefault(event.task.id, [event])

    def release(self, event: TaskEvent) -> None:
        """Tell what has waited for `event`, which is not told any more."""
        queue = self._held.get(event.task.id)
        if queue is not None and queue[0] is event:
            self._close(queue, event)

    def tell(self, event: Event) -> None:
        """Tell the listeners, and `on_dead`. Or leave that to the thread that is just telling of the task."""
        if self._held and isinstance(event, TaskEvent):
            queue = self._held.get(event.task.id)
            if queue is not None:
                if queue[0] is event:
                    try:
                        self._deliver(event)
                    finally:  # a Ctrl-C may strike a listener
                        queue[0] = None
                        if self._several or len(queue) > 1:
                            self._close(queue, event)
                        else:  # nearly always; no Ctrl-C strikes the worker that tells of its attempt
                            del self._held[event.task.id]
                    return
                for each in self._leave_behind(queue, event):
                    self._deliver(each)
                return
        self._deliver(event)

    @shielded
    def _close(self, queue: _Queue, event: TaskEvent) -> None:
        """Let go of `event` and its task, once all that has come behind it is told."""
        queue[0] = None
        while len(queue) > 1:
            with self._changing:
                if len(queue) == 1:  # who has left it has taken it back
                    break
                queue[0] = event
                late = queue.pop(1)
            assert late is not None
            self._deliver(late)
            queue[0] = None
        del self._held[event.task.id]

    def _leave_behind(self, queue: _Queue, event: Event) -> list[Event]:
        """Put an event behind what is held. If that has been let go of, return it: nobody else will tell it.

        And what has come from this thread meanwhile: a finalizer may run in between.
        """
        taken_back: list[Event] = []
        with self._changing:
            queue.append(event)
            if queue[0] is None and queue[1] is event:
                while len(queue) > 1:
                    taken_back.append(queue.pop(1))  # type: ignore[arg-type]
        return taken_back

    def _deliver(self, event: Event) -> None:
        try:
            hearers = self._by_kind[type(event)]
        except KeyError:
            hearers = self._find_hearers(type(event))
        call_each("listener", hearers, event)

    def _find_hearers(self, kind: type[Event]) -> _Hearers:
        # Read first: if the listeners change meanwhile, this table is not used any more.
        by_kind = self._by_kind
        hearers = tuple(hearer.hear for _, hearer in self._listeners if hearer.wants(kind))
        if kind is TaskDead and self.on_dead is not None:
            hearers = (self._died, *hearers)
        by_kind[kind] = hearers
        return hearers

    def _died(self, event: Any) -> None:
        """Tell `on_dead`."""
        if self.on_dead is not None:
            call_guarded("on_dead", self.on_dead, event.dead)


class _Hearer:
    """A listener, and which events it is told of."""

    __slots__ = ("_kinds", "hear")

    def __init__(self, listener: Listening) -> None:
        on_event = getattr(listener, "on_event", None)
        if callable(on_event):
            self.hear: Callable[[Event], object] = on_event
        elif callable(listener):
            self.hear = listener
        else:
            raise InvalidType("a listener", listener, "an object with on_event(event), or a function of it")
        kinds: Any = getattr(listener, "listens_to", None)
        if kinds is not None:
            kinds = tuple(kinds) if isinstance(kinds, Iterable) else (kinds,)
            for kind in kinds:
                if not (isinstance(kind, type) and issubclass(kind, Event)):
                    raise InvalidType("listens_to", kind, "event types, such as (TaskDead, GroupEjected)")
        self._kinds: tuple[type[Event], ...] = (Event,) if kinds is None else kinds

    def wants(self, kind: type[Event]) -> bool:
        return issubclass(kind, self._kinds)
