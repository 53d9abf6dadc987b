"""How the pool leaves a Ctrl-C to the program that it is meant for, and is whole when it comes.

Python notes a signal when it comes, and the main thread acts on it when it next runs. A thread that waits
for a lock is woken for that, but not if the signal came in the instant before it began to wait, or came to
another thread: then it waits on, and the Ctrl-C is lost until what it waits for has come. So the main
thread never waits for long at a stretch.

It strikes the main thread wherever that is: at the beginning of a function, after a call, where a loop jumps
back. In the middle of a change it would leave half of it, and the program may catch it and go on with the
same pool. So whatever changes something is `shielded`: meanwhile the handler of the signal only notes it, and
it is raised at the end. The shield is lowered where the user's code is called (`call_guarded`, `lowered`) and
where the thread waits, so that a Ctrl-C ends those at once.

It is SIGINT alone that is put off. To look up all handlers that the program may have set would cost more than
most calls; to block the signals would only send them to other threads, and Python calls the handlers in the
main thread all the same.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any, ParamSpec, Protocol, TypeVar

__all__ = [
    "STRETCH",
    "MainGate",
    "acquire",
    "here",
    "in_main_thread",
    "is_ctrl_c",
    "join",
    "lowered",
    "main_gate",
    "shielded",
    "wait_in_stretches",
]

# The functions of `signal` without its enums, which cost more than the rest.
_signal: Any = sys.modules["_signal"]
_SIGINT = int(signal.SIGINT)

P = ParamSpec("P")
T = TypeVar("T")

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
        if timeout is None:  # nearly always, and nearly always this is all
            if lock.acquire(timeout=STRETCH):
                return True
            if look_up is not None:
                look_up()
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
    gate = main_gate()
    if gate is not None:
        return gate.lowered(wait_in_stretches, wait, timeout, look_up)
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
    return threading.get_ident() == _main


_main = threading.main_thread().ident


# -- the shield ----------------------------------------------------------------------------------


class _Gate(Protocol):
    """Between a thread and what strikes it from outside."""

    barred: bool

    def bar(self) -> None: ...
    def unbar(self) -> None: ...


class _Nothing:
    """The gate of a thread that nothing strikes."""

    barred = True

    def bar(self) -> None: ...
    def unbar(self) -> None: ...


class MainGate:
    """The shield of the main thread: while it is barred, a Ctrl-C is noted, and raised afterwards.

    The handler of the signal is exchanged for that. From when that call returns until the one that takes it
    back, nothing strikes; so there is no instant in which the shield is half up.
    """

    __slots__ = ("_handler", "_struck", "barred")

    def __init__(self) -> None:
        self.barred = False
        self._struck = False  # a Ctrl-C has come while it was barred
        self._handler: Any = None  # what it stands in for

    def bar(self) -> None:
        """Put off a Ctrl-C from now on."""
        handler = _signal.getsignal(_SIGINT)
        if callable(handler):  # or else it is ignored, or ends the process
            _signal.signal(_SIGINT, self._note)
            self._handler = handler
        self.barred = True

    def unbar(self) -> None:
        """Let a Ctrl-C strike again, and raise the one that came meanwhile."""
        handler, self._handler = self._handler, None
        # Read while it is barred: a finalizer, or the handler of another signal, may bar it after that.
        struck, self._struck = self._struck, False
        self.barred = False
        if handler is not None:
            _signal.signal(_SIGINT, handler)
            if struck or self._struck:
                self._struck = False
                handler(_SIGINT, sys._getframe(1))

    def _note(self, _number: int, _frame: object) -> None:
        self._struck = True

    def lowered(self, function: Callable[..., T], *args: Any) -> T:
        """Return `function(*args)`, during which a Ctrl-C strikes at once. Raises one that came before."""
        try:
            self.unbar()
            return function(*args)
        finally:
            self._bar_for_sure()

    def _bar_for_sure(self) -> None:
        """Put off a Ctrl-C from now on, also one that comes right behind the one that has ended a call."""
        while True:
            try:
                if not self.barred:
                    self.bar()
                return
            except KeyboardInterrupt:
                self._struck = True

    def call(self, function: Callable[..., T], *args: Any) -> T | None:
        """The same, but put off a Ctrl-C that ends it, or came before; return None then."""
        struck, self._struck = self._struck, False
        begun = []

        def begin() -> T:
            begun.append(True)
            return function(*args)

        try:
            return self.lowered(begin)
        except KeyboardInterrupt:
            struck = True
            return None if begun else function(*args)
        finally:
            self._struck = self._struck or struck


class _Here(threading.local):
    # Of the class: to look for what is in neither takes eight times as long. One for both: a thread pays for
    # each object of this kind that it uses.
    gate: _Gate | None = None
    slot: Any = None


here = _Here()
"""What this thread is struck through: `here.gate`, once it was asked for, or given by a worker's thread. And
`here.slot`, where it works."""

_NOTHING = _Nothing()


def _gate_here() -> _Gate:
    gate: _Gate = MainGate() if in_main_thread() and _may_handle_signals() else _NOTHING
    here.gate = gate
    return gate


def _may_handle_signals() -> bool:
    """Return whether this is the main interpreter: in others, signals have no handlers."""
    try:
        _signal.signal(_SIGINT, _signal.getsignal(_SIGINT))
    except (ValueError, TypeError):
        return False
    return True


def shielded(function: Callable[P, T]) -> Callable[P, T]:
    """Let nothing strike this thread while `function` runs: for what changes a pool.

    In the main thread that is a Ctrl-C, in a worker's thread an interrupt.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        gate = here.gate
        if gate is None:
            gate = _gate_here()
        if gate.barred:
            return function(*args, **kwargs)
        gate.bar()
        try:
            return function(*args, **kwargs)
        finally:
            gate.unbar()

    return call


def main_gate() -> MainGate | None:
    """Return the shield of the main thread, if that is the one that asks and it is up."""
    gate = here.gate
    return gate if type(gate) is MainGate and gate.barred else None


def lowered(function: Callable[..., T], *args: Any) -> T:
    """Return `function(*args)`, which is the user's: a Ctrl-C may strike it, and gets out."""
    gate = main_gate()
    return function(*args) if gate is None else gate.lowered(function, *args)


def _forget_gate() -> None:
    """After a fork: the thread that forked is the main thread now, whatever it was before."""
    global _main  # noqa: PLW0603 - there is one main thread
    _main = threading.get_ident()
    here.__dict__.pop("gate", None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_gate)
