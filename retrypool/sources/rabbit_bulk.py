"""Many messages to RabbitMQ at once: the broker confirms them while more are on their way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["publish_all"]

_UNDERWAY = 1000
"""Messages that are not confirmed yet, at the most."""


def publish_all(library: Any, parameters: Any, messages: Sequence[tuple[str, bytes, Any]]) -> set[int]:
    """Publish each (queue, body, properties) on a connection of its own; return which are confirmed.

    The answer has their positions. If the connection breaks, or the broker takes a message back, some are
    missing from it. Raises what pika raises when there is no connection at all.
    """
    return _Bulk(library, parameters, messages).run()


class _Bulk:
    def __init__(self, library: Any, parameters: Any, messages: Sequence[tuple[str, bytes, Any]]) -> None:
        self._messages = messages
        self._next = 0
        self._underway: dict[int, None] = {}  # by delivery tag, which counts from 1, in order
        self._confirmed: set[int] = set()
        self._returned: set[str] = set()
        self._error: BaseException | None = None
        self._channel: Any = None
        self._connection: Any = library.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._begin),
            on_open_error_callback=self._fail,
            on_close_callback=self._end,
        )

    def run(self) -> set[int]:
        ioloop = self._connection.ioloop
        try:
            ioloop.start()
        finally:
            ioloop.close()
        if self._error is not None and not self._confirmed:
            raise self._error
        ids = enumerate(properties.message_id for _, _, properties in self._messages)
        return self._confirmed - {number for number, id in ids if id in self._returned}

    def _fail(self, _connection: Any, error: BaseException) -> None:
        self._error = error
        self._connection.ioloop.stop()

    def _end(self, _connection: Any, reason: BaseException) -> None:
        if len(self._confirmed) < len(self._messages):
            self._error = reason
        self._connection.ioloop.stop()

    def _begin(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda *_: self._hang_up())
        channel.add_on_return_callback(
            lambda _channel, _method, properties, _body: self._returned.add(properties.message_id)
        )
        channel.confirm_delivery(self._confirm, callback=lambda _frame: self._go_on())

    def _confirm(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        tags = [each for each in self._underway if each <= tag] if multiple else [tag]
        taken = frame.method.NAME == "Basic.Ack"
        for each in tags:
            self._underway.pop(each, None)
            if taken:
                self._confirmed.add(each - 1)
        if not self._underway and self._next == len(self._messages):
            self._hang_up()
        elif len(self._underway) <= _UNDERWAY // 2:
            self._go_on()

    def _go_on(self) -> None:
        while self._next < len(self._messages) and len(self._underway) < _UNDERWAY and self._channel.is_open:
            queue, body, properties = self._messages[self._next]
            self._next += 1
            self._underway[self._next] = None
            self._channel.basic_publish("", queue, body, properties, mandatory=True)

    def _hang_up(self) -> None:
        if self._connection.is_open:
            self._connection.close()
