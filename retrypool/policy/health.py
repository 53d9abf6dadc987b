"""Groups, the failure domains of a pool: when they are given work, and when they are given a rest."""

from __future__ import annotations

from dataclasses import dataclass, fields

from retrypool.checks import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue

__all__ = ["HealthPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """How a pool looks after its groups. Times are in seconds.

    - A group that failed `witnesses` different tasks in a row, where the others fail few, is a *suspect*:
      it is given nothing until one of these tasks was tried elsewhere, for a second at the most.
    - It is *ejected* when it failed so many tasks which then succeeded elsewhere, `witnesses` at the least,
      that it can't be chance. The test is Page's cumulative sum test (Biometrika 41, 1954), for a group that
      fails half of what the others don't, with one false alarm in a million attempts. A success speaks
      against it, and a task that all groups have failed speaks against none.
    - It is ejected too when `faults_in_a_row` of its attempts, or `fault_share` of at least `sample`, failed
      by what its worker called its own fault (`WorkerFault`).
    - An ejection takes `ejection` at first, each further one in a row twice as long, up to
      `longest_ejection`; then the group is given one task, and is back if that succeeds. At most
      `ejected_share` of the groups are ejected at a time, and never the last one.
    - When all groups fail, one different task after the other, although things had worked before, that is an
      *outage*: the pool holds. Nothing is charged, also not for the failures that showed it; one task at a
      time is tried, at growing intervals; and everything goes on at the first success. It is taken for an
      outage for `outage_limit` if the errors speak of the network (`ConnectionError`, `TimeoutError`,
      `OSError`, or what `blame` calls `"outage"`), and for a second if not: then the tasks are to blame. With
      0 there are no outages.

    A task does not die of attempts on groups that are ejected, or that fail one task after the other, while
    a group that works has not tried it. One that `witnesses` healthy groups gave their own fault for is at
    fault itself from then on.
    """

    faults_in_a_row: int = 5
    fault_share: float = 0.5
    sample: int = 20
    witnesses: int = 3
    ejection: Duration = 1.0
    longest_ejection: Duration = 60.0
    ejected_share: float = 1.0
    outage_limit: Duration = 300.0

    def __post_init__(self) -> None:
        for what in ("ejection", "longest_ejection"):
            object.__setattr__(self, what, seconds(what, getattr(self, what), positive=True))
        object.__setattr__(self, "outage_limit", seconds("outage_limit", self.outage_limit))
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidType(entry.name, value, "a number")
            if not value > 0 and entry.name != "outage_limit":
                raise InvalidValue(entry.name, value, "more than 0")
        for share in ("fault_share", "ejected_share"):
            if getattr(self, share) > 1:
                raise InvalidValue(share, getattr(self, share), "a share, 1 at the most")

    @property
    def limit_of_outage(self) -> float:
        """`outage_limit` in seconds."""
        return seconds("outage_limit", self.outage_limit)

    def length_of_ejection(self, number: int) -> float:
        """Return the seconds of the n-th ejection in a row."""
        first, longest = seconds("ejection", self.ejection), seconds("", self.longest_ejection)
        return min(first * 2.0 ** min(number - 1, 60), longest)
