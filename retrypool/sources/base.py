"""What a source of work is: fetch, acknowledge, release, renew, dead-letter.

A `Source` is a named queue of a broker, as anybody sees it: things are sent to it, and its dead letters
looked at. A `Session` is one head's connection to it while that head consumes. Its methods are called by
two threads, the one that fetches and the keeper, which settles and renews; each method says by which.

What every broker must do:

- A message is held by one head at a time. It stays at the broker until it is acknowledged.
- What a head holds is delivered again when the head dies, and counted: `Message.deliveries`.
- A settlement by a head that no longer holds the message has no effect; the head is told.
"""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self, TypeVar

from typing_extensions import Unpack

from retrypool.checks import Duration, count, seconds
from retrypool.errors import InvalidType, InvalidValue, RetryPoolError, SourceError
from retrypool.sources.envelope import Outgoing, SendOptions, encode
from retrypool.sources.letters import DeadLetter

__all__ = [
    "Backoff",
    "Consumed",
    "Disconnected",
    "Holder",
    "Message",
    "Session",
    "Settlement",
    "Source",
    "Verdict",
    "checked_name",
    "checked_seconds",
    "head_name",
    "without_password",
]

log = logging.getLogger("retrypool")

T = TypeVar("T")


class Disconnected(RetryPoolError):
    """The broker can't be reached for now. Never leaves `consume`, which tries again."""


@dataclass(slots=True, eq=False)
class Message:
    """One message, held by this head."""

    uid: str  # the same each time that it is delivered
    data: object
    options: Mapping[str, object]
    deliveries: int  # how often it was delivered, this time included
    raw: bytes = b""  # the data as it came
    problem: str | None = None  # why it can't be understood
    mark: object = None  # the session's own


class Verdict(StrEnum):
    """What is to be done with a message that is held."""

    ACK = "ack"  # it is done
    RELEASE = "release"  # let any head have it; this delivery does not count
    BOUNCE = "bounce"  # the same, and it counts
    BURY = "bury"  # it is dead: to the dead letters


@dataclass(slots=True, eq=False)
class Settlement:
    """A message and its verdict; `letter` is what is stored with a dead one."""

    message: Message
    verdict: Verdict
    letter: Mapping[str, object] = field(default_factory=dict)


class Holder(Protocol):
    """What holds the messages of a session, and is told how they were settled."""

    def holds(self, uid: str) -> bool:
        """Return whether a message is held. Any thread."""
        ...

    def messages(self) -> list[Message]:
        """Return the messages that are held. Any thread."""
        ...

    def settled(self, settlement: Settlement) -> None:
        """The broker has taken a settlement in. Keeper."""
        ...

    def refused(self, settlement: Settlement) -> None:
        """A settlement came too late: the message is another head's. Keeper."""
        ...

    def lost(self, message: Message) -> None:
        """A message was given to another head. Keeper."""
        ...


class Session(ABC):
    """One head's connection to a source. Any method may raise `Disconnected`, and is then called again."""

    beat: float  # seconds between two calls of `renew`

    @abstractmethod
    def fetch(self, limit: int, timeout: float) -> Sequence[Message]:
        """Return up to `limit` messages, waiting `timeout` seconds at the most. The fetching thread."""

    def may_have_more(self) -> bool:
        """Return whether there may be messages, although `fetch` has found none. The fetching thread."""
        return False

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Wait until `wake` is called, `timeout` seconds at the most. The keeper."""

    @abstractmethod
    def wake(self) -> None:
        """Let `wait` return, also if it is called only afterwards. Any thread."""

    @abstractmethod
    def settle(self, due: Sequence[Settlement]) -> None:
        """Send settlements to the broker, and tell the holder of each that is confirmed. The keeper.

        What the holder is not told of comes again with the next call.
        """

    @abstractmethod
    def renew(self, held: Collection[Message]) -> None:
        """Renew the leases of `held`, and tell the holder of those that are lost. The keeper."""

    @abstractmethod
    def reconnect(self) -> None:
        """Reconnect, after the keeper got `Disconnected`. The keeper."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. Never raises. The fetching thread, when the keeper has ended."""


@dataclass(slots=True)
class Consumed:
    """What a call of `consume` has done."""

    received: int = 0  # messages that were delivered, each time counted
    redelivered: int = 0  # of these, how many not for the first time
    succeeded: int = 0  # acknowledged
    dead: int = 0  # brought to the dead letters
    released: int = 0  # given back: cancelled, or not begun
    lost: int = 0  # taken away by another head while they were held
    refused: int = 0  # of these, how many brought a result that came too late
    reconnects: int = 0  # how often a connection was lost


class Source(ABC):
    """A named queue of a broker that several heads work off together.

    `url` says where the broker is, `name` which queue. Nothing is connected before it is needed. It may be
    shared by threads. `send_timeout` is how many seconds a send may go on trying when the broker can't be
    reached; `max_deliveries`, how often a message is delivered before it counts as dead.
    """

    def __init__(self, name: str, *, max_deliveries: int, send_timeout: Duration) -> None:
        self.name = checked_name("name", name)
        self.max_deliveries = count("max_deliveries", max_deliveries, least=1)
        self.send_timeout = seconds("send_timeout", send_timeout)

    def send(self, data: object, **options: Unpack[SendOptions]) -> str:
        """Send `data`, which must fit into JSON, and return the id of the message.

        Options travel with it, and say the same as those of `dispatch` to the pool that takes it: `name`,
        `priority` (within the window of a pool), `timeout`, `time_limit`, `deadline` (counted from now),
        `interrupt_on_timeout`, `require`, `exclude`, `cost`, `options`, `tags`, `metadata`, `key`. With
        `delay`, in seconds, no pool gets it before. When it returns, the broker has the message. If the
        connection breaks it tries again, and the broker may have it twice. Raises `InvalidType` or
        `InvalidValue` for what can't travel, and `SourceError` when the broker takes nothing.
        """
        return self._deliver([encode(data, options)])[0]

    def send_many(self, items: Iterable[object], **options: Unpack[SendOptions]) -> list[str]:
        """Send each of `items` with the same options, in far fewer round trips; otherwise as `send`.

        All of them are checked before the first is sent.
        """
        if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
            raise InvalidType("items", items, "an iterable of data")
        outgoing = [encode(item, options) for item in items]
        return self._deliver(outgoing) if outgoing else []

    def persist(self, call: Callable[[], T]) -> T:
        """Return `call()`, tried again for `send_timeout` seconds as long as it raises `Disconnected`."""
        until, backoff = time.monotonic() + self.send_timeout, Backoff()
        told = False
        while True:
            try:
                return call()
            except Disconnected as error:
                pause = backoff.next()
                if not told:
                    log.warning("%r: not reached, trying again for %g s: %s", self, self.send_timeout, error)
                    told = True
                if time.monotonic() + pause >= until:
                    why = f"not reached within {self.send_timeout:g} s: {error}"
                    raise SourceError(repr(self), why) from error
                time.sleep(pause)

    @abstractmethod
    def _deliver(self, outgoing: Sequence[Outgoing]) -> list[str]:
        """Send messages to the broker."""

    @abstractmethod
    def open(self, holder: Holder, window: int) -> Session:
        """Begin to consume, holding `window` messages at the most. Raises `SourceError`."""

    @abstractmethod
    def size(self) -> int:
        """Return how many messages wait for a head, delayed ones left out."""

    @abstractmethod
    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest dead letters, `limit` at the most. They stay where they are."""

    @abstractmethod
    def resend(self, letter: DeadLetter) -> str:
        """Send a dead letter's message again, take the letter out, and return the message's new id."""

    def close(self) -> None:  # noqa: B027 - there need not be a connection
        """Close the connection that was made for sending. The next send opens another."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Backoff:
    """How long to wait before the next try to connect: 0.1 s, doubling, 5 s at the most, with jitter."""

    def __init__(self) -> None:
        self._step = 0.1

    def next(self) -> float:
        """Return the seconds to wait now."""
        step, self._step = self._step, min(5.0, self._step * 2)
        return step * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again: it has worked."""
        self._step = 0.1


_number = 0
_numbering = threading.Lock()


def head_name() -> str:
    """Return a name for this head that no other has."""
    global _number  # noqa: PLW0603 - one count for the process
    with _numbering:
        _number += 1
        return f"{socket.gethostname()}-{os.getpid()}-{_number}-{random.getrandbits(32):08x}"


def without_password(url: str) -> str:
    """Return a URL without its password, for messages."""
    return re.sub(r"//[^/@]*@", "//...@", url)


def checked_name(what: str, value: object) -> str:
    """Return `value` if it can name a queue."""
    if not isinstance(value, str):
        raise InvalidType(what, value, "a string")
    if not value or len(value.encode()) > 200:
        raise InvalidValue(what, value, "a string of 1 to 200 bytes")
    return value


def checked_seconds(what: str, value: Duration, least: float) -> float:
    """Return `value` as seconds, `least` or more."""
    result = seconds(what, value)
    if result < least:
        raise InvalidValue(what, value, f"{least:g} seconds or more")
    return result
