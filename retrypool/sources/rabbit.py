"""`RabbitQueue`: a quorum queue of RabbitMQ. Needs pika, and RabbitMQ 3.10 or newer.

What belongs to a queue named `pages`, all of it durable:

- `pages`: the quorum queue, with a limit of deliveries and a dead-letter exchange.
- `pages.dead`: that exchange, and the queue of dead letters that is bound to it.
- `pages.delay.1`, `.2`, `.4`, ... seconds: queues of delayed messages, made when first needed. A message
  carries its due time and waits in the longest queue that does not exceed it. When it expires there, the
  head that gets it sends it to the next queue; less than a second is waited out in the pool. So there are
  few queues, and no message waits behind another that is due later.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from retrypool.checks import Duration
from retrypool.errors import InvalidType, InvalidValue, MissingExtra, SourceError, TaskNotFound
from retrypool.sources.base import Disconnected, Holder, Session, Source, without_password
from retrypool.sources.envelope import Outgoing, encode
from retrypool.sources.letters import DeadLetter, checked_letter, sendable
from retrypool.sources.rabbit_publisher import Publisher
from retrypool.sources.rabbit_session import RabbitSession, read_letter

__all__ = ["RabbitQueue"]

T = TypeVar("T")

_LONGEST = 1 << 20
"""Seconds in the longest queue of delayed messages: twelve days. Who waits longer goes through it again."""

_UNLIMITED = 2_000_000_000
"""Deliveries of a dead letter: looking at it is one. RabbitMQ 4 has a limit where none is given."""


class RabbitQueue(Source):
    """A quorum queue of RabbitMQ, shared by the heads that consume it.

    `url` is as pika takes it, such as `amqp://user:password@host:5672/%2F`. `max_deliveries` is fixed when
    the queue is first made. The broker gives what a head holds to others as soon as the head's connection
    is lost, and also when a task takes longer than the broker's `consumer_timeout` (30 minutes, if it was
    not changed).

    Raises `MissingExtra` without pika, and `InvalidType` or `InvalidValue`.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        max_deliveries: int = 20,
        send_timeout: Duration = 30.0,
    ) -> None:
        super().__init__(name, max_deliveries=max_deliveries, send_timeout=send_timeout)
        try:
            import pika
        except ImportError:
            raise MissingExtra("rabbitmq", "pika", "RabbitQueue") from None
        if not isinstance(url, str):
            raise InvalidType("url", url, "a string such as amqp://localhost:5672/%2F")
        self.library: Any = pika
        self._url = url
        self._known: set[int] = set()  # the queues of delayed messages that this process has seen
        self._sending = threading.Lock()  # one thread at a time has the connection below
        self._sender: tuple[int, Any, Any] | None = None
        self._publisher: Publisher | None = None
        self._parameters(heartbeat=0)  # says now what is wrong with the URL

    def _parameters(self, heartbeat: int | None) -> Any:
        if not self._url.startswith(("amqp://", "amqps://")):
            shown = without_password(self._url)
            raise InvalidValue("url", shown, "a URL that begins with amqp:// or amqps://")
        try:
            parameters = self.library.URLParameters(self._url)
        except (ValueError, TypeError, KeyError) as error:
            shown = without_password(self._url)
            raise InvalidValue("url", shown, f"a URL that pika understands: {error}") from None
        parameters.connection_attempts = 1
        parameters.socket_timeout = 5
        parameters.stack_timeout = 10
        if "heartbeat=" not in self._url:
            parameters.heartbeat = heartbeat
        parameters.blocked_connection_timeout = max(1.0, self.send_timeout)
        return parameters

    def connect(self, heartbeat: int | None = 30) -> Any:
        """Return a new connection. Raises `Disconnected` or `SourceError`."""
        with self.speaking():
            return self.library.BlockingConnection(self._parameters(heartbeat))

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Translate errors of pika into `Disconnected` or `SourceError`."""
        errors = self.library.exceptions
        try:
            yield
        except (errors.ProbableAuthenticationError, errors.ProbableAccessDeniedError) as error:
            # pika says this of any connection that ends early, as one does to a server that is starting.
            if "ACCESS_REFUSED" in repr(error) or "NOT_ALLOWED" in repr(error):
                raise SourceError(repr(self), f"RabbitMQ lets nobody in with this URL: {error!r}") from error
            raise Disconnected(repr(error)) from error
        except errors.NackError as error:
            raise SourceError(repr(self), "RabbitMQ refused a message: the queue is full") from error
        except errors.UnroutableError as error:
            raise Disconnected("the queue has gone") from error
        except errors.ChannelClosedByBroker as error:
            # A queue that is not like ours, or not for us. Much else has the code 406, and passes.
            if error.reply_code == 403 or "inequivalent arg" in error.reply_text:
                raise SourceError(repr(self), f"RabbitMQ refuses: {error.reply_text}") from error
            raise Disconnected(repr(error)) from error
        except (errors.AMQPError, OSError) as error:
            raise Disconnected(repr(error)) from error

    def declare(self, channel: Any) -> None:
        """Make the queues that are not there."""
        dead = f"{self.name}.dead"
        channel.exchange_declare(dead, "fanout", durable=True)
        channel.queue_declare(
            dead, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": _UNLIMITED}
        )
        channel.queue_bind(dead, dead)
        channel.queue_declare(
            self.name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": self.max_deliveries - 1,  # what it counts are returns
                "x-dead-letter-exchange": dead,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )

    def publish(self, channel: Any, body: bytes, properties: Any, due: float) -> None:
        """Publish a message to the queue where it waits until it is due. `channel` confirms."""
        try:
            channel.basic_publish("", self._place(channel, due), body, properties, mandatory=True)
        except self.library.exceptions.UnroutableError:
            self._known.clear()
            raise

    def _place(self, channel: Any, due: float) -> str:
        """Return the queue for a message: the one that is consumed, or the one where it may wait longest."""
        wait = int(min(due - time.time(), _LONGEST))
        if wait < 1:
            return self.name
        step = 1 << (wait.bit_length() - 1)
        queue = f"{self.name}.delay.{step}"
        if step not in self._known:
            channel.queue_declare(
                queue,
                durable=True,
                arguments={
                    "x-queue-type": "quorum",
                    "x-message-ttl": step * 1000,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": self.name,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                    "x-delivery-limit": _UNLIMITED,
                },
            )
            self._known.add(step)
        return queue

    # -- sending ---------------------------------------------------------------------------------

    def _speak(self, call: Callable[[Any], T]) -> T:
        """Return `call(channel)`, on the connection for sending. Tried again while the broker is away."""

        def attempt() -> T:
            with self._sending, self.speaking():
                try:
                    return call(self._channel())
                except BaseException:
                    self._hang_up()
                    raise

        return self.persist(attempt)

    def _channel(self) -> Any:
        if self._sender is None or self._sender[0] != os.getpid():
            # It is not listened to while nothing is sent, so it can't answer heartbeats.
            connection = self.connect(heartbeat=0)
            self._sender = (os.getpid(), connection, None)  # whatever breaks from here on, it is closed
            channel = connection.channel()
            self.declare(channel)
            channel.confirm_delivery()
            self._sender = (os.getpid(), connection, channel)
        return self._sender[2]

    def _hang_up(self) -> None:
        sender, self._sender = self._sender, None
        publisher, self._publisher = self._publisher, None
        if sender is not None and sender[0] == os.getpid():
            for each in (sender[1], publisher):
                try:
                    if each is not None:
                        each.close()
                except Exception:  # noqa: BLE001 - it is broken already
                    pass

    def _deliver(self, outgoing: Sequence[Outgoing]) -> list[str]:
        for each in outgoing:
            if len(each.options) > 60_000:
                raise InvalidValue("the options", len(each.options), "less than 60,000 bytes as JSON")
        left = [_Parcel(uuid.uuid4().hex, each) for each in outgoing]
        ids = [parcel.uid for parcel in left]
        until = time.monotonic() + self.send_timeout

        def publish(channel: Any) -> None:
            if self._publisher is None:
                self._publisher = Publisher(self.library, self._parameters(heartbeat=0))
            messages = [
                (self._place(channel, each.due), each.body, self.properties(each.uid, each.headers))
                for each in left
            ]
            there = self._publisher.publish(messages, max(0.1, until - time.monotonic()))
            left[:] = [each for number, each in enumerate(left) if number not in there]
            if left:
                self._known.clear()  # a queue may have gone
                if self._publisher.refused:
                    raise SourceError(repr(self), "RabbitMQ refused a message: the queue is full")
                raise Disconnected(f"{len(left)} of {len(messages)} messages were not confirmed")

        self._speak(publish)
        return ids

    def properties(self, uid: str, headers: dict[str, object]) -> Any:
        """Return the properties of a message that is to survive the broker."""
        return self.library.BasicProperties(
            content_type="application/json", delivery_mode=2, message_id=uid, headers=headers
        )

    # -- looking at it ---------------------------------------------------------------------------

    def size(self) -> int:
        """Return how many messages wait for a head, delayed ones left out."""
        return self._speak(
            lambda channel: int(channel.queue_declare(self.name, passive=True).method.message_count)
        )

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest dead letters, `limit` at the most. They stay where they are."""
        return self._speak(lambda _: [letter for letter, _, _ in self._look(limit)])

    def _look(self, limit: int) -> Iterator[tuple[DeadLetter, Any, int]]:
        """Yield dead letters, each with a channel on which it may be acknowledged; the others go back."""
        assert self._sender is not None
        channel = self._sender[1].channel()
        try:
            for _ in range(limit):
                method, properties, body = channel.basic_get(f"{self.name}.dead")
                if method is None:
                    return
                yield read_letter(properties, body), channel, method.delivery_tag
        finally:
            if channel.is_open:
                channel.close()

    def resend(self, letter: DeadLetter) -> str:
        """Send a dead letter's message again, take the letter out, and return the message's new id.

        Costs a look at each dead letter that is older.
        """
        checked_letter(letter)
        again = encode(letter.data, sendable(letter.options))
        uid = uuid.uuid4().hex

        def move(channel: Any) -> bool:
            for found, looking, tag in self._look(_UNLIMITED):
                if found.id == letter.id:
                    headers: dict[str, object] = {"o": again.options.decode()} if again.options else {}
                    self.publish(channel, again.data, self.properties(uid, headers), 0.0)
                    looking.basic_ack(tag)
                    return True
            return False

        # What somebody has just looked at is not back at once.
        for pause in (0.05, 0.1, 0.2, 0.4, 0.8, 0.0):
            if self._speak(move):
                return uid
            time.sleep(pause)
        raise TaskNotFound(letter.id, f"among the dead letters of {self!r}")

    def close(self) -> None:
        """Let go of the connection that was made for sending. It may be used again."""
        with self._sending:
            self._hang_up()

    # -- consuming -------------------------------------------------------------------------------

    def open(self, holder: Holder, window: int) -> Session:
        """Begin to consume. Raises `SourceError`."""
        return self.persist(lambda: RabbitSession(self, holder, window))


class _Parcel:
    """A message on its way out."""

    __slots__ = ("body", "due", "headers", "uid")

    def __init__(self, uid: str, each: Outgoing) -> None:
        self.uid, self.body = uid, each.data
        self.due = time.time() + each.delay if each.delay else 0.0
        self.headers: dict[str, object] = {"o": each.options.decode()} if each.options else {}
        if self.due:
            self.headers["due"] = repr(self.due)
