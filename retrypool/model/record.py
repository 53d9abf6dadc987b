"""What is kept of a task: its attempts, the record of its failures, and what is left of it when dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from retrypool.errors import StoredError
from retrypool.states import DeadReason, Outcome

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Mapping

    from retrypool.model.settings import TaskSettings
    from retrypool.model.slots import Group, Slot

__all__ = ["GONE", "NO_GROUPS", "Attempt", "DeadTask", "Record", "portable", "succeeded"]

T = TypeVar("T")


NO_GROUPS: frozenset[Group] = frozenset()
"""One for all tasks: each call of `frozenset()` makes another, of 216 bytes."""


GONE: Final = "gone"
"""In `Task._withdrawn`: it was withdrawn, and no queue holds it, nor counts it as a tombstone, any more."""


class Attempt(NamedTuple):
    """One run of a task on one worker. Times are seconds on the pool's clock."""

    number: int  # 1 is the first
    worker_id: int
    group: str
    started: float
    ended: float
    outcome: Outcome
    error: BaseException | None = None

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return self.ended - self.started


def succeeded(number: int, slot: Slot, started: float, ended: float) -> Attempt:
    """Return an attempt that succeeded. The class itself takes twice as long."""
    return _new_tuple(Attempt, (number, slot.id, slot.group.name, started, ended, _SUCCEEDED, None))


_new_tuple = tuple.__new__
_SUCCEEDED = Outcome.SUCCEEDED


@dataclass(frozen=True, slots=True)
class DeadTask(Generic[T]):
    """A task that will never be tried again, with all that is known of it."""

    id: int
    name: str | None
    data: T
    reason: DeadReason
    error: BaseException | None
    history: tuple[Attempt, ...]
    options: Mapping[str, object]
    settings: TaskSettings

    @property
    def tags(self) -> frozenset[str]:
        """The tags that it was dispatched with."""
        return self.settings.tags

    @property
    def metadata(self) -> Mapping[str, object]:
        """What it was dispatched with for callbacks and listeners to see."""
        return self.settings.metadata

    @property
    def errors(self) -> list[BaseException]:
        """What the attempts raised, oldest first."""
        return [attempt.error for attempt in self.history if attempt.error is not None]

    @property
    def attempts(self) -> int:
        """How often the task was tried, over its whole life."""
        return len(self.history)

    @property
    def duration(self) -> float:
        """Seconds of running time over all attempts."""
        return sum(attempt.duration for attempt in self.history)

    def to_dict(self) -> dict[str, object]:
        """Return all of it as JSON has it, if the data, the options and the metadata are JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "data": self.data,
            "reason": self.reason.value,
            "error": _told(self.error),
            "attempts": [
                {
                    "number": attempt.number,
                    "worker": attempt.worker_id,
                    "group": attempt.group,
                    "duration": attempt.duration,
                    "outcome": attempt.outcome.value,
                    "error": _told(attempt.error),
                }
                for attempt in self.history
            ],
            "duration": self.duration,
            "options": dict(self.options),
            "tags": sorted(self.tags),
            "metadata": dict(self.metadata),
        }

    def __reduce__(self) -> tuple[object, ...]:
        # An error that can't be pickled, or would not come back, goes as the text of it. The data has to
        # be fit for a pickle itself.
        history = tuple(attempt._replace(error=portable(attempt.error)) for attempt in self.history)
        facts = (self.id, self.name, self.data, self.reason, portable(self.error), history)
        return DeadTask, (*facts, self.settings.options_to_pickle(), self.settings)


def portable(error: BaseException | None) -> BaseException | None:
    """Return an error that can be pickled: this one, or what is left of it."""
    if error is None:
        return None
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - its own code: it does not pickle, or does not come back
        kind = type(error)
        return StoredError(f"{kind.__module__}.{kind.__qualname__}", _text(error))
    return error


def _told(error: BaseException | None) -> str | None:
    if error is None:
        return None
    text = _text(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error that can't say what it is, is still an error
        return "its text could not be made"


class Record:
    """What makes a task more than plain: its failures, and whom it may not or must not run on.

    A task that has not failed and asks for nothing has none. Owned by whoever holds the task: the
    worker that runs it, or the scheduler while it waits.
    """

    __slots__ = (
        "accused",
        "avoid",
        "cancelled",
        "charged",
        "context",
        "cost",
        "deciding",
        "elsewhere",
        "entries",
        "history",
        "inherited",
        "keeps_place",
        "key",
        "number",
        "plain",
        "round",
        "running_time",
        "seq",
        "stored",
        "tried",
        "tried_waived",
        "uncharged",
        "urgent",
        "victims",
        "wrapped",
    )

    def __init__(self, seq: int, plain: bool = True) -> None:
        self.seq = seq  # its place in the order of claims, first in first out
        self.plain = plain  # whether any worker that has not tried it may take it from the injector
        self.tried: frozenset[Group] = NO_GROUPS  # groups that have failed it
        self.history: list[Attempt] = []  # the attempts that did not succeed
        self.inherited = 0  # how many of them are from before it was requeued
        self.entries = 0  # entries into run() since it was dispatched or requeued
        self.charged = 0  # of these, how many count against `attempts`
        self.uncharged = 0  # and how many don't
        self.number: int | None = None  # of the attempt that runs, if another has begun after it
        self.cost = 1.0  # how many calls it counts as, where calls are paced
        self.round = 1  # a new one begins when all groups that may take it have failed it
        # What follows is found with each failure, for the decision and the retry after it.
        self.elsewhere = False  # its next attempt goes on in its round, while the fleet works
        self.keeps_place = False  # it goes before what was dispatched after it
        self.urgent = False  # it is to go first: it will bring the verdict on a suspect
        self.avoid: int | None = None  # the worker that it was taken away from, by its id
        # Groups that failed it in this round, if that says something of them: should it succeed elsewhere.
        self.accused: frozenset[Group] = NO_GROUPS
        self.victims: frozenset[Group] = NO_GROUPS  # groups that took the blame for it
        self.running_time = 0.0
        # Its attempt is over, and its owner finds out what becomes of it; set and cleared by the owner.
        self.deciding = False
        self.cancelled = False  # it is to end cancelled instead; set under the pool's lock
        self.context: contextvars.Context | None = None  # what run() is to be called in
        self.tried_waived = False  # whether it may run on a group that has tried it, having waited enough
        self.wrapped = False  # whether its runs take more than the hot loop does for a plain task
        self.key: str | None = None  # by which the pool's storage knows it
        self.stored = 0  # how many attempts of the history are in the pool's storage

    @property
    def given_back(self) -> int:
        """How many attempts were charged at first, and are now nobody's fault."""
        return self.entries - self.charged - self.uncharged

    def errors(self) -> list[BaseException]:
        """Return what has been raised since it was dispatched or requeued, oldest first."""
        fresh = self.history[self.inherited :]
        return [attempt.error for attempt in fresh if attempt.error is not None]
