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
    the server allows in that time: so the second one tells the rate, whatever the burst. From there on
    the rate is lowered by a part at each refusal, and raised by a small step with each call that is
    accepted (additive increase, multiplicative decrease: Chiu and Jain, 1989), so that it stays just
    below what is allowed, and follows when that changes.
    """

    DECREASE = 0.95  # of the rate that was found, at each refusal
    INCREASE = 0.002  # of the rate that was found, with each call

    __slots__ = ("_bucket_empty_at", "_found", "_full_at", "_made", "_rate", "_resumed_at")

    def __init__(self) -> None:
        self._rate = math.inf  # calls per second
        self._found = 0.0  # what the last two refusals told
        self._full_at = -math.inf  # as in Bucket, with a burst of 1
        self._bucket_empty_at: float | None = None  # the last refusal
        self._resumed_at = -math.inf  # the end of the pause that it was told
        self._made = 0.0  # calls since then

    def ready_at(self, now: float) -> float:  # noqa: ARG002 - it knows by itself
        """Return the moment at which the next call is due."""
        return self._full_at

    def take(self, now: float, cost: float) -> None:
        """Count a call, and go a little faster."""
        self._made += cost
        if self._rate < math.inf:
            self._full_at = max(self._full_at, now) + cost / self._rate
            self._rate += self._found * self.INCREASE

    def settle(self, difference: float) -> None:
        """Count some more, or less."""
        self._made += difference
        if self._rate < math.inf:
            self._full_at += difference / self._rate

    def refused(self, now: float, until: float) -> None:
        """Learn from a refusal. Those of calls that were under way at the last one tell nothing new."""
        if self._bucket_empty_at is not None and now < self._resumed_at:
            self._resumed_at = max(self._resumed_at, until)
            return
        accepted = max(self._made - 1, 0.0)  # the last one was not
        if self._bucket_empty_at is not None and accepted > 0 and now > self._bucket_empty_at:
            measured = accepted / (now - self._bucket_empty_at)
            self._found = min(measured, self._rate)
            self._rate = self._found * self.DECREASE
        elif self._rate < math.inf:
            self._rate *= self.DECREASE / 2  # refused at once after a pause: far too fast
            self._found = self._rate
        self._bucket_empty_at = now
        self._resumed_at = until
        self._made = 0.0

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
