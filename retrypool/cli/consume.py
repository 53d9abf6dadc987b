"""`run --source`: the messages of a broker in place of a file."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from typing import Any

from retrypool import CancelToken, Pool, Task
from retrypool.cli.errors import DEAD, CommandError
from retrypool.cli.output import Output, line_of
from retrypool.cli.signals import stop_signals
from retrypool.events import Event, TaskDead, TaskSucceeded

__all__ = ["Consuming"]


class Consuming:
    """One run of the command with a broker. The broker remembers what is done, so there is no journal."""

    def __init__(self, arguments: argparse.Namespace, make: Callable[[], Pool[Any, Any]]) -> None:
        self._arguments = arguments
        self._make = make
        self._lock = threading.Lock()  # workers write the lines
        self._output: Output | None = None

    def run(self) -> int:
        """Work until a signal, or until nothing comes for the time given; return the exit code."""
        from retrypool.sources import from_url

        arguments = self._arguments
        if arguments.journal is not None or arguments.input != "-":
            raise CommandError("--source takes the place of --input and --journal: leave them out")
        source = from_url(arguments.source)
        token = CancelToken()
        with stop_signals() as stop, self._make() as pool:
            stop.called = token.cancel
            output = self._output = Output(arguments.output, go_on=True)
            pool.add_listener(self)
            consumed = pool.consume(source, window=arguments.window, idle=arguments.idle, cancel=token)
        output.close()
        print(f"retrypool: {consumed.succeeded:,} succeeded, {consumed.dead:,} dead", file=sys.stderr)
        if stop.told:
            return 128 + stop.told
        return DEAD if consumed.dead else 0

    listens_to = (TaskSucceeded, TaskDead)

    def on_event(self, event: Event, /) -> None:
        """Write the line for a task that has ended."""
        assert isinstance(event, (TaskSucceeded, TaskDead))
        task = event.task
        error = event.dead.error if isinstance(event, TaskDead) else None
        line, _ = line_of(_key_of(task), None if error else task.result(), error)
        with self._lock:
            if self._output is not None:
                self._output.write([line])


def _key_of(task: Task[Any, Any]) -> str:
    key = task.metadata.get("key")
    return key if isinstance(key, str) else str(task.id)
