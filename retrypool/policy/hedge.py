"""When a task that takes much longer than others is begun a second time, elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from retrypool.errors import InvalidType, InvalidValue

__all__ = ["Hedge", "HedgeOption", "as_hedge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Which attempts count as stragglers, and how many second attempts there may be.

    An attempt is a *straggler* once it has run `after` times as long as the `quantile` of the last hundred
    attempts that succeeded; before `sample` have, and within the first 10 ms, none is. Where 90% of the calls
    take 0.2 s at the most, the default means: after 0.6 s. If a worker of another group, which may take the
    task and has not failed it, then has nothing to do, the task is *hedged*: that worker begins it too. The
    first attempt to succeed ends the task; the other one is cancelled. If one fails, the other goes on.

    At most `share` of all attempts are second ones; 0.05 is one in twenty.

    Sources: the hedged requests of Dean and Barroso, "The Tail at Scale" (Communications of the ACM 56(2),
    2013), which keep the load that is added small by waiting for a high quantile; the backup tasks of
    MapReduce (Dean and Ghemawat, OSDI 2004), which go to idle workers alone.

    Raises `InvalidType` or `InvalidValue` for numbers that make no sense.
    """

    after: float = 3.0
    quantile: float = 0.9
    share: float = 0.05
    sample: int = 10

    def __post_init__(self) -> None:
        for what in ("after", "quantile", "share", "sample"):
            value = getattr(self, what)
            kinds = int if what == "sample" else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise InvalidType(what, value, "a whole number" if what == "sample" else "a number")
        # Compared as it is: a whole number may be too large for a float.
        if not 1 <= self.after <= sys.float_info.max:
            raise InvalidValue("after", self.after, "a finite number of times, 1 at the least")
        for what in ("quantile", "share"):
            if not 0 < getattr(self, what) <= 1:
                raise InvalidValue(what, getattr(self, what), "a share of more than 0, 1 at the most")
        if not 1 <= self.sample <= LATEST:
            raise InvalidValue("sample", self.sample, f"1 to {LATEST}")


LATEST = 100
"""So many of the last attempts that succeeded are looked at."""

HedgeOption = Hedge | bool | None


def as_hedge(value: HedgeOption) -> Hedge | None:
    """Return what `Pool(hedge=…)` means. Raises `InvalidType`."""
    if isinstance(value, Hedge):
        return value
    if value is None or value is False:
        return None
    if value is True:
        return Hedge()
    raise InvalidType("hedge", value, "True, a Hedge, or None for no second attempts")
