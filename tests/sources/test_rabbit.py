"""What is RabbitMQ's own: messages of others, a queue of another kind, delays in steps, duplicates."""

import time
from typing import Any

import pytest

from retrypool import CancelToken, Pool, SourceError

pytestmark = pytest.mark.rabbitmq


def publish(broker: Any, body: bytes, **properties: Any) -> None:
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(broker.server.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("", broker.name, body, pika.BasicProperties(**properties))
    connection.close()


def test_messages_of_others(rabbit_broker: Any) -> None:
    source = rabbit_broker.source()
    source.size()
    publish(rabbit_broker, b'{"plain": "json"}')
    publish(rabbit_broker, b"{no json")
    publish(rabbit_broker, b"1", headers={"o": '{"colour": "red"}'})
    publish(rabbit_broker, b"2", headers={"due": "soon", "o": 7})
    seen: list[Any] = []
    with Pool([seen.append]) as pool:
        done = pool.consume(source, idle=0)
    assert seen == [{"plain": "json"}, 2]
    assert (done.succeeded, done.dead) == (2, 2)
    assert sorted(each.reason for each in source.dead_letters()) == ["invalid", "malformed"]


def test_queue_of_another_kind_is_refused(rabbit_broker: Any) -> None:
    rabbit_broker.source(max_deliveries=3).send("x")
    with pytest.raises(SourceError, match="x-delivery-limit"):
        rabbit_broker.source(max_deliveries=4, send_timeout=1).send("x")
    with Pool([str]) as pool, pytest.raises(SourceError, match="x-delivery-limit"):
        pool.consume(rabbit_broker.source(max_deliveries=4))


def test_message_that_is_there_twice_is_worked_off_once(rabbit_broker: Any, stage: Any) -> None:
    """A sender that has heard of no confirmation sends again."""
    source = rabbit_broker.source()
    source.size()
    for _ in range(2):
        publish(rabbit_broker, b'"x"', message_id="same")
    publish(rabbit_broker, b'"y"', message_id="other")
    seen: list[str] = []
    with Pool([seen.append]) as pool:
        done = pool.consume(source, idle=0)
    assert sorted(seen) == ["x", "y"]
    assert done.succeeded == 2
    assert source.size() == 0


def test_delay_of_seconds_is_waited_out_in_steps(rabbit_broker: Any) -> None:
    source = rabbit_broker.source()
    sent = time.time()
    source.send("a", delay=3.2)
    came: list[float] = []
    cancel = CancelToken()

    def note(_data: str) -> None:
        came.append(time.time() - sent)
        cancel.cancel()

    with Pool([note]) as pool:
        done = pool.consume(source, cancel=cancel)
    assert done.succeeded == 1
    assert came[0] >= 3.2


def test_big_options_are_refused(rabbit_broker: Any) -> None:
    from retrypool import InvalidValue

    with pytest.raises(InvalidValue, match="the options"):
        rabbit_broker.source().send("x", metadata={"big": "x" * 70_000})
