"""Remote workers as a pool wants them: one spec for each argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from typing_extensions import TypedDict, Unpack

from retrypool.checks import Duration, unknown_option
from retrypool.errors import InvalidType
from retrypool.model.cancel import CancelToken
from retrypool.model.worker import AnyWorker, WorkerSpec, as_spec
from retrypool.policy.rates import RateOption
from retrypool.remote.engine import Engine, Limits, Recipe
from retrypool.remote.worker import RemoteWorker

__all__ = ["HandOptions", "remote_workers"]

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")


class HandOptions(TypedDict, total=False):
    """The options of a `WorkerSpec` that remote workers have too."""

    name: str | None  # what the workers' names begin with; default: the factory's
    group: str | None  # one for all; default: each has its own
    concurrency: int
    rate: RateOption
    tags: Iterable[str]
    cancel: CancelToken | None


def remote_workers(
    engine: Engine,
    factory: Callable[[A], AnyWorker[T, R]],
    arguments: Iterable[A],
    *,
    start_timeout: Duration,
    stop_timeout: Duration,
    **options: Unpack[HandOptions],
) -> list[WorkerSpec[T, R]]:
    """Return a worker for each argument, for a pool. The options are those of a `WorkerSpec`."""
    if not callable(factory):
        raise InvalidType("factory", factory, "a class or a function that makes a worker of an argument")
    for option in options:
        if option not in HandOptions.__annotations__:
            raise unknown_option(option, HandOptions.__annotations__)
    limits = Limits(start_timeout=start_timeout, stop_timeout=stop_timeout)
    base = options.get("name")
    if base is None:
        base = getattr(factory, "__name__", "worker").strip("<>")
    own: Any = options
    specs: list[WorkerSpec[T, R]] = []
    for number, argument in enumerate(arguments):
        name = f"{base}-{number}"
        try:
            recipe = Recipe(engine, factory, argument, name, limits)
        except Exception as error:
            expected = f"what can be sent to another process; {type(error).__name__}: {error}"
            # Not the argument itself: it may be a secret.
            raise InvalidType("factory, or argument", number, expected) from error
        specs.append(as_spec(WorkerSpec(factory=partial(RemoteWorker, recipe)), **own | {"name": name}))
    return specs
