"""The checks of a task's options. Each takes the name and the value, and returns what the pool works with.

They raise `InvalidType` or `InvalidValue`. Those that serve others too are in `retrypool.checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retrypool.checks import exact, optional_seconds, timestamp
from retrypool.errors import InvalidType
from retrypool.model.constraints import tag_set
from retrypool.policy.rates import checked_cost
from retrypool.policy.retry import RetryPolicy

__all__ = [
    "checked_token",
    "cost",
    "date",
    "drain",
    "excluded",
    "limit",
    "mapping",
    "name",
    "policy",
    "priority",
    "tags",
    "wait",
    "worker_id",
]


def name(what: str, value: object) -> object:
    """Check a name, or None."""
    if value is not None and not isinstance(value, str):
        raise InvalidType(what, value, "a string")
    return exact(value)


def priority(what: str, value: object) -> object:
    """Check a priority."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(what, value, "a whole number; higher goes first")
    return exact(value)


def policy(what: str, value: object) -> object:
    """Check a retry policy."""
    if not isinstance(value, RetryPolicy):
        raise InvalidType(what, value, "a RetryPolicy, such as RetryPolicy(attempts=5)")
    return value


def limit(what: str, value: Any) -> object:
    """Check a limit in seconds, or None for none."""
    return optional_seconds(what, value, positive=True)


def wait(what: str, value: Any) -> object:
    """Check a time to wait in seconds, or None."""
    return optional_seconds(what, value)


def tags(what: str, value: Any) -> object:
    """Check a set of tags."""
    return tag_set(what, value)


def worker_id(what: str, value: object) -> object:
    """Check the id of a worker, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise InvalidType(what, value, "the id of a worker")
    return exact(value)


def excluded(what: str, value: Any) -> object:
    """Check a set of worker ids and group names."""
    if isinstance(value, (str, int)) or not isinstance(value, Iterable):
        raise InvalidType(what, value, "a set of worker ids and group names, such as {3, 'token-a'}")
    names = list(value)  # no set yet: what is neither need not be hashable
    for name in names:
        if isinstance(name, bool) or not isinstance(name, (int, str)):
            raise InvalidType(what, name, "a set of worker ids and group names")
    return frozenset(map(exact, names))


def cost(what: str, value: Any) -> object:
    """Check a cost: a number, or a function of the data."""
    return value if callable(value) else checked_cost(what, value)


def checked_token(what: str, value: object) -> Any:
    """Return `value` if it is a token, or None."""
    if value is not None and not callable(getattr(value, "on_cancel", None)):
        raise InvalidType(what, value, "a CancelToken")
    return value


def drain(what: str, value: object) -> object:
    """Check a drain, or None."""
    if value is not None and not isinstance(getattr(value, "withholds", None), bool):
        raise InvalidType(what, value, "a Drain")
    return value


def mapping(what: str, value: object) -> object:
    """Check a mapping."""
    if not isinstance(value, Mapping):
        raise InvalidType(what, value, "a mapping, such as a dict")
    return value


def date(what: str, value: object) -> object:
    """Check a date, or None."""
    return None if value is None else timestamp(what, value)
