"""Exact counts of attempts and of their lengths, in little memory however many there are."""

from __future__ import annotations

import math
from collections import Counter

__all__ = ["Durations", "Error", "Tally", "count_error"]

#: Buckets for each doubling of a duration: a quantile is off by 9% at the most.
FINENESS = 8

#: How many different texts of errors are counted apart.
KINDS = 50


Error = tuple[str, str]
"""The name of its type, and the first line of what it says."""


def count_error(errors: Counter[Error], error: Error) -> None:
    """Count an error: by its text too, as long as there are not too many different ones."""
    if error not in errors and len(errors) >= KINDS:
        error = (error[0] if (error[0], "") in errors or len(errors) < 2 * KINDS else "others", "")
    errors[error] += 1


class Durations:
    """Lengths of time, in buckets that grow in proportion to them."""

    __slots__ = ("_buckets", "count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0
        self._buckets: dict[int, tuple[int, float]] = {}  # how many, and their sum

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.count += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)
        self._add_to_bucket(math.floor(math.log2(max(seconds, 1e-9)) * FINENESS), 1, seconds)

    def _add_to_bucket(self, bucket: int, count: int, total: float) -> None:
        before, sum_before = self._buckets.get(bucket, (0, 0.0))
        self._buckets[bucket] = before + count, sum_before + total

    @property
    def mean(self) -> float:
        """The mean, 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return about how long at most the shortest `share` of them were; 0 if there are none."""
        wanted, seen = share * self.count, 0
        for _, (count, total) in sorted(self._buckets.items()):
            seen += count
            if seen >= wanted:
                return total / count
        return 0.0

    def merge(self, other: Durations) -> None:
        """Add what another has counted."""
        self.count += other.count
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        for bucket, (count, total) in other._buckets.items():
            self._add_to_bucket(bucket, count, total)


class Tally:
    """What the attempts of one worker, or of all, came to."""

    __slots__ = ("cost", "errors", "outcomes", "seconds", "useful")

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[Error] = Counter()
        self.useful = Durations()  # of the attempts that succeeded
        self.cost = 0.0  # how many calls they count as, where calls are paced
        self.seconds: dict[str, float] = {}  # of running time, by outcome

    def add(self, outcome: str, seconds: float, error: Error | None, cost: float = 1.0) -> None:
        """Count an attempt."""
        self.outcomes[outcome] += 1
        self.cost += cost
        self.seconds[outcome] = self.seconds.get(outcome, 0.0) + seconds
        if outcome == "succeeded":
            self.useful.add(seconds)
        elif error is not None:
            count_error(self.errors, error)

    @property
    def calls(self) -> int:
        """How many attempts there were."""
        return self.outcomes.total()

    @property
    def busy(self) -> float:
        """Seconds of running time of all attempts."""
        return sum(self.seconds.values())

    @property
    def succeeded(self) -> int:
        """How many of them succeeded."""
        return self.outcomes["succeeded"]

    @property
    def in_vain(self) -> int:
        """How many of them did not succeed."""
        return self.calls - self.succeeded

    def merge(self, other: Tally) -> None:
        """Add what another has counted."""
        self.outcomes.update(other.outcomes)
        self.errors.update(other.errors)
        self.useful.merge(other.useful)
        self.cost += other.cost
        for outcome, seconds in other.seconds.items():
            self.seconds[outcome] = self.seconds.get(outcome, 0.0) + seconds

    def copy(self) -> Tally:
        """Return another with the same counts."""
        other = Tally()
        other.merge(self)
        return other
