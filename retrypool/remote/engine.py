"""The contract of an engine for remote workers, and the recipe of a worker.

An engine makes processes in a cluster, each with a `Host`, and carries calls to it. It does not block: all
that may take long is a future. What a future of it raises is about the engine; what the user's code raises
comes back as an answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from retrypool.checks import Duration, seconds
from retrypool.model.context import Context
from retrypool.model.worker import AnyWorker
from retrypool.remote.wire import dump_by_value

__all__ = ["Engine", "EngineClosed", "Limits", "Place", "Recipe", "Siblings"]

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before one that could not be made is made again: the first time, and at most."""


MOVE_AFTER = 3
"""How often a worker that could not be made is made in the same process."""


class Place(Protocol):
    """A `Host` that an engine has made, with a place for one hand."""

    def ask(self, method: str, *args: object, **kwargs: object) -> Future[Any]:
        """Call a method of the `Host`. Does not block. What the future raises, the engine has raised."""
        ...

    def lost(self, *, started: bool = True) -> str | None:
        """Say why no answer can come any more, if that is so. Asked about once a second; does not block.

        Unless the hand has `started`, silence says nothing: the process may not be there yet.
        """
        ...

    def leave(self, *, lost: bool) -> None:
        """Free the place; a process that is not needed any more is ended. Does not block.

        `lost` says that no other hand should be made in that process.
        """
        ...

    def kill(self) -> bool:
        """End the process with all that runs in it, if the engine can and it is this hand's alone."""
        ...


class Engine(Protocol):
    """What makes processes in a cluster, with a `Host` in each."""

    def place(self) -> Future[Place]:
        """Find room for a hand. Does not block. May take long: clusters grow."""
        ...


class EngineClosed(Exception):
    """Raised by an engine that can't make anything any more. No `WorkerFault`: no other hand can help."""


class Limits:
    """How long the head waits for the far side. Seconds."""

    def __init__(self, *, start_timeout: Duration, stop_timeout: Duration) -> None:
        self.start = seconds("start_timeout", start_timeout)
        self.stop = seconds("stop_timeout", stop_timeout)


class Siblings:
    """The workers that were asked for together: whether any of them has ever been made.

    If none has, and several failed with an error of the far side, the cause is not one worker but a bug, or a
    wrong version everywhere. Then tasks fail as their policy says, rather than wait for ever.
    """

    def __init__(self, number: int) -> None:
        self._enough = min(number, 8)
        self._failed: set[int] = set()
        self._ever = False

    def made(self) -> None:
        """Record that one was made."""
        self._ever = True

    def failed(self, recipe: object) -> None:
        """Record that one could not be made."""
        if not self._ever:
            self._failed.add(id(recipe))

    @property
    def hopeless(self) -> bool:
        """Whether it looks as if none can be made."""
        return not self._ever and len(self._failed) >= self._enough


class Recipe(Generic[A, T, R]):
    """What a remote worker is made of, over and over; and when it may be made again."""

    def __init__(
        self,
        engine: Engine,
        factory: Callable[[A], AnyWorker[T, R]],
        argument: A,
        name: str,
        limits: Limits,
        siblings: Siblings,
    ) -> None:
        self.engine = engine
        self.name = name
        self.limits = limits
        self.packed = dump_by_value((factory, argument))
        self._siblings = siblings
        self._failures = 0  # to make it, in a row
        self._not_before = 0.0

    def wait_for_turn(self, ctx: Context, until: float) -> bool:
        """Wait until it may be made again; return False if that is not before `until`.

        Raises if the attempt is over before.
        """
        pause = self._not_before - time.monotonic()
        left = until - time.monotonic()
        if pause > 0:
            ctx.sleep(max(0.0, min(pause, left)))
        return pause <= left

    def made(self) -> None:
        """Record that it was made."""
        self._siblings.made()
        self._failures, self._not_before = 0, 0.0

    @property
    def to_be_moved(self) -> bool:
        """Whether to make it in another process now, which may take a second to start; not every time."""
        return self._failures % MOVE_AFTER == 0

    def not_made(self, *, bug: bool) -> bool:
        """Record that it was not made; return whether none can be, it seems. `bug`: not for lack of room."""
        self._failures += 1
        if bug:
            self._siblings.failed(self)
            if self._siblings.hopeless:
                return True
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16))
        pause = longest * random.uniform(0.5, 1.0)
        self._not_before = time.monotonic() + pause
        return False
