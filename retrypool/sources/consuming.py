"""`Pool.consume`: messages become tasks, and what comes of the tasks is told to the broker.

Two threads. The caller's fetches messages and dispatches them, `window` at the most at a time. The keeper
tells the broker what became of them, and renews the rest; nothing that the pool or a worker does can hold
it up.

The life of a message: fetched, held, dispatched; its task ends (on a worker's thread); the keeper reads the
verdict off the task and settles it; when the broker has taken that in, it is held no more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from retrypool.checks import Duration, count, optional_seconds, seconds
from retrypool.ctrl_c import acquire, join
from retrypool.errors import (
    InvalidType,
    InvalidValue,
    NoWorkers,
    PoolClosed,
    QueueFull,
)
from retrypool.model.cancel import CancelToken
from retrypool.model.task import Task
from retrypool.sources.base import (
    Backoff,
    Consumed,
    Disconnected,
    Message,
    Settlement,
    Source,
    Verdict,
)
from retrypool.sources.envelope import time_left
from retrypool.sources.letters import letter, told
from retrypool.sources.verdicts import Head, options_of, verdict_on

__all__ = ["consume"]

log = logging.getLogger("retrypool")

GLANCE = 0.5
"""Seconds after which the fetching thread looks whether it is to stop."""

LINGER = 0.001
"""Seconds for which the keeper gathers more endings when few have come: one round trip for many."""

SETTLING = 30.0
"""Seconds for which the end of `consume` waits for a broker that can't be reached. What it does not
take in then is delivered again."""


def consume(
    pool: Head,
    source: Source,
    *,
    window: int | None,
    idle: Duration | None,
    cancel: CancelToken | None,
    finish: Duration,
) -> Consumed:
    """See `Pool.consume`."""
    if not isinstance(source, Source):
        raise InvalidType("source", source, "a source, such as RedisStream(url, name)")
    if cancel is not None and not isinstance(cancel, CancelToken):
        raise InvalidType("cancel", cancel, "a CancelToken")
    patience, grace = optional_seconds("idle", idle), seconds("finish", finish)
    threads = len(pool.workers())
    width = max(32, 8 * threads) if window is None else count("window", window, least=1)
    consumption = Consumption(pool, source, width, threads)
    return consumption.run(patience, cancel or CancelToken(), grace)


class _Entry:
    """A message that is held, with what stands for it here."""

    __slots__ = ("lost", "message", "settlement", "task")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.task: Task[Any, Any] | None = None
        self.settlement: Settlement | None = None
        self.lost = False


class Consumption:
    """One call of `consume`: the holder of its messages."""

    # Who may write what:
    #   _held       the fetching thread adds, the keeper removes
    #   _ended      appended by whoever ends a task, taken by the keeper
    #   _due        the keeper
    #   _dozing     the keeper sets it and then looks at _ended; whoever ends a task appends and then looks
    #               at it. One of the two sees the other.
    #   _down       who has no connection; each thread its own name
    #   counts      `received`, `redelivered`: the fetching thread; the others: the keeper

    def __init__(self, pool: Head, source: Source, window: int, threads: int) -> None:
        self._pool, self._source, self._window = pool, source, window
        # With room for one, one message is fetched, at the price of many. So it waits for more room, as
        # long as there is enough to do meanwhile.
        self._least = max(1, (window - 2 * threads) // 4)
        self._held: dict[str, _Entry] = {}
        self._ended: deque[_Entry] = deque()
        self._due: dict[str, _Entry] = {}
        self._dozing = False
        self._closing = False
        self._down: set[str] = set()
        self._failure: BaseException | None = None
        self._bell = threading.Lock()  # rung for the fetching thread
        self._bell.acquire()
        self.counts = Consumed()
        self._session = source.open(self, window)

    # -- the fetching thread ---------------------------------------------------------------------

    def run(self, idle: float | None, cancel: CancelToken, grace: float) -> Consumed:
        """Work until there is a reason to stop, and clear up."""
        keeper = threading.Thread(
            target=self._keep, name=f"retrypool-source-{self._source.name}", daemon=True
        )
        keeper.start()
        take_back = cancel.on_cancel(lambda _token: self._ring())
        try:
            cancelled = self._work(idle, cancel)
            self._come_to_an_end(grace if cancelled else None)
        except BaseException:
            self._abandon()
            raise
        finally:
            take_back()
            self._closing = True
            self._session.wake()
            join(keeper, SETTLING)
            self._session.close()
        return self.counts

    def _work(self, idle: float | None, cancel: CancelToken) -> bool:
        """Fetch and dispatch; return whether it was cancelled, and not idle or closed."""
        backoff = Backoff()
        quiet_since = time.monotonic()
        while not self._pool.closed:
            if cancel.cancelled:
                return True
            self._check()
            room = self._window - len(self._held)
            if room < self._least:
                self._wait(GLANCE)
                quiet_since = time.monotonic()
                continue
            left = GLANCE
            if idle is not None:
                # A task may send more: nothing is quiet while something is held.
                left = 0.1 if self._held else idle - (time.monotonic() - quiet_since)
            try:
                messages = self._session.fetch(room, min(GLANCE, max(0.0, left)))
            except Disconnected as error:
                self._lose("reader", error)
                self._wait(backoff.next())
                quiet_since = time.monotonic()
                continue
            if self._down:
                self._down.discard("reader")
                backoff.reset()
            entries = [self._take(message) for message in messages]
            if cancel.cancelled:
                return True
            for entry in entries:
                if not entry.lost:
                    self._dispatch(entry, cancel)
            now = time.monotonic()
            if messages or self._held or self._down:
                quiet_since = now
            elif idle is not None and now - quiet_since >= idle:
                if not self._session.may_have_more():
                    return False
                self._wait(0.02)
        return False

    def _take(self, message: Message) -> _Entry:
        entry = self._held[message.uid] = _Entry(message)
        self.counts.received += 1
        if message.deliveries > 1:
            self.counts.redelivered += 1
        return entry

    def _dispatch(self, entry: _Entry, cancel: CancelToken) -> None:
        message = entry.message
        if message.problem is not None:
            self._end(entry, Verdict.BURY, letter("malformed", message.problem))
            return
        if message.deliveries > self._source.max_deliveries:
            why = f"delivered {message.deliveries - 1} times, and never brought to an end"
            self._end(entry, Verdict.BURY, letter("deliveries", why))
            return
        left = time_left(message.options)
        if left is not None and left <= 0:
            self._end(entry, Verdict.BURY, letter("deadline", "it had passed when the message was delivered"))
            return
        options = options_of(message, keys=self._pool.storage is not None)
        while True:
            try:
                # A bounded queue is waited for, but not past the end of the consumption.
                entry.task = task = self._pool.dispatch(message.data, block_timeout=GLANCE, **options)
            except QueueFull:
                if not cancel.cancelled:
                    continue
                self._end(entry, Verdict.RELEASE)
            except PoolClosed:
                self._end(entry, Verdict.RELEASE)
            except (InvalidType, InvalidValue, TypeError) as error:
                self._end(entry, Verdict.BURY, letter("invalid", told(error)))
            except NoWorkers as error:
                self._end(entry, Verdict.BOUNCE)
                if not error.wants:
                    raise
                # Another head may have such a worker.
                log.warning("%r: message %s is given back: %s", self._source, message.uid, error)
            else:
                task.add_done_callback(lambda _task: self._end(entry))
                if entry.lost:  # the keeper found no task that it could cancel
                    self._pool.cancel_task(task)
            return

    def _come_to_an_end(self, grace: float | None) -> None:
        """Wait until nothing is held. With a `grace`, let go of what waits, and later of what runs."""
        until = None if grace is None else time.monotonic() + grace
        settled_by = None
        while self._held:
            self._check()
            if grace is not None:
                self._let_waiting_go()  # also what has failed meanwhile, and would be tried again
            self._wait(GLANCE)
            now = time.monotonic()
            if until is not None and now >= until:
                until = None
                self._let_running_go()
            if any(entry.task is not None and not entry.task.done() for entry in list(self._held.values())):
                settled_by = None
            elif settled_by is None:
                settled_by = now + SETTLING
            elif now >= settled_by:
                log.warning("%r: %d messages could not be settled", self._source, len(self._held))
                return

    def _let_waiting_go(self) -> None:
        for entry in list(self._held.values()):
            if entry.task is None:
                self._end(entry, Verdict.RELEASE)
            else:
                entry.task.cancel()

    def _let_running_go(self) -> None:
        for entry in list(self._held.values()):
            if entry.task is not None:
                self._pool.cancel_task(entry.task)

    def _abandon(self) -> None:
        """Give back all that is held, after an error or a Ctrl-C."""
        self._let_waiting_go()
        self._let_running_go()
        until = time.monotonic() + 5.0
        while self._held and self._failure is None and time.monotonic() < until:
            self._wait(GLANCE)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _wait(self, timeout: float) -> None:
        acquire(self._bell, timeout)

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:  # it has been rung
            pass

    def _lose(self, who: str, error: Disconnected) -> None:
        if not self._down:
            self.counts.reconnects += 1
            log.warning("%r: no connection, trying again: %s", self._source, error)
        self._down.add(who)

    # -- any thread ------------------------------------------------------------------------------

    def holds(self, uid: str) -> bool:
        """Return whether a message is held."""
        return uid in self._held

    def messages(self) -> list[Message]:
        """Return the messages that are held."""
        return [entry.message for entry in list(self._held.values())]

    def _end(
        self, entry: _Entry, verdict: Verdict | None = None, note: Mapping[str, object] | None = None
    ) -> None:
        if verdict is not None:
            if entry.settlement is not None:
                return
            entry.settlement = Settlement(entry.message, verdict, note or {})
        self._ended.append(entry)
        if self._dozing:
            self._dozing = False
            self._session.wake()

    # -- the keeper ------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            self._keep_on()
        except BaseException as error:  # noqa: BLE001 - the fetching thread raises it
            self._failure = error
            self._ring()

    def _keep_on(self) -> None:
        session, backoff = self._session, Backoff()
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
                self._down.discard("keeper")
                backoff.reset()
            except Disconnected as error:
                self._lose("keeper", error)
                if not last:
                    time.sleep(backoff.next())
            self._ring()

    def _doze(self, until: float) -> None:
        self._dozing = True
        left = until - time.monotonic()
        if not self._ended and not self._closing and left > 0:
            self._session.wait(left)
        self._dozing = False
        if self._ended and 4 * len(self._ended) < len(self._held):
            self._session.wait(LINGER)

    def _judge(self, entry: _Entry) -> None:
        """Read the verdict off a task that has ended."""
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

    def _let_go(self, uid: str) -> _Entry | None:
        self._due.pop(uid, None)
        return self._held.pop(uid, None)
