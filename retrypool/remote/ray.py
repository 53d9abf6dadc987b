"""Hands in processes of a Ray cluster: one actor for one hand, or for a few."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from retrypool.remote.engine import EngineClosed, Place
from retrypool.remote.host import Steps

__all__ = ["RayEngine"]

PATIENCE = 2.0
"""Seconds for which a thread waits before it asks the far process whether it is alive."""


class RayEngine:
    """Makes processes, and fills each with hands."""

    def __init__(self, ray: Any, *, per_process: int, silence: float, options: Mapping[str, object]) -> None:
        self.ray = ray
        self.silence = silence
        self._per_process = per_process
        self._options = {"num_cpus": 0, **options}
        self._lock = threading.Lock()
        self._processes: list[_Process] = []  # under _lock; those that are thought to be alive
        self._actor: Any = None

    def place(self) -> Future[Place]:
        """Find room in a process, or make one. Its actor is there at once, and answers when it is up."""
        future: Future[Place] = Future()
        try:
            future.set_result(self._place())
        except BaseException as error:  # noqa: BLE001 - whatever the engine raises is for the one who waits
            future.set_exception(error)
        return future

    def _place(self) -> RayPlace:
        if not self.ray.is_initialized():
            raise EngineClosed("Ray was shut down")
        with self._lock:
            for process in self._processes:
                if process.hands < self._per_process:
                    break
            else:
                if self._actor is None:
                    self._actor = self._make()
                process = _Process(self._actor.options(**self._options).remote(solo=self._per_process == 1))
                self._processes.append(process)
            process.hands += 1
        return RayPlace(self, process)

    def _make(self) -> Any:
        """Return what makes actors.

        In a group of one thread, calls are handed on without another, and cost what those of any actor do.
        """
        hands = self._per_process
        # Where hands share a process, a hook may wait for a thread while a call has it.
        groups = {"hands": 1 if hands == 1 else 2 * hands, "rest": 2}
        return self.ray.remote(num_cpus=0, concurrency_groups=groups)(Steps)

    def condemn(self, process: _Process) -> bool:
        """Give no new hands to a process that has one; return False if it has more."""
        with self._lock:
            if process.hands != 1:
                return False
            if process in self._processes:
                self._processes.remove(process)
            return True

    def give_back(self, process: _Process, *, broken: bool) -> None:
        """Take the room of one hand back; end the process if it is broken or nobody needs it."""
        with self._lock:
            process.hands -= 1
            if (broken or process.hands == 0) and process in self._processes:
                self._processes.remove(process)
            if process.hands > 0:
                return  # if it is broken, the others will notice
        with suppress(Exception):
            self.ray.kill(process.actor)


class _Process:
    """An actor."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.call = actor.call.options(concurrency_group="hands")
        self.run = actor.run.options(concurrency_group="hands")
        self.run_beside = actor.run.options(concurrency_group="rest")  # also while a call runs
        self.hands = 0  # under the engine's lock


class RayPlace:
    """The room of one hand."""

    def __init__(self, engine: RayEngine, process: _Process) -> None:
        self._engine = engine
        self._process = process
        self._left = False
        self._ping: Future[Any] | None = None
        self._pinged = 0.0

    def ask(self, method: str, *args: object, **kwargs: object) -> Future[Any]:
        """Call a method of the actor."""
        try:
            future: Future[Any] = self._send(method, args, kwargs).future()
        except BaseException as error:  # noqa: BLE001 - whatever the engine raises is for the one who waits
            future = Future()
            future.set_exception(error)
        return future

    def _send(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        process = self._process
        if method == "call":
            hand, order = args
            return process.call.remote(hand.encode() + b"\0" + order)
        run = process.run_beside if method in ("tell", "ping") else process.run
        return run.remote(method, *args, **kwargs)

    def lost(self, *, started: bool = True) -> str | None:
        """Ping the process: Ray does not notice one that was stopped."""
        now = time.monotonic()
        ping = self._ping
        if ping is None or (ping.done() and now - self._pinged >= PATIENCE):
            self._ping, self._pinged = self.ask("ping"), now
            return None
        if not ping.done():
            silent = now - self._pinged if started else 0.0
            return f"its process was silent for {silent:.0f} s" if silent > self._engine.silence else None
        error = ping.exception()
        return None if error is None else f"{type(error).__name__}: {error}"

    def leave(self, *, lost: bool) -> None:
        """Give the room back."""
        if not self._left:
            self._left = True
            self._engine.give_back(self._process, broken=lost)

    def kill(self) -> bool:
        """End the process, also one that hangs in C, if no other hand is in it."""
        if not self._engine.condemn(self._process):
            return False
        self.leave(lost=True)
        return True
