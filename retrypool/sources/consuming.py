"""`Pool.consume`: messages become tasks, and the outcome of a task settles its message at the broker.

Two threads. The caller's, here, fetches messages and dispatches them, `window` at the most at a time. The
keeper's (`keeping.py`) settles them and renews the rest.

The life of a message: fetched, held, dispatched; its task ends (on a worker's thread); the keeper derives the
verdict from the task and settles the message; once the broker has confirmed that, it is held no more.
"""

from __future__ import annotations

import logging
import time

from retrypool.checks import Duration, count, optional_seconds, seconds
from retrypool.errors import InvalidType, InvalidValue, NoWorkers, PoolClosed, QueueFull
from retrypool.model.cancel import CancelToken
from retrypool.sources.base import Backoff, Consumed, Disconnected, Source, Verdict
from retrypool.sources.envelope import time_left
from retrypool.sources.keeping import Entry, Keeper
from retrypool.sources.letters import letter, told
from retrypool.sources.verdicts import Head, options_of

__all__ = ["consume"]

log = logging.getLogger("retrypool")

GLANCE = 0.5
"""Seconds after which the fetching thread looks whether it is to stop."""

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


class Consumption:
    """One call of `consume`: what its caller's thread does."""

    def __init__(self, pool: Head, source: Source, window: int, threads: int) -> None:
        self._pool, self._source, self._window = pool, source, window
        # With room for one, one message is fetched, at the price of many. So it waits for more room, as
        # long as there is enough to do meanwhile.
        self._least = max(1, (window - 2 * threads) // 4)
        self._keeper = Keeper(pool, source, window)

    def run(self, idle: float | None, cancel: CancelToken, grace: float) -> Consumed:
        """Work until the pool closes, `cancel` is set or nothing came for `idle` seconds; then clean up."""
        keeper = self._keeper
        keeper.start()
        take_back = cancel.on_cancel(lambda _token: keeper.ring())
        try:
            cancelled = self._work(idle, cancel)
            self._come_to_an_end(grace if cancelled else None)
        except BaseException:
            self._abandon()
            raise
        finally:
            take_back()
            keeper.stop(SETTLING)
        return keeper.counts

    def _work(self, idle: float | None, cancel: CancelToken) -> bool:
        """Fetch and dispatch; return whether it was cancelled, and not idle or closed."""
        keeper = self._keeper
        backoff = Backoff()
        quiet_since = time.monotonic()
        while not self._pool.closed:
            if cancel.cancelled:
                return True
            keeper.check()
            room = self._window - keeper.load
            if room < self._least:
                keeper.wait(GLANCE)
                quiet_since = time.monotonic()
                continue
            left = GLANCE
            if idle is not None:
                # A task may send more: nothing is quiet while something is held.
                left = 0.1 if keeper.load else idle - (time.monotonic() - quiet_since)
            try:
                messages = keeper.session.fetch(room, min(GLANCE, max(0.0, left)))
            except Disconnected as error:
                keeper.lose("reader", error)
                keeper.wait(backoff.next())
                quiet_since = time.monotonic()
                continue
            if keeper.down:
                keeper.found("reader")
                backoff.reset()
            entries = [keeper.take(message) for message in messages]
            if cancel.cancelled:
                return True
            for entry in entries:
                if not entry.lost:
                    self._dispatch(entry, cancel)
            now = time.monotonic()
            if messages or keeper.load or keeper.down:
                quiet_since = now
            elif idle is not None and now - quiet_since >= idle:
                if not keeper.session.may_have_more():
                    return False
                keeper.wait(0.02)
        return False

    def _dispatch(self, entry: Entry, cancel: CancelToken) -> None:
        keeper = self._keeper
        message = entry.message
        if message.problem is not None:
            keeper.end(entry, Verdict.BURY, letter("malformed", message.problem))
            return
        if message.deliveries > self._source.max_deliveries:
            why = f"delivered {message.deliveries - 1} times, and never brought to an end"
            keeper.end(entry, Verdict.BURY, letter("deliveries", why))
            return
        left = time_left(message.options)
        if left is not None and left <= 0:
            why = "it had passed when the message was delivered"
            keeper.end(entry, Verdict.BURY, letter("deadline", why))
            return
        options = options_of(message, keys=self._pool.storage is not None)
        while True:
            try:
                # A bounded queue is waited for, but not past the end of the consumption.
                entry.task = task = self._pool.dispatch(message.data, block_timeout=GLANCE, **options)
            except QueueFull:
                if not cancel.cancelled:
                    continue
                keeper.end(entry, Verdict.RELEASE)
            except PoolClosed:
                keeper.end(entry, Verdict.RELEASE)
            except (InvalidType, InvalidValue, TypeError) as error:
                keeper.end(entry, Verdict.BURY, letter("invalid", told(error)))
            except NoWorkers as error:
                keeper.end(entry, Verdict.BOUNCE)
                if not error.wants:
                    raise
                # Another head may have such a worker.
                log.warning("%r: message %s is given back: %s", self._source, message.uid, error)
            else:
                task.add_done_callback(lambda _task: keeper.end(entry))
                if entry.lost:  # the keeper found no task that it could cancel
                    self._pool.cancel_task(task)
            return

    def _come_to_an_end(self, grace: float | None) -> None:
        """Wait until nothing is held. With a `grace`, cancel waiting tasks now, and running ones after it."""
        keeper = self._keeper
        until = None if grace is None else time.monotonic() + grace
        settled_by = None
        while keeper.load:
            keeper.check()
            if grace is not None:
                self._let_waiting_go()  # also what has failed meanwhile, and would be tried again
            keeper.wait(GLANCE)
            now = time.monotonic()
            if until is not None and now >= until:
                until = None
                self._let_running_go()
            if any(entry.task is not None and not entry.task.done() for entry in keeper.held):
                settled_by = None
            elif settled_by is None:
                settled_by = now + SETTLING
            elif now >= settled_by:
                log.warning("%r: %d messages could not be settled", self._source, keeper.load)
                return

    def _let_waiting_go(self) -> None:
        keeper = self._keeper
        for entry in keeper.held:
            if entry.task is None:
                keeper.end(entry, Verdict.RELEASE)
            else:
                entry.task.cancel()

    def _let_running_go(self) -> None:
        for entry in self._keeper.held:
            if entry.task is not None:
                self._pool.cancel_task(entry.task)

    def _abandon(self) -> None:
        """Release all messages that are held, after an error or a Ctrl-C."""
        keeper = self._keeper
        self._let_waiting_go()
        self._let_running_go()
        until = time.monotonic() + 5.0
        while keeper.load and not keeper.failed and time.monotonic() < until:
            keeper.wait(GLANCE)
