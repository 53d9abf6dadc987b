"""When a failed task is tried again, and when it is given up: the only place where that is decided."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast

from retrypool.checks import Duration, exact, optional_seconds
from retrypool.errors import InvalidType, InvalidValue
from retrypool.policy.blame import Scope
from retrypool.policy.deadline import misses
from retrypool.policy.delays import (
    BetweenRounds,
    Delay,
    Exponential,
    Fixed,
    as_delay,
    between_rounds,
    exponential,
)
from retrypool.policy.failure import Failure, FailureAction
from retrypool.states import DeadReason

__all__ = [
    "DROPPED",
    "UNCHARGED",
    "UNLIMITED",
    "Cancel",
    "Decision",
    "GiveUp",
    "RetryIn",
    "RetryPolicy",
]

DROPPED: Final = "dropped by on_failure"
"""Why a task is cancelled that `FailureAction.DROP` ended."""

UNLIMITED: Final[float] = math.inf
"""As `attempts`: never give up for having tried too often."""

UNCHARGED: Final = 50
"""How many attempts that are not charged one task may have, before it is given up for them."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Decision: the task may be claimed again in `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Decision: the task is dead. `error` is what it is dead of, if not the last error."""

    reason: DeadReason
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Decision: the task ends cancelled."""

    reason: str


Decision = RetryIn | GiveUp | Cancel

RetryIf = Callable[[BaseException], bool] | type[BaseException] | tuple[type[BaseException], ...] | None
Jitter = Literal["auto", "full", "equal", "none"]

DEFAULT_DELAY: Final = between_rounds(exponential(0.1))
DEFAULT_CAP: Final = 30.0

_AT_ONCE = RetryIn(0.0)
_CAUSE = BaseException.__dict__["__cause__"]  # set past what an error may have in its place
_TASK = Scope.TASK


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When a failed task is tried again, and when it is given up. Delays are in seconds.

    - `attempts`: entries into `run`, the first one included; `UNLIMITED` never runs out.
    - `delay`: a number, a `timedelta`, or a function of the `Failure`, waited out before every retry.
      Default: `between_rounds(exponential(0.1))`, which lets a task go on at once to a group that has not
      tried it, while the fleet works.
    - `max_delay`: the cap on it; None for none. Default: 30 s for the default delay, none for a delay
      that you have written down.
    - `jitter`: `"full"` takes a random time between 0 and the delay, `"equal"` one between half of it
      and all of it, `"none"` or None the delay itself. Default: full for exponential delays (which is
      the default delay), none for the others. Full and equal jitter are those of M. Brooker,
      "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    - `retry_if`: an exception type, a tuple of types, or a predicate on the error; what it does not
      match is not retried.
    - `attempts_for`: attempts for some types of error: as soon as a task has failed that often by it.
    - `immediate`: no delay, and the front of the queue.

    Raises `InvalidValue` or `InvalidType` for what makes no sense.

    >>> policy = RetryPolicy(attempts=3, delay=2)
    >>> from retrypool import Failure
    >>> policy.decide(Failure(error=OSError("down"), attempt=1), now=0.0)
    RetryIn(delay=2.0)
    >>> policy.decide(Failure(error=OSError("down"), attempt=3), now=0.0)
    GiveUp(reason=<DeadReason.ATTEMPTS: 'attempts'>, error=None)
    """

    attempts: float = 3
    delay: Delay | Duration = DEFAULT_DELAY
    max_delay: Duration | Literal["auto"] | None = "auto"
    jitter: Jitter | None = "auto"
    retry_if: RetryIf = None
    attempts_for: Mapping[type[BaseException], int] = field(default_factory=dict)
    immediate: bool = False
    # Whether a retry within a round waits only for want of evidence that the fleet works.
    waits_between_rounds: bool = field(init=False, repr=False, compare=False)
    # The same, in the form in which it is used.
    _delay: Delay = field(init=False, repr=False, compare=False)
    _cap: float = field(init=False, repr=False, compare=False)
    _jitter: Jitter = field(init=False, repr=False, compare=False)
    _matches: Callable[[BaseException], bool] = field(init=False, repr=False, compare=False)
    _constant: RetryIn | None = field(init=False, repr=False, compare=False)
    # Whether a retry follows at once, whatever the task has failed by.
    always_at_once: bool = field(init=False, repr=False, compare=False)
    # Whether it takes nothing but to count to say that a task goes on at once within its round.
    _simple: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_attempts("attempts", self.attempts)
        object.__setattr__(self, "attempts", exact(self.attempts))
        if not isinstance(self.attempts_for, Mapping):
            raise InvalidType("attempts_for", self.attempts_for, "a mapping of error types to counts")
        for kind, count in self.attempts_for.items():
            if not _is_error_type(kind):
                raise InvalidType("a key of attempts_for", kind, "an exception type")
            _check_attempts(f"attempts_for[{kind.__name__}]", count)
        if self.jitter not in (None, "auto", "full", "equal", "none"):
            raise InvalidValue("jitter", self.jitter, "'full', 'equal', 'none' or None")
        if not isinstance(self.immediate, bool):
            raise InvalidType("immediate", self.immediate, "True or False")
        delay = as_delay(self.delay)
        cap: float | None
        if self.max_delay == "auto":
            cap = DEFAULT_CAP if delay is DEFAULT_DELAY else None
        else:
            cap = optional_seconds("max_delay", self.max_delay)
        keep = object.__setattr__
        keep(self, "delay", delay)
        if self.max_delay != "auto":
            keep(self, "max_delay", cap)
        keep(self, "attempts_for", dict(self.attempts_for))
        keep(self, "_delay", delay)
        keep(self, "_cap", sys.float_info.max if cap is None else cap)
        keep(self, "_matches", _matcher(self.retry_if))
        grows = delay.delay if isinstance(delay, BetweenRounds) else delay
        usual = "full" if isinstance(grows, Exponential) else "none"
        keep(self, "_jitter", usual if self.jitter == "auto" else self.jitter or "none")
        keep(self, "waits_between_rounds", isinstance(delay, BetweenRounds) and not self.immediate)
        constant = self._find_constant()
        keep(self, "_constant", constant)
        keep(self, "always_at_once", constant is not None and constant.delay == 0)
        counts_only = self.retry_if is None and not self.attempts_for
        keep(self, "_simple", counts_only and self.waits_between_rounds)

    def _find_constant(self) -> RetryIn | None:
        """Return the decision for whatever a task has failed of, if there is but one until it gives up."""
        if self.retry_if is not None or self.attempts_for:
            return None
        if self.immediate:
            return _AT_ONCE
        if isinstance(self._delay, Fixed) and (self._jitter == "none" or self._delay.delay == 0):
            return RetryIn(min(self._delay.delay, self._cap))
        return None

    def __reduce__(self) -> tuple[object, ...]:
        # What is made of the fields is made anew.
        given = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init}
        return _made_again, (type(self), given)

    def __hash__(self) -> int:
        return hash(
            (self.attempts, self.max_delay, self.jitter, self.immediate)
        )  # the others can't be hashed

    def decide_by_count(
        self, scope: Scope, charged: int, uncharged: int, *, elsewhere: bool
    ) -> RetryIn | None:
        """Decide as `decide` does for a task without limits, if counting attempts is enough; or None."""
        if scope is _TASK and charged < self.attempts and uncharged < UNCHARGED:
            return _AT_ONCE if elsewhere and self._simple else self._constant
        return None

    def decide(self, failure: Failure, now: float) -> Decision:
        """Say what becomes of the task: `RetryIn` or `GiveUp` (or `Cancel`). Never raises, never waits.

        The first rule that applies decides; `now` is a moment on the pool's clock.
        """
        error = failure.error
        if failure.cancelled:
            return Cancel("cancelled while it ran")
        if failure.scope is Scope.UNRECOVERABLE:
            return GiveUp(DeadReason.UNRECOVERABLE)
        if failure.uncharged >= UNCHARGED and self.attempts != UNLIMITED:
            return GiveUp(DeadReason.ATTEMPTS)
        if failure.scope is Scope.THROTTLED:
            return self._in_time(_AT_ONCE, failure, now)
        try:
            if not self._matches(error):
                return GiveUp(DeadReason.NOT_RETRYABLE)
            if failure.action is not None:
                return self._obey(failure.action, failure)
            if self._used_up(failure):
                return GiveUp(DeadReason.ATTEMPTS)
            return self._in_time(RetryIn(self._wait(failure)), failure, now)
        except BaseException as broken:  # noqa: BLE001 - the task dies of it, and tells it
            if broken is not error:
                _CAUSE.__set__(broken, error)
            return GiveUp(DeadReason.POLICY_ERROR, broken)

    def _obey(self, action: FailureAction, failure: Failure) -> Decision:
        match action:
            case FailureAction.DEAD:
                return GiveUp(DeadReason.CALLBACK)
            case FailureAction.DROP:
                return Cancel(DROPPED)
            case FailureAction.RETRY:
                return RetryIn(self._wait(failure))

    def _used_up(self, failure: Failure) -> bool:
        for kind, limit in self.attempts_for.items():
            if isinstance(failure.error, kind):
                alike = sum(isinstance(error, kind) for error in failure.errors)
                if alike >= limit:
                    return True
        return failure.charged >= self.attempts

    def _in_time(self, retry: RetryIn, failure: Failure, now: float) -> Decision:
        if failure.time_limit is not None and failure.running_time >= failure.time_limit:
            return GiveUp(DeadReason.TIME_LIMIT)
        if misses(failure.deadline, now + retry.delay):
            return GiveUp(DeadReason.DEADLINE)
        return retry

    def _wait(self, failure: Failure) -> float:
        if self.immediate:
            return 0.0
        delay = self._delay(failure)
        if isinstance(delay, bool) or not isinstance(delay, (int, float)):
            raise InvalidType("what the delay function returned", delay, "a number of seconds")
        if not delay >= 0:
            raise InvalidValue("what the delay function returned", delay, "0 or more")
        delay = float(min(delay, self._cap))
        if self._jitter == "none" or delay == 0:
            return delay
        low = 0.0 if self._jitter == "full" else delay / 2
        return low + (delay - low) * failure.random()


def _made_again(kind: type[RetryPolicy], given: dict[str, Any]) -> RetryPolicy:
    return kind(**given)


def _check_attempts(what: str, value: object) -> None:
    expected = "a whole number, 1 or more, or UNLIMITED"
    if value == UNLIMITED:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(what, value, expected)
    if value < 1:
        raise InvalidValue(what, value, expected)


def _is_error_type(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _always(_error: BaseException) -> bool:
    return True


def _matcher(retry_if: RetryIf) -> Callable[[BaseException], bool]:
    """Return the predicate that `retry_if` stands for."""
    if retry_if is None:
        return _always
    kinds = retry_if if isinstance(retry_if, tuple) else (retry_if,)
    if all(_is_error_type(kind) for kind in kinds):
        return lambda error: isinstance(error, kinds)  # type: ignore[arg-type]
    if callable(retry_if):
        return cast("Callable[[BaseException], bool]", retry_if)
    raise InvalidType("retry_if", retry_if, "an exception type, a tuple of them, or a predicate")
