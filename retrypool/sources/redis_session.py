"""One head's session with a Redis stream.

The keys of a queue named `pages`:

- `pages`: the stream. What a head holds is in the group's list of pending entries, under the head's own
  consumer name; how long it has been idle there is the age of the last renewal. What is acknowledged is
  deleted, unless other groups read the same stream.
- `{pages}:delayed`: a sorted set of messages that are not due, by their moment on Redis's clock.
- `{pages}:dead`: a stream of dead letters.
- `{pages}:hold:GROUP:HEAD`: exists as long as nothing was taken from that head; see `redis_hold`.
- `{pages}:mover`: a lock, so that only one head moves due messages into the stream.

No scripts: all of this is WATCH, MULTI and EXEC.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from typing import Any

from retrypool.errors import SourceError
from retrypool.sources.base import Disconnected, Holder, Message, Session, Settlement, Verdict, head_name
from retrypool.sources.envelope import decode
from retrypool.sources.redis_hold import DAY, RELEASED, Hold, RedisServer
from retrypool.sources.redis_wire import buried, now, unpacked

__all__ = ["BATCH", "RedisSession"]

BATCH = 500
"""Entries in one transaction, at the most."""


class RedisSession(Session):
    """A consumer of the group, and its connections: one to fetch, one to keep."""

    def __init__(self, server: RedisServer, holder: Holder) -> None:
        self._server, self._holder = server, holder
        self._stream, self._group = server.name, server.group
        self._lease = int(server.lease * 1000)
        self.beat = server.lease / 3
        self._me = head_name()
        self._delayed = server.key("delayed")
        self._alone = True  # whether no other group reads the stream
        self._sweep_at = 0.0
        self._orphans = False  # whether there may be entries of ours that never arrived
        self._woken = threading.Lock()
        self._woken.acquire()
        self._reader, self._writer = server.connect(), server.connect()
        self._hold = Hold(server, holder, self._writer, self._me)
        try:
            with server.speaking():
                server.check(self._writer)
                server.create_group(self._writer)
                self._clean_up()
                try:
                    self._hold.take()
                except server.full:
                    pass  # a full Redis is worked off too
        except BaseException:
            self.close()
            raise

    def _clean_up(self) -> None:
        """Delete the consumers of heads that were killed while they held nothing."""
        for consumer in self._writer.xinfo_consumers(self._stream, self._group):
            name = consumer["name"].decode()
            if not consumer["pending"] and consumer["idle"] > max(3_600_000, 10 * self._lease):
                self._forget(name)

    def _forget(self, consumer: str) -> None:
        """Delete a consumer that has no entries. One that got some at this moment stays."""
        with self._writer.pipeline(transaction=True) as pipe:
            pipe.watch(self._stream)
            if pipe.xpending_range(self._stream, self._group, "-", "+", 1, consumer):
                return
            pipe.multi()
            pipe.xgroup_delconsumer(self._stream, self._group, consumer)
            with self._server.unless_changed():
                pipe.execute()

    # -- the fetching thread ---------------------------------------------------------------------

    def fetch(self, limit: int, timeout: float) -> Sequence[Message]:
        """See `Session`."""
        try:
            with self._server.speaking():
                if found := self._look_about(limit):
                    return found
                block = max(1, int(1000 * min(timeout, self._sweep_at - time.monotonic())))
                answer = self._reader.xreadgroup(
                    self._group, self._me, {self._stream: ">"}, count=limit, block=block
                )
        except Disconnected:
            self._orphans = True  # the answer may be what was lost
            raise
        except SourceError as error:
            self._server.restore(error, self._reader)
            raise
        return [self._message(id, found, 1) for _, entries in answer or () for id, found in entries]

    def _look_about(self, limit: int) -> list[Message]:
        """Return messages of dead heads, and those lost in an answer that did not arrive."""
        try:
            if self._orphans:
                if found := self._adopt(limit):
                    return found
                self._orphans = False
            if time.monotonic() >= self._sweep_at:
                return self._sweep(limit)
        except self._server.full as error:
            if not self._server.is_full(error):
                raise
            # It takes no transactions. What waits is fetched all the same, and that makes room.
        return []

    def _message(self, id: bytes, fields: dict[bytes, bytes] | None, deliveries: int) -> Message:
        fields = fields or {}
        raw = fields.get(b"d")
        data, options, problem = decode(raw, fields.get(b"o"))
        return Message(id.decode(), data, options, deliveries, raw or b"", problem, fields.get(b"o", b""))

    def _sweep(self, limit: int) -> list[Message]:
        """Move due messages into the stream, and take over the entries of dead heads."""
        self._sweep_at = time.monotonic() + min(1.0, self._lease / 4000)
        self._alone = len(self._reader.xinfo_groups(self._stream)) <= 1
        self._move_due()
        stale = self._reader.xpending_range(
            self._stream, self._group, "-", "+", max(100, limit), idle=self._lease
        )
        entries = [(entry["message_id"].decode(), entry["consumer"].decode(), entry) for entry in stale]
        leases = self._leases({head for _, head, _ in entries})
        taken: dict[str, int] = {}
        heads: set[str] = set()
        for id, head, entry in entries:
            if head == self._me and self._holder.holds(id):
                continue  # the keeper is late with it
            if len(taken) < limit and entry["time_since_delivered"] >= leases.get(head, 0):
                taken[id] = entry["times_delivered"] + 1
                heads.add(head)
        if not taken:
            return []
        self._sweep_at = 0.0  # there may be more
        with self._reader.pipeline(transaction=True) as pipe:
            for head in heads - {self._me, RELEASED}:
                pipe.delete(self._server.key("hold", self._group, head))
            pipe.xclaim(self._stream, self._group, self._me, self._lease, list(taken))
            claimed = pipe.execute()[-1]
        return self._messages(claimed, taken)

    def _leases(self, heads: set[str]) -> dict[str, int]:
        """Return the leases of heads from which nothing was taken, in milliseconds: theirs count."""
        names = sorted(heads - {RELEASED})
        if not names:
            return {}
        found = self._reader.mget([self._server.key("hold", self._group, name) for name in names])
        return {name: int(lease) for name, lease in zip(names, found, strict=True) if lease}

    def _messages(self, claimed: list[Any], deliveries: dict[str, int]) -> list[Message]:
        return [
            self._message(entry[0], entry[1], deliveries[entry[0].decode()])
            for entry in claimed
            if entry and entry[0]
        ]

    def _adopt(self, limit: int) -> list[Message]:
        """Take up entries that Redis gave to this head in an answer that did not arrive."""
        while True:
            with self._reader.pipeline(transaction=True) as pipe:
                pipe.watch(self._hold.key)
                mine = self._hold.mine(pipe) if pipe.exists(self._hold.key) else {}
                fresh = {id: count + 1 for id, count in mine.items() if not self._holder.holds(id)}
                taken = dict(list(fresh.items())[:limit])
                if not taken:
                    return []
                pipe.multi()
                pipe.xclaim(self._stream, self._group, self._me, 0, list(taken))
                with self._server.unless_changed():
                    return self._messages(pipe.execute()[0], taken)

    def _move_due(self) -> None:
        """Move due messages into the stream, unless another head is doing so."""
        first = self._reader.zrange(self._delayed, 0, 0, withscores=True)
        if not first:
            return
        moment = now(self._reader)
        if first[0][1] > moment:
            self._sweep_at = min(self._sweep_at, time.monotonic() + first[0][1] - moment)
            return
        mover = self._server.key("mover")
        if not self._reader.set(mover, self._me, nx=True, px=5000):
            return
        with self._reader.pipeline(transaction=True) as pipe:
            pipe.watch(mover)
            if pipe.get(mover) != self._me.encode():
                return
            due = pipe.zrangebyscore(self._delayed, "-inf", moment, start=0, num=BATCH)
            pipe.multi()
            for member in due:
                pipe.zrem(self._delayed, member)
                pipe.xadd(self._stream, unpacked(member))
            pipe.delete(mover)
            with self._server.unless_changed():  # it may have taken so long that another is at it
                pipe.execute()
        self._sweep_at = min(self._sweep_at, time.monotonic() + 0.05)

    # -- the keeper ------------------------------------------------------------------------------

    def wait(self, timeout: float) -> None:
        """See `Session`."""
        self._woken.acquire(timeout=timeout)

    def wake(self) -> None:
        """See `Session`."""
        try:
            self._woken.release()
        except RuntimeError:  # it has been
            pass

    def settle(self, due: Sequence[Settlement]) -> None:
        """See `Session`."""
        for start in range(0, len(due), BATCH):
            self._settle(due[start : start + BATCH])

    def _settle(self, due: Sequence[Settlement]) -> None:
        through: list[Settlement] = []
        late: list[Settlement] = []
        to_write: list[Settlement] = []

        def sort(full: bool) -> None:
            for kind in (through, late, to_write):
                kind.clear()
            mine = self._hold.mine() if self._hold.in_doubt else None
            for each in due:
                id = each.message.uid
                if mine is not None and id not in mine and not self._hold.elsewhere(id):
                    through.append(each)  # it was carried out, and nobody told us
                elif id in self._hold.taken or (mine is not None and id not in mine):
                    late.append(each)
                elif not full or each.verdict is not Verdict.BURY:
                    through.append(each)
                    to_write.append(each)

        self._hold.transact(sort, lambda pipe: self._write(pipe, to_write))
        self._hold.in_doubt = False
        for each in late:
            self._hold.taken.discard(each.message.uid)
            self._holder.refused(each)
        for each in through:
            self._hold.taken.discard(each.message.uid)
            self._holder.settled(each)
            if each.verdict is Verdict.RELEASE:
                self._sweep_at = 0.0  # this head may take it as well as any other
        if len(through) + len(late) < len(due):
            raise Disconnected(
                "Redis is full, and takes no dead letters"
            )  # they are kept until there is room

    def _write(self, pipe: Any, settlements: Sequence[Settlement]) -> None:
        done = []
        for each in settlements:
            id = each.message.uid
            match each.verdict:
                case Verdict.ACK:
                    done.append(id)
                case Verdict.BURY:
                    done.append(id)
                    pipe.xadd(self._server.key("dead"), buried(each))
                case Verdict.RELEASE | Verdict.BOUNCE:
                    count = each.message.deliveries - (each.verdict is Verdict.RELEASE)
                    # Idle for longer than any lease: whoever looks next may take it.
                    pipe.xclaim(
                        self._stream, self._group, RELEASED, 0, [id],
                        idle=30 * DAY, retrycount=count, justid=True,
                    )  # fmt: skip
        if done:
            pipe.xack(self._stream, self._group, *done)
            if self._alone:
                pipe.xdel(self._stream, *done)

    def renew(self, held: Collection[Message]) -> None:
        """See `Session`."""
        messages = {message.uid: message for message in held}
        asked: list[str] = []

        def sort(_full: bool) -> None:
            asked[:] = [id for id in messages if id not in self._hold.taken]

        def write(pipe: Any) -> None:
            pipe.pexpire(self._hold.key, max(DAY, 10 * self._lease))
            if asked:
                pipe.xclaim(self._stream, self._group, self._me, 0, asked, justid=True)

        answers = self._hold.transact(sort, write)
        # What somebody has deleted from the stream is nobody's any more.
        kept = {id.decode() for id in answers[-1]} if asked else set()
        for id, message in messages.items():
            if id not in kept:
                self._hold.taken.discard(id)
                self._holder.lost(message)

    def reconnect(self) -> None:
        """Check that it is still the same Redis. redis-py connects by itself."""
        with self._server.speaking():
            self._server.check(self._writer)
            self._server.create_group(self._writer)

    def close(self) -> None:
        """Leave the group, and close the connections."""
        try:
            with self._server.speaking():
                self._writer.delete(self._hold.key)
                self._forget(self._me)
        except Exception:  # noqa: BLE001 - what is left behind is found by its age
            pass
        finally:
            self._reader.close()
            self._writer.close()
