"""What the parts of an engine need of it and of each other."""
# ruff: noqa: D102 - `Engine` says what each of these is

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from retrypool.clock import Clock
from retrypool.core.queue import InjectorQueue
from retrypool.core.scheduler import Scheduler
from retrypool.errors import RetryPoolError
from retrypool.events import Event
from retrypool.model.context import Context
from retrypool.model.drain import Drain
from retrypool.model.settings import TaskSettings
from retrypool.model.slots import Slot
from retrypool.model.task import Task, TaskOwner
from retrypool.policy.blame import Judge
from retrypool.threads.observers import Observers
from retrypool.threads.parker import Bell

__all__ = ["Works"]


class Works(TaskOwner, Protocol):
    """An engine as its parts see it. `Engine` says what each of these is, and who may touch it."""

    name: str
    lock: threading.RLock
    scheduler: Scheduler
    observers: Observers[Any, Any]
    judge: Judge
    chance: Callable[[], float]
    monotonic: Callable[[], float]
    threaded: bool
    guarded: bool
    announces: bool
    closed: bool
    forked: bool
    wait_for_workers: bool
    parked: dict[Slot, None]
    waiters: set[Bell]
    unwanted: deque[Task[Any, Any]]
    injector: InjectorQueue
    drains: dict[int, Drain[Any]]
    # The other parts. Their types would lead back to here.
    intake: Any
    journal: Any
    kept: Any
    hedges: Any
    races: Any
    queue_limit: Any
    watchdog: Any
    attempts: Any
    successes: Any
    takeovers: Any
    cancelling: Any
    waking: Any
    bonds: Any
    bound: Any
    steps: Any
    step: Any

    @property
    def clock(self) -> Clock: ...
    @property
    def identity(self) -> str: ...
    @property
    def here(self) -> bool: ...
    def decided(self) -> list[Event]: ...
    def look(self, function: Callable[[], Any]) -> Any: ...
    def take_happened(self) -> list[Event]: ...
    def act(self, happened: list[Event]) -> None: ...
    def wake_called(self) -> None: ...
    def settle_waiters(self) -> None: ...
    def closing_refusal(self) -> RetryPoolError | None: ...
    def refusal(self, settings: TaskSettings | None = None) -> RetryPoolError | None: ...
    def cancel_waiting(self, task: Task[Any, Any], reason: str = "cancelled") -> bool: ...
    def expect_back(self, slot: Slot, ctx: Context) -> None: ...
    def run_errand(self, errand: Callable[[], object], now: float) -> None: ...
