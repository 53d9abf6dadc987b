"""From a message to a task, and from a task that has ended to the verdict on its message."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any, Protocol

from typing_extensions import Unpack

from retrypool.errors import TaskNotFound, Unrecoverable
from retrypool.model.record import DeadTask
from retrypool.model.settings import TaskOptions
from retrypool.model.task import Task
from retrypool.policy.retry import DROPPED
from retrypool.sources.base import Message, Settlement, Verdict
from retrypool.sources.envelope import time_left
from retrypool.sources.letters import letter
from retrypool.states import TaskState

__all__ = ["options_of", "verdict_on"]


class Head(Protocol):
    """The methods of a pool that a consumption uses. All of them are public."""

    @property
    def closed(self) -> bool: ...
    @property
    def storage(self) -> object: ...
    def dispatch(self, data: Any, **options: Unpack[TaskOptions]) -> Task[Any, Any]: ...
    def cancel_task(self, task: Task[Any, Any]) -> bool: ...
    def pull_dead_task(self, task: int, /) -> DeadTask[Any]: ...
    def workers(self) -> list[Any]: ...


def options_of(message: Message, *, keys: bool) -> dict[str, Any]:
    """Return the options of a message for `dispatch`. Only a pool with a storage takes a key."""
    options = dict(message.options)
    left = time_left(options)
    options.pop("sent", None)
    if left is not None:
        options["deadline"] = left
    if not keys and "key" in options:
        metadata = options.get("metadata")
        options["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "key": options.pop("key")}
    return options


def _reason(task: Task[Any, Any]) -> str | None:
    try:
        task.exception(0)
    except CancelledError as error:
        return str(error)
    return None


def verdict_on(task: Task[Any, Any], message: Message, pool: Head) -> Settlement:
    """Return the settlement of the message of a task that has ended. Takes a dead task out of the pool."""
    if task.state is TaskState.SUCCEEDED:
        return Settlement(message, Verdict.ACK)
    if task.state is TaskState.DEAD:
        return Settlement(message, Verdict.BURY, _letter_of(task, pool))
    dropped = _reason(task) == DROPPED
    return Settlement(message, Verdict.ACK if dropped else Verdict.RELEASE)


def _letter_of(task: Task[Any, Any], pool: Head) -> Mapping[str, object]:
    error = task.exception()
    try:
        dead = pool.pull_dead_task(task.id)
    except TaskNotFound:  # dropped by dead_limit, or taken by somebody else
        reason = "unrecoverable" if isinstance(error, Unrecoverable) else "attempts"
        return letter(reason, error, task.history)
    return letter(dead.reason.value, error, dead.history)
