"""Groups, the failure domains of a pool: when they are given work, and when they are given a rest."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from retrypool.checks import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue

if TYPE_CHECKING:
    pass

__all__ = [
    "HealthPolicy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """When a group counts as ill, and for how long it is given nothing then. Times are in seconds.

    A group is ejected when `faults_in_a_row` attempts failed by its own fault, or `fault_share` of at
    least `sample` attempts; or when it failed `witnesses` tasks that then succeeded elsewhere, and
    none succeeded on it meanwhile. If it has always failed some, more than `witnesses` are asked for:
    as many in a row as its own share of failures, in `sample` attempts or more, would bring about in
    one of 10,000 cases. The n-th time in a row it is ejected for n times `ejection`, up to
    `longest_ejection`; then it is given one task, and is back if that succeeds. At most `ejected_share`
    of the groups are ejected at a time, and never the last one.

    A task that `witnesses` healthy groups gave their own fault for is at fault itself from then on.
    """

    faults_in_a_row: int = 5
    fault_share: float = 0.5
    sample: int = 20
    witnesses: int = 3
    ejection: Duration = 30.0
    longest_ejection: Duration = 300.0
    ejected_share: float = 0.5

    def __post_init__(self) -> None:
        for what in ("ejection", "longest_ejection"):
            object.__setattr__(self, what, seconds(what, getattr(self, what), positive=True))
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidType(entry.name, value, "a number")
            if not value > 0:
                raise InvalidValue(entry.name, value, "more than 0")
        for share in ("fault_share", "ejected_share"):
            if getattr(self, share) > 1:
                raise InvalidValue(share, getattr(self, share), "a share, 1 at the most")
