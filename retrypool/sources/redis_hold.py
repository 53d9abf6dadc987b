"""Which entries of a Redis stream a head may settle or renew.

Redis lets any client acknowledge or claim any entry of a group. So a head that takes entries from another
deletes that head's key in the same transaction, and a head settles or renews its own entries in one
that fails if its key has changed (WATCH). When the key is gone, it asks which entries it still has. So
neither can act on an entry of the other, however late it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from retrypool.errors import SourceError
from retrypool.sources.base import Disconnected, Holder

__all__ = ["DAY", "RELEASED", "Hold"]

DAY = 86_400_000
"""Milliseconds for which the key of a head lives that has died: longer than any renewal takes."""

RELEASED = "released"
"""The consumer that stands for nobody: entries that were given back, for whoever comes first."""


class RedisServer(Protocol):
    """What a session needs of its source."""

    library: Any
    name: str
    group: str
    lease: float

    def connect(self) -> Any: ...
    def key(self, *parts: str) -> str: ...
    @property
    def full(self) -> tuple[type[Exception], ...]: ...
    def is_full(self, error: BaseException) -> bool: ...
    def speaking(self) -> AbstractContextManager[None]: ...
    def unless_changed(self) -> AbstractContextManager[bool | None]: ...
    def check(self, client: Any) -> None: ...
    def create_group(self, client: Any) -> None: ...
    def restore(self, error: SourceError, client: Any) -> None: ...


class Hold:
    """What one head has, and the key that exists while nothing was taken from it. The keeper's."""

    def __init__(self, server: RedisServer, holder: Holder, client: Any, me: str) -> None:
        self._server, self._holder, self._client, self._me = server, holder, client, me
        self.key = server.key("hold", server.group, me)
        self.taken: set[str] = set()  # entries of ours that another head has taken
        self.in_doubt = False  # whether a transaction may have been carried out that nobody told us of

    def transact(self, sort: Callable[[bool], None], write: Callable[[Any], None]) -> list[Any]:
        """Write about entries of this head, unless one of them is taken from it meanwhile.

        `sort(full)` selects the entries once `taken` is up to date; `write(pipe)` adds the commands.
        """
        try:
            with self._server.speaking():
                try:
                    return self._guarded(sort, write)
                except self._server.full as error:
                    if not self._server.is_full(error):
                        raise
                    # A full Redis takes no transactions, but single commands that need no memory. To let it
                    # become emptier is worth more than the guard, which can't be had.
                    self._mark_taken()
                    sort(True)
                    with self._client.pipeline(transaction=False) as pipe:
                        write(pipe)
                        return list(pipe.execute())
        except Disconnected:
            self.in_doubt = True
            raise
        except SourceError as error:
            self._server.restore(error, self._client)
            raise

    def _guarded(self, sort: Callable[[bool], None], write: Callable[[Any], None]) -> list[Any]:
        while True:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.watch(self.key)
                if not pipe.exists(self.key):
                    pipe.unwatch()
                    # First the key, then the look: whoever takes something after that deletes the key again.
                    self.take()
                    pipe.watch(self.key)
                    if not pipe.exists(self.key):
                        continue
                    self._mark_taken()
                sort(False)
                pipe.multi()
                write(pipe)
                with self._server.unless_changed():
                    return list(pipe.execute())

    def _mark_taken(self) -> None:
        """Find out what was taken from this head."""
        held = self._holder.messages()  # first: what is fetched after this was not taken
        mine = self.mine()
        self.taken |= {message.uid for message in held if message.uid not in mine}

    def take(self) -> None:
        """Make the key that exists while nothing is taken from this head. Its value is the lease."""
        lease = int(self._server.lease * 1000)
        self._client.set(self.key, lease, px=max(DAY, 10 * lease))

    def mine(self, client: Any = None) -> dict[str, int]:
        """Return the entries that this head has, and how often each was delivered."""
        found: dict[str, int] = {}
        start, ask = "-", self._client if client is None else client
        while True:
            page = ask.xpending_range(self._server.name, self._server.group, start, "+", 1000, self._me)
            found.update({entry["message_id"].decode(): entry["times_delivered"] for entry in page})
            if len(page) < 1000:
                return found
            start = "(" + page[-1]["message_id"].decode()

    def elsewhere(self, id: str) -> bool:
        """Return whether another head has an entry that is not this one's."""
        entries = self._client.xpending_range(self._server.name, self._server.group, id, id, 1)
        return bool(entries) and entries[0]["consumer"].decode() != RELEASED
