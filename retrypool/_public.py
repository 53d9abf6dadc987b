"""The names that a user types.

What is only seen has its home in a public module, and is found there:
`retrypool.errors` (all errors), `retrypool.events` (events, `Listener`), `retrypool.states` (`Outcome`),
`retrypool.policy.blame` (`Scope`). The package gives these by their names, too.
"""

from retrypool.collect.results import TaskResult
from retrypool.collect.schedule import Schedule
from retrypool.collect.task_group import TaskGroup
from retrypool.errors import (
    AttemptTimeout,
    CloseTimeout,
    Interrupted,
    InvalidType,
    InvalidValue,
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
)
from retrypool.executor import PoolExecutor
from retrypool.model.cancel import CancelToken
from retrypool.model.context import Context, current_context
from retrypool.model.drain import Drain
from retrypool.model.task import Attempt, DeadTask, Task
from retrypool.model.worker import Worker, WorkerInfo, WorkerSpec
from retrypool.observe.recording.recorder import Recorder
from retrypool.observe.stats import Stats
from retrypool.observe.status import TaskStatus
from retrypool.policy.budget import Budget
from retrypool.policy.delays import between_rounds, combine, exponential, fixed, linear, random_between
from retrypool.policy.failure import Failure, FailureAction
from retrypool.policy.health import HealthPolicy
from retrypool.policy.hedge import Hedge
from retrypool.policy.rates import Rate
from retrypool.policy.retry import UNLIMITED, GiveUp, RetryIn, RetryPolicy
from retrypool.policy.retry_after import parse_retry_after
from retrypool.pool import Pool
from retrypool.states import DeadReason, TaskState

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
    "Hedge",
    "Interrupted",
    "InvalidType",
    "InvalidValue",
    "NoWorkers",
    "Pool",
    "PoolClosed",
    "PoolExecutor",
    "QueueFull",
    "Rate",
    "Recorder",
    "RetryIn",
    "RetryPolicy",
    "RetryPoolError",
    "Schedule",
    "Stats",
    "StorageError",
    "Task",
    "TaskGroup",
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
    "between_rounds",
    "combine",
    "current_context",
    "exponential",
    "fixed",
    "linear",
    "parse_retry_after",
    "random_between",
]
