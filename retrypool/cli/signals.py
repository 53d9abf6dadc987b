"""One signal ends a command in good order, the second one at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "stop_signals"]


class Stop:
    """Whether a signal has told the command to stop, and which."""

    def __init__(self) -> None:
        self.told = 0
        self.called: Callable[[], object] = lambda: None

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Ask for an orderly stop at the first signal; stop at once at the second."""
        if self.told:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.told = number
        os.write(2, b"retrypool: ends what it has begun; once more to end at once\n")
        self.called()


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Have SIGINT and SIGTERM heard by a `Stop`, as long as the block lasts."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
