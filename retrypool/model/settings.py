"""What a task may ask for: the options of `dispatch`, checked once and shared by many tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from typing_extensions import TypedDict

from retrypool.checks import Duration, flag, seconds, unknown_option
from retrypool.errors import InvalidValue
from retrypool.model import option_checks as check
from retrypool.model.constraints import Constraints
from retrypool.policy.rates import checked_cost
from retrypool.policy.retry import RetryPolicy

if TYPE_CHECKING:
    from retrypool.model.cancel import CancelToken
    from retrypool.model.drain import Drain

__all__ = ["LABELS", "OPTIONS", "MapOptions", "Option", "TaskOptions", "TaskSettings", "take_labels"]

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


Stored = Literal["as it is", "as a list", "encoded", "by name", "as a date", "not at all"]


class Option(NamedTuple):
    """How an option is checked, and how a storage keeps it."""

    check: Callable[[str, Any], object]
    stored: Stored = "as it is"
    refused: str | None = None  # why it can't be stored


def _is(
    check: Callable[[str, Any], object], *, stored: Stored = "as it is", refused: str | None = None
) -> dict[str, Option]:
    return {"option": Option(check, "not at all" if refused else stored, refused)}


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """`TaskOptions`, filled up and checked: the one table of a task's options.

    `TaskOptions` says the same to type checkers, of what is passed in.
    """

    name: str | None = field(default=None, metadata=_is(check.name))
    priority: int = field(default=0, metadata=_is(check.priority))
    retry: RetryPolicy = field(default_factory=RetryPolicy, metadata=_is(check.policy, stored="by name"))
    timeout: float | None = field(default=None, metadata=_is(check.limit))
    time_limit: float | None = field(default=None, metadata=_is(check.limit))
    deadline: float | None = field(default=None, metadata=_is(check.limit))
    interrupt_on_timeout: bool = field(default=False, metadata=_is(flag))
    require: frozenset[str] = field(default=frozenset(), metadata=_is(check.tags, stored="as a list"))
    worker: int | None = field(default=None, metadata=_is(check.worker_id))
    exclude: frozenset[int | str] = field(
        default=frozenset(), metadata=_is(check.excluded, stored="as a list")
    )
    wait_for_worker: bool = field(default=False, metadata=_is(flag))
    cost: float | Callable[[Any], float] = field(default=1.0, metadata=_is(check.cost))
    copy_context: bool = field(default=False, metadata=_is(flag, refused="context variables can't be stored"))
    cancel: CancelToken | None = field(
        default=None, metadata=_is(check.checked_token, refused="a CancelToken can't be stored")
    )
    delay: float = field(default=0.0, metadata=_is(seconds, stored="as a date"))
    at: float | None = field(
        default=None, metadata=_is(check.date, stored="as a date")
    )  # seconds since the epoch
    drain: Drain[Any] | None = field(
        default=None, metadata=_is(check.drain, refused="a Drain can't be stored")
    )
    keep_data: bool = field(default=True, metadata=_is(flag))
    hedge: bool = field(default=True, metadata=_is(flag))
    block_timeout: float | None = field(default=None, metadata=_is(check.wait, stored="not at all"))
    options: Mapping[str, object] = field(
        default_factory=_nothing, metadata=_is(check.mapping, stored="encoded")
    )
    tags: frozenset[str] = field(default=frozenset(), metadata=_is(check.tags, stored="as a list"))
    metadata: Mapping[str, object] = field(
        default_factory=_nothing, metadata=_is(check.mapping, stored="encoded")
    )
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
    # How many attempts it may have, if it needs but to be counted and put back after each but the last; or 0.
    counted: float = field(init=False)
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
        counts = simple and type(self.retry) is RetryPolicy and self.retry.always_at_once
        object.__setattr__(self, "counted", self.attempts if counts and self.retry_plain else 0)

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
            known = OPTIONS.get(option)
            if known is None:
                raise unknown_option(option, OPTIONS)
            checked[option] = known.check(option, value)
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


OPTIONS: Mapping[str, Option] = {f.name: f.metadata["option"] for f in fields(TaskSettings) if f.init}

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
    return {label: OPTIONS[label].check(label, options.pop(label)) for label in LABELS.intersection(options)}
