"""What those who look at a pool need of it."""

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
        """Return what there is to tell of each worker now."""
        ...

    def add_listener(self, listener: Listening) -> None:
        """Tell `listener` of what happens from now on."""
        ...

    def remove_listener(self, listener: Listening) -> None:
        """Tell `listener` nothing more."""
        ...
