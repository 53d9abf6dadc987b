"""Every error that retrypool raises or understands, in one tree.

Three families: what a call raises (`RetryPoolError` and below), what a worker raises to say more than
"it failed" (`Unrecoverable`, `Throttled`, `WorkerFault`), and `Interrupted`, which is thrown into a
running thread and is therefore no `Exception`.

Each error keeps its facts as fields and builds its message from them; its `args` are those fields, so
it pickles.
"""

from collections.abc import Sequence
from datetime import timedelta

__all__ = [
    "AttemptTimeout",
    "CloseTimeout",
    "Interrupted",
    "InvalidType",
    "InvalidValue",
    "MissingExtra",
    "NoContext",
    "NoWorkers",
    "NotStorable",
    "PoolClosed",
    "QueueFull",
    "RemoteError",
    "RetryPoolError",
    "SourceError",
    "StorageError",
    "StoredError",
    "TaskLost",
    "TaskNotFound",
    "Throttled",
    "Unrecoverable",
    "WorkerFault",
    "WorkerLost",
    "WorkerNotFound",
    "WrongThread",
]


class RetryPoolError(Exception):
    """The base of all errors that retrypool itself raises."""


def _shown(value: object) -> str:
    """Return `repr(value)`, cut to a length that can be read; never raises."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an error message must come through, whatever it is about
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 200 else f"{text[:197]}..."


class InvalidValue(RetryPoolError, ValueError):
    """An argument has the right type and a value that makes no sense."""

    def __init__(self, what: str, value: object, expected: str) -> None:
        super().__init__(what, value, expected)
        self.what, self.value, self.expected = what, value, expected

    def __str__(self) -> str:
        return f"{self.what} is {_shown(self.value)}: it must be {self.expected}"


class InvalidType(RetryPoolError, TypeError):
    """An argument is of a type that can't be used here, or an option has no such name."""

    def __init__(self, what: str, value: object, expected: str) -> None:
        super().__init__(what, value, expected)
        self.what, self.value, self.expected = what, value, expected

    def __str__(self) -> str:
        kind = type(self.value).__name__
        return f"{self.what} is {_shown(self.value)} ({kind}): it must be {self.expected}"


class MissingExtra(RetryPoolError, ImportError):
    """Something was asked for that needs a package which is not installed."""

    def __init__(self, extra: str, package: str, what: str) -> None:
        super().__init__(extra, package, what)
        self.extra, self.package, self.what = extra, package, what

    def __str__(self) -> str:
        return (
            f'{self.what} needs {self.package}, which is not installed: pip install "retrypool[{self.extra}]"'
        )


class PoolClosed(RetryPoolError, RuntimeError):
    """The pool takes no more tasks or workers, or the call can't be made from where it was made."""

    def __init__(self, pool: str, why: str = "it is closed; make a new pool") -> None:
        super().__init__(pool, why)
        self.pool, self.why = pool, why

    def __str__(self) -> str:
        return f"{self.pool} refuses: {self.why}"


class CloseTimeout(RetryPoolError, TimeoutError):
    """`close(timeout)` ran out of time. `running` names what still runs, `waiting` counts the rest."""

    def __init__(self, timeout: float, running: Sequence[str], waiting: int) -> None:
        super().__init__(timeout, tuple(running), waiting)
        self.timeout, self.running, self.waiting = timeout, tuple(running), waiting

    def __str__(self) -> str:
        still = ", ".join(self.running) or "nothing"
        return (
            f"not closed after {self.timeout:g} s: still running: {still}; "
            f"{self.waiting} waiting. Call close() again to go on waiting, or force_close()"
        )


class QueueFull(RetryPoolError):
    """The queue holds `limit` tasks and none left in time."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the queue is full ({self.limit} tasks wait): dispatch later, or raise max_queue"


class WorkerNotFound(RetryPoolError, LookupError):
    """No worker of the pool has this id."""

    def __init__(self, worker_id: object, known: Sequence[int] = ()) -> None:
        super().__init__(worker_id, tuple(known))
        self.worker_id, self.known = worker_id, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(map(str, self.known)) or "none"
        return f"no worker has the id {self.worker_id!r}; the pool has: {known}"


class TaskNotFound(RetryPoolError, LookupError):
    """No task with this id is known (any more)."""

    def __init__(self, task_id: object, where: str = "in this pool") -> None:
        super().__init__(task_id, where)
        self.task_id, self.where = task_id, where

    def __str__(self) -> str:
        return f"no task {self.task_id!r} {self.where}: it never was, or it is forgotten"


class NoWorkers(RetryPoolError):
    """The pool has no worker, or none of the kind that the task `wants`, so it could never run.

    `reason` tells of the error, which is the cause, if that is because workers could not be started.
    """

    def __init__(self, pool: str, wants: str = "", reason: str = "") -> None:
        super().__init__(pool, wants, reason)
        self.pool, self.wants, self.reason = pool, wants, reason

    def __str__(self) -> str:
        if self.reason:
            with_what = f" with {self.wants}" if self.wants else ""
            return f"{self.pool} has no worker{with_what} that could be started: {self.reason}"
        if self.wants:
            return (
                f"{self.pool} has no worker with {self.wants}: add one with add_worker(), "
                "or let the task wait for one with dispatch(wait_for_worker=True)"
            )
        return (
            f"{self.pool} has no workers: add one with add_worker(), "
            "or let tasks wait for one with Pool(wait_for_workers=True)"
        )


class NoContext(RetryPoolError, LookupError):
    """`current_context()` was called where no attempt is made."""

    def __str__(self) -> str:
        return "this thread runs no task of a pool: current_context() works inside a worker only"


class WrongThread(RetryPoolError, RuntimeError):
    """The call can't be made by this thread; as a rule because it would wait for the very same thread."""

    def __init__(
        self, call: str, why: str = "from a worker thread would wait for itself: call it from another thread"
    ) -> None:
        super().__init__(call, why)
        self.call, self.why = call, why

    def __str__(self) -> str:
        return f"{self.call} {self.why}"


class AttemptTimeout(RetryPoolError, TimeoutError):
    """One attempt was not over within its time. `limit` says which time, `seconds` how much it was."""

    def __init__(self, seconds: float, limit: str = "timeout") -> None:
        super().__init__(seconds, limit)
        self.seconds, self.limit = seconds, limit

    def __str__(self) -> str:
        return f"the attempt was not over after {self.seconds:g} s (its {self.limit})"


class RemoteError(RetryPoolError):
    """Stands for an error of another process that can't be sent, or can't be unpickled here.

    `kind` is its type, `message` its text, `host` the process.
    """

    def __init__(self, kind: str, message: str, host: str) -> None:
        super().__init__(kind, message, host)
        self.kind, self.message, self.host = kind, message, host

    def __str__(self) -> str:
        return f"{self.kind}: {self.message} (on {self.host})"


class WorkerLost(RetryPoolError):
    """A remote worker is gone, or could not be made. What it ran may have been done, or not."""

    def __init__(self, worker: str, host: str | None, why: str) -> None:
        super().__init__(worker, host, why)
        self.worker, self.host, self.why = worker, host, why

    def __str__(self) -> str:
        where = "" if self.host is None else f" on {self.host}"
        return f"{self.worker}{where} is lost: {self.why}"


class StorageError(RetryPoolError):
    """A storage could not do what it was asked. `where` names it."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(where, why)
        self.where, self.why = where, why

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class NotStorable(RetryPoolError, TypeError):
    """A value can't be kept in the pool's storage. `path` names the part of it that is to blame."""

    def __init__(self, path: str, value: object, why: str) -> None:
        super().__init__(path, value, why)
        self.path, self.value, self.why = path, value, why

    def __str__(self) -> str:
        kind = type(self.value).__name__
        return f"{self.path} is {_shown(self.value)} ({kind}), which can't be stored: {self.why}"


class StoredError(RetryPoolError):
    """What is left of an error that was raised in another process: the name of its type, and its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


class TaskLost(RetryPoolError):
    """The process ended while it ran the task, so often that the task may be why. See `max_losses`."""

    def __init__(self, losses: int) -> None:
        super().__init__(losses)
        self.losses = losses

    def __str__(self) -> str:
        return f"the process ended {self.losses} times while it ran this task: it may be what ends it"


class SourceError(RetryPoolError):
    """A broker refused, or could not be reached in time. `source` says which, `why` what it said."""

    def __init__(self, source: str, why: str) -> None:
        super().__init__(source, why)
        self.source, self.why = source, why

    def __str__(self) -> str:
        return f"{self.source}: {self.why}"


class Interrupted(BaseException):
    """Raised inside a running worker thread to stop it.

    It is a `BaseException`, so that `except Exception` in a worker does not swallow it.
    """


class Unrecoverable(Exception):
    """Raised by a worker: the task itself is wrong, and no other worker should try it."""


class Throttled(Exception):
    """Raised by a worker: its group was told to slow down. The attempt is not charged.

    `retry_after` is the time for which the group is given nothing: seconds, a `timedelta`, or the text
    of an HTTP `Retry-After` header (seconds or a date). None, or a text that says nothing, leaves the
    time to the pool.
    """

    def __init__(
        self, message: str = "throttled", *, retry_after: float | timedelta | str | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WorkerFault(Exception):
    """Raised by a worker: the worker is ill, not the task. `error` is what it noticed.

    The attempt is not charged while another group is live. With `restart`, the worker is started afresh
    before its next task, from its factory if it has one.
    """

    def __init__(self, error: BaseException | str, *, restart: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.restart = restart
