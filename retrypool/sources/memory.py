"""A source within the process: the reference for the other sources, and for tests of consumers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from retrypool.checks import Duration
from retrypool.ctrl_c import acquire
from retrypool.errors import TaskNotFound
from retrypool.sources.base import (
    Holder,
    Message,
    Session,
    Settlement,
    Source,
    Verdict,
    checked_seconds,
)
from retrypool.sources.envelope import Outgoing, decode
from retrypool.sources.letters import DeadLetter, checked_letter, dead_letter, sendable

__all__ = ["MemoryQueue"]


@dataclass(slots=True, eq=False)
class _Item:
    uid: str
    data: bytes
    options: bytes
    due: float = 0.0
    deliveries: int = 0
    owner: object = None
    expires: float = 0.0


@dataclass(slots=True)
class _Shelf:
    """What the queue holds. All of it under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    number: int = 0
    waiting: deque[_Item] = field(default_factory=deque)
    delayed: list[_Item] = field(default_factory=list)
    held: dict[str, _Item] = field(default_factory=dict)
    dead: dict[str, DeadLetter] = field(default_factory=dict)
    bells: list[threading.Lock] = field(default_factory=list)

    def ring(self) -> None:
        for bell in self.bells:
            if bell.locked():
                bell.release()


class MemoryQueue(Source):
    """A queue in the memory of this process, for several pools in it. Nothing of it survives the process.

    A head that does not renew what it holds for `lease` seconds loses it to the others.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        lease: Duration = 30.0,
        max_deliveries: int = 20,
        send_timeout: Duration = 30.0,
    ) -> None:
        super().__init__(name, max_deliveries=max_deliveries, send_timeout=send_timeout)
        self.lease = checked_seconds("lease", lease, 0.05)
        self._shelf = _Shelf()

    def _deliver(self, outgoing: Sequence[Outgoing]) -> list[str]:
        shelf, now = self._shelf, time.monotonic()
        ids = []
        with shelf.lock:
            for each in outgoing:
                shelf.number += 1
                item = _Item(str(shelf.number), each.data, each.options, now + each.delay)
                ids.append(item.uid)
                if each.delay:
                    shelf.delayed.append(item)
                else:
                    shelf.waiting.append(item)
            shelf.ring()
        return ids

    def open(self, holder: Holder, window: int) -> Session:  # noqa: ARG002 - nothing is fetched ahead
        """Begin to consume."""
        return _MemorySession(self, holder)

    def size(self) -> int:
        """Return how many messages wait for a head, delayed ones left out."""
        with self._shelf.lock:
            return len(self._shelf.waiting)

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the oldest dead letters, `limit` at the most. They stay where they are."""
        with self._shelf.lock:
            return list(self._shelf.dead.values())[:limit]

    def resend(self, letter: DeadLetter) -> str:
        """Send a dead letter's message again, take the letter out, and return the message's new id."""
        checked_letter(letter)
        with self._shelf.lock:
            if self._shelf.dead.pop(letter.id, None) is None:
                raise TaskNotFound(letter.id, f"among the dead letters of {self!r}")
        return self.send(letter.data, **sendable(letter.options))


class _MemorySession(Session):
    def __init__(self, source: MemoryQueue, holder: Holder) -> None:
        self.beat = source.lease / 3
        self._lease, self._shelf, self._holder = source.lease, source._shelf, holder
        self._woken = threading.Lock()
        self._bell = threading.Lock()
        self._woken.acquire()
        self._bell.acquire()
        with self._shelf.lock:
            self._shelf.bells.append(self._bell)

    def fetch(self, limit: int, timeout: float) -> Sequence[Message]:
        found = self._take(limit)
        if not found and timeout > 0:
            with self._shelf.lock:
                moments = [item.due for item in self._shelf.delayed]
                moments += [item.expires for item in self._shelf.held.values()]
            soonest = min(moments, default=time.monotonic() + timeout)
            acquire(self._bell, max(0.0, min(timeout, soonest - time.monotonic())))
            found = self._take(limit)
        return found

    def _take(self, limit: int) -> list[Message]:
        shelf, now = self._shelf, time.monotonic()
        with shelf.lock:
            for item in [item for item in shelf.delayed if item.due <= now]:
                shelf.delayed.remove(item)
                shelf.waiting.append(item)
            for item in [item for item in shelf.held.values() if item.expires <= now]:
                if item.owner is not self or not self._holder.holds(item.uid):
                    del shelf.held[item.uid]
                    shelf.waiting.appendleft(item)
            messages: list[Message] = []
            while shelf.waiting and len(messages) < limit:
                item = shelf.waiting.popleft()
                item.deliveries += 1
                item.owner, item.expires = self, now + self._lease
                shelf.held[item.uid] = item
                data, options, problem = decode(item.data, item.options)
                messages.append(Message(item.uid, data, options, item.deliveries, item.data, problem))
            return messages

    def wait(self, timeout: float) -> None:
        self._woken.acquire(timeout=timeout)

    def wake(self) -> None:
        try:
            self._woken.release()
        except RuntimeError:
            pass

    def settle(self, due: Sequence[Settlement]) -> None:
        shelf = self._shelf
        refused, through = [], []
        with shelf.lock:
            for settlement in due:
                uid = settlement.message.uid
                item = shelf.held.get(uid)
                if item is None or item.owner is not self:
                    refused.append(settlement)
                    continue
                del shelf.held[uid]
                through.append(settlement)
                match settlement.verdict:
                    case Verdict.RELEASE | Verdict.BOUNCE:
                        item.deliveries -= settlement.verdict is Verdict.RELEASE
                        shelf.waiting.appendleft(item)
                    case Verdict.BURY:
                        message = settlement.message
                        shelf.dead[uid] = dead_letter(
                            uid,
                            uid,
                            message.data,
                            message.options,
                            message.deliveries,
                            message.raw,
                            settlement.letter,
                        )
            shelf.ring()
        for settlement in refused:
            self._holder.refused(settlement)
        for settlement in through:
            self._holder.settled(settlement)

    def renew(self, held: Collection[Message]) -> None:
        shelf, now = self._shelf, time.monotonic()
        lost = []
        with shelf.lock:
            for message in held:
                item = shelf.held.get(message.uid)
                if item is None or item.owner is not self:
                    lost.append(message)
                else:
                    item.expires = now + self._lease
        for message in lost:
            self._holder.lost(message)

    def reconnect(self) -> None:
        """There is nothing to connect to."""

    def close(self) -> None:
        with self._shelf.lock:
            self._shelf.bells.remove(self._bell)
