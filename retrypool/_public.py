"""The public names. The package imports this when the first of them is asked for."""

from retrypool.collect.drain import Drain
from retrypool.collect.group import Group
from retrypool.collect.results import TaskResult
from retrypool.context import CancelToken, Context, current_context
from retrypool.core.blame import Scope
from retrypool.core.budget import Budget
from retrypool.core.delays import combine, exponential, fixed, linear, random_between
from retrypool.core.health import HealthPolicy
from retrypool.core.rates import Rate
from retrypool.core.retry import (
    UNLIMITED,
    Failure,
    FailureAction,
    GiveUp,
    RetryIn,
    RetryPolicy,
)
from retrypool.errors import (
    AttemptTimeout,
    CloseTimeout,
    Interrupted,
    InvalidType,
    InvalidValue,
    MissingExtra,
    NoContext,
    NoWorkers,
    PoolClosed,
    QueueFull,
    RetryPoolError,
    StorageError,
    TaskNotFound,
    Throttled,
    Unrecoverable,
    WorkerFault,
    WorkerNotFound,
    WrongThread,
)
from retrypool.events import Listener
from retrypool.executor import PoolExecutor
from retrypool.retry_after import parse_retry_after
from retrypool.task import Attempt, DeadReason, DeadTask, Outcome, Task, TaskState
from retrypool.threads.pool import Pool
from retrypool.threads.schedule import Schedule
from retrypool.threads.stats import Stats
from retrypool.threads.status import TaskStatus
from retrypool.worker import Worker, WorkerInfo, WorkerSpec

__all__ = [
    "UNLIMITED",
    "Attempt",
    "AttemptTimeout",
    "Budget",
    "CancelToken",
    "CloseTimeout",
    "Context",
    "DeadReason",
    "DeadTask",
    "Drain",
    "Failure",
    "FailureAction",
    "GiveUp",
    "Group",
    "HealthPolicy",
    "Interrupted",
    "InvalidType",
    "InvalidValue",
    "Listener",
    "MissingExtra",
    "NoContext",
    "NoWorkers",
    "Outcome",
    "Pool",
    "PoolClosed",
    "PoolExecutor",
    "QueueFull",
    "Rate",
    "RetryIn",
    "RetryPolicy",
    "RetryPoolError",
    "Schedule",
    "Scope",
    "Stats",
    "StorageError",
    "Task",
    "TaskNotFound",
    "TaskResult",
    "TaskState",
    "TaskStatus",
    "Throttled",
    "Unrecoverable",
    "Worker",
    "WorkerFault",
    "WorkerInfo",
    "WorkerNotFound",
    "WorkerSpec",
    "WrongThread",
    "combine",
    "current_context",
    "exponential",
    "fixed",
    "linear",
    "parse_retry_after",
    "random_between",
]
