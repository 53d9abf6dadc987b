"""How long a failed task waits: functions of the failure. All delays are in seconds."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrypool.checks import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue

if TYPE_CHECKING:
    from retrypool.policy.failure import Failure

__all__ = [
    "Delay",
    "as_delay",
    "between_rounds",
    "combine",
    "exponential",
    "fixed",
    "linear",
    "random_between",
]

Delay = Callable[["Failure"], float]
"""What a policy asks for its delay. Any function of a `Failure` that returns seconds will do."""


@dataclass(frozen=True, slots=True)
class Fixed:
    delay: float

    def __call__(self, _failure: Failure) -> float:
        return self.delay

    def __repr__(self) -> str:
        return f"fixed({self.delay:g})"


def _turn(failure: Failure) -> int:
    """Return the number that a growing delay grows by: of the attempts that are charged, or of rounds."""
    return failure.turn


@dataclass(frozen=True, slots=True)
class _Linear:
    step: float

    def __call__(self, failure: Failure) -> float:
        return self.step * _turn(failure)

    def __repr__(self) -> str:
        return f"linear({self.step:g})"


@dataclass(frozen=True, slots=True)
class Exponential:
    """`base * factor ** (attempt - 1)`, and never an overflow."""

    base: float
    factor: float

    def __call__(self, failure: Failure) -> float:
        if self.base == 0:
            return 0.0
        try:
            return min(self.base * self.factor ** (_turn(failure) - 1), sys.float_info.max)
        except OverflowError:
            return sys.float_info.max

    def __repr__(self) -> str:
        return f"exponential({self.base:g}, factor={self.factor:g})"


@dataclass(frozen=True, slots=True)
class _RandomBetween:
    low: float
    high: float

    def __call__(self, failure: Failure) -> float:
        return self.low + (self.high - self.low) * failure.random()

    def __repr__(self) -> str:
        return f"random_between({self.low:g}, {self.high:g})"


@dataclass(frozen=True, slots=True)
class _Sum:
    parts: tuple[Delay, ...]

    def __call__(self, failure: Failure) -> float:
        return sum(part(failure) for part in self.parts)

    def __repr__(self) -> str:
        return f"combine({', '.join(map(repr, self.parts))})"


@dataclass(frozen=True, slots=True)
class BetweenRounds:
    """`delay`, but for a retry that goes on within a round while the fleet works."""

    delay: Delay

    def __call__(self, failure: Failure) -> float:
        if failure.elsewhere:
            return 0.0
        turn = failure.turn
        failure.turn = failure.round  # a round is one try, however many groups it takes
        try:
            return self.delay(failure)
        finally:
            failure.turn = turn

    def __repr__(self) -> str:
        return f"between_rounds({self.delay!r})"


def fixed(delay: Duration) -> Delay:
    """Return a delay that is always the same."""
    return Fixed(seconds("delay", delay))


def linear(step: Duration) -> Delay:
    """Return a delay of `step` after the first attempt, twice that after the second, and so on."""
    return _Linear(seconds("step", step))


def exponential(base: Duration, *, factor: float = 2.0) -> Delay:
    """Return a delay of `base` after the first attempt, `factor` times as long after each further one.

    >>> from retrypool import Failure
    >>> delay = exponential(0.1)
    >>> [delay(Failure(error=OSError(), attempt=n)) for n in (1, 2, 3)]
    [0.1, 0.2, 0.4]
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float)):
        raise InvalidType("factor", factor, "a number, 1 or more")
    if not (math.isfinite(factor) and factor >= 1):
        raise InvalidValue("factor", factor, "a finite number, 1 or more")
    return Exponential(seconds("base", base), float(factor))


def random_between(low: Duration, high: Duration) -> Delay:
    """Return a delay that is uniform between `low` and `high`."""
    lowest, highest = seconds("low", low), seconds("high", high)
    if highest < lowest:
        raise InvalidValue("high", high, f"at least low, which is {lowest:g}")
    return _RandomBetween(lowest, highest)


def combine(*delays: Delay | Duration) -> Delay:
    """Return the sum of several delays.

    >>> combine(exponential(0.5), random_between(0, 1))
    combine(exponential(0.5, factor=2), random_between(0, 1))
    """
    if not delays:
        raise InvalidValue("delays", delays, "at least one delay")
    return _Sum(tuple(as_delay(delay) for delay in delays))


def between_rounds(delay: Delay | Duration) -> Delay:
    """Return `delay` before a new round, and none within one as long as the fleet works.

    A round is one try on each group that may take the task. Within it a retry goes to another resource,
    which needs no rest; if nothing has succeeded since the failed attempt began, that may be the same
    trouble everywhere, and the delay is waited out. A delay that grows does so with each round.

    >>> between_rounds(exponential(0.1))
    between_rounds(exponential(0.1, factor=2))
    """
    return BetweenRounds(as_delay(delay))


def as_delay(delay: Delay | Duration) -> Delay:
    """Return `delay` if it is a function, else a fixed delay of so many seconds."""
    return delay if callable(delay) else fixed(delay)
