"""Push many items through something slow and flaky, with several workers that are not identical."""

__version__ = "0.1.0"

# Where the public names are defined. A module is imported when one of its names is first asked for, so that
# a program does not wait for what it has no use for. `__init__.pyi` says the same to type checkers.
_HOMES = {
    "collect.drain": ("Drain",),
    "collect.group": ("Group",),
    "collect.results": ("TaskResult",),
    "context": ("CancelToken", "Context", "current_context"),
    "core.blame": ("Scope",),
    "core.budget": ("Budget",),
    "core.delays": ("combine", "exponential", "fixed", "linear", "random_between"),
    "core.health": ("HealthPolicy",),
    "core.rates": ("Rate",),
    "core.retry": ("UNLIMITED", "Failure", "FailureAction", "GiveUp", "RetryIn", "RetryPolicy"),
    "errors": (
        "AttemptTimeout",
        "CloseTimeout",
        "Interrupted",
        "InvalidType",
        "InvalidValue",
        "MissingExtra",
        "NoContext",
        "NoWorkers",
        "PoolClosed",
        "QueueFull",
        "RetryPoolError",
        "StorageError",
        "TaskNotFound",
        "Throttled",
        "Unrecoverable",
        "WorkerFault",
        "WorkerNotFound",
        "WrongThread",
    ),
    "events": ("Listener",),
    "executor": ("PoolExecutor",),
    "retry_after": ("parse_retry_after",),
    "task": ("Attempt", "DeadReason", "DeadTask", "Outcome", "Task", "TaskState"),
    "threads.pool": ("Pool",),
    "threads.schedule": ("Schedule",),
    "threads.stats": ("Stats",),
    "threads.status": ("TaskStatus",),
    "worker": ("Worker", "WorkerInfo", "WorkerSpec"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = list(_HOME_OF)


def __getattr__(name: str) -> object:
    from importlib import import_module  # here: it costs more than all the rest of this module

    if name in ("events", "testing"):
        return import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # from now on it is found without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
