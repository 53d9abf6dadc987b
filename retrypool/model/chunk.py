"""Several items that one worker takes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrypool.model.completion import Reporter

__all__ = ["PENDING", "Chunk"]

PENDING: Any = type("Pending", (), {"__repr__": lambda _: "pending"})()
"""In place of the result of an item that has failed."""


class Chunk:
    """Items of one `map` that are claimed at once, as the data of one task, and what has come of each.

    An item that fails becomes a task of its own, with that failure as its first attempt, and is tried again
    by itself. If the worker is taken away from the chunk, the next one goes on where it had come to.
    """

    # Each attempt has a list and a dict of its own: one that is over may still write what comes of the item
    # that it is at, and no further. Exchanged by whoever takes an attempt over, before another one can begin;
    # written by the worker of the attempt: first into `failed`, then PENDING into `results`. Read by others
    # once the task has ended.
    __slots__ = ("counted", "failed", "items", "reporter", "results")

    def __init__(self, items: list[Any], reporter: Reporter | None) -> None:
        self.items = items
        self.reporter = reporter  # hears of the end of the chunk, and of items that have failed
        self.results: list[Any] = []  # of the first items, as far as a worker has come
        self.failed: dict[int, Any] = {}  # the tasks of items that have failed, by the place of the item
        self.counted = 0  # how many results there were when that was asked last

    def go_on(self) -> None:
        """Have results and failures for another attempt to add to: it goes on behind them."""
        self.results, self.failed = self.results[:], self.failed.copy()
        if len(self.results) in self.failed:  # it was interrupted before it noted that here as well
            self.results.append(PENDING)

    def count(self, itself: int = 0) -> int:
        """Return how many items have succeeded since this was asked last, in whatever attempt.

        At the end without one of them: then the chunk `itself` is counted.
        """
        before, self.counted = self.counted, len(self.results) - len(self.failed) - itself
        return self.counted - before

    def has_result(self, place: int) -> bool:
        """Return whether the item at `place` has a result."""
        return place < len(self.results) and self.results[place] is not PENDING

    def __repr__(self) -> str:
        return f"<Chunk of {len(self.items)} items>"
