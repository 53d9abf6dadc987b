"""The bound of a queue, and those who wait for a place in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from retrypool.ctrl_c import STRETCH
from retrypool.errors import QueueFull
from retrypool.model.completion import Reporter
from retrypool.model.preparing import new_task
from retrypool.model.settings import TaskSettings
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.threads.parker import Bell
from retrypool.threads.works import Works

__all__ = ["QueueLimit", "WayOut"]

T = TypeVar("T")
R = TypeVar("R")


class QueueLimit:
    """Room for so many waiting tasks. Dispatchers take a place before they put a task there.

    Retries need none: they put back what was let in before. So the queue holds `limit` tasks at the
    most, and those that come back to it besides: after an attempt, or from a worker that was told to take
    nothing just as it took them.
    """

    # Dispatchers count what waits, and add to it, under the engine's lock. So does whoever moves tasks from
    # one place to another. Workers take from the injector queue without it, which only makes room.
    def __init__(self, engine: Works, limit: int, *, patient: bool) -> None:
        self._engine = engine
        self._limit = limit
        self._patient = patient  # whether a dispatcher that says nothing waits
        # Those of dispatchers that wait, the first one first. Changed under the lock, read without it.
        self.waiting: dict[Bell, None] = {}
        # Anybody, at any time: a hint that one of them was just called and will look for room, so that
        # nobody needs to call another (H16).
        self.called = False
        self.taken = 0  # places that belong to tasks on their way; under the lock

    def admit(
        self,
        data: T,
        settings: TaskSettings,
        arrive: Callable[[Task[T, R]], None],
        reporter: Reporter | None = None,
        note: Callable[[Task[T, R]], object] = id,
    ) -> Task[T, R] | None:
        """Accept a task if there is room for it, and nothing else to do; return None if that is not so.

        The steps of Pool.dispatch and `Intake.entrance`, in the same order, and without a shield as there.
        This is no step of the engine: nothing is decided under the lock.
        """
        engine = self._engine
        if engine.steps.in_step:
            return None
        task: Task[T, R] = new_task(
            engine.scheduler.backlog.next_seq(), data, settings, engine, engine.monotonic()
        )
        task._completion = reporter
        try:
            with engine.lock:
                # Whoever closes the way in has the lock too, so nobody has to look again (H2).
                admitted: bool = engine.bound is self and self._most() < self._limit
                if admitted:
                    arrive(task)
            if engine.steps:  # what a finalizer put off that the garbage collector has called
                engine.steps.finish()
            if not admitted:
                return None
            if engine.parked and not engine.waking.searching:
                engine.waking.wake_one()
            note(task)
        except BaseException:  # a Ctrl-C
            # It may have struck as the lock was just taken: CPython is open there from 3.14 on.
            if engine.steps.in_step:
                engine.lock.release()
            engine.intake.take_back(task, note)
            raise
        return task

    def reserve(self, settings: TaskSettings) -> None:
        """Take a place, waiting for it if need be. Raises `QueueFull`, and what the pool refuses with."""
        engine = self._engine
        with engine.lock:
            if self._free() or self._free_but_for_stranded(settings):
                self.taken += 1
                return
        until = time.monotonic() + self._patience(settings.block_timeout)
        bell = Bell()
        try:
            while True:
                with engine.lock:
                    # Handshake H16: enter into `waiting`, clear `called`, then look for room.
                    self.waiting[bell] = None
                    self.called = False
                    if refusal := engine.refusal(settings):
                        raise refusal
                    if self._free() or self._free_but_for_stranded(settings):
                        self.taken += 1
                        return
                    left = until - time.monotonic()
                    if left <= 0:
                        raise QueueFull(self._limit)
                engine.wake_called()
                bell.wait(min(left, STRETCH), engine.stand_by)
        finally:
            with engine.lock:
                self.waiting.pop(bell, None)
                # There may be room for one more. And a call that was meant for this thread goes to another
                # one, if a Ctrl-C ended the wait.
                self.called = False
                self.call()
            engine.wake_called()

    def give_back(self) -> None:
        """Give back a place that no task comes for."""
        with self._engine.lock:
            self.taken -= 1
            self.call()
        self._engine.wake_called()

    def call(self) -> None:
        """Call the first of those who wait, if there is room; it calls the next. All, if there is no hope.

        Called under the lock.
        """
        if self.waiting:
            if self._engine.refusal() is not None:
                for bell in self.waiting:
                    bell.ring()
            elif not self.called and self._free():
                self.call_first()

    def call_first(self) -> None:
        """Call the first of those who wait, because there is room. Needs no lock."""
        while True:
            self.called = True
            try:
                bell = next(iter(self.waiting))
            except RuntimeError:  # one has come or gone in between
                continue
            except StopIteration:  # it has left; whoever comes clears the flag
                return
            bell.ring()
            return

    def _most(self) -> int:
        """Return how many places are taken at the most: tombstones are counted too."""
        scheduler, backlog = self._engine.scheduler, self._engine.scheduler.backlog
        return len(backlog.injector) + backlog.filed + scheduler.delayed + self.taken

    def _held(self) -> int:
        """Return how many places are taken. May call workers, as they may have looked during a sweep."""
        scheduler, backlog = self._engine.scheduler, self._engine.scheduler.backlog
        held = self._most()
        if not backlog.tombstones:
            return held
        # A tombstone that a worker has taken is not in the queue any more, and not counted out yet. Such a
        # worker is seen here (H11), since the queue was looked at before.
        if any(not slot.idle and not slot.running for slot in scheduler.fleet):
            self._sweep()
            return self._most()
        return held - backlog.tombstones

    def _sweep(self) -> None:
        self._engine.scheduler.backlog.sweep()
        self._engine.scheduler.rouse()

    def _free(self) -> bool:
        return self._most() < self._limit or self._held() < self._limit

    def _free_but_for_stranded(self, settings: TaskSettings) -> bool:
        """Return whether there is room if those don't count that no worker can take who is there.

        They were let in to wait for one (`wait_for_worker`), and must not keep out what can be run. They
        have so many places of their own. Costs a look at every subqueue, so only a full queue asks.
        """
        scheduler = self._engine.scheduler
        fleet = scheduler.fleet
        present = [slot for slot in fleet if fleet.present(slot)]
        if not any(map(settings.constraints.suits, present)):
            return False
        if scheduler.backlog.tombstones:
            self._sweep()  # or they would be discounted twice
        stranded = sum(
            len(subqueue.tasks)
            for subqueue in scheduler.backlog.subqueues.values()
            if not any(map(subqueue.constraints.suits, present))
        )
        return self._most() - stranded < self._limit

    def _patience(self, block_timeout: float | None) -> float:
        """Return how many seconds the calling thread waits for room.

        The pool's own threads make the room, so they do not wait for it unless they say how long.
        """
        if block_timeout is not None:
            return block_timeout
        engine = self._engine
        if not self._patient or engine.here or engine.watchdog.is_current() or not engine.threaded:
            return 0.0
        return math.inf


class WayOut:
    """The injector queue as a worker of a bounded pool takes from it: whoever waits for room is called."""

    __slots__ = ("_injector", "_limit", "_popleft", "_slot", "several", "usual")

    def __init__(self, engine: Works, slot: Slot) -> None:
        self._injector = engine.injector
        self._limit: QueueLimit = engine.queue_limit
        self._popleft = engine.injector.usual.popleft
        self._slot = slot
        self.usual = engine.injector.usual
        self.several = True  # so it is always asked

    def popleft(self) -> Task[Any, Any]:
        """Take the first task. Raises `IndexError` if there is none, or if the worker has to ask for one."""
        if not self._slot.direct:  # it would only put it back, and another may have the place by then
            raise IndexError
        injector, limit = self._injector, self._limit
        task: Task[Any, Any] = injector.popleft() if injector.several else self._popleft()
        # Handshake H16: take, then read `waiting` and `called`.
        if limit.waiting and not limit.called:
            limit.call_first()
        return task
