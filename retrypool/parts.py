"""What a pool is made of. `retrypool.pool` imports this when the first pool is made.

Importing all of it costs several times what `concurrent.futures.thread` does. A program that imports `Pool`
and makes none, as a command line does to show its help, need not wait for that.
"""

import retrypool.threads.exiting  # noqa: F401 - sees to the pools at the exit, and after a fork
from retrypool.checks import (
    Duration,
    count,
    exact,
    flag,
    optional_count,
    optional_seconds,
    patience,
    plain,
    seconds,
    unknown_option,
)
from retrypool.clock import Clock, SystemClock
from retrypool.collect.chunks import map_chunks
from retrypool.collect.map import as_completed, map_items
from retrypool.collect.results import TaskResult
from retrypool.collect.schedule import Schedule, make_schedule, restore_schedules
from retrypool.collect.task_group import OnError, TaskGroup
from retrypool.core.hedging import Hedging
from retrypool.core.scheduler import Scheduler
from retrypool.core.schedules import Overlap
from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.cancel import CancelToken
from retrypool.model.option_checks import checked_token
from retrypool.model.preparing import new_task
from retrypool.model.settings import (
    LABELS,
    MapOptions,
    TaskOptions,
    TaskSettings,
    take_labels,
)
from retrypool.model.signature import is_stateful
from retrypool.model.task import DeadTask, Task
from retrypool.model.worker import AnyWorker, SpecOptions, WorkerInfo, WorkerSpec, as_spec
from retrypool.observe.log import EventLog
from retrypool.observe.lookup import AnyTask, Lookup, Whole, id_of
from retrypool.observe.stats import Stats
from retrypool.observe.stats import count as count_all
from retrypool.observe.status import TaskStatus
from retrypool.policy.blame import BlameOption, as_judge
from retrypool.policy.budget import Budget
from retrypool.policy.failure import FailureAction
from retrypool.policy.health import HealthPolicy
from retrypool.policy.hedge import HedgeOption, as_hedge
from retrypool.policy.rates import RateOption, as_pace
from retrypool.policy.retry import RetryPolicy
from retrypool.threads.engine import Engine
from retrypool.threads.kept import Kept
from retrypool.threads.key_names import checked_key
from retrypool.threads.lifecycle import Cancelled, Lifecycle, give_up
from retrypool.threads.many import restore_all
from retrypool.threads.observers import Listening, Observers
from retrypool.threads.takeover import Fate
from retrypool.threads.workers import Then, Workers

__all__ = [
    "LABELS",
    "AnyTask",
    "AnyWorker",
    "BlameOption",
    "Budget",
    "CancelToken",
    "Cancelled",
    "Clock",
    "DeadTask",
    "Duration",
    "Engine",
    "EventLog",
    "FailureAction",
    "Fate",
    "HealthPolicy",
    "HedgeOption",
    "Hedging",
    "InvalidType",
    "InvalidValue",
    "Kept",
    "Lifecycle",
    "Listening",
    "Lookup",
    "MapOptions",
    "Observers",
    "OnError",
    "Overlap",
    "RateOption",
    "RetryPolicy",
    "Schedule",
    "Scheduler",
    "SpecOptions",
    "Stats",
    "SystemClock",
    "Task",
    "TaskGroup",
    "TaskOptions",
    "TaskResult",
    "TaskSettings",
    "TaskStatus",
    "Then",
    "Whole",
    "WorkerInfo",
    "WorkerSpec",
    "Workers",
    "as_completed",
    "as_hedge",
    "as_judge",
    "as_pace",
    "as_spec",
    "checked_key",
    "checked_token",
    "count",
    "count_all",
    "exact",
    "flag",
    "give_up",
    "id_of",
    "is_stateful",
    "make_schedule",
    "map_chunks",
    "map_items",
    "new_task",
    "optional_count",
    "optional_seconds",
    "patience",
    "plain",
    "restore_all",
    "restore_schedules",
    "seconds",
    "take_labels",
    "unknown_option",
]
