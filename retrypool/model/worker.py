"""What can be a worker, and what a pool tells of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, Generic, Never, Protocol, TypeVar

from typing_extensions import TypedDict, Unpack

from retrypool.checks import exact, unknown_option
from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.cancel import CancelToken
from retrypool.model.constraints import tag_set
from retrypool.model.context import Context
from retrypool.model.signature import check_factory, check_run
from retrypool.policy.rates import RateOption, as_rate
from retrypool.states import Outcome

__all__ = [
    "AnyWorker",
    "Hook",
    "SpecOptions",
    "Worker",
    "WorkerInfo",
    "WorkerSpec",
    "as_spec",
    "check_worker",
    "hook",
    "is_same",
    "run_of",
]

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
    - `group`: the failure domain it belongs to; default: that of another worker which is the same object
      (`[fetch] * 8` is one resource with eight threads), else one of its own, called as the worker is.
    - `concurrency`: how many threads call it, all of them in its group; default 1. Each has a worker of
      its own if there is a factory; else they share the one there is, and its hooks run in each.
    - `rate`: how fast its group is called: a `Rate`, or several of them; default: as fast as it goes.
      Workers of one group have the same.
    - `tags`: what it can do, for tasks that `require` it.
    - `cancel`: a `CancelToken`; once it is cancelled, the worker leaves, and its task is run elsewhere.
    """

    worker: AnyWorker[T, R] | None = None
    factory: Callable[[], AnyWorker[T, R]] | None = None
    name: str | None = None
    group: str | None = None
    concurrency: int = 1
    rate: RateOption = None
    tags: frozenset[str] = frozenset()
    cancel: CancelToken | None = None

    def __init__(
        self,
        worker: AnyWorker[T, R] | None = None,
        *,
        factory: Callable[[], AnyWorker[T, R]] | None = None,
        name: str | None = None,
        group: str | None = None,
        concurrency: int = 1,
        rate: RateOption = None,
        tags: Iterable[str] = (),
        cancel: CancelToken | None = None,
        **unknown: Never,
    ) -> None:
        for option in unknown:
            raise unknown_option(option, SpecOptions.__annotations__)
        if worker is not None or factory is None:
            check_worker(worker)
        if factory is not None and not callable(factory):
            raise InvalidType("factory", factory, "a function that makes a worker")
        if factory is not None:
            check_factory(factory)
        if cancel is not None and not isinstance(cancel, CancelToken):
            raise InvalidType("cancel", cancel, "a CancelToken")
        for what, value in (("name", name), ("group", group)):
            if value is not None and not isinstance(value, str):
                raise InvalidType(what, value, "a string")
            if value == "":
                raise InvalidValue(what, value, "a string that is not empty")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise InvalidType("concurrency", concurrency, "a whole number, 1 or more")
        if concurrency < 1:
            raise InvalidValue("concurrency", concurrency, "a whole number, 1 or more")
        if rate is not None:
            rate = as_rate(rate)
        keep = object.__setattr__
        keep(self, "concurrency", exact(concurrency))
        keep(self, "rate", rate)
        keep(self, "tags", tag_set("tags", tags))
        keep(self, "worker", worker)
        keep(self, "factory", factory)
        keep(self, "name", exact(name))
        keep(self, "group", exact(group))
        keep(self, "cancel", cancel)


class SpecOptions(TypedDict, Generic[T, R], total=False):
    """The options of a `WorkerSpec`."""

    factory: Callable[[], AnyWorker[T, R]] | None
    name: str | None
    group: str | None
    concurrency: int
    rate: RateOption
    tags: Iterable[str]
    cancel: CancelToken | None


def as_spec(
    worker: AnyWorker[T, R] | WorkerSpec[T, R] | None, **options: Unpack[SpecOptions[T, R]]
) -> WorkerSpec[T, R]:
    """Return `worker` as a spec, with the options that are given in place of its own.

    Raises `InvalidType` or `InvalidValue`, also for an option that there is not.
    """
    known = SpecOptions.__annotations__
    for option in options:
        if option not in known:
            raise unknown_option(option, known)
    if not isinstance(worker, WorkerSpec):
        return WorkerSpec(worker, **options)  # pyright: ignore[reportArgumentType]
    own: Any = {option: getattr(worker, option) for option in known}
    return WorkerSpec(worker.worker, **own | options)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a pool can tell of a worker at one moment. Times are on the pool's clock.

    `state` is one of: `starting`; `active`; `paused`; `cooling` and `ejected`, until `until`; `probing`,
    while one task shows whether that is over; `suspect`, until others have tried what it failed; `holding`,
    in an outage; `cordoned` for good, for `reason`; `stuck` in an attempt that
    is over; `stopping`, and `stopped` once its thread has ended; `failed`, with `error`: it
    could not be started, and is tried again at `until`.
    """

    id: int
    name: str
    group: str
    state: str
    task_ids: tuple[int, ...]  # of the tasks that it runs
    succeeded: int  # attempts
    failed: int  # attempts, those that ran out of time among them
    failures: Mapping[Outcome, int]  # the same, by how they failed
    rate: float | None = None  # calls per second that its group is held to; None: no limit is known
    until: float | None = None
    reason: str | None = None
    error: BaseException | None = None  # of a factory or an on_start that raised
    host: str | None = None  # the process that a remote worker lives in, once it does
    left: float | None = None  # seconds until `until`
    busy_for: float | None = None  # seconds since what it runs began, the oldest if it runs several

    @property
    def task_id(self) -> int | None:
        """The id of the task that it runs, or of the first one, if it runs several."""
        return self.task_ids[0] if self.task_ids else None

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


def check_worker(worker: AnyWorker[Any, Any] | None) -> None:
    """Raise `InvalidType` for what is no worker, or can't be called as one."""
    run, takes_context = run_of(worker)
    check_run(worker, run, takes_context=takes_context)


def is_same(one: object, other: object) -> bool:
    """Return whether two workers are the same object, or the same method of one."""
    if one is other:
        return True
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    return False


def hook(worker: AnyWorker[Any, Any] | None, name: str) -> Hook | None:
    """Return the hook of this name, if the worker defines it."""
    found = getattr(worker, name, None)
    return found if callable(found) else None
