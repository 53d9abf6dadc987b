"""The status of one task, as a value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from retrypool.states import TaskState

__all__ = ["TaskStatus"]


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The status of one task at one moment. It holds neither data nor errors, only texts of them.

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

    def to_dict(self) -> dict[str, object]:
        """Return all of it as JSON has it: dates in ISO 8601, the state by its name."""
        found: dict[str, object] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, tuple):
                value = list(value)
            found[entry.name] = value.value if isinstance(value, TaskState) else value
        return found
