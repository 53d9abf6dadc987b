"""Where one task stands, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from retrypool.states import TaskState

__all__ = ["TaskStatus"]


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Where one task stood at one moment. It holds neither data nor errors, only what can be told of them.

    Times are in UTC.
    """

    id: int
    state: TaskState
    attempts: int  # made so far, one that runs included
    tried: tuple[str, ...]  # the groups that have failed it, in that order
    last_error: str | None  # type and text of what an attempt has raised last
    queued_at: datetime  # when it was dispatched
    started_at: datetime | None  # when its last attempt began
    ended_at: datetime | None
    next_attempt_at: datetime | None  # before which it will not be tried: of a task that is delayed
    position: int | None  # of one that is queued: how many are before it, as far as can be told
