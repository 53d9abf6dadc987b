"""Remote workers as a pool wants them: one spec for each argument."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from typing_extensions import TypedDict, Unpack

from retrypool.checks import Duration, unknown_option
from retrypool.errors import InvalidType
from retrypool.model.cancel import CancelToken
from retrypool.model.worker import AnyWorker, WorkerSpec, as_spec
from retrypool.policy.rates import RateOption
from retrypool.remote.engine import Engine, Limits, Recipe, Siblings
from retrypool.remote.worker import RemoteWorker
from retrypool.threads.exiting import close_at_exit

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
    if isinstance(arguments, str | bytes):
        # Not the argument itself: it may be a secret.
        kind = f"a single {type(arguments).__name__}"
        raise InvalidType("arguments", kind, "a list, of one argument for each worker")
    limits = Limits(start_timeout=start_timeout, stop_timeout=stop_timeout)
    base = options.get("name")
    if base is None:
        base = getattr(factory, "__name__", "worker").strip("<>")
    own: Any = options
    specs: list[WorkerSpec[T, R]] = []
    given = list(arguments)
    siblings = Siblings(len(given))
    for number, argument in enumerate(given):
        name = f"{base}-{number}"
        try:
            recipe = Recipe(engine, factory, argument, name, limits, siblings)
        except Exception as error:
            what = f"the factory, or argument {number},"
            expected = f"what can be sent to another process ({type(error).__name__}: {error})"
            raise InvalidType(what, type(argument).__name__, expected) from error
        specs.append(as_spec(WorkerSpec(factory=partial(RemoteWorker, recipe)), **own | {"name": name}))
    _drain_before_engines_end()
    return specs


def _drain_before_engines_end() -> None:
    """Have pools that are still open at the exit drained before the engine, imported later, shuts down."""
    atexit.unregister(close_at_exit)
    atexit.register(close_at_exit)
