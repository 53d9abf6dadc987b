"""Groups, the failure domains of a pool, and when they are given work: cool-downs and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrypool.core.seat import Seat

__all__ = ["Group", "cool_down"]

FIRST_COOL_DOWN = 1.0
LONGEST_COOL_DOWN = 60.0


class Group:
    """A failure domain: a credential, a host, a quota. All fields are written under the pool's lock.

    Tried sets hold groups, not names: a group that leaves and one of the same name that comes later are
    two, and a task that the first has failed may go to the second.
    """

    __slots__ = ("alone", "name", "probe", "seats", "throttles", "until")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alone = frozenset({self})  # the tried set of a task that only this group has failed
        self.seats: list[Seat] = []  # those not retired
        self.until: float | None = None  # it cools until then, and must then pass a probe
        self.probe: Seat | None = None  # the seat whose attempt is the probe
        self.throttles = 0  # in a row

    def refuses(self, seat: Seat, now: float) -> bool:
        """Return whether the group is given nothing now, or its probe is another seat's."""
        if self.until is None:
            return False
        return now < self.until or (self.probe is not None and self.probe is not seat)

    def cooling(self, now: float) -> bool:
        """Return whether the group is given nothing now."""
        return self.until is not None and now < self.until

    def cool(self, now: float, retry_after: float | None) -> float:
        """Give the group nothing for so long; None: 1 s, doubled with each time in a row, up to 60 s.

        A cool-down is never cut short by a later, shorter one. Returns its end.
        """
        self.throttles += 1
        until = now + (cool_down(self.throttles) if retry_after is None else retry_after)
        self.until = until if self.until is None else max(self.until, until)
        self.probe = None
        return self.until

    def recover(self) -> None:
        """Open the group: its probe came back, and it was not throttled again."""
        self.until = None
        self.probe = None
        self.throttles = 0

    def __repr__(self) -> str:
        return f"<Group {self.name}: {len(self.seats)} seats>"


def cool_down(throttles: int) -> float:
    """Return the seconds of a cool-down whose length nobody told, after so many in a row."""
    return min(FIRST_COOL_DOWN * 2.0 ** min(throttles - 1, 10), LONGEST_COOL_DOWN)
