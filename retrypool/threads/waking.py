"""How a worker without a task comes to one: it claims what waits, or is parked until somebody wakes it."""

from __future__ import annotations

from typing import Any

from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.threads.parker import Parker
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.watchdog import FIRST_PAUSE
from retrypool.threads.works import Works

__all__ = ["Waking"]


MANY = 64
"""Parked workers of which the first is woken, and not the last."""


class Waking:
    """Wakes parked workers one at a time (H8), and lets them claim."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        # Anybody, at any time: a hint that a worker was just woken and will look at the injector queue, so
        # that nobody needs to wake another (H8).
        self.searching = False

    # -- for those who bring a task --------------------------------------------------------------

    def wake_one(self, *, oldest: bool = False) -> None:
        """Wake a parked worker for what is in the injector. Called without the lock.

        The one that was parked last is the quickest: its memory is warm. Where more waits than one task,
        who was parked first has its turn (`oldest`), or some would never work; and where so many sleep that
        finding the last one takes longer than it wins.

        Not shielded, which would cost more than all of this: the worker takes itself out of `parked`, so none
        is lost if a Ctrl-C strikes before the call, and who is struck calls one with `take_back`.
        """
        engine, parked = self._engine, self._engine.parked
        while True:
            self.searching = True
            try:
                # Backwards over a copy: CPython crashes if a dict is made anew under such an iterator.
                slot = next(iter(parked) if oldest or len(parked) > MANY else reversed(parked.copy()))
            except RuntimeError:  # one was parked or taken in between
                oldest = False
            except StopIteration:  # others were quicker
                self.searching = False
                # Somebody may have relied on the flag in between, with a worker parked again.
                if not (engine.injector and parked):
                    return
            else:
                slot.wake()
                return

    def wake_another(self) -> None:
        """Wake a worker for what is left, if there is anything: in place of the one that has taken a task.

        A Ctrl-C may have struck the caller while it did so, and left `searching` set.
        """
        self.searching = False
        if self._engine.injector and self._engine.parked:
            self.wake_one()

    # -- for the workers -------------------------------------------------------------------------

    def claim(self, slot: Slot, handed: Task[Any, Any] | None = None) -> Task[Any, Any] | None:
        """Return a task for `slot`, or None if there is none and it is parked. See `Scheduler.claim`."""
        engine = self._engine
        spin_while_held(engine.lock)
        with engine.lock:
            # The slot is among the parked no more once it has the lock, and looks at the injector now.
            engine.scheduler.fleet.unpark(slot)
            self.searching = False
            slot.idle = False  # handshake H11; it may have entered itself among the parked (H14)
            task: Task[Any, Any] | None = engine.scheduler.claim(slot, engine.monotonic(), handed)
            happened = engine.decided()
        engine.act(happened)
        return task

    def park_at_once(self, slot: Slot) -> bool:
        """Park `slot` without the lock, if there is nothing to decide; return whether that was done.

        While it may help itself, nothing waits for it but what is in the injector queue, which is looked at
        after this (H1).
        """
        engine = self._engine
        if not (slot.direct and slot.go):
            return False
        # Handshake H14: become idle and enter into `parked`, then read what is wanted.
        slot.idle = True
        engine.parked[slot] = None
        return slot.direct and slot.go and not (engine.waiters or engine.unwanted)

    def _sleep(self, parker: Parker) -> None:
        """Wait for a call, and do the watchdog's work meanwhile if there is no thread for it."""
        watchdog = self._engine.watchdog
        while watchdog.short:
            if parker.park(FIRST_PAUSE):
                return
            watchdog.stand_by()
        parker.park()

    def wait_for_call(self, slot: Slot, parker: Parker) -> None:
        """Wait until there may be something for `slot`, which has just been parked."""
        # Handshake H1: the slot was parked, and looks now. A slot that is benched is not among the parked,
        # and is called when its time has come.
        engine = self._engine
        if not (engine.injector and engine.scheduler.fleet.unpark(slot)):
            self._sleep(parker)
        slot.idle = False
