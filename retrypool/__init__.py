"""Push many items through something slow and flaky, with several workers that are not identical."""

import atexit
import sys

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in `typing`, which need not be imported for it
if TYPE_CHECKING:
    from retrypool._public import *  # noqa: F403
    from retrypool.errors import *  # noqa: F403
    from retrypool.events import Listener as Listener
    from retrypool.policy.blame import Scope as Scope
    from retrypool.states import Outcome as Outcome
    from retrypool.storage.base import Storage as Storage
    from retrypool.storage.memory import MemoryStorage as MemoryStorage
    from retrypool.storage.sqlite import SQLiteStorage as SQLiteStorage

# Where the public names are at home: each is imported when it is asked for.
_HOMES = {
    "Attempt": "retrypool.model.task",
    "AttemptTimeout": "retrypool.errors",
    "Budget": "retrypool.policy.budget",
    "CancelToken": "retrypool.model.cancel",
    "CloseTimeout": "retrypool.errors",
    "Context": "retrypool.model.context",
    "DeadReason": "retrypool.states",
    "DeadTask": "retrypool.model.task",
    "Drain": "retrypool.model.drain",
    "Failure": "retrypool.policy.failure",
    "FailureAction": "retrypool.policy.failure",
    "GiveUp": "retrypool.policy.retry",
    "HealthPolicy": "retrypool.policy.health",
    "Hedge": "retrypool.policy.hedge",
    "Interrupted": "retrypool.errors",
    "InvalidType": "retrypool.errors",
    "InvalidValue": "retrypool.errors",
    "Listener": "retrypool.events",
    "MemoryStorage": "retrypool.storage.memory",
    "MissingExtra": "retrypool.errors",
    "NoContext": "retrypool.errors",
    "NoWorkers": "retrypool.errors",
    "NotStorable": "retrypool.errors",
    "Outcome": "retrypool.states",
    "Pool": "retrypool.pool",
    "PoolClosed": "retrypool.errors",
    "PoolExecutor": "retrypool.executor",
    "QueueFull": "retrypool.errors",
    "Rate": "retrypool.policy.rates",
    "Recorder": "retrypool.observe.recording.recorder",
    "RemoteError": "retrypool.errors",
    "RetryIn": "retrypool.policy.retry",
    "RetryPolicy": "retrypool.policy.retry",
    "RetryPoolError": "retrypool.errors",
    "SQLiteStorage": "retrypool.storage.sqlite",
    "Schedule": "retrypool.collect.schedule",
    "Scope": "retrypool.policy.blame",
    "SourceError": "retrypool.errors",
    "Stats": "retrypool.observe.stats",
    "Storage": "retrypool.storage.base",
    "StorageError": "retrypool.errors",
    "StoredError": "retrypool.errors",
    "Task": "retrypool.model.task",
    "TaskGroup": "retrypool.collect.task_group",
    "TaskLost": "retrypool.errors",
    "TaskNotFound": "retrypool.errors",
    "TaskResult": "retrypool.collect.results",
    "TaskState": "retrypool.states",
    "TaskStatus": "retrypool.observe.status",
    "Throttled": "retrypool.errors",
    "UNLIMITED": "retrypool.policy.retry",
    "Unrecoverable": "retrypool.errors",
    "Worker": "retrypool.model.worker",
    "WorkerFault": "retrypool.errors",
    "WorkerInfo": "retrypool.model.worker",
    "WorkerLost": "retrypool.errors",
    "WorkerNotFound": "retrypool.errors",
    "WorkerSpec": "retrypool.model.worker",
    "WrongThread": "retrypool.errors",
    "between_rounds": "retrypool.policy.delays",
    "combine": "retrypool.policy.delays",
    "current_context": "retrypool.model.context",
    "exponential": "retrypool.policy.delays",
    "fixed": "retrypool.policy.delays",
    "linear": "retrypool.policy.delays",
    "parse_retry_after": "retrypool.policy.retry_after",
    "random_between": "retrypool.policy.delays",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        found: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    if name == "__all__":
        import retrypool._public as public  # tools that follow imports find all of them here

        return public.__all__
    if not name.startswith("_"):
        from importlib import import_module
        from importlib.util import find_spec

        if find_spec(f"{__name__}.{name}") is not None:  # `import retrypool; retrypool.events`
            return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *__getattr__("__all__")})  # type: ignore[misc]


def _close_open_pools() -> None:
    if (closing := sys.modules.get("retrypool.threads.exiting")) is not None:
        closing.close_at_exit()


# Here, where it is registered in time also if the first pool is made by another function at the exit.
atexit.register(_close_open_pools)
