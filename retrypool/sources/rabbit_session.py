"""One head's session with a queue of RabbitMQ.

The connection belongs to the keeper: no other thread uses it. Messages arrive while the keeper waits, and
are queued for the fetching thread.

The broker gives all that a head holds to others as soon as the connection is lost. The head goes on with
what it has, and those are *in doubt* until the broker sends them again, to this head (then they are held as
before, or settled at once if their tasks have ended meanwhile) or to another one, of which nobody is told.
But what was given back is sent out before anything that was never delivered: when something new has come,
or some seconds have passed, what is still in doubt is another head's.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from retrypool.ctrl_c import acquire
from retrypool.sources.base import Disconnected, Holder, Message, Session, Settlement, Verdict
from retrypool.sources.envelope import decode
from retrypool.sources.letters import DeadLetter, dead_letter

__all__ = ["RabbitSession", "read_letter"]

_SOON = 2.0
"""Seconds after a new connection in which nothing in doubt is given up: others are connecting too."""

_LATEST = 10.0
"""Seconds after a new connection in which what was ours comes again, if it does."""

_REMEMBERED = 10_000
"""How many settled messages are known, in case that an acknowledgement was lost with the connection."""


class RabbitServer(Protocol):
    """What a session needs of its source."""

    library: Any
    name: str

    def connect(self) -> Any: ...
    def speaking(self) -> AbstractContextManager[None]: ...
    def declare(self, channel: Any) -> None: ...
    def publish(self, channel: Any, body: bytes, properties: Any, due: float) -> None: ...
    def size(self) -> int: ...
    def properties(self, uid: str, headers: dict[str, object]) -> Any: ...


class RabbitSession(Session):
    """A connection, and the messages that arrived on it."""

    # All of these are the keeper's, but for _inbox and _bell: there it appends and rings, and the fetching
    # thread takes.

    beat = 1.0

    def __init__(self, server: RabbitServer, holder: Holder, window: int) -> None:
        self._server, self._holder, self._window = server, holder, window
        self._connection: Any = None
        self._inbox: deque[Message] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()
        # The delivery tags of each message on this connection; more than one if it was sent twice.
        self._tags: dict[str, list[int]] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._too_early: list[tuple[int, Any, bytes, float]] = []
        self._connected_at = 0.0
        self._news = False  # whether something has come on this connection that was never delivered before
        self.reconnect()

    def reconnect(self) -> None:
        """Connect, and subscribe to the queue."""
        self.close()
        self._tags.clear()
        self._too_early.clear()
        self._inbox.clear()  # the broker sends them again
        self._connection = self._server.connect()
        try:
            with self._server.speaking():
                self._channel = channel = self._connection.channel()
                self._confirming = self._connection.channel()
                self._confirming.confirm_delivery()
                self._server.declare(channel)
                channel.basic_qos(prefetch_count=min(self._window, 65_535))
                channel.basic_consume(self._server.name, self._receive)
                channel.add_on_cancel_callback(lambda _frame: channel.close())
        except BaseException:
            self.close()
            raise
        self._connected_at = time.monotonic()
        self._news = False

    def _receive(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        tag, headers = method.delivery_tag, properties.headers or {}
        uid = properties.message_id or f"{id(self._connection):x}-{tag}"
        if not method.redelivered:
            self._news = True
        due = _number(headers.get("due"))
        wait = 0.0 if due is None else due - time.time()
        if wait >= 1:
            self._too_early.append((tag, properties, body, time.time() + wait))
            return
        if uid in self._settled:
            self._channel.basic_ack(tag)  # it was said before, and got lost
            return
        tags = self._tags.setdefault(uid, [])
        tags.append(tag)
        if len(tags) > 1 or self._holder.holds(uid):
            return
        options = headers.get("o")
        data, travelled, problem = decode(body, options.encode() if isinstance(options, str) else None)
        if wait > 0:
            travelled = {**travelled, "delay": wait}
        deliveries = int(headers.get("x-delivery-count", method.redelivered)) + 1
        self._inbox.append(Message(uid, data, travelled, deliveries, body, problem, options))
        self._ring()

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:  # it has been rung
            pass

    # -- the fetching thread ---------------------------------------------------------------------

    def fetch(self, limit: int, timeout: float) -> Sequence[Message]:
        """See `Session`."""
        if not self._inbox and timeout > 0:
            acquire(self._bell, timeout)
        found: list[Message] = []
        while len(found) < limit:
            try:
                found.append(self._inbox.popleft())
            except IndexError:
                break
        return found

    def may_have_more(self) -> bool:
        """See `Session`. Messages are pushed, and may be on their way."""
        return bool(self._inbox) or self._server.size() > 0

    # -- the keeper ------------------------------------------------------------------------------

    def wait(self, timeout: float) -> None:
        """See `Session`. Messages come in here."""
        with self._server.speaking():
            self._connection.process_data_events(timeout)
            while self._too_early:
                tag, properties, body, due = self._too_early[-1]
                self._server.publish(self._confirming, body, properties, due)
                self._channel.basic_ack(tag)
                self._too_early.pop()
        if not self._channel.is_open:
            raise Disconnected("RabbitMQ has closed the channel")

    def wake(self) -> None:
        """See `Session`."""
        try:
            self._connection.add_callback_threadsafe(_nothing)
        except Exception:  # noqa: BLE001 - there is no connection, and so nobody who waits for it
            pass

    def settle(self, due: Sequence[Settlement]) -> None:
        """See `Session`."""
        given_up = self._given_up()
        for settlement in due:
            uid = settlement.message.uid
            tags = self._tags.get(uid)
            if tags is None:
                if given_up:
                    self._remember(settlement)
                    self._holder.refused(settlement)
                continue
            with self._server.speaking():
                self._tell(settlement, tags)
            del self._tags[uid]
            self._remember(settlement)
            self._holder.settled(settlement)

    def _tell(self, settlement: Settlement, tags: list[int]) -> None:
        if settlement.verdict is Verdict.BURY:
            self._bury(settlement)
        for tag in tags:
            if settlement.verdict in (Verdict.ACK, Verdict.BURY):
                self._channel.basic_ack(tag)
            else:
                self._channel.basic_nack(tag, requeue=True)

    def _bury(self, settlement: Settlement) -> None:
        message = settlement.message
        note = json.dumps({**settlement.letter, "deliveries": message.deliveries})
        headers: dict[str, object] = {"letter": note}
        if isinstance(message.mark, str):
            headers["o"] = message.mark
        properties = self._server.properties(message.uid, headers)
        self._confirming.basic_publish(f"{self._server.name}.dead", "", message.raw, properties)

    def _remember(self, settlement: Settlement) -> None:
        if settlement.verdict in (Verdict.ACK, Verdict.BURY):
            self._settled[settlement.message.uid] = None
            if len(self._settled) > _REMEMBERED:
                self._settled.popitem(last=False)

    def renew(self, held: Collection[Message]) -> None:
        """See `Session`. There is nothing to renew: the connection is the lease."""
        if self._given_up():
            for message in held:
                if message.uid not in self._tags:
                    self._holder.lost(message)

    def _given_up(self) -> bool:
        """Return whether what is in doubt is another head's."""
        age = time.monotonic() - self._connected_at
        return age >= _LATEST or (self._news and age >= _SOON)

    def close(self) -> None:
        """Close the connection: the broker takes back what is not settled."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_open:
            try:
                connection.close()
            except Exception:  # noqa: BLE001 - it is broken already
                pass


def _nothing() -> None:
    pass


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def read_letter(properties: Any, body: bytes) -> DeadLetter:
    """Return the dead letter of this message: one that a head has written, or that the broker gave up."""
    headers = properties.headers or {}
    options = headers.get("o")
    data, travelled, _ = decode(body, options.encode() if isinstance(options, str) else None)
    try:
        note = json.loads(headers.get("letter", ""))
        deliveries = int(note.get("deliveries", 0))
    except (ValueError, TypeError):
        reason = str(headers.get("x-first-death-reason", "unknown"))
        limit = reason == "delivery_limit"
        error = "delivered too often, and never brought to an end" if limit else None
        note = {"reason": "deliveries" if limit else reason, "error": error}
        deliveries = int(headers.get("x-delivery-count", 0))
    uid = properties.message_id or ""
    return dead_letter(uid, uid, data, travelled, deliveries, body, note)
