"""What happened, as values; whoever wants to know is a `Listener`.

Events are made only while somebody listens. Each has `at`, seconds on the pool's clock. One without fields of
its own is a dataclass all the same, as what it is derived from is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from retrypool.model.task import Attempt, DeadTask, Task

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "Event",
    "GroupCooling",
    "GroupEjected",
    "GroupEvent",
    "GroupOpened",
    "GroupSuspected",
    "Listener",
    "OutageBegan",
    "OutageEnded",
    "PoolClosing",
    "PoolStopped",
    "TaskCancelled",
    "TaskDead",
    "TaskDispatched",
    "TaskRetrying",
    "TaskSucceeded",
    "WorkerAdded",
    "WorkerCordoned",
    "WorkerFailed",
    "WorkerPaused",
    "WorkerRemoved",
    "WorkerReplaced",
    "WorkerResumed",
    "WorkerReturned",
    "WorkerStuck",
    "attempt_ended",
    "attempt_started",
    "task_dispatched",
    "task_succeeded",
]

E = TypeVar("E")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events."""

    at: float


class Listener(Protocol):
    """Gets every event, outside the pool's lock, on the thread that caused it.

    What it raises is logged and changes nothing. A plain function of the event serves as well. Either may
    have an attribute `listens_to`, a tuple of event types: it gets only these and what is derived from
    them, and the others cost nothing. Those that come for each task are the expensive ones.
    """

    def on_event(self, event: Event, /) -> object:
        """Receive `event`."""
        ...


@dataclass(frozen=True, slots=True)
class TaskEvent(Event):
    """Something that happened to one task."""

    task: Task[Any, Any]


class TaskDispatched(TaskEvent):
    """A task was accepted."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class AttemptStarted(TaskEvent):
    """A worker is about to enter `run` with the task."""

    number: int
    worker_id: int
    group: str


@dataclass(frozen=True, slots=True)
class AttemptEnded(TaskEvent):
    """An attempt is over, in whatever way; `attempt.outcome` says how."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class TaskRetrying(TaskEvent):
    """An attempt failed, and the task may be claimed again in `delay` seconds."""

    error: BaseException
    delay: float


class TaskSucceeded(TaskEvent):
    """A task ended with a result."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TaskDead(TaskEvent):
    """A task will never be tried again."""

    dead: DeadTask[Any]


@dataclass(frozen=True, slots=True)
class TaskCancelled(TaskEvent):
    """A task ended without result or failure; `reason` says why, as far as that is known."""

    reason: str | None


@dataclass(frozen=True, slots=True)
class WorkerEvent(Event):
    """Something that happened to one worker."""

    worker_id: int
    name: str
    group: str


class WorkerAdded(WorkerEvent):
    """A worker joined the pool."""

    __slots__ = ()


class WorkerRemoved(WorkerEvent):
    """A worker left the pool."""

    __slots__ = ()


class WorkerPaused(WorkerEvent):
    """A worker takes no more tasks for now."""

    __slots__ = ()


class WorkerResumed(WorkerEvent):
    """A paused worker takes tasks again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class WorkerFailed(WorkerEvent):
    """A worker could not start and was taken out."""

    error: BaseException


class WorkerStuck(WorkerEvent):
    """A worker has not come back from an attempt that was over `grace` seconds ago."""

    __slots__ = ()


class WorkerReturned(WorkerEvent):
    """A worker that was stuck has come back, and takes tasks again."""

    __slots__ = ()


class WorkerReplaced(WorkerEvent):
    """A stuck worker got a new resource and a new thread; the old thread is abandoned."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class GroupEvent(Event):
    """Something that happened to one group."""

    group: str


@dataclass(frozen=True, slots=True)
class GroupCooling(GroupEvent):
    """A group is given nothing until `until`."""

    until: float


@dataclass(frozen=True, slots=True)
class GroupEjected(GroupEvent):
    """A group counts as ill, and is given nothing until `until`."""

    until: float


class GroupSuspected(GroupEvent):
    """A group failed a few different tasks in a row: it is given nothing until one was tried elsewhere.

    It ends with `GroupEjected`, or `GroupOpened`. One that was told to slow down meanwhile opens after that.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OutageBegan(Event):
    """All groups fail, although things had worked: the pool holds, until `until` at the latest.

    `error` is the one that showed it.
    """

    until: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class OutageEnded(Event):
    """The pool goes on after an outage that took so many seconds, and that is over if it has `recovered`."""

    lasted: float
    recovered: bool


@dataclass(frozen=True, slots=True)
class WorkerCordoned(WorkerEvent):
    """A worker takes no more tasks for good, unless it is resumed or replaced."""

    reason: str


class GroupOpened(GroupEvent):
    """A group takes tasks again."""

    __slots__ = ()


class PoolClosing(Event):
    """The pool takes no more tasks."""

    __slots__ = ()


class PoolStopped(Event):
    """The pool has come to its end: nothing is run any more, but for what was left behind by force."""

    __slots__ = ()


# -- made for each task --------------------------------------------------------------------------


def _maker(kind: Callable[P, E]) -> Callable[P, E]:
    """Return a function that makes events of one kind in half the time that the class takes.

    A frozen dataclass sets each field by a look at its name. Here its slot is set, without `__init__`.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    setters = {f"set_{name}": getattr(kind, name).__set__ for name in names}
    lines = [f"def make({', '.join(names)}):", "event = new(kind)"]
    lines += [*(f"set_{name}(event, {name})" for name in names), "return event"]
    scope: dict[str, Any] = {"new": object.__new__, "kind": kind, **setters}
    exec("\n ".join(lines), scope)  # as `dataclass` itself does
    make: Callable[P, E] = scope["make"]
    return make


task_dispatched = _maker(TaskDispatched)
attempt_started = _maker(AttemptStarted)
attempt_ended = _maker(AttemptEnded)
task_succeeded = _maker(TaskSucceeded)
