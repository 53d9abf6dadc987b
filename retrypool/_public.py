"""The public names. The package imports this when the first of them is asked for."""

from retrypool.collect.results import TaskResult
from retrypool.collect.schedule import Schedule
from retrypool.collect.task_group import TaskGroup
from retrypool.errors import (
    AttemptTimeout,
    CloseTimeout,
    Interrupted,
    InvalidType,
    InvalidValue,
    MissingExtra,
    NoContext,
    NotStorable,
    NoWorkers,
    PoolClosed,
    QueueFull,
    RemoteError,
    RetryPoolError,
    SourceError,
    StorageError,
    StoredError,
    TaskLost,
    TaskNotFound,
    Throttled,
    Unrecoverable,
    WorkerFault,
    WorkerLost,
    WorkerNotFound,
    WrongThread,
)
from retrypool.events import Listener
from retrypool.executor import PoolExecutor
from retrypool.model.cancel import CancelToken
from retrypool.model.context import Context, current_context
from retrypool.model.drain import Drain
from retrypool.model.task import Attempt, DeadTask, Task
from retrypool.model.worker import Worker, WorkerInfo, WorkerSpec
from retrypool.observe.recorder import Recorder
from retrypool.observe.stats import Stats
from retrypool.observe.status import TaskStatus
from retrypool.policy.blame import Scope
from retrypool.policy.budget import Budget
from retrypool.policy.delays import between_rounds, combine, exponential, fixed, linear, random_between
from retrypool.policy.health import HealthPolicy
from retrypool.policy.rates import Rate
from retrypool.policy.retry import (
    UNLIMITED,
    Failure,
    FailureAction,
    GiveUp,
    RetryIn,
    RetryPolicy,
)
from retrypool.policy.retry_after import parse_retry_after
from retrypool.pool import Pool
from retrypool.states import DeadReason, Outcome, TaskState

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
    "HealthPolicy",
    "Interrupted",
    "InvalidType",
    "InvalidValue",
    "Listener",
    "MissingExtra",
    "NoContext",
    "NoWorkers",
    "NotStorable",
    "Outcome",
    "Pool",
    "PoolClosed",
    "PoolExecutor",
    "QueueFull",
    "Rate",
    "Recorder",
    "RemoteError",
    "RetryIn",
    "RetryPolicy",
    "RetryPoolError",
    "Schedule",
    "Scope",
    "SourceError",
    "Stats",
    "StorageError",
    "StoredError",
    "Task",
    "TaskGroup",
    "TaskLost",
    "TaskNotFound",
    "TaskResult",
    "TaskState",
    "TaskStatus",
    "Throttled",
    "Unrecoverable",
    "Worker",
    "WorkerFault",
    "WorkerInfo",
    "WorkerLost",
    "WorkerNotFound",
    "WorkerSpec",
    "WrongThread",
    "between_rounds",
    "combine",
    "current_context",
    "exponential",
    "fixed",
    "linear",
    "parse_retry_after",
    "random_between",
]
