"""How many retries a pool may make: a part of its first attempts, so that retries never pile up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retrypool.checks import exact
from retrypool.errors import InvalidType, InvalidValue

__all__ = ["Budget", "RetryBudget"]

HOLDS = 10.0
"""Seconds for which a pool can save up what it does not spend on retries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `ratio` retries for each first attempt, and `per_second` more in any case.

    When it is used up, retries are postponed, not dropped. The idea is that of Finagle's retry budgets.
    """

    ratio: float = 0.2
    per_second: float = 10.0

    def __post_init__(self) -> None:
        for what in ("ratio", "per_second"):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidType(what, value, "a number")
            value = exact(value)
            try:
                fits = math.isfinite(value) and value >= 0
            except OverflowError:
                fits = False
            if not fits:
                raise InvalidValue(what, value, "a number, 0 or more")
            object.__setattr__(self, what, value)
        if self.per_second == 0:
            raise InvalidValue("per_second", 0, "more than 0, so that every retry comes at last")


class RetryBudget:
    """What a pool has left of its budget. It may owe: each retry in debt is later than the one before."""

    __slots__ = ("_balance", "_budget", "_firsts", "_full", "_now")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._full = max(1.0, budget.per_second * HOLDS)
        self._balance = self._full
        self._now = -math.inf
        self._firsts = 0

    def spend(self, now: float, firsts: int) -> float:
        """Pay for a retry; return for how many seconds it has to wait at least.

        `firsts` counts the first attempts that were made since the pool was.
        """
        budget = self._budget
        earned = max(firsts - self._firsts, 0) * budget.ratio
        if self._now > -math.inf:
            earned += (now - self._now) * budget.per_second
        self._firsts, self._now = firsts, now  # fewer than before, if those of a worker have gone with it
        self._balance = min(self._balance + earned, self._full) - 1.0
        return 0.0 if self._balance >= 0 else -self._balance / budget.per_second
