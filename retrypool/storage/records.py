"""The records that are written to a storage, and what is read back, as values.

Times are seconds since the epoch. Data, results and errors are text, made by the storage's codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "Accepted",
    "Cancelled",
    "Counts",
    "Died",
    "Done",
    "Failed",
    "GroupState",
    "Pulled",
    "Record",
    "Requeued",
    "ScheduleOver",
    "ScheduleState",
    "Started",
    "StoredDead",
    "StoredEnd",
    "StoredTask",
    "Succeeded",
    "WorkerState",
]

# -- records: what happens ---------------------------------------------------------------------------
#
# Named tuples, because one or two are made for every task, and because a list of them is JSON as it is.


class Accepted(NamedTuple):
    """A task was accepted. `options` is what it was dispatched with, as JSON; None: nothing."""

    id: int
    key: str | None
    accepted: float
    due: float | None  # before which it is not to be run
    options: str | None
    data: str


class Started(NamedTuple):
    """An attempt is about to be made. Only written by a storage that records starts."""

    id: int
    attempt: int


class Failed(NamedTuple):
    """An attempt did not succeed, and the task will be tried again. The counts are those after it."""

    id: int
    due: float | None  # before which it is not to be tried again
    entries: int
    charged: int
    uncharged: int
    running_time: float
    tried: str  # names of groups, as a JSON array
    attempt: str | None  # the attempt as JSON, for the history


class Done(NamedTuple):
    """A task without a key has succeeded at once: the record of nearly all tasks."""

    id: int


class Succeeded(NamedTuple):
    """A task succeeded. Its result is stored if it has a key, by which it can be asked for."""

    id: int
    key: str | None
    result: str | None
    ended: float
    attempts: int
    problem: str | None = None  # why the result is not stored


class Died(NamedTuple):
    """A task will never be tried again."""

    id: int
    reason: str
    error: str | None
    ended: float
    attempt: str | None  # its last one, if that is not stored yet
    attempts: int


class Cancelled(NamedTuple):
    """A task was cancelled: it is forgotten."""

    id: int


class Requeued(NamedTuple):
    """A dead task waits again, with fresh attempts and its old history."""

    id: int
    accepted: float


class Pulled(NamedTuple):
    """A dead task was taken out: it is forgotten."""

    id: int


class GroupState(NamedTuple):
    """What a group was told, as JSON; None: nothing that matters any more."""

    name: str
    state: str | None


class ScheduleState(NamedTuple):
    """Where a named schedule stands."""

    name: str
    spec: str  # its rhythm and options, as JSON
    data: str | None  # None if it can't be stored, or is made anew for each tick
    next: float | None
    runs: int
    skipped: int
    paused: bool


class ScheduleOver(NamedTuple):
    """A named schedule was cancelled, or has come to its end."""

    name: str


class WorkerState(NamedTuple):
    """A worker was added; with `group` None it was removed. For those who inspect the journal."""

    id: int
    name: str
    group: str | None


Record = (
    Accepted
    | Started
    | Failed
    | Done
    | Succeeded
    | Died
    | Cancelled
    | Requeued
    | Pulled
    | GroupState
    | ScheduleState
    | ScheduleOver
    | WorkerState
)


# -- what is found when a journal is opened ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task that has not ended."""

    id: int
    key: str | None
    accepted: float
    due: float | None
    options: str | None
    data: str
    entries: int = 0
    charged: int = 0
    uncharged: int = 0
    running_time: float = 0.0
    tried: str = "[]"
    losses: int = 0  # how often its process ended while it ran
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredDead:
    """A dead task."""

    id: int
    key: str | None
    accepted: float
    options: str | None
    data: str
    reason: str
    error: str | None
    ended: float
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredEnd:
    """How a task with a key has ended. The error is that of a dead task."""

    id: int
    succeeded: bool
    result: str | None
    error: str | None
    attempts: int
    ended: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks a journal has seen, over its whole life, and how many it holds."""

    accepted: int
    succeeded: int
    cancelled: int
    waiting: int
    dead: int
    kept: int  # ended ones that can be asked for by their keys
