"""What a task may ask for: the options of `dispatch`, checked once and shared by many tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from retrypool.core.retry import RetryPolicy
from retrypool.durations import Duration, optional_seconds, seconds
from retrypool.errors import InvalidType

if TYPE_CHECKING:
    from retrypool.context import CancelToken

__all__ = ["TaskOptions", "TaskSettings"]

_NOTHING: Mapping[str, object] = MappingProxyType({})


def _nothing() -> Mapping[str, object]:
    return _NOTHING


class TaskOptions(TypedDict, total=False):
    """The keyword arguments of `dispatch`. What is left out comes from the pool."""

    name: str | None  # shown in errors, events and tables
    priority: int  # higher goes first; 0 by default
    retry: RetryPolicy
    timeout: Duration | None  # for one attempt
    time_limit: Duration | None  # of running time, over all attempts
    deadline: Duration | None  # from dispatch to the end, waiting included
    interrupt_on_timeout: bool
    copy_context: bool  # whether run() sees the context variables of the dispatching thread
    cancel: CancelToken | None  # cancels the task
    delay: Duration  # before it may be claimed first
    options: Mapping[str, object]  # what the worker finds in ctx.options; replaces the pool's whole
    metadata: Mapping[str, object]  # what callbacks and listeners find in task.metadata


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """`TaskOptions`, filled up and checked."""

    name: str | None = None
    priority: int = 0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    time_limit: float | None = None
    deadline: float | None = None
    interrupt_on_timeout: bool = False
    copy_context: bool = False
    cancel: CancelToken | None = None
    delay: float = 0.0
    options: Mapping[str, object] = field(default_factory=_nothing)
    metadata: Mapping[str, object] = field(default_factory=_nothing)
    # Whether a task may go to any worker, now, in the order of dispatch.
    plain: bool = field(init=False)
    # How long an attempt may take: infinity for as long as it likes, None if it has to be reckoned with
    # `time_left` for each.
    span: float | None = field(init=False)

    def __post_init__(self) -> None:
        plain = (
            self.priority == 0
            and self.delay == 0
            and self.deadline is None
            and self.cancel is None
            and not self.copy_context
        )
        object.__setattr__(self, "plain", plain)
        span = math.inf if self.timeout is None else self.timeout
        simple = self.time_limit is None and self.deadline is None
        object.__setattr__(self, "span", span if simple else None)

    def time_left(self, running_time: float, age: float) -> tuple[float, str]:
        """Return the seconds that the next attempt has, and the name of the limit that says so.

        `running_time` is that of the attempts before, `age` the time since dispatch.
        """
        limits = []
        if self.timeout is not None:
            limits.append((self.timeout, "timeout"))
        if self.time_limit is not None:
            limits.append((self.time_limit - running_time, "time limit"))
        if self.deadline is not None:
            limits.append((self.deadline - age, "deadline"))
        return min(limits)

    def having(self, options: Mapping[str, Any]) -> TaskSettings:
        """Return these settings with `options` in place of what they say.

        Raises `InvalidType` or `InvalidValue`, naming the option and its value. Costs a few
        microseconds, so whoever dispatches many tasks alike does it once.
        """
        checked = dict(options)
        for option, value in options.items():
            check = _CHECKS.get(option)
            if check is None:
                known = ", ".join(_CHECKS)
                raise InvalidType("an option", option, f"one of: {known}")
            checked[option] = check(option, value)
        return replace(self, **checked)


def _name(what: str, value: object) -> object:
    if value is not None and not isinstance(value, str):
        raise InvalidType(what, value, "a string")
    return value


def _priority(what: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(what, value, "a whole number; higher goes first")
    return value


def _policy(what: str, value: object) -> object:
    if not isinstance(value, RetryPolicy):
        raise InvalidType(what, value, "a RetryPolicy, such as RetryPolicy(attempts=5)")
    return value


def _limit(what: str, value: Any) -> object:
    return optional_seconds(what, value, positive=True)


def _flag(what: str, value: object) -> object:
    if not isinstance(value, bool):
        raise InvalidType(what, value, "True or False")
    return value


def _token(what: str, value: object) -> object:
    if value is not None and not callable(getattr(value, "on_cancel", None)):
        raise InvalidType(what, value, "a CancelToken")
    return value


def _mapping(what: str, value: object) -> object:
    if not isinstance(value, Mapping):
        raise InvalidType(what, value, "a mapping, such as a dict")
    return value


_CHECKS = {
    "name": _name,
    "priority": _priority,
    "retry": _policy,
    "timeout": _limit,
    "time_limit": _limit,
    "deadline": _limit,
    "interrupt_on_timeout": _flag,
    "copy_context": _flag,
    "cancel": _token,
    "delay": seconds,
    "options": _mapping,
    "metadata": _mapping,
}
assert set(_CHECKS) == {f.name for f in fields(TaskSettings) if f.init}
