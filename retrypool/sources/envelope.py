"""How data and options are sent: as JSON, checked beforehand."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import TypedDict

from retrypool.checks import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.settings import TaskSettings

__all__ = ["Outgoing", "SendOptions", "decode", "dumps", "encode", "time_left"]


class SendOptions(TypedDict, total=False):
    """The keyword arguments of `send`."""

    name: str | None
    priority: int
    timeout: Duration | None
    time_limit: Duration | None
    deadline: Duration | None
    interrupt_on_timeout: bool
    require: Iterable[str]
    exclude: Iterable[int | str]
    cost: float
    options: Mapping[str, object]
    tags: Iterable[str]
    metadata: Mapping[str, object]
    key: str | None
    delay: Duration


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is to be sent."""

    data: bytes
    options: bytes  # empty: none
    delay: float


_DEFAULT = TaskSettings()
_KNOWN = frozenset(SendOptions.__annotations__)
_PLURAL = ("require", "exclude", "tags")
_TIMES = ("timeout", "time_limit", "deadline")


def dumps(what: str, value: object) -> bytes:
    """Return `value` as JSON. Raises `InvalidType` or `InvalidValue`, naming it as `what`."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except TypeError:
        raise InvalidType(what, value, "what fits into JSON: dicts, lists, strings, numbers") from None
    except (ValueError, RecursionError):  # NaN, a circle, half a surrogate pair
        raise InvalidValue(what, value, "what fits into JSON, without NaN and without circles") from None


def encode(data: object, options: Mapping[str, Any]) -> Outgoing:
    """Return data and options in the form in which they are sent. Raises `InvalidType` or `InvalidValue`."""
    body = dumps("data", data)
    if not options:
        return Outgoing(body, b"", 0.0)
    delay = seconds("delay", options["delay"]) if "delay" in options else 0.0
    for option in options:
        if option not in _KNOWN:
            known = ", ".join(sorted(_KNOWN))
            raise InvalidType("an option", option, f"one of those that travel: {known}")
    travel: dict[str, Any] = {
        option: value for option, value in options.items() if option != "delay" and value is not None
    }
    key = travel.get("key")
    if key is not None and (not isinstance(key, str) or not key):
        raise InvalidType("key", key, "a string that is not empty")
    if "cost" in travel and not isinstance(travel["cost"], (int, float)):
        raise InvalidType("cost", travel["cost"], "a number of calls")
    for option in _PLURAL:
        if option in travel and isinstance(travel[option], Iterable) and not isinstance(travel[option], str):
            travel[option] = list(travel[option])
    # The same checks as in dispatch(), where the mistake is made.
    _DEFAULT.having({option: value for option, value in travel.items() if option != "key"})
    for option in _PLURAL:
        if option in travel:
            travel[option] = sorted(set(travel[option]), key=str)
    for option in _TIMES:
        if option in travel:
            travel[option] = seconds(option, travel[option])
    for option in ("options", "metadata"):
        if option in travel:
            travel[option] = dict(travel[option])
    if "deadline" in travel:
        travel["sent"] = time.time()
    return Outgoing(body, dumps("the options", travel) if travel else b"", delay)


def decode(data: bytes | None, options: bytes | None) -> tuple[object, Mapping[str, Any], str | None]:
    """Return the data, the options, and what is wrong with them, if something is."""
    if data is None:
        return None, {}, "it has no data"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        return None, {}, f"its data is no JSON: {error}"
    if not options:
        return value, {}, None
    try:
        travelled = json.loads(options)
    except (ValueError, RecursionError) as error:
        return value, {}, f"its options are no JSON: {error}"
    if not isinstance(travelled, dict):
        return value, {}, "its options are no JSON object"
    return value, travelled, None


def time_left(options: Mapping[str, Any]) -> float | None:
    """Return the seconds until the deadline of a message, which counts from when it was sent."""
    deadline, sent = options.get("deadline"), options.get("sent")
    if not isinstance(deadline, (int, float)) or isinstance(deadline, bool) or not math.isfinite(deadline):
        return None
    if not isinstance(sent, (int, float)) or not math.isfinite(sent):
        return float(deadline)
    # A sender whose clock is ahead gives no more time than it asked for.
    return float(min(deadline, sent + deadline - time.time()))
