"""Where running tasks put values, and who wants them takes them out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Generic, Literal, Self

from typing_extensions import TypeVar

from retrypool.ctrl_c import acquire
from retrypool.errors import InvalidValue

__all__ = ["Drain"]

T = TypeVar("T", default=object)


class Drain(Generic[T]):
    """Collects any number of values from running tasks, and can be read while they run.

    Give it to tasks with `dispatch(..., drain=drain)`; their worker calls `ctx.send(value)`. One drain
    may serve many tasks, and several pools. What is read is taken out: each value is read once, by
    whoever comes first. The values of one attempt come in the order in which it sent them.

    - `commit="now"`: a value is there as soon as it is sent, whatever becomes of the attempt.
    - `commit="success"`: it is there, with all the others that its attempt has sent, when the attempt
      has succeeded, just before the task ends; what a failed attempt has sent is dropped. A task with
      such a drain is a little slower, as it is not run without the pool's lock.

    An attempt that is over, because its time ran out or because it was cancelled, sends nothing more.
    Raises `InvalidValue` for another `commit`.

    >>> drain = Drain()
    >>> drain.send("a"), drain.send("b")
    (True, True)
    >>> drain.count(), drain.drain(), drain.count()
    (2, ['a', 'b'], 0)
    """

    # No value waits unseen, though `send` takes no lock: the sender appends and then looks at _bells; a
    # reader puts its own there and then looks for values. One of the two sees the other. And a sender
    # that is interrupted in its thread has no lock that it could leave locked.
    def __init__(self, *, commit: Literal["now", "success"] = "now") -> None:
        if commit not in ("now", "success"):
            raise InvalidValue("commit", commit, "'now' or 'success'")
        self.withholds = commit == "success"
        self._values: deque[T] = deque()
        self._bells: set[threading.Lock] = set()  # of readers that wait; each adds and discards its own
        self._sources: set[object] = set()  # the pools that may still send
        self._opened = False  # whether there ever was one
        self._closed = False

    def send(self, value: T) -> bool:
        """Put a value in; return False, and drop it, if the drain is closed."""
        if self._closed:
            return False
        self._values.append(value)
        if self._bells:
            self._ring()
        return True

    def drain(self) -> list[T]:
        """Take out and return everything that is there now, the oldest first."""
        values = self._values
        taken: list[T] = []
        with suppress(IndexError):  # others take as well
            taken.extend(values.popleft() for _ in range(len(values)))
        return taken

    def count(self) -> int:
        """Return how many values are there now."""
        return len(self._values)

    def close(self) -> None:
        """Take no more values, and let the iterations end once they have read what is there."""
        self._closed = True
        self._ring()

    @property
    def closed(self) -> bool:
        """Whether it takes no more values."""
        return self._closed

    def __iter__(self) -> Self:
        """Iterate over the values as they come, taking them out.

        Waits for more, and ends when the drain is closed, or when all the pools whose tasks were given
        the drain are closed and have come to their end.
        """
        return self

    def __next__(self) -> T:
        bell = threading.Lock()
        bell.acquire()
        while True:
            try:
                return self._values.popleft()
            except IndexError:
                pass
            over = False
            self._bells.add(bell)
            try:
                over = self._over()  # asked before the values are: what was sent before the end is read
                if not over and not self._values:
                    acquire(bell)
            finally:
                self._bells.discard(bell)
            if over and not self._values:
                raise StopIteration

    def _over(self) -> bool:
        return self._closed or (self._opened and not self._sources)

    def _ring(self) -> None:
        for bell in list(self._bells):
            with suppress(RuntimeError):  # somebody else has just rung
                bell.release()

    # -- the pools' side -------------------------------------------------------------------------

    def _extend(self, values: Iterable[T]) -> None:
        """Put in what an attempt has sent that has succeeded, all at once."""
        if not self._closed:
            self._values.extend(values)
            if self._bells:
                self._ring()

    def _open_source(self, source: object) -> None:
        self._sources.add(source)
        self._opened = True

    def _end_source(self, source: object) -> None:
        self._sources.discard(source)
        self._ring()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Drain {state}: {self.count()} values>"
