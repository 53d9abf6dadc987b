"""How fast a group may be called: a rate that is told, or one that is learnt from its answers.

A told rate is kept by the generic cell rate algorithm (ITU-T I.371, annex A), the form of the token
bucket that needs no more than one number: the moment at which the bucket will be full again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from retrypool.checks import Duration, exact, plain, seconds
from retrypool.errors import InvalidType, InvalidValue

__all__ = ["Bucket", "Learner", "Pace", "Rate", "RateOption", "as_pace", "as_rate", "checked_cost"]


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


RateOption = Rate | Sequence[Rate] | Literal["learn"] | None
"""What may be said of a rate: how fast, in one way or several, that it is to be learnt, or nothing."""


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

    def undo(self, cost: float) -> None:
        """Take notice that a call is not made after all that was taken."""
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

    def refused(self, now: float, until: float) -> None:
        """Do nothing: what is told is kept to, and a cool-down is another thing."""

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

    def refused(self, now: float, until: float) -> None:
        """Do nothing, as a single bucket."""

    @property
    def per_second(self) -> float | None:
        """The first of the rates."""
        return self.buckets[0].per_second


class Learner:
    """Finds the rate from refusals.

    A refusal says that the server's bucket is empty. Between two of them, as many calls were accepted as
    the server allows in that time: so the second one tells the rate, whatever the burst, and further
    ones tell it better. From then on the rate is set a little below what was found at each refusal, and
    raised by a small step with each call (additive increase, multiplicative decrease: Chiu and Jain,
    1989), so that it follows when what is allowed changes. The less is known, the larger the step.

    Time in which nobody asked for a call says little: what is found then lies between what was accepted
    in all of the time, and in the rest of it. Calls that came later than they might have are no reason to
    go faster (RFC 7661). And when there was no refusal for long, there was more to be had all the time.
    """

    DECREASE = 0.95  # of the rate that was found, at a refusal
    UNSURE = 0.7  # of the rate there is, at a refusal that does not tell which one is right
    STEPS = (0.002, 0.05)  # the smallest and the largest step, as a share of the rate that was found
    CALM = 100  # calls without a refusal after which the steps begin to grow
    GROWTH = 1.02
    FASTEST = 1e6  # calls per second
    MEMORY = 60.0  # seconds after which what was counted is forgotten
    LULL = 1.0  # seconds without a call that may be the time which a call takes

    buckets: tuple[Bucket, ...] = ()

    __slots__ = (
        "_accepted",
        "_calm",
        "_full_at",
        "_idle",
        "_learnt",
        "_rate",
        "_resumed_at",
        "_since",
        "_step",
        "_taken_at",
    )

    def __init__(self) -> None:
        self._rate = math.inf  # calls per second
        self._step = 0.0  # what each call adds to that
        self._calm = 0  # calls since the last refusal
        self._learnt = False
        self._full_at = -math.inf  # as in Bucket, with a burst of 1
        self._taken_at = -math.inf  # the moment of the last call
        self._since: float | None = None  # the refusal from which on is counted
        self._accepted = 0.0  # calls since then, those that were refused taken out again
        self._idle = 0.0  # seconds since then in which nobody asked for a call
        self._resumed_at = -math.inf  # the end of the pause that the last refusal told

    def ready_at(self, now: float) -> float:  # noqa: ARG002 - it knows by itself
        """Return the moment at which the next call is due."""
        return self._full_at

    def take(self, now: float, cost: float) -> None:
        """Count a call, and go a little faster if it came as early as it might."""
        late = now - max(self._full_at, self._taken_at, self._resumed_at)
        if self._since is not None:
            self._idle += max(0.0, late - self.LULL)
        self._taken_at = now
        self._accepted += cost
        if self._learnt:
            self._full_at = max(self._full_at, now) + cost / self._rate
            if late * self._rate <= 1:
                self._rate = min(self._rate + self._step, self.FASTEST)
                self._calm += 1
                if self._calm > self.CALM:
                    self._step *= self.GROWTH

    def undo(self, cost: float) -> None:
        """Count a call less."""
        self.settle(-cost)

    def settle(self, difference: float) -> None:
        """Count some more, or less."""
        self._accepted += difference
        if self._learnt:
            self._full_at += difference / self._rate

    def refused(self, now: float, until: float) -> None:
        """Learn from a refusal. Those of calls that were under way at the last one tell nothing new."""
        news = now >= self._resumed_at
        self._resumed_at = max(self._resumed_at, until)
        if self._since is None:
            self._count_from(now)
            return
        if news or self._learnt:
            self._accepted -= 1
        if news and now > self._since and self._accepted >= 1:
            self._learn(now, now - self._since)

    def _learn(self, now: float, elapsed: float) -> None:
        in_use = elapsed - self._idle
        least = self._accepted / elapsed
        slow = self._calm > self.CALM  # so slow for so long that the server's bucket was full
        most = self._accepted / in_use if in_use > 0 and not slow else math.inf
        found = min(most, max(least, self.UNSURE * self._rate))
        if found < math.inf:
            smallest, largest = self.STEPS
            self._learnt = True
            self._step = found * min(largest, max(smallest, 0.1 / self._accepted))
            self._rate = found * self.DECREASE
            self._calm = 0
        if slow or elapsed > self.MEMORY:
            self._count_from(now)

    def _count_from(self, now: float) -> None:
        self._since = now
        self._accepted = self._idle = 0.0

    @property
    def per_second(self) -> float | None:
        """The rate at present; None while nothing was refused twice."""
        return self._rate if self._learnt else None


def as_pace(rate: RateOption) -> Pace | None:
    """Return what keeps `rate`. Raises `InvalidType` for what is no rate."""
    if rate is None:
        return None
    if rate == "learn":
        return Learner()
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
    raise InvalidType("rate", rate, "a Rate, such as Rate(10, per=1.0), a list of them, or 'learn'")


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
