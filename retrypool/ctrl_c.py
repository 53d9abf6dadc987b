"""How waiting and calling callbacks leave a Ctrl-C to the program that it is meant for.

Python notes a signal when it comes, and the main thread acts on it when it next runs. A thread that waits
for a lock is woken for that, but not if the signal came in the instant before it began to wait, or came to
another thread: then it waits on, and the Ctrl-C is lost until what it waits for has come. So the main
thread never waits for long at a stretch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf

__all__ = ["STRETCH", "acquire", "in_main_thread", "is_ctrl_c", "join", "wait_in_stretches"]

STRETCH = 0.5
"""Seconds after which the main thread looks up from its waiting."""


def is_ctrl_c(error: BaseException) -> bool:
    """Return whether an error that a callback raised is a Ctrl-C, which only the main thread gets."""
    # By its type: an error may do anything when it is asked for its class.
    return issubclass(type(error), KeyboardInterrupt) and in_main_thread()


def acquire(
    lock: threading.Lock, timeout: float | None = None, look_up: Callable[[], object] | None = None
) -> bool:
    """Acquire `lock` and return True, or return False once `timeout` seconds have passed.

    The main thread calls `look_up()` whenever it looks up.
    """
    if in_main_thread():
        return wait_in_stretches(lambda stretch: lock.acquire(timeout=stretch), timeout, look_up)
    if timeout is None:
        return lock.acquire()
    return lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))


def join(thread: threading.Thread, timeout: float | None = None) -> bool:
    """Wait for the end of `thread`; return False if `timeout` seconds pass before it."""

    def join_for(stretch: float) -> bool:
        thread.join(stretch)
        return not thread.is_alive()

    return wait_in_stretches(join_for, timeout)


def wait_in_stretches(
    wait: Callable[[float], bool], timeout: float | None, look_up: Callable[[], object] | None = None
) -> bool:
    """Call `wait(seconds)` until it returns True; return False once `timeout` seconds have passed."""
    until = inf if timeout is None else time.monotonic() + timeout
    while True:
        left = until - time.monotonic()
        if wait(max(0.0, min(left, STRETCH))):
            return True
        if left <= STRETCH:
            return False
        if look_up is not None:
            look_up()


def in_main_thread() -> bool:
    """Return whether it is the main thread that asks."""
    return threading.get_ident() == threading.main_thread().ident
