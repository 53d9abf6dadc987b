"""The outcome of a task, as a value."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Generic, TypeVar

from retrypool.model.task import Task
from retrypool.states import TaskState

__all__ = ["TaskResult"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TaskResult(Generic[T, R]):
    """The outcome of a task that has ended. It holds no reference to the task."""

    id: int
    name: str | None
    data: T
    state: TaskState  # one of the three final ones
    value: R | None  # what `run` returned; None unless the task succeeded
    error: BaseException | None  # the last error, or a `CancelledError`; None if the task succeeded
    duration: float  # seconds of running time over all attempts
    attempts: int  # how often it was tried

    @property
    def ok(self) -> bool:
        """Whether the task succeeded."""
        return self.state is TaskState.SUCCEEDED

    @classmethod
    def of(cls, task: Task[T, R]) -> TaskResult[T, R]:
        """Return the outcome of `task`, which has ended."""
        state = task.state
        value: R | None = None
        error: BaseException | None = None
        if state is TaskState.SUCCEEDED:
            value = task._outcome
        elif state is TaskState.DEAD:
            error = task._outcome
        else:
            error = CancelledError(*(() if task._outcome is None else (task._outcome,)))
        return cls(task.id, task.name, task.data, state, value, error, task.duration, task.attempts)
