"""Draining pools when the process is told to end, as service managers and container platforms do."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable
from logging import INFO, WARNING
from types import FrameType
from typing import Any, Self

from retrypool.callbacks import log_safely, text_of
from retrypool.errors import InvalidType, InvalidValue, WrongThread

__all__ = ["SignalDrain"]

_DRAINED = 0
"""Not a signal: the pool is drained."""

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class SignalDrain:
    """Waits for a signal, has a pool drained then, and passes the signal on. Made by `drain_on_signals`."""

    # A handler runs in the main thread, wherever that is just then, perhaps within a lock. So all it does is
    # to put the number of the signal into a SimpleQueue, which may be done anywhere; a thread does the rest,
    # and sends the signal once more when the pool is drained.
    def __init__(
        self,
        name: str,
        drain: Callable[[], object],
        force: Callable[[], object],
        signals: Iterable[int],
    ) -> None:
        chosen = _checked(signals)
        if threading.current_thread() is not threading.main_thread():
            raise WrongThread("drain_on_signals()", "has to be called by the main thread: it handles signals")
        self._name, self._drain, self._force = name, drain, force
        self._inbox: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._stopped = False
        self._drained = False  # what comes now goes on to whoever handled it before
        self._before: dict[int, Handler] = {}  # the main thread's
        for number in chosen:
            try:
                self._before[number] = signal.signal(number, self._handle)
            except (ValueError, OSError):
                self._restore()
                raise InvalidValue("signals", number, "a signal that can be handled") from None
        self._thread = threading.Thread(target=self._wait, name=f"{name}-signals", daemon=True)
        self._thread.start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._drained:
            self._inbox.put(number)
            return
        before = self._before.get(number)
        self._restore()
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            # What the system does by default would end the process on the spot, and no `finally` would run.
            raise SystemExit(128 + number)

    def _wait(self) -> None:
        number = self._inbox.get()
        if number is None:
            return
        log_safely(INFO, "%s: got %s: it is drained", self._name, _name_of(number))
        threading.Thread(target=self._end, name=f"{self._name}-drain", daemon=True).start()
        again = self._inbox.get()
        if again is not None and again != _DRAINED:
            log_safely(WARNING, "%s: got %s again: it is closed by force", self._name, _name_of(again))
            self._force()
        if again is not None and not self._stopped:
            self._drained = True
            os.kill(os.getpid(), number)

    def _end(self) -> None:
        try:
            self._drain()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process is to end
            log_safely(WARNING, "%s is not drained, and closed by force: %s", self._name, text_of(error))
            self._force()
        self._inbox.put(_DRAINED)

    def _restore(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            # None: whoever installed it is not written in Python, and it can't be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def stop(self) -> None:
        """Handle the signals as before. Called by the main thread."""
        self._stopped = True
        self._restore()
        self._inbox.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those of real time have none
        return f"signal {number}"


def _checked(signals: Iterable[int]) -> tuple[int, ...]:
    if isinstance(signals, (str, bytes)) or not isinstance(signals, Iterable):
        raise InvalidType("signals", signals, "signals, such as (signal.SIGTERM,)")
    chosen = tuple(signals)
    for number in chosen:
        if isinstance(number, bool) or not isinstance(number, int):
            raise InvalidType("signals", number, "a signal, such as signal.SIGTERM")
    if not chosen:
        raise InvalidValue("signals", chosen, "at least one signal")
    return chosen
