"""`RedisStream`: a queue on a Redis stream. Needs redis-py, and Redis 6.2 or newer, or Valkey."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from retrypool.checks import Duration
from retrypool.errors import InvalidType, InvalidValue, MissingExtra, SourceError, TaskNotFound
from retrypool.sources.base import (
    Disconnected,
    Holder,
    Session,
    Source,
    checked_name,
    checked_seconds,
    without_password,
)
from retrypool.sources.envelope import Outgoing, encode
from retrypool.sources.letters import DeadLetter, checked_letter, sendable
from retrypool.sources.redis_session import BATCH, RedisSession
from retrypool.sources.redis_wire import fields, now, packed, read_letter

__all__ = ["RedisStream"]

T = TypeVar("T")


class RedisStream(Source):
    """A queue on a Redis stream with a consumer group, shared by the heads that consume it.

    - `url`: as redis-py takes it, such as `redis://user:password@host:6379/0`.
    - `group`: the consumer group. Heads of one group share the messages.
    - `lease`: a head that has not renewed what it holds for so many seconds loses it to the others. It renews
      three times in that time, however long a task runs.

    A Redis that may evict keys is refused, as it would lose messages; so is a send to one that is full.
    What a crash of the machine may lose is up to `appendfsync`. Raises `MissingExtra` without redis-py, and
    `InvalidType` or `InvalidValue`.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        group: str = "retrypool",
        lease: Duration = 30.0,
        max_deliveries: int = 20,
        send_timeout: Duration = 30.0,
    ) -> None:
        super().__init__(name, max_deliveries=max_deliveries, send_timeout=send_timeout)
        try:
            import redis
        except ImportError:
            raise MissingExtra("redis", "redis", "RedisStream") from None
        if not isinstance(url, str):
            raise InvalidType("url", url, "a string such as redis://localhost:6379/0")
        self.library: Any = redis
        self.group = checked_name("group", group)
        self.lease = checked_seconds("lease", lease, 0.1)
        self._url = url
        self._sender: Any = None
        self._sending = threading.Lock()
        self.connect()  # says now what is wrong with the URL; connects to nothing yet

    def connect(self) -> Any:
        """Return a new client, which connects when it is first used."""
        redis = self.library
        options = {"socket_timeout": 10.0, "socket_connect_timeout": 5.0, "socket_keepalive": True}
        if self._url.startswith("unix:"):
            options = {"socket_timeout": 10.0}
        try:
            # One answer has one form, and no command is repeated behind our back.
            return redis.Redis.from_url(
                self._url, protocol=2, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0), **options
            )
        except ValueError as error:
            shown = without_password(self._url)
            raise InvalidValue("url", shown, f"a URL that redis-py understands: {error}") from None

    def key(self, *parts: str) -> str:
        """Return the name of a key that belongs to the queue, in the same slot of a cluster."""
        return ":".join((f"{{{self.name}}}", *parts))

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Translate errors of redis-py into `Disconnected` or `SourceError`."""
        errors = self.library.exceptions
        try:
            yield
        except (errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError, OSError) as error:
            raise Disconnected(f"{type(error).__name__}: {error}") from error
        except self.full as error:
            text = str(error)
            if self.is_full(error):
                raise SourceError(repr(self), f"Redis is full and takes nothing more: {text}") from error
            if text.startswith(("MASTERDOWN", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED")):
                raise Disconnected(text) from error
            raise SourceError(repr(self), text) from error
        except errors.WatchError as error:  # also raised for a connection that is lost while a key is watched
            raise Disconnected(str(error)) from error

    @contextmanager
    def unless_changed(self) -> Iterator[None]:
        """Ignore that a watched key has changed. Raises `Disconnected` if Redis may have executed it."""
        try:
            yield
        except self.library.exceptions.WatchError as error:
            if "Watched variable changed" not in str(error):
                raise Disconnected(str(error)) from error

    @property
    def full(self) -> tuple[type[Exception], ...]:
        """The error types that redis-py raises when Redis is full, among other cases."""
        return (self.library.exceptions.ResponseError, self.library.exceptions.ExecAbortError)

    def is_full(self, error: BaseException) -> bool:
        """Return whether an error says that Redis is full."""
        out_of_memory = isinstance(error, self.library.exceptions.OutOfMemoryError)
        return out_of_memory or "OOM" in str(error) or "maxmemory" in str(error)

    def check(self, client: Any) -> None:
        """Refuse a Redis that may lose messages, or is too old."""
        facts = client.info("server") | client.info("memory")
        version = str(facts.get("redis_version", "7"))
        if tuple(int(part) for part in version.split(".")[:2]) < (6, 2):
            raise SourceError(repr(self), f"Redis {version} is too old: 6.2 or newer is needed")
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory") and policy != "noeviction":
            raise SourceError(
                repr(self),
                f"this Redis deletes keys when its memory is full (maxmemory-policy {policy}), and would "
                "lose messages: set maxmemory-policy to noeviction, or use another Redis",
            )

    def create_group(self, client: Any) -> None:
        """Make the group, which is to see the stream from its beginning, unless it is there."""
        errors = self.library.exceptions
        try:
            client.xgroup_create(self.name, self.group, id="0", mkstream=True)
        except errors.OutOfMemoryError:
            # Redis is full, and says so before it looks whether the group is there.
            if not any(group["name"] == self.group.encode() for group in client.xinfo_groups(self.name)):
                raise
        except errors.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def restore(self, error: SourceError, client: Any) -> None:
        """Create the stream or the group again if it is gone: `Disconnected` makes the caller retry."""
        if "NOGROUP" in error.why or "no longer exists" in error.why:
            with self.speaking():
                self.create_group(client)
            raise Disconnected(error.why) from error

    # -- sending ---------------------------------------------------------------------------------

    def _client(self) -> Any:
        with self._sending:
            if self._sender is None or self._sender[0] != os.getpid():
                client = self.connect()
                self.check(client)
                self._sender = (os.getpid(), client)
            return self._sender[1]

    def _speak(self, call: Callable[[Any], T]) -> T:
        """Return `call(client)`, tried again while Redis can't be reached."""

        def attempt() -> T:
            with self.speaking():
                return call(self._client())

        return self.persist(attempt)

    def _deliver(self, outgoing: Sequence[Outgoing]) -> list[str]:
        ids: list[str] = []
        for start in range(0, len(outgoing), BATCH):
            ids += self._speak(partial(self._put, outgoing[start : start + BATCH]))
        return ids

    def _put(self, outgoing: Sequence[Outgoing], client: Any) -> list[str]:
        if len(outgoing) == 1 and not outgoing[0].delay:
            return [client.xadd(self.name, fields(outgoing[0])).decode()]
        moment = now(client) if any(each.delay for each in outgoing) else 0.0
        delayed: dict[int, str] = {}
        with client.pipeline(transaction=True) as pipe:
            for number, each in enumerate(outgoing):
                if each.delay:
                    delayed[number] = uuid.uuid4().hex
                    pipe.zadd(self.key("delayed"), {packed(delayed[number], each): moment + each.delay})
                else:
                    pipe.xadd(self.name, fields(each))
            answers = pipe.execute()
        return [delayed.get(number) or answer.decode() for number, answer in enumerate(answers)]

    # -- looking at it ---------------------------------------------------------------------------

    def size(self) -> int:
        """Return how many messages wait for a head of the group, delayed ones left out.

        Where other groups read the same stream, those that are done with are counted too.
        """

        def count(client: Any) -> int:
            self.create_group(client)
            held = client.xpending(self.name, self.group)["pending"]
            return max(0, int(client.xlen(self.name)) - int(held))

        return int(self._speak(count))

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest dead letters, `limit` at the most. They stay where they are."""
        entries = self._speak(lambda client: client.xrange(self.key("dead"), count=limit))
        return [read_letter(id.decode(), found) for id, found in entries]

    def resend(self, letter: DeadLetter) -> str:
        """Send a dead letter's message again, take the letter out, and return the message's new id."""
        checked_letter(letter)
        again = encode(letter.data, sendable(letter.options))

        def move(client: Any) -> str | None:
            with client.pipeline(transaction=True) as pipe:
                pipe.watch(self.key("dead"))
                if not pipe.xrange(self.key("dead"), letter.id, letter.id):
                    raise TaskNotFound(letter.id, f"among the dead letters of {self!r}")
                pipe.multi()
                pipe.xdel(self.key("dead"), letter.id)
                pipe.xadd(self.name, fields(again))
                with self.unless_changed():
                    return str(pipe.execute()[1].decode())
            return None

        while (id := self._speak(move)) is None:
            pass  # others have written dead letters at that moment
        return id

    def close(self) -> None:
        """Let go of the connection that was made for sending. It may be used again."""
        with self._sending:
            if self._sender is not None:
                self._sender[1].close()
                self._sender = None

    # -- consuming -------------------------------------------------------------------------------

    def open(self, holder: Holder, window: int) -> Session:  # noqa: ARG002 - nothing is fetched ahead
        """Begin to consume. Raises `SourceError`."""
        return self.persist(lambda: RedisSession(self, holder))
