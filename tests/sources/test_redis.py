"""What is Redis's own: memory, eviction, groups, foreign entries, a stream that is deleted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrypool import CancelToken, Pool, SourceError
from retrypool.sources import Consumed, RedisStream

from .servers import RedisServer, running

pytestmark = pytest.mark.redis


@pytest.fixture
def small_redis(redis_server: Any, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own, whose memory a test may fill."""
    with running(RedisServer(tmp_path, "--maxmemory", "4mb")) as server:
        yield server  # type: ignore[misc]


def test_redis_that_evicts_is_refused(small_redis: RedisServer) -> None:
    source = RedisStream(small_redis.url, "pages")
    client = source.connect()
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(SourceError, match="maxmemory-policy allkeys-lru"):
        source.send("x")
    with Pool([str]) as pool, pytest.raises(SourceError, match="would lose messages"):
        pool.consume(source, idle=0)
    client.config_set("maxmemory", "0")  # nothing is evicted without a limit
    source.send("x")
    source.close()
    client.close()


def test_full_redis_refuses_what_is_sent_and_is_worked_off(small_redis: RedisServer) -> None:
    source = RedisStream(small_redis.url, "pages")
    with pytest.raises(SourceError, match="full"):
        while True:
            source.send("x" * 10_000)
    waiting = source.size()
    with Pool([len]) as pool:
        assert pool.consume(source, idle=0, window=5) == Consumed(received=waiting, succeeded=waiting)
    source.send("there is room again")
    source.close()


def test_groups_do_not_take_each_others_messages(redis_broker: Any) -> None:
    redis_broker.source().send_many(range(10))
    seen: dict[str, list[int]] = {"one": [], "two": []}
    client = redis_broker.source().connect()
    for group in seen:
        client.xgroup_create(redis_broker.name, group, id="0")
    for group, numbers in seen.items():
        with Pool([numbers.append]) as pool:
            pool.consume(redis_broker.source(group=group), idle=0)
    assert seen == {"one": list(range(10)), "two": list(range(10))}
    client.close()


def test_what_is_done_with_is_deleted(redis_broker: Any) -> None:
    source = redis_broker.source()
    source.send_many(range(10))
    with Pool([str]) as pool:
        pool.consume(source, idle=0)
    client = source.connect()
    assert client.xlen(source.name) == 0
    assert client.xinfo_consumers(source.name, source.group) == []
    assert client.keys(f"{{{source.name}}}:*") == []
    client.close()


def test_entries_of_others_are_dead_letters(redis_broker: Any) -> None:
    source = redis_broker.source()
    client = source.connect()
    client.xadd(source.name, {"no": "data"})
    client.xadd(source.name, {"d": "{no json"})
    client.xadd(source.name, {"d": "1", "o": "[]"})
    client.xadd(source.name, {"d": "1", "o": '{"colour": "red"}'})
    client.xadd(source.name, {"d": "1", "o": '{"priority": "high"}'})
    with Pool([str]) as pool:
        assert pool.consume(source, idle=0).dead == 5
    letters = source.dead_letters()
    assert [each.reason for each in letters] == ["malformed"] * 3 + ["invalid"] * 2
    assert [each.raw for each in letters] == [b"", b"{no json", b"1", b"1", b"1"]
    client.close()


def test_stream_that_is_deleted_is_made_anew(redis_broker: Any, stage: Any) -> None:
    source = redis_broker.source()
    seen: list[int] = []
    pool = stage.pool([seen.append])
    consumption = stage.start(pool.consume, source, idle=2)
    source.send(1)
    stage.until(lambda: seen == [1])
    client = source.connect()
    client.flushdb()
    source.send(2)
    stage.until(lambda: seen == [1, 2])
    pool.close(stage.within)
    consumption.result(stage.within)
    client.close()


def test_hold_that_is_taken_in_the_middle_of_a_settlement(redis_broker: Any, stage: Any) -> None:
    """Another head takes a message just before it is acknowledged: the acknowledgement has no effect."""
    source, thief = redis_broker.source(), redis_broker.source().connect()
    source.send("x")

    def steal() -> None:
        (entry,) = thief.xpending_range(source.name, source.group, "-", "+", 1)
        with thief.pipeline(transaction=True) as pipe:
            pipe.delete(source.key("hold", source.group, entry["consumer"].decode()))
            pipe.xclaim(source.name, source.group, "thief", 0, [entry["message_id"]])
            pipe.execute()

    open_session = source.open

    def open_hooked(*arguments: Any) -> Any:
        session = open_session(*arguments)
        write = session._write

        def write_late(pipe: Any, settlements: Any) -> None:
            session._write = write
            if settlements:
                steal()
            write(pipe, settlements)

        session._write = write_late
        return session

    source.open = open_hooked
    with Pool([str]) as pool:
        done = pool.consume(source, idle=0)
    assert (done.succeeded, done.lost, done.refused) == (0, 1, 1)
    (entry,) = thief.xpending_range(source.name, source.group, "-", "+", 1)
    assert entry["consumer"] == b"thief"
    thief.close()


def test_lease_of_the_head_that_holds_a_message_counts(redis_broker: Any, stage: Any) -> None:
    """Not that of a hasty one beside it."""
    source = redis_broker.source(lease=60)
    source.send("x")
    gate, seen = stage.gate(), []
    pool = stage.pool([lambda _: gate.hold()])
    consumption = stage.start(pool.consume, source, idle=0.1)
    gate.wait_until_reached()
    with Pool([seen.append]) as hasty:
        hasty.consume(redis_broker.source(lease=0.1), idle=0.5)
    assert seen == []
    gate.open()
    done = consumption.result(stage.within)
    assert (done.succeeded, done.lost) == (1, 0)


def test_what_is_given_back_is_taken_at_once_whatever_the_leases(redis_broker: Any, stage: Any) -> None:
    redis_broker.source().send("x")
    with Pool([lambda _: gate.hold()]) as pool:
        gate, cancel = stage.gate(), CancelToken()
        consumption = stage.start(
            pool.consume, redis_broker.source(lease=1), cancel=cancel, finish=0, window=1
        )
        gate.wait_until_reached()
        cancel.cancel()
        assert consumption.result(stage.within).released == 1
        gate.open()
    seen: list[str] = []
    with Pool([seen.append]) as other:
        other.consume(redis_broker.source(lease=3600), idle=0.1)
    assert seen == ["x"]
