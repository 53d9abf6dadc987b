"""The states of a task, the outcomes of an attempt, the reasons of a death."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DeadReason", "Outcome", "TaskState"]


class TaskState(StrEnum):
    """Where a task stands. Every accepted task ends in exactly one of the last three."""

    SCHEDULED = "scheduled"  # not due yet
    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"
    RETRYING = "retrying"  # failed, and waits out a delay
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether this is one of the three final states."""
        return self in _ENDED


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    THROTTLED = "throttled"  # the group was told to slow down; not charged
    WORKER_FAULT = "worker_fault"  # the worker is ill; not charged while another group is live
    EXCUSED = "excused"  # nobody's fault; not charged
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"  # the worker was taken away from it; not charged
    SUPERSEDED = (
        "superseded"  # another attempt of the task, under way at the same time, was quicker; not charged
    )


class DeadReason(StrEnum):
    """Why a task will never be tried again."""

    ATTEMPTS = "attempts"  # all its attempts failed
    UNRECOVERABLE = "unrecoverable"  # a worker raised `Unrecoverable`
    NOT_RETRYABLE = "not_retryable"  # `retry_if` said no
    TIME_LIMIT = "time_limit"  # its running time is used up
    DEADLINE = "deadline"  # it could not end before its deadline
    CALLBACK = "callback"  # `on_failure`, or an operator, said so
    POLICY_ERROR = "policy_error"  # `retry_if` or a delay function raised
    NO_WORKERS = "no_workers"  # none could be started that could run it
    LOST = "lost"  # its process ended while it ran, more often than the storage allows


# A tuple: it is searched by identity, where a set would call the slow hash of an enum member.
_ENDED = (TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED)
