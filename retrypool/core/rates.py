"""How fast a group may be called: a rate that is told, or one that is learnt from its answers.

A told rate is kept by the generic cell rate algorithm (ITU-T I.371, annex A), the form of the token
bucket that needs no more than one number: the moment at which the bucket will be full again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from retrypool.durations import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue

__all__ = ["Bucket", "Learner", "Pace", "Rate", "RateOption", "as_pace"]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` calls `per` seconds, of which `burst` may come at once after a rest.

    `burst` is 1 by default: calls are spread evenly, which no server can mind. Give what the server's
    documentation says. A task may count as more than one call, see `dispatch(cost=…)`.

    >>> Rate(600, per=60)
    Rate(limit=600, per=60.0, burst=1)
    """

    limit: float
    per: float = 1.0
    burst: float = 1

    def __init__(self, limit: float, per: Duration = 1.0, burst: float = 1) -> None:
        object.__setattr__(self, "limit", _positive("limit", limit))
        object.__setattr__(self, "per", seconds("per", per, positive=True))
        object.__setattr__(self, "burst", _positive("burst", burst))
        if burst < 1:  # there would never be room for a call at the rate that is asked for
            raise InvalidValue("burst", burst, "1 or more")

    @property
    def interval(self) -> float:
        """Seconds from one call to the next, when they are spread evenly."""
        return self.per / self.limit


RateOption = Rate | Literal["learn"] | None
"""What may be said of a rate: how fast, that it is to be learnt, or nothing."""


class Pace(Protocol):
    """Says when the next call may be made, and is told what is made and what comes of it."""

    def ready_at(self, now: float) -> float:
        """Return the moment from which a call may be made; `now` or before: now."""
        ...

    def take(self, now: float, cost: float) -> None:
        """Take notice of a call that is about to be made."""
        ...

    def settle(self, difference: float) -> None:
        """Take notice that a call cost so much more (or less, if negative) than was taken for it."""
        ...

    def refused(self, now: float, until: float) -> None:
        """Take notice that a call was refused, and that there will be none before `until`."""
        ...

    @property
    def per_second(self) -> float | None:
        """The present rate; None: as fast as it goes."""
        ...


class Bucket:
    """Keeps a told rate. A call that costs more than there is goes into debt, and the next one waits."""

    __slots__ = ("_full_at", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._full_at = -math.inf  # the theoretical arrival time of the algorithm

    def ready_at(self, now: float) -> float:  # noqa: ARG002 - the bucket knows by itself
        """Return the moment at which there is room for one call."""
        return self._full_at - (self._rate.burst - 1) * self._rate.interval

    def take(self, now: float, cost: float) -> None:
        """Pour in `cost` calls."""
        self._full_at = max(self._full_at, now) + cost * self._rate.interval

    def settle(self, difference: float) -> None:
        """Pour in some more, or take some out."""
        self._full_at += difference * self._rate.interval

    def refused(self, now: float, until: float) -> None:
        """Do nothing: what is told is kept to, and a cool-down is another thing."""

    @property
    def per_second(self) -> float | None:
        """The rate that was told."""
        return self._rate.limit / self._rate.per


class Learner:
    """Finds the rate from refusals.

    A refusal says that the server's bucket is empty. Between two of them, as many calls were accepted as
    the server allows in that time: so the second one tells the rate, whatever the burst, and further
    ones tell it better. From then on the rate is set a little below what was found at each refusal, and
    raised by a small step with each call (additive increase, multiplicative decrease: Chiu and Jain,
    1989), so that it follows when what is allowed changes. The less is known, the larger the step.
    """

    DECREASE = 0.95  # of the rate that was found, at a refusal
    STEPS = (0.002, 0.05)  # the smallest and the largest step, as a share of the rate that was found
    MEMORY = 60.0  # seconds after which what was counted is forgotten

    __slots__ = ("_accepted", "_found", "_full_at", "_rate", "_resumed_at", "_since", "_step")

    def __init__(self) -> None:
        self._rate = math.inf  # calls per second
        self._step = 0.0  # what each call adds to that
        self._found: float | None = None
        self._full_at = -math.inf  # as in Bucket, with a burst of 1
        self._since: float | None = None  # the refusal from which on is counted
        self._accepted = 0.0  # calls since then, those that were refused taken out again
        self._resumed_at = -math.inf  # the end of the pause that the last refusal told

    def ready_at(self, now: float) -> float:  # noqa: ARG002 - it knows by itself
        """Return the moment at which the next call is due."""
        return self._full_at

    def take(self, now: float, cost: float) -> None:
        """Count a call, and go a little faster."""
        self._accepted += cost
        if self._rate < math.inf:
            self._full_at = max(self._full_at, now) + cost / self._rate
            self._rate += self._step

    def settle(self, difference: float) -> None:
        """Count some more, or less."""
        self._accepted += difference
        if self._rate < math.inf:
            self._full_at += difference / self._rate

    def refused(self, now: float, until: float) -> None:
        """Learn from a refusal. Those of calls that were under way at the last one tell nothing new."""
        news = now >= self._resumed_at
        self._resumed_at = max(self._resumed_at, until)
        if self._since is None:
            self._since = now
            self._accepted = 0.0
        elif news or self._found is not None:
            self._accepted -= 1
        if news and now > self._since and self._accepted >= 1:
            self._learn(self._accepted, now - self._since)
            if now - self._since > self.MEMORY:
                self._since = now
                self._accepted = 0.0

    def _learn(self, accepted: float, elapsed: float) -> None:
        smallest, largest = self.STEPS
        self._found = accepted / elapsed
        self._step = self._found * min(largest, max(smallest, 0.1 / accepted))
        self._rate = self._found * self.DECREASE

    @property
    def per_second(self) -> float | None:
        """The rate at present; None while nothing was refused twice."""
        return None if self._rate == math.inf else self._rate


def as_pace(rate: RateOption) -> Pace | None:
    """Return what keeps `rate`. Raises `InvalidType` for what is no rate."""
    if rate is None:
        return None
    if rate == "learn":
        return Learner()
    if isinstance(rate, Rate):
        return Bucket(rate)
    raise InvalidType("rate", rate, "a Rate, such as Rate(10, per=1.0), or 'learn'")


def _positive(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidType(what, value, "a number")
    if not (math.isfinite(value) and value > 0):
        raise InvalidValue(what, value, "a number greater than 0")
    return value
