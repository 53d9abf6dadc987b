"""The methods of a pool that observers use."""

from __future__ import annotations

from typing import Protocol

from retrypool.model.worker import WorkerInfo
from retrypool.observe.stats import Stats
from retrypool.threads.observers import Listening

__all__ = ["Watched"]


class Watched(Protocol):
    """A pool, seen from outside."""

    @property
    def name(self) -> str:
        """What it is called in logs, errors and labels."""
        ...

    def stats(self) -> Stats:
        """Return counts of tasks and attempts."""
        ...

    def workers(self) -> list[WorkerInfo]:
        """Return the current state of each worker."""
        ...

    def add_listener(self, listener: Listening) -> None:
        """Give events to `listener` from now on."""
        ...

    def remove_listener(self, listener: Listening) -> None:
        """Give no more events to `listener`."""
        ...
