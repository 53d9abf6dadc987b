"""Publishing to RabbitMQ: messages are sent without waiting for each confirmation, up to a time limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Publisher"]

_UNDERWAY = 1000
"""Messages that are not confirmed yet, at the most."""


class Publisher:
    """A connection for publishing. Only the publishing thread reads from it, while it publishes."""

    def __init__(self, library: Any, parameters: Any) -> None:
        self._messages: Sequence[tuple[str, bytes, Any]] = ()
        self._next = 0
        self._underway: dict[int, int] = {}  # positions, by delivery tag, in order
        self._tag = 0  # the last one
        self._confirmed: set[int] = set()
        self._returned: set[str] = set()
        self._error: BaseException | None = None
        self.refused = False  # whether the broker has refused one
        self._channel: Any = None
        self._connection: Any = library.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._open),
            on_open_error_callback=self._end,
            on_close_callback=self._end,
        )

    def publish(self, messages: Sequence[tuple[str, bytes, Any]], timeout: float) -> set[int]:
        """Publish each (queue, body, properties); return which are confirmed, by position.

        Some are missing if the connection breaks, if the broker returns one, or if `timeout` seconds pass.
        Then it is to be closed. Raises what pika raises if none is confirmed.
        """
        self._messages, self._next = messages, 0
        self._confirmed, self._returned = set(), set()
        ioloop = self._connection.ioloop
        alarm = ioloop.call_later(timeout, lambda: self._fail(TimeoutError("not confirmed in time")))
        if self._channel is not None:
            ioloop.call_later(0, self._go_on)
        ioloop.start()
        ioloop.remove_timeout(alarm)
        if self._error is not None and not self._confirmed:
            raise self._error
        ids = enumerate(properties.message_id for _, _, properties in messages)
        return self._confirmed - {number for number, id in ids if id in self._returned}

    def close(self) -> None:
        """Hang up."""
        connection, ioloop = self._connection, self._connection.ioloop
        try:
            if connection.is_open:
                connection.close()
            # Until it has closed, at once as a rule; and its socket, which comes after that.
            if not connection.is_closed:
                ioloop.call_later(10.0, ioloop.stop)
                ioloop.start()
            ioloop.call_later(0.01, ioloop.stop)
            ioloop.start()
        finally:
            ioloop.close()

    def _open(self, channel: Any) -> None:
        channel.add_on_close_callback(lambda _channel, reason: self._fail(reason))
        channel.add_on_return_callback(
            lambda _channel, _method, properties, _body: self._returned.add(properties.message_id)
        )
        self._channel = channel
        channel.confirm_delivery(self._confirm, callback=lambda _frame: self._go_on())

    def _end(self, _connection: Any, reason: Any) -> None:
        self._fail(reason if isinstance(reason, BaseException) else ConnectionError(str(reason)))

    def _fail(self, reason: BaseException) -> None:
        if self._error is None:
            self._error = reason
        self._connection.ioloop.stop()

    def _confirm(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        tags = [each for each in self._underway if each <= tag] if multiple else [tag]
        for each in tags:
            number = self._underway.pop(each, None)
            if number is None:
                continue
            if frame.method.NAME == "Basic.Ack":
                self._confirmed.add(number)
            else:
                self.refused = True
        if self._next < len(self._messages):
            if len(self._underway) <= _UNDERWAY // 2:
                self._go_on()
        elif not self._underway:
            self._connection.ioloop.stop()

    def _go_on(self) -> None:
        while self._next < len(self._messages) and len(self._underway) < _UNDERWAY:
            if self._error is not None:
                return
            queue, body, properties = self._messages[self._next]
            self._tag += 1
            self._underway[self._tag] = self._next
            self._next += 1
            self._channel.basic_publish("", queue, body, properties, mandatory=True)
