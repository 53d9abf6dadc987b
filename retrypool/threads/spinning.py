"""How not to queue for a lock that is held for microseconds.

Who blocks on a lock has given up the GIL, and is handed the lock while it does not have the GIL again
yet. Until it has, which may take one switch interval (5 ms), nobody else gets far: the next one blocks
too, and from then on each turn with the lock costs a switch of threads. That is a lock convoy (Blasgen,
Gray, Mitoma and Price, "The Convoy Phenomenon", 1979). It does not form if a thread that has the GIL
gives way until it finds the lock free, and only then takes it.
"""

from __future__ import annotations

import threading
import time

from retrypool.ctrl_c import in_main_thread

__all__ = ["spin_while_held"]

TURNS = 20


def spin_while_held(lock: threading.Lock | threading.RLock) -> None:
    """Let other threads run while `lock` is held, a few times at the most.

    For the moment before `with lock`. That statement is what takes it, and blocks if need be: this is
    a help, and nothing relies on it.
    """
    # Whether the lock can be had is only known by taking it; `locked` says no to a lock that somebody
    # has been handed who waits for the GIL. A Ctrl-C, which strikes in the main thread alone, must not
    # come between taking it and letting it go.
    if in_main_thread():
        return
    for _ in range(TURNS):
        if lock.acquire(blocking=False):
            lock.release()
            return
        time.sleep(0)
