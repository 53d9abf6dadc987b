"""The keeper: holds the messages of a consumption, settles those whose tasks have ended, renews the rest.

It works on a thread of its own, so that nothing that the pool or a worker does can hold it up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from retrypool.ctrl_c import acquire, join
from retrypool.model.task import Task
from retrypool.sources.base import Backoff, Consumed, Disconnected, Message, Settlement, Source, Verdict
from retrypool.sources.verdicts import Head, verdict_on

__all__ = ["Entry", "Keeper"]

log = logging.getLogger("retrypool")

LINGER = 0.001
"""Seconds for which the keeper gathers more endings when few have come: one round trip for many."""


class Entry:
    """A message that is held, with what stands for it here."""

    __slots__ = ("lost", "message", "settlement", "task")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.task: Task[Any, Any] | None = None
        self.settlement: Settlement | None = None
        self.lost = False


class Keeper:
    """Holds the messages of one call of `consume`, and settles them as their tasks end."""

    # Who may write what:
    #   _held       the fetching thread adds, the keeper's thread removes
    #   _ended      appended by whoever ends a task, taken by the keeper's thread
    #   _due        the keeper's thread
    #   _dozing     the keeper's thread sets it and then looks at _ended; whoever ends a task appends and
    #               then looks at it. One of the two sees the other.
    #   _down       who has no connection; each thread its own name
    #   _closing    the fetching thread, once
    #   _failure    the keeper's thread, once
    #   counts      `received`, `redelivered`: the fetching thread; the others: the keeper's thread

    def __init__(self, pool: Head, source: Source, window: int) -> None:
        self._pool, self._source = pool, source
        self._held: dict[str, Entry] = {}
        self._ended: deque[Entry] = deque()
        self._due: dict[str, Entry] = {}
        self._dozing = False
        self._closing = False
        self._down: set[str] = set()
        self._failure: BaseException | None = None
        self._bell = threading.Lock()  # rung for the fetching thread
        self._bell.acquire()
        self._thread = threading.Thread(
            target=self._keep, name=f"retrypool-source-{source.name}", daemon=True
        )
        self.counts = Consumed()
        self.session = source.open(self, window)

    # -- the fetching thread ---------------------------------------------------------------------

    def start(self) -> None:
        """Start the keeper's thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Settle what has ended, for `timeout` seconds at the most, and close the session."""
        self._closing = True
        self.session.wake()
        join(self._thread, timeout)
        self.session.close()

    def take(self, message: Message) -> Entry:
        """Hold a message."""
        entry = self._held[message.uid] = Entry(message)
        self.counts.received += 1
        if message.deliveries > 1:
            self.counts.redelivered += 1
        return entry

    @property
    def held(self) -> list[Entry]:
        """What is held now."""
        return list(self._held.values())

    @property
    def load(self) -> int:
        """How many messages are held."""
        return len(self._held)

    @property
    def failed(self) -> bool:
        """Whether the keeper has given up; `check` says why."""
        return self._failure is not None

    def check(self) -> None:
        """Raise what the keeper has given up for, if it has."""
        if self._failure is not None:
            raise self._failure

    def wait(self, timeout: float) -> None:
        """Wait until the keeper has settled something, or `ring` is called; `timeout` seconds at the most."""
        acquire(self._bell, timeout)

    @property
    def down(self) -> bool:
        """Whether one of the threads has no connection."""
        return bool(self._down)

    def found(self, who: str) -> None:
        """Record that a thread has a connection again."""
        self._down.discard(who)

    # -- any thread ------------------------------------------------------------------------------

    def ring(self) -> None:
        """End a `wait`."""
        try:
            self._bell.release()
        except RuntimeError:  # it has been rung
            pass

    def lose(self, who: str, error: Disconnected) -> None:
        """Record that a thread has no connection."""
        if not self._down:
            self.counts.reconnects += 1
            log.warning("%r: no connection, trying again: %s", self._source, error)
        self._down.add(who)

    def holds(self, uid: str) -> bool:
        """Return whether a message is held."""
        return uid in self._held

    def messages(self) -> list[Message]:
        """Return the messages that are held."""
        return [entry.message for entry in list(self._held.values())]

    def end(
        self, entry: Entry, verdict: Verdict | None = None, note: Mapping[str, object] | None = None
    ) -> None:
        """Have a message settled: by `verdict`, or by the outcome of its task, which has ended."""
        if verdict is not None:
            if entry.settlement is not None:
                return
            entry.settlement = Settlement(entry.message, verdict, note or {})
        self._ended.append(entry)
        if self._dozing:
            self._dozing = False
            self.session.wake()

    # -- the keeper's thread ------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            self._keep_on()
        except BaseException as error:  # noqa: BLE001 - the fetching thread raises it
            self._failure = error
            self.ring()

    def _keep_on(self) -> None:
        session, backoff = self.session, Backoff()
        next_beat = time.monotonic() + session.beat
        last = False
        while not last:
            last = self._closing
            try:
                if "keeper" in self._down:
                    session.reconnect()
                    next_beat = 0.0
                self._doze(next_beat)
                while self._ended:
                    self._judge(self._ended.popleft())
                if self._due:
                    session.settle([entry.settlement for entry in self._due.values() if entry.settlement])
                if time.monotonic() >= next_beat:
                    held = list(self._held.values())
                    session.renew([entry.message for entry in held if entry.message.uid not in self._due])
                    next_beat = time.monotonic() + session.beat
                self.found("keeper")
                backoff.reset()
            except Disconnected as error:
                self.lose("keeper", error)
                if not last:
                    time.sleep(backoff.next())
            self.ring()

    def _doze(self, until: float) -> None:
        self._dozing = True
        left = until - time.monotonic()
        if not self._ended and not self._closing and left > 0:
            self.session.wait(left)
        self._dozing = False
        if self._ended and 4 * len(self._ended) < len(self._held):
            self.session.wait(LINGER)

    def _judge(self, entry: Entry) -> None:
        """Derive the verdict from a task that has ended."""
        uid = entry.message.uid
        if self._held.get(uid) is not entry:
            return  # lost meanwhile
        task = entry.task
        if entry.settlement is None and task is not None:
            entry.settlement = verdict_on(task, entry.message, self._pool)
        self._due[uid] = entry

    def settled(self, settlement: Settlement) -> None:
        """The broker has taken a settlement in."""
        self._let_go(settlement.message.uid)
        match settlement.verdict:
            case Verdict.ACK:
                self.counts.succeeded += 1
            case Verdict.BURY:
                self.counts.dead += 1
            case Verdict.RELEASE | Verdict.BOUNCE:
                self.counts.released += 1

    def refused(self, settlement: Settlement) -> None:
        """A settlement came too late."""
        self._let_go(settlement.message.uid)
        self.counts.lost += 1
        if settlement.verdict in (Verdict.ACK, Verdict.BURY):
            self.counts.refused += 1
            log.warning("%r: message %s is another head's now", self._source, settlement.message.uid)

    def lost(self, message: Message) -> None:
        """A message was given to another head: nobody waits for its task any more."""
        entry = self._let_go(message.uid)
        if entry is None:
            return
        self.counts.lost += 1
        entry.lost = True
        log.warning("%r: message %s was given to another head", self._source, message.uid)
        if entry.task is not None and not self._pool.cancel_task(entry.task) and entry.task.done():
            # It has just ended, and would have been refused.
            self.counts.refused += 1

    def _let_go(self, uid: str) -> Entry | None:
        self._due.pop(uid, None)
        return self._held.pop(uid, None)
