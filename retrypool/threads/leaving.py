"""How many workers leave at once: the first is woken, and each wakes the next on its way out.

Thousands that wake at once would all queue for the pool's lock. If one thread woke them, each in its turn,
it would have to be told of each: two more switches of threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from retrypool.model.slots import Slot

__all__ = ["Leaving"]

AN_INSTANT = 0.001
"""Seconds in which at least one more has to be on its way, or another is woken."""


class Leaving:
    """The workers of one pool that sleep and are to leave."""

    def __init__(self) -> None:
        # In the order in which they leave. Whoever takes one out, in one atomic step, calls it.
        self._asleep: deque[Slot] = deque()
        # Held, and released by who is woken and finds nobody left to wake. No parker: that would let a Ctrl-C
        # strike in the middle of closing.
        self._bell = threading.Lock()
        self._bell.acquire()

    def wake_all(self, slots: Iterable[Slot]) -> None:
        """Wake `slots`, which are retired, one after the other; return when the last one is on its way.

        Several threads may do so at once: then each waits for all.
        """
        self._asleep.extend(slots)
        self.wake_next()
        while left := len(self._asleep):
            # Who is held up, in a hook perhaps, holds up the others for an instant.
            if not self._bell.acquire(timeout=AN_INSTANT) and len(self._asleep) >= left:
                self.wake_next()

    def wake_next(self) -> None:
        """Wake one more. Called by each worker that leaves, before anything of the user's is called."""
        try:
            slot = self._asleep.popleft()
        except IndexError:
            with suppress(RuntimeError):  # it has been released
                self._bell.release()
        else:
            slot.wake()
