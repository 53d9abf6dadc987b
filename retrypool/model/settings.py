"""What a task may ask for: the options of `dispatch`, checked once and shared by many tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from retrypool.checks import Duration, exact, optional_seconds, seconds, timestamp, unknown_option
from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.constraints import Constraints, tag_set
from retrypool.policy.rates import checked_cost
from retrypool.policy.retry import RetryPolicy

if TYPE_CHECKING:
    from retrypool.model.cancel import CancelToken
    from retrypool.model.drain import Drain

__all__ = ["LABELS", "MapOptions", "TaskOptions", "TaskSettings", "checked_token", "take_labels"]

_NOTHING: Mapping[str, object] = MappingProxyType({})


def _nothing() -> Mapping[str, object]:
    return _NOTHING


class MapOptions(TypedDict, total=False):
    """The keyword arguments of `map` that are about its tasks. What is left out comes from the pool."""

    name: str | None  # shown in errors, events and tables
    priority: int  # higher goes first; 0 by default
    retry: RetryPolicy
    time_limit: Duration | None  # of running time, over all attempts
    deadline: Duration | None  # from dispatch to the end, waiting included
    interrupt_on_timeout: bool
    require: Iterable[str]  # tags that its worker must have
    worker: int | None  # the only worker that may take it
    exclude: Iterable[int | str]  # workers by id, and groups by name, that may not
    wait_for_worker: bool  # accept it also while no worker meets its requirements
    cost: float | Callable[[Any], float]  # calls that it counts as, where calls are paced; 1 by default
    copy_context: bool  # whether run() sees the context variables of the dispatching thread
    cancel: CancelToken | None  # cancels the task
    delay: Duration  # before it may be claimed first
    at: datetime | None  # before which it may not be claimed
    drain: Drain[Any] | None  # where ctx.send() puts what it is given
    keep_data: bool  # whether the task still has its data when it has ended
    hedge: bool  # whether it may be begun a second time while it runs, in a pool that does so
    block_timeout: Duration | None  # how long dispatch may wait for room in the queue
    options: Mapping[str, object]  # what the worker finds in ctx.options; replaces the pool's whole
    tags: Iterable[str]  # words that callbacks and listeners find in task.tags
    metadata: Mapping[str, object]  # what callbacks and listeners find in task.metadata


class TaskOptions(MapOptions, total=False):
    """The keyword arguments of `dispatch`. What is left out comes from the pool."""

    timeout: Duration | None  # for one attempt
    key: str  # by which the pool's storage knows it: what has ended is not run again


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
    require: frozenset[str] = frozenset()
    worker: int | None = None
    exclude: frozenset[int | str] = frozenset()
    wait_for_worker: bool = False
    cost: float | Callable[[Any], float] = 1.0
    copy_context: bool = False
    cancel: CancelToken | None = None
    delay: float = 0.0
    at: float | None = None  # seconds since the epoch
    drain: Drain[Any] | None = None
    keep_data: bool = True
    hedge: bool = True
    block_timeout: float | None = None
    options: Mapping[str, object] = field(default_factory=_nothing)
    tags: frozenset[str] = frozenset()
    metadata: Mapping[str, object] = field(default_factory=_nothing)
    # Whether there is more to do at its success than to keep the result: to hand over what it has sent,
    # or to let go of its data.
    wraps_up: bool = field(init=False)
    # Whether a task may be claimed now, in the order of its priority, and is run like all others.
    at_once: bool = field(init=False)
    # Whether any worker may also take it at any time.
    plain: bool = field(init=False)
    # As its policy says: here too, because a policy may be of a class of the user's.
    immediate: bool = field(init=False)
    attempts: float = field(init=False)
    # Whether a retry may go to any worker that has not tried it, in the order of arrival.
    retry_plain: bool = field(init=False)
    # Whom it is for, before anybody has tried it.
    constraints: Constraints = field(init=False)
    # How long an attempt may take: infinity for as long as it likes, None if it has to be reckoned with
    # `time_left` for each.
    span: float | None = field(init=False)

    def __post_init__(self) -> None:
        wraps_up = not self.keep_data or (self.drain is not None and self.drain.withholds)
        object.__setattr__(self, "wraps_up", wraps_up)
        at_once = (
            not wraps_up
            and self.delay == 0
            and self.at is None
            and self.cancel is None
            and self.cost == 1.0
            and not self.copy_context
        )
        object.__setattr__(self, "at_once", at_once)
        object.__setattr__(self, "plain", at_once and not self.depends)
        object.__setattr__(self, "immediate", self.retry.immediate)
        object.__setattr__(self, "attempts", self.retry.attempts)
        object.__setattr__(self, "retry_plain", not self.immediate and not self.picky)
        constraints = Constraints(frozenset(), self.require, self.worker, self.exclude)
        object.__setattr__(self, "constraints", constraints)
        span = math.inf if self.timeout is None else self.timeout
        simple = self.time_limit is None and self.deadline is None
        object.__setattr__(self, "span", span if simple else None)

    def __reduce__(self) -> tuple[object, ...]:
        # What can't be pickled belongs to this process: a token, a drain, a function, a policy with one.
        given = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init}
        given["cancel"] = given["drain"] = None
        for option in ("options", "metadata"):
            given[option] = dict(given[option])
        return _made_of, ({option: value for option, value in given.items() if _is_portable(value)},)

    def options_to_pickle(self) -> dict[str, object]:
        """Return the options, as far as they can be pickled."""
        options = dict(self.options)
        return options if _is_portable(options) else {}

    @property
    def shareable(self) -> bool:
        """Whether other tasks are likely to have the same, and it is no harm to keep them."""
        return self.cancel is None and self.drain is None and self.at is None

    @property
    def picky(self) -> bool:
        """Whether it is not for any worker."""
        return bool(self.require or self.exclude) or self.worker is not None

    @property
    def depends(self) -> bool:
        """Whether its way in depends on what workers there are."""
        return self.picky or self.deadline is not None

    @property
    def wants(self) -> str:
        """What it asks of its worker, in words that follow "with"."""
        parts = []
        if self.require:
            parts.append(f"the tags {sorted(self.require)}")
        if self.worker is not None:
            parts.append(f"the id {self.worker}")
        if self.exclude:
            parts.append(f"an id and a group other than {sorted(self.exclude, key=str)}")
        return " and ".join(parts)

    def cost_of(self, data: Any) -> float:
        """Return how many calls a task with this data counts as. Raises what a cost function raises."""
        return checked_cost("cost", self.cost(data)) if callable(self.cost) else self.cost

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
            if option == "key":
                raise InvalidValue(option, value, "given to dispatch(), or, as a function, to map()")
            check = _CHECKS.get(option)
            if check is None:
                raise unknown_option(option, _CHECKS)
            checked[option] = check(option, value)
        if checked.get("at") is not None and checked.get("delay"):
            raise InvalidValue("at", options["at"], "given without a delay, or the delay without it")
        # Either of them takes the place of the other.
        if "at" in checked:
            checked.setdefault("delay", 0.0)
        elif "delay" in checked:
            checked["at"] = None
        return self.told(checked)

    def told(self, checked: Mapping[str, Any]) -> TaskSettings:
        """Return these settings with what has been checked already in place of what they say."""
        copy = object.__new__(TaskSettings)
        for write, value in zip(_WRITERS, _read_all(self), strict=True):
            write(copy, value)
        for option, value in checked.items():
            object.__setattr__(copy, option, value)
        if not LABELS.issuperset(checked):
            copy.__post_init__()
        return copy


LABELS = frozenset({"name", "options", "tags", "metadata"})
"""Options that say nothing of when and where a task is run. They often differ from task to task."""

# What copies settings: `dataclasses.replace` takes four times as long.
_FIELDS = [field.name for field in fields(TaskSettings)]
_WRITERS = [getattr(TaskSettings, name).__set__ for name in _FIELDS]
_read_all = attrgetter(*_FIELDS)


def _made_of(given: dict[str, Any]) -> TaskSettings:
    return TaskSettings(**given)


def _is_portable(value: object) -> bool:
    import pickle

    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever it raises, it can't be pickled
        return False
    return True


def take_labels(options: dict[str, Any]) -> dict[str, Any]:
    """Take the labels out of `options`, checked."""
    return {label: _CHECKS[label](label, options.pop(label)) for label in LABELS.intersection(options)}


def _name(what: str, value: object) -> object:
    if value is not None and not isinstance(value, str):
        raise InvalidType(what, value, "a string")
    return exact(value)


def _priority(what: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(what, value, "a whole number; higher goes first")
    return exact(value)


def _policy(what: str, value: object) -> object:
    if not isinstance(value, RetryPolicy):
        raise InvalidType(what, value, "a RetryPolicy, such as RetryPolicy(attempts=5)")
    return value


def _limit(what: str, value: Any) -> object:
    return optional_seconds(what, value, positive=True)


def _patience(what: str, value: Any) -> object:
    return optional_seconds(what, value)


def _flag(what: str, value: object) -> object:
    if not isinstance(value, bool):
        raise InvalidType(what, value, "True or False")
    return value


def _tags(what: str, value: Any) -> object:
    return tag_set(what, value)


def _worker_id(what: str, value: object) -> object:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise InvalidType(what, value, "the id of a worker")
    return exact(value)


def _excluded(what: str, value: Any) -> object:
    if isinstance(value, (str, int)) or not isinstance(value, Iterable):
        raise InvalidType(what, value, "a set of worker ids and group names, such as {3, 'token-a'}")
    names = list(value)  # no set yet: what is neither need not be hashable
    for name in names:
        if isinstance(name, bool) or not isinstance(name, (int, str)):
            raise InvalidType(what, name, "a set of worker ids and group names")
    return frozenset(map(exact, names))


def _cost(what: str, value: Any) -> object:
    return value if callable(value) else checked_cost(what, value)


def checked_token(what: str, value: object) -> Any:
    """Return `value` if it is a token, or None."""
    if value is not None and not callable(getattr(value, "on_cancel", None)):
        raise InvalidType(what, value, "a CancelToken")
    return value


def _drain(what: str, value: object) -> object:
    if value is not None and not isinstance(getattr(value, "withholds", None), bool):
        raise InvalidType(what, value, "a Drain")
    return value


def _mapping(what: str, value: object) -> object:
    if not isinstance(value, Mapping):
        raise InvalidType(what, value, "a mapping, such as a dict")
    return value


def _date(what: str, value: object) -> object:
    return None if value is None else timestamp(what, value)


_CHECKS = {
    "name": _name,
    "priority": _priority,
    "retry": _policy,
    "timeout": _limit,
    "time_limit": _limit,
    "deadline": _limit,
    "interrupt_on_timeout": _flag,
    "require": _tags,
    "worker": _worker_id,
    "exclude": _excluded,
    "wait_for_worker": _flag,
    "cost": _cost,
    "copy_context": _flag,
    "cancel": checked_token,
    "delay": seconds,
    "at": _date,
    "drain": _drain,
    "keep_data": _flag,
    "hedge": _flag,
    "block_timeout": _patience,
    "options": _mapping,
    "tags": _tags,
    "metadata": _mapping,
}
assert set(_CHECKS) == {f.name for f in fields(TaskSettings) if f.init}
