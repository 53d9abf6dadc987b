"""Connections and leases that are lost: what is held is kept, and nothing is settled by who has lost it."""

import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from retrypool import Pool, RetryPolicy, SourceError
from retrypool.sources import Consumed, RabbitQueue, rabbit_session

# pika forgets to close sockets of connections that break while they are made.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NOW = RetryPolicy(attempts=3, delay=0)
real = pytest.mark.parametrize(
    "broker",
    [pytest.param("redis", marks=pytest.mark.redis), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)],
    indirect=True,
)


@pytest.fixture(autouse=True)
def nothing_is_left_for_the_collector() -> Iterator[None]:
    """What pika has forgotten is found here, where it is ignored, and not in another test."""
    yield
    gc.collect()


@real
def test_what_is_held_is_kept_while_the_connection_is_lost(broker: Any, stage: Any) -> None:
    broker.source().send_many(range(10))
    proxy, url = broker.proxy()
    gate, seen = stage.gate(), []

    def work(data: int) -> None:
        seen.append(data)
        gate.hold()

    pool = stage.pool([work] * 2)
    consumption = stage.start(pool.consume, broker.source(url=url), idle=1)
    gate.wait_until_reached(2)
    proxy.cut()
    gate.open()
    done = consumption.result(stage.within)
    assert sorted(seen) == list(range(10))
    assert (done.succeeded, done.lost, done.refused) == (10, 0, 0)
    if broker.kind == "rabbitmq":  # redis-py notices before it says anything
        assert done.reconnects == 1
    assert broker.source().size() == 0


@real
def test_replies_that_are_lost_cost_no_message(broker: Any, stage: Any) -> None:
    """The broker does what it is asked for, and the client never hears of it."""
    proxy, url = broker.proxy()
    sender = broker.source(url=url)
    seen = []
    pool = stage.pool([seen.append] * 2)
    consumption = stage.start(pool.consume, broker.source(url=url, lease=2), idle=1, window=20)
    # Each broker needs some ten replies until a head is ready.
    proxy.cut_replies(*((10, 23) if broker.kind == "redis" else (5, 40)))
    for number in range(60):
        sender.send(number)
    stage.until(lambda: set(seen) == set(range(60)))
    proxy.cut_replies(0, every=1)
    consumption.result(60)
    assert set(seen) == set(range(60))
    assert broker.source().size() == 0
    assert broker.source().dead_letters() == []


@pytest.mark.redis
def test_late_result_of_a_lost_message_is_refused(redis_broker: Any, stage: Any) -> None:
    """Its head did not renew its hold for a lease, and another has the message."""
    redis_broker.source().send("x")
    gate, seen = stage.gate(), []
    pool = stage.pool([lambda _: gate.hold()])
    slow = redis_broker.source(lease=0.6)
    consumption = stage.start(_consume_without_beats, pool, slow)
    gate.wait_until_reached()
    with Pool([seen.append]) as other:
        other.consume(redis_broker.source(lease=0.6), idle=1.5)
    assert seen == ["x"]
    gate.open()
    done = consumption.result(stage.within)
    assert (done.succeeded, done.lost, done.refused) == (0, 1, 1)


@pytest.mark.redis
def test_attempt_is_cancelled_when_its_message_is_taken_away(redis_broker: Any, stage: Any) -> None:
    redis_broker.source().send("x")
    told, gate = [], stage.gate()

    def wait(ctx: Any, _data: Any) -> None:
        gate.hold()
        try:
            ctx.sleep(60)
        finally:
            told.append(ctx.cancelled)

    class Waiting:
        run = staticmethod(wait)

    pool = stage.pool([Waiting()])
    source = redis_broker.source(lease=1)
    consumption = stage.start(pool.consume, source, idle=0.1)
    gate.wait_until_reached()
    # As another head would take it that has found it idle for a lease.
    client = source.connect()
    head = client.xpending_range(source.name, source.group, "-", "+", 1)[0]["consumer"].decode()
    client.delete(source.key("hold", source.group, head))
    (entry,) = client.xpending_range(source.name, source.group, "-", "+", 1)
    client.xclaim(source.name, source.group, "other", 0, [entry["message_id"]])
    gate.open()
    stage.until(lambda: told)
    assert told == [True]
    client.xack(source.name, source.group, entry["message_id"])
    client.close()
    done = consumption.result(stage.within)
    assert (done.succeeded, done.lost, done.refused) == (0, 1, 0)


def _consume_without_beats(pool: Pool[Any, Any], source: Any) -> Consumed:
    open_session = source.open

    def open_silent(*arguments: Any) -> Any:
        session = open_session(*arguments)
        session.beat = 3600.0
        return session

    source.open = open_silent
    return pool.consume(source, idle=0.1)


@pytest.mark.redis
def test_entries_in_an_answer_that_was_lost_are_taken_up_again(redis_broker: Any, stage: Any) -> None:
    """At once, and not after a lease."""
    proxy, url = redis_broker.proxy()
    seen: list[int] = []
    pool = stage.pool([seen.append])
    consumption = stage.start(pool.consume, redis_broker.source(url=url, lease=60), idle=1)
    redis_broker.source().send(0)
    stage.until(lambda: seen)
    proxy.cut_replies(3, every=1)
    redis_broker.source().send_many(range(1, 5))
    stage.until(lambda: set(seen) == set(range(5)))
    done = consumption.result(stage.within)
    assert done.succeeded == done.received == len(seen)


@pytest.mark.rabbitmq
def test_message_that_another_head_got_is_given_up(
    rabbit_broker: Any, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbit_session, "_LATEST", 1.0)
    proxy, url = rabbit_broker.proxy()
    rabbit_broker.source().send("x")
    gate, seen = stage.gate(), []
    pool = stage.pool([lambda _: gate.hold()])
    consumption = stage.start(pool.consume, rabbit_broker.source(url=url), idle=1)
    gate.wait_until_reached()
    other = stage.pool([seen.append])
    taking = stage.start(other.consume, rabbit_broker.source(), idle=3)
    rabbit_broker.source().send_many(["a", "b"])  # both heads get one, which shows that both are there
    stage.until(lambda: seen)
    proxy.cut()
    stage.until(lambda: "x" in seen)
    gate.open()
    done = consumption.result(stage.within)
    taking.result(stage.within)
    assert done.lost >= done.refused >= 1


@real
def test_broker_that_is_not_there(broker: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = broker.server.url.replace(f":{broker.server.port}", f":{port}")
    with pytest.raises(SourceError, match=r"not reached within 0\.2 s"):
        broker.source(url=url, send_timeout=0.2).send("x")
    with Pool([str]) as pool, pytest.raises(SourceError, match=r"not reached within 0\.2 s"):
        pool.consume(broker.source(url=url, send_timeout=0.2))


@pytest.mark.rabbitmq
def test_password_that_is_wrong(rabbit_server: Any) -> None:
    url = rabbit_server.url.replace("guest:guest", "guest:wrong")
    with pytest.raises(SourceError, match="lets nobody in"):
        RabbitQueue(url, "q", send_timeout=1).send("x")
