"""Who is told what happened: callbacks, listeners, the log."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from retrypool.callbacks import call_guarded, shown
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
        self._changing = threading.Lock()
        self._listeners: tuple[tuple[Listening, _Hearer], ...] = ()
        self._held: dict[int, _Held] = {}  # by the id of the task; anybody, one atomic step at a time
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

    def hold(self, event: TaskEvent) -> None:
        """Let what happens to a task from now on wait until `event` has been told, or is released."""
        self._held.setdefault(event.task.id, _Held(event))

    def release(self, event: TaskEvent) -> None:
        """Tell what has waited for `event`."""
        task_id = event.task.id
        held = self._held.get(task_id)
        if held is not None and held.event is event:
            held.tell(self._deliver)
            del self._held[task_id]
            held.tell(self._deliver)  # what came in between

    def tell(self, event: Event) -> None:
        """Tell the listeners, and `on_dead`. Or leave that to the thread that is just telling of the task."""
        if not self._held or not isinstance(event, TaskEvent):
            self._deliver(event)
            return
        held = self._held.get(event.task.id)
        if held is None:
            self._deliver(event)
        elif held.event is event:
            self._deliver(event)
            self.release(event)
        else:
            held.cells.append([event])
            # Whoever holds deletes, and then looks for cells; here a cell is put in, and then looked whether
            # it is held still. So the cell is found by one of the two, and taken out by one.
            if self._held.get(event.task.id) is not held:
                held.tell(self._deliver)

    def _deliver(self, event: Event) -> None:
        if isinstance(event, TaskDead) and self.on_dead is not None:
            call_guarded("on_dead", self.on_dead, event.dead)
        by_kind, kind = self._by_kind, type(event)
        try:
            hearers = by_kind[kind]
        except KeyError:
            hearers = tuple(hearer.hear for _, hearer in self._listeners if hearer.wants(kind))
            with self._changing:
                if by_kind is self._by_kind:
                    by_kind[kind] = hearers
        for hear in hearers:
            call_guarded("listener", hear, event)


class _Held:
    """An event of a task that is being told, and those that are to be told after it."""

    __slots__ = ("cells", "event")

    def __init__(self, event: TaskEvent) -> None:
        self.event = event
        self.cells: deque[list[Event]] = deque()

    def tell(self, deliver: Callable[[Event], None]) -> None:
        """Deliver what is there, the oldest first; each by one thread."""
        while True:
            try:
                cell = self.cells.popleft()
            except IndexError:
                return
            deliver(cell[0])


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
