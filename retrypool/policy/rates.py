"""How fast a group may be called: a rate that is told, or one that is learnt from its answers.

A told rate is kept by the generic cell rate algorithm (ITU-T I.371, annex A), the form of the token
bucket that needs no more than one number: the moment at which the bucket will be full again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from retrypool.checks import Duration, exact, plain, seconds
from retrypool.errors import InvalidType, InvalidValue

__all__ = ["Bucket", "Pace", "Rate", "RateOption", "as_pace", "as_rate", "checked_cost"]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` calls `per` seconds, of which `burst` may come at once after a rest.

    `burst` is 1 by default: calls are spread evenly, which no server can mind. Give what the server's
    documentation says. A task may count as more than one call, see `dispatch(cost=…)`.

    `cost` is what a call counts as for this rate, in place of what the task says: a number, or a function of
    the data, such as one that counts tokens. It is called on the worker's thread before `run`, once for each
    attempt; what it raises fails the attempt. So a group can have several rates:
    `rate=[Rate(60, per=60), Rate(90_000, per=60, cost=tokens)]`.

    >>> Rate(600, per=60)
    Rate(limit=600, per=60.0, burst=1)
    """

    limit: float
    per: float = 1.0
    burst: float = 1
    cost: float | Callable[[Any], float] | None = None

    def __init__(
        self,
        limit: float,
        per: Duration = 1.0,
        burst: float = 1,
        cost: float | Callable[[Any], float] | None = None,
    ) -> None:
        object.__setattr__(self, "limit", _positive("limit", limit))
        object.__setattr__(self, "per", seconds("per", per, positive=True))
        object.__setattr__(self, "burst", _positive("burst", burst))
        if burst < 1:  # there would never be room for a call at the rate that is asked for
            raise InvalidValue("burst", burst, "1 or more")
        if cost is not None and not callable(cost):
            cost = checked_cost("cost", cost)
        object.__setattr__(self, "cost", cost)

    def __repr__(self) -> str:
        own = "" if self.cost is None else f", cost={self.cost!r}"
        return f"Rate(limit={self.limit!r}, per={self.per!r}, burst={self.burst!r}{own})"

    @property
    def interval(self) -> float:
        """Seconds from one call to the next, when they are spread evenly."""
        return self.per / self.limit


RateOption = Rate | Sequence[Rate] | None
"""What may be said of a rate: how fast, in one way or several, or nothing."""


class Pace(Protocol):
    """Says when the next call may be made, and is told what is made and what comes of it."""

    def ready_at(self, now: float) -> float:
        """Return the moment from which a call may be made; `now` or before: now."""
        ...

    def take(self, now: float, cost: float) -> None:
        """Count a call that is about to be made."""
        ...

    def settle(self, difference: float) -> None:
        """Correct the cost of a call: it was more by `difference` than was taken, or less if negative."""
        ...

    def undo(self, cost: float) -> None:
        """Give back what was taken for a call that is not made."""
        ...

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The told rates that it keeps."""
        ...

    @property
    def per_second(self) -> float | None:
        """The present rate; None: as fast as it goes."""
        ...


class Bucket:
    """Keeps a told rate. A call that costs more than there is goes into debt, and the next one waits."""

    __slots__ = ("_full_at", "_rate", "buckets", "measured")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self.buckets = (self,)
        self.measured = callable(rate.cost)  # what a call costs is only known once the data is looked at
        self._full_at = -math.inf  # the theoretical arrival time of the algorithm

    def ready_at(self, now: float) -> float:  # noqa: ARG002 - the bucket knows by itself
        """Return the moment at which there is room for one call."""
        return self._full_at - (self._rate.burst - 1) * self._rate.interval

    @property
    def rate(self) -> Rate:
        """The rate that was told."""
        return self._rate

    def charge(self, cost: float) -> float:
        """Return what is poured in for a call of a task that costs `cost`, before its data is looked at."""
        own = self._rate.cost
        if own is None:
            return cost
        return 0.0 if callable(own) else own

    def take(self, now: float, cost: float) -> None:
        """Pour in what a call costs."""
        self._full_at = max(self._full_at, now) + self.charge(cost) * self._rate.interval

    def undo(self, cost: float) -> None:
        """Take out what was poured in."""
        self._full_at -= self.charge(cost) * self._rate.interval

    def settle(self, difference: float) -> None:
        """Pour in some more, or take some out, unless this rate has a cost of its own."""
        if self._rate.cost is None:
            self.pour(difference)

    def pour(self, difference: float) -> None:
        """Pour in some more, or take some out."""
        self._full_at += difference * self._rate.interval

    @property
    def per_second(self) -> float | None:
        """The rate that was told."""
        return self._rate.limit / self._rate.per


class Buckets:
    """Keeps several told rates: a call waits until all of them allow it."""

    __slots__ = ("buckets",)

    def __init__(self, rates: Sequence[Rate]) -> None:
        self.buckets = tuple(Bucket(rate) for rate in rates)

    def ready_at(self, now: float) -> float:
        """Return the moment at which there is room in all of them."""
        return max(bucket.ready_at(now) for bucket in self.buckets)

    def take(self, now: float, cost: float) -> None:
        """Pour into each what a call costs there."""
        for bucket in self.buckets:
            bucket.take(now, cost)

    def undo(self, cost: float) -> None:
        """Take out of each what was poured in."""
        for bucket in self.buckets:
            bucket.undo(cost)

    def settle(self, difference: float) -> None:
        """Correct those that go by the cost of the task."""
        for bucket in self.buckets:
            bucket.settle(difference)

    @property
    def per_second(self) -> float | None:
        """The first of the rates."""
        return self.buckets[0].per_second


def as_pace(rate: RateOption) -> Pace | None:
    """Return what keeps `rate`. Raises `InvalidType` for what is no rate."""
    if rate is None:
        return None
    rate = as_rate(rate)
    return Bucket(rate) if isinstance(rate, Rate) else Buckets(rate)


def as_rate(rate: Rate | Sequence[Rate]) -> Rate | tuple[Rate, ...]:
    """Return what was told as a rate, or as several in a tuple. Raises `InvalidType` or `InvalidValue`."""
    if isinstance(rate, Rate):
        return plain(Rate, rate)
    if isinstance(rate, (list, tuple)) and all(isinstance(each, Rate) for each in rate):
        if not rate:
            raise InvalidValue("rate", rate, "at least one Rate")
        return tuple(plain(Rate, each) for each in rate)
    raise InvalidType("rate", rate, "a Rate, such as Rate(10, per=1.0), or a list of them")


def checked_cost(what: str, value: object) -> float:
    """Return `value` if it can be a cost: a number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidType(what, value, "a number of calls")
    try:
        cost = float(exact(value))
    except OverflowError:
        cost = math.inf
    if not (math.isfinite(cost) and cost >= 0):
        raise InvalidValue(what, value, "a number of calls, 0 or more")
    return cost


def _positive(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidType(what, value, "a number")
    value = exact(value)
    try:
        fits = math.isfinite(value) and value > 0
    except OverflowError:
        fits = False
    if not fits:
        raise InvalidValue(what, value, "a number greater than 0")
    return value
