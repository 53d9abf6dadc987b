"""Where those meet who wait for a task, and those who only want to hear of its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrypool.task import Task

__all__ = ["Rendezvous", "Reporter"]


class Rendezvous:
    """Where those meet who wait for one task: made on first use, never for a task nobody waits on."""

    __slots__ = ("announced", "callbacks", "condition", "lock", "waiters")

    def __init__(self) -> None:
        # `with condition` enters through a function of Python's own, and an interrupt that strikes in
        # there, once the lock is taken, leaves it taken for good. `with lock` has no such place.
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
        self.announced = False  # whether those who wait have been told; under `condition`
        self.callbacks: list[Callable[[Any], object]] = []
        self.waiters: list[Any] = []  # those of concurrent.futures.wait and as_completed


class Reporter:
    """Has `report(task)` called once for each of many tasks, on the thread that ends it.

    It stands in a task's place for a rendezvous from before the task is queued, and one serves any
    number of tasks: what a done callback does, without a condition for each.
    """

    __slots__ = ("report",)

    def __init__(self, report: Callable[[Task[Any, Any]], object]) -> None:
        self.report = report
