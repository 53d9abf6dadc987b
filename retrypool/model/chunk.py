"""Several items that one worker takes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrypool.model.completion import Reporter

__all__ = ["PENDING", "Chunk"]

PENDING: Any = type("Pending", (), {"__repr__": lambda _: "pending"})()
"""In place of the result of an item that has none yet."""


class Chunk:
    """Items of one `map` that are claimed at once, as the data of one task, and what has come of each.

    An item that fails becomes a task of its own, with that failure as its first attempt, and is tried again
    by itself. If the worker is taken away from the chunk, the next one goes on where it had come to.
    """

    # Written by the worker that runs it, one entry at a time; one that was taken away from it may still write
    # the entry that it was at. Read by others once the task has ended.
    __slots__ = ("begun", "complete", "failed", "items", "reporter", "results")

    def __init__(self, items: list[Any], reporter: Reporter | None) -> None:
        self.items = items
        self.reporter = reporter  # hears of the end of the chunk, and of items that have failed
        self.results: list[Any] = [PENDING] * len(items)
        self.begun = False  # a worker has had it
        self.complete = False  # each item has a result
        self.failed: dict[int, Any] = {}  # the tasks of items that have failed, by the place of the item

    def __repr__(self) -> str:
        return f"<Chunk of {len(self.items)} items>"
