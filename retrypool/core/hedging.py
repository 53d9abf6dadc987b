"""Which attempts are stragglers, and whether one more second attempt may be made.

Pure. All methods are called under the pool's lock, except `succeeded`.
"""

from __future__ import annotations

import math
from collections import deque

from retrypool.model.slots import Group
from retrypool.policy.hedge import LATEST, Hedge

__all__ = ["Hedging"]

SHORTEST = 0.01
"""Seconds after which an attempt may be a straggler at the earliest: a switch of threads takes as long."""


class Hedging:
    """What is known of the lengths of attempts, and of the second attempts made so far."""

    def __init__(self, policy: Hedge) -> None:
        self.policy = policy
        self.hedged = 0  # second attempts begun
        self.won = 0  # those that ended their task
        self._latest: deque[tuple[Group, float]] = deque(maxlen=LATEST)

    def succeeded(self, group: Group, duration: float) -> None:
        """Record the duration of an attempt that has succeeded. Needs no lock: it is one append."""
        self._latest.append((group, duration))

    def limit(self) -> float | None:
        """Return the seconds after which an attempt is a straggler; None while too little is known.

        >>> hedging = Hedging(Hedge(after=2.0, quantile=0.5, sample=3))
        >>> for duration in (0.1, 0.2, 5.0):
        ...     hedging.succeeded(Group("a"), duration)
        >>> hedging.limit()
        0.4
        """
        durations = sorted([duration for _, duration in self._latest.copy()])
        policy = self.policy
        if len(durations) < policy.sample:
            return None
        place = math.ceil(policy.quantile * len(durations)) - 1
        return max(policy.after * durations[place], SHORTEST)

    def allows_another(self, attempts: int) -> bool:
        """Return whether one more second attempt keeps to the share, after so many attempts in all."""
        return self.hedged + 1 <= self.policy.share * (attempts + 1)

    def is_slow(self, group: Group, limit: float) -> bool:
        """Return whether a group takes so long itself that it is no help, as its latest success tells."""
        for other, duration in reversed(self._latest.copy()):
            if other is group:
                return duration >= limit
        return False
