"""Steps, and calls at the wrong moment: in the middle of one, or by the last worker that could go on.

A step is what a thread does with the pool's lock: see `Step`. The garbage collector may run meanwhile, and
call what the user has written: a `__del__`, or the end of a generator that was not run to its end. It finds
the lock open, as its thread has it. What it only looks at, it may see; what it wants to change is done after
the step.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from retrypool.callbacks import call_ours
from retrypool.ctrl_c import shielded
from retrypool.errors import PoolClosed, WrongThread
from retrypool.events import Event
from retrypool.model.context import slot_here
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.threads.works import Works

__all__ = ["Step", "Steps"]


class Step:
    """Decide under the lock, act outside it: `with engine.step:`.

    Takes the lock; what has happened under it is told once it is released. The hot paths write this out,
    and so does what has something to do in between.
    """

    __slots__ = ("_engine",)

    # For functions that are `shielded`, and for threads that nothing strikes: the watchdog, and a worker's
    # that is past its attempt. What struck between `acquire` and the block would leave the lock held.
    def __init__(self, engine: Works) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._engine.lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        happened: list[Event] = []
        try:
            if kind is None:
                happened = self._engine.decided()
        finally:
            self._engine.lock.release()
        if kind is None:
            self._engine.act(happened)
        else:
            self._engine.wake_called()


class Steps:
    """Knows whether this thread is in the middle of a step of one pool, and does what was put off."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self.later: deque[Callable[[], object]] = deque()  # anybody appends; `finish` takes out

    def __bool__(self) -> bool:
        """Whether something was put off."""
        return bool(self.later)

    @property
    def in_step(self) -> bool:
        """Whether this thread is in the middle of a step."""
        owned: bool = self._engine.lock._is_owned()  # type: ignore[attr-defined]
        return owned

    def put_off(self, change: Callable[[], object]) -> bool:
        """If this thread is in the middle of a step, have `change()` called after it; return whether so."""
        if not self.in_step:
            return False
        self.later.append(change)
        # Not all who have the lock take a step. If nobody else does, nor is quicker, the watchdog does it.
        self._engine.watchdog.expect(self._engine.monotonic())
        return True

    def check(self, call: str) -> None:
        """Raise `WrongThread` in the middle of a step, for a call that can neither be made nor put off."""
        if self.in_step:
            raise WrongThread(call)

    def wait_begins(self, task: Task[Any, Any], timeout: float | None) -> Slot | None:
        """Raise `WrongThread` if this thread would wait for itself; return the slot it has here, if any.

        So it would in the middle of a step, and if it is a worker's and all the others wait for tasks of this
        pool too, without end. Who has been given a slot clears its `waits_for` after the wait.
        """
        self.check("waiting for a task")
        if sys.is_finalizing():  # the threads are frozen
            raise PoolClosed(self._engine.name, "the interpreter is on its way out")
        slot = slot_here()
        if slot is None or timeout is not None or slot not in self._engine.scheduler.fleet.slots:
            return None
        if self._engine.look(partial(self._may_wait, slot, task)):
            return slot
        raise WrongThread("waiting for a task of the same pool, as all its workers do,")

    def _may_wait(self, slot: Slot, task: Task[Any, Any]) -> bool:
        slot.waits_for = task
        if any(self._may_go_on(other) for other in self._engine.scheduler.fleet):
            return True
        slot.waits_for = None
        return False

    def _may_go_on(self, slot: Slot) -> bool:
        """Return whether `slot` may come to take a task by itself, as far as can be seen. Under the lock."""
        task = slot.waits_for
        if task is None:
            return self._engine.scheduler.fleet.present(slot) or not slot.idle
        ends_by_itself = task._settings.deadline is not None
        limited = any(ctx._expires < inf for ctx in self._engine.scheduler.running_at(slot))
        return ends_by_itself or limited or task.done()

    @shielded
    def finish(self) -> None:
        """Do what was put off. Called outside the lock."""
        while True:
            try:
                change = self.later.popleft()
            except IndexError:
                return
            call_ours("what was put off", change)
