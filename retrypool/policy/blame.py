"""Whose fault a failure is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from retrypool.errors import AttemptTimeout, InvalidType, InvalidValue, Throttled, Unrecoverable, WorkerFault
from retrypool.states import Outcome

__all__ = ["BlameOption", "Judge", "Scope", "Verdict", "as_judge", "outcome_of", "scope_of"]


class Scope(StrEnum):
    """Who answers for a failure."""

    TASK = "task"  # the task is tried elsewhere, and the attempt is charged to it
    GROUP = "group"  # the worker's group is ill: not charged while another group is live
    NOBODY = "nobody"  # tried again, not charged
    OUTAGE = "outage"  # as for the task, but it speaks of trouble behind all groups: see `HealthPolicy`
    THROTTLED = "throttled"  # the group was told to slow down: it cools, not charged
    UNRECOVERABLE = "unrecoverable"  # the task itself is wrong: it is dead


Verdict = Scope | str | type[Throttled] | type[WorkerFault] | type[Unrecoverable] | Throttled | None
"""What `blame` may answer: a scope or its name, one of the errors that stand for one, a `Throttled` with
its time, or None for what the error says by itself."""

BlameOption = Callable[[BaseException], Verdict] | Mapping[type[BaseException], Verdict] | None

Judge = Callable[[BaseException], tuple[Scope, object]]
"""Returns whose fault an error is, and what it says of the time to wait."""

_STANDS_FOR: Mapping[type[Exception], Scope] = {
    Throttled: Scope.THROTTLED,
    WorkerFault: Scope.GROUP,
    Unrecoverable: Scope.UNRECOVERABLE,
}


_SPEAKS_FOR_ITSELF = tuple(_STANDS_FOR)


def scope_of(error: BaseException) -> Scope:
    """Return whose fault an error is, by its type alone."""
    # By its type: an error may do anything when it is asked for its class.
    if issubclass(type(error), _SPEAKS_FOR_ITSELF):
        return next(scope for kind, scope in _STANDS_FOR.items() if issubclass(type(error), kind))
    return Scope.TASK


def as_judge(blame: BlameOption) -> Judge:
    """Return what judges errors by `blame`. Raises `InvalidType` or `InvalidValue` for what makes no sense.

    In a mapping, the entry for the most specific type decides.
    """
    if blame is None:
        return _by_itself
    if isinstance(blame, Mapping):
        for kind, verdict in blame.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise InvalidType("a key of blame", kind, "an exception type")
            if verdict is not None and not isinstance(verdict, Throttled):
                _check(verdict)
        table = dict(blame)

        def look_up(error: BaseException) -> Verdict:
            return next((table[kind] for kind in type(error).__mro__ if kind in table), None)

        return lambda error: _read(look_up(error), error)
    if callable(blame):
        return lambda error: _read(blame(error), error)
    raise InvalidType("blame", blame, "a function of the error, or a mapping of types to scopes")


def outcome_of(scope: Scope, error: BaseException) -> Outcome:
    """Return how an attempt ended that raised `error`."""
    if scope is not _TASK and scope in _OUTCOMES:
        return _OUTCOMES[scope]
    return Outcome.TIMED_OUT if issubclass(type(error), AttemptTimeout) else _FAILED


_TASK, _FAILED = Scope.TASK, Outcome.FAILED
_OUTCOMES = {
    Scope.THROTTLED: Outcome.THROTTLED,
    Scope.GROUP: Outcome.WORKER_FAULT,
    Scope.NOBODY: Outcome.EXCUSED,
}

_ITS_TASK = (Scope.TASK, None)


def _by_itself(error: BaseException) -> tuple[Scope, object]:
    if issubclass(type(error), _SPEAKS_FOR_ITSELF):
        return scope_of(error), getattr(error, "retry_after", None)
    return _ITS_TASK


def _read(verdict: Verdict, error: BaseException) -> tuple[Scope, object]:
    if verdict is None:
        return _by_itself(error)
    if isinstance(verdict, Throttled):
        return Scope.THROTTLED, verdict.retry_after
    return _check(verdict), getattr(error, "retry_after", None)


def _check(verdict: object) -> Scope:
    if isinstance(verdict, type) and verdict in _STANDS_FOR:
        return _STANDS_FOR[verdict]
    try:
        return Scope(verdict)  # type: ignore[arg-type]
    except ValueError:
        known = ", ".join(repr(scope.value) for scope in Scope)
        raise InvalidValue("what blame says", verdict, f"one of {known}") from None
