"""What can be a worker, and what a pool tells of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from retrypool.context import CancelToken, Context
from retrypool.errors import InvalidType, InvalidValue

__all__ = ["AnyWorker", "Hook", "Worker", "WorkerInfo", "WorkerSpec", "hook", "run_of"]

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

Hook = Callable[[], object]


class Worker(Protocol[T_contra, R_co]):
    """An object that owns one resource. One thread of its own calls it.

    It may also define `on_start`, `on_stop`, `on_pause` and `on_resume`, without arguments: they run in
    that thread, before its first task, after its last one, and around a pause.
    """

    def run(self, ctx: Context, data: T_contra, /) -> R_co:
        """Do the work and return the result, or raise."""
        ...


AnyWorker = Worker[T, R] | Callable[[T], R]
"""A worker, or a plain function of the data."""


@dataclass(frozen=True, slots=True)
class WorkerSpec(Generic[T, R]):
    """A worker, and how the pool is to treat it.

    - `factory`: makes the worker, in the worker's own thread, if `worker` is not given; and makes it anew
      when it is restarted, was interrupted, or does not come back from an attempt that is over.
    - `name`: shown in tables and errors; default: `worker-` and its id.
    - `group`: the failure domain it belongs to; default: one of its own, called as the worker is.
    - `cancel`: a `CancelToken`; once it is cancelled, the worker leaves, and its task is run elsewhere.
    """

    worker: AnyWorker[T, R] | None = None
    factory: Callable[[], AnyWorker[T, R]] | None = None
    name: str | None = None
    group: str | None = None
    cancel: CancelToken | None = None

    def __init__(
        self,
        worker: AnyWorker[T, R] | None = None,
        *,
        factory: Callable[[], AnyWorker[T, R]] | None = None,
        name: str | None = None,
        group: str | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        if worker is not None or factory is None:
            run_of(worker)
        if factory is not None and not callable(factory):
            raise InvalidType("factory", factory, "a function that makes a worker")
        if cancel is not None and not isinstance(cancel, CancelToken):
            raise InvalidType("cancel", cancel, "a CancelToken")
        for what, value in (("name", name), ("group", group)):
            if value is not None and not isinstance(value, str):
                raise InvalidType(what, value, "a string")
            if value == "":
                raise InvalidValue(what, value, "a string that is not empty")
        keep = object.__setattr__
        keep(self, "worker", worker)
        keep(self, "factory", factory)
        keep(self, "name", name)
        keep(self, "group", group)
        keep(self, "cancel", cancel)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a pool can tell of a worker at one moment."""

    id: int
    name: str
    group: str
    state: str  # starting, idle, running, paused, cooling, probing, stuck, stopping or failed
    task_id: int | None  # of the task it runs
    succeeded: int  # attempts
    failed: int  # attempts, those that ran out of time among them
    error: BaseException | None  # of an on_start that raised
    cooling_until: float | None  # on the pool's clock

    @property
    def calls(self) -> int:
        """How many attempts it has ended."""
        return self.succeeded + self.failed


def run_of(worker: AnyWorker[Any, Any] | None) -> tuple[Callable[..., Any], bool]:
    """Return what to call for a task, and whether it takes a context before the data.

    Raises `InvalidType` for what is no worker.
    """
    run = getattr(worker, "run", None)
    if callable(run):
        if isinstance(worker, type):
            raise InvalidType("a worker", worker, f"an instance, such as {worker.__name__}(...)")
        return run, True
    if callable(worker):
        return worker, False
    raise InvalidType(
        "a worker", worker, "an object with run(ctx, data), a function of the data, or a WorkerSpec"
    )


def hook(worker: AnyWorker[Any, Any] | None, name: str) -> Hook | None:
    """Return the hook of this name, if the worker defines it."""
    found = getattr(worker, name, None)
    return found if callable(found) else None
