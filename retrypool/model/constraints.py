"""Who may take a task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from retrypool.checks import exact
from retrypool.errors import InvalidType

if TYPE_CHECKING:
    from retrypool.model.slots import Group, Slot

__all__ = ["Constraints", "tag_set"]


NO_TAGS: frozenset[str] = frozenset()
"""One for all: each call of `frozenset` makes another, of 216 bytes."""


class Constraints(NamedTuple):
    """Whom a task is for. Tasks of the same constraints and rank share a subqueue."""

    tried: frozenset[Group] = frozenset()  # groups that have failed it
    require: frozenset[str] = frozenset()  # tags that the worker must have
    worker: int | None = None  # the only worker that may
    exclude: frozenset[int | str] = frozenset()  # workers and groups that may not

    def admits(self, slot: Slot) -> bool:
        """Return whether the worker at `slot` may take these tasks."""
        return slot.group not in self.tried and self.suits(slot)

    def suits(self, slot: Slot) -> bool:
        """Return whether it could, had it not tried them."""
        return (
            self.require <= slot.tags
            and self.worker in (None, slot.id)
            and (not self.exclude or self.exclude.isdisjoint((slot.id, slot.group.name)))
        )


def tag_set(what: str, tags: Iterable[str]) -> frozenset[str]:
    """Return `tags` as a set. Raises `InvalidType`, also for a string, which would be a set of letters."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidType(what, tags, "a set of strings, such as {'premium'}")
    names = list(tags)  # no set yet: what is no string need not be hashable
    for name in names:
        if not isinstance(name, str):
            raise InvalidType(what, name, "a string")
    return frozenset(map(exact, names)) if names else NO_TAGS
