"""What an engine of remote workers is, and what a worker is made of.

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

__all__ = ["Engine", "EngineClosed", "Limits", "Place", "Recipe"]

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before one that could not be made is made again: the first time, and at most."""


class Place(Protocol):
    """A `Host` that an engine has made, and the room of one hand in it."""

    def ask(self, method: str, *args: object, **kwargs: object) -> Future[Any]:
        """Call a method of the `Host`. Does not block. What the future raises, the engine has raised."""
        ...

    def lost(self, *, started: bool = True) -> str | None:
        """Say why no answer can come any more, if that is so. Asked about once a second; does not block.

        Unless the hand has `started`, silence says nothing: the process may not be there yet.
        """
        ...

    def leave(self, *, lost: bool) -> None:
        """Give the room back; a process that nobody needs is ended. Does not block.

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


class Recipe(Generic[A, T, R]):
    """What a remote worker is made of, over and over; and when it may be made again."""

    def __init__(
        self, engine: Engine, factory: Callable[[A], AnyWorker[T, R]], argument: A, name: str, limits: Limits
    ) -> None:
        self.engine = engine
        self.name = name
        self.limits = limits
        self.packed = dump_by_value((factory, argument))
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

    def made(self, well: bool) -> None:
        """Take note of how it went."""
        if well:
            self._failures, self._not_before = 0, 0.0
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16)) * random.uniform(0.5, 1.0)
        self._failures += 1
        self._not_before = time.monotonic() + pause
