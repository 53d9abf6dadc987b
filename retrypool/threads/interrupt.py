"""Raising an exception inside a running thread, and being sure of where it lands.

CPython can mark a thread so that it raises an exception at its next bytecode. This stops code that runs
in Python; a call into C is not stopped, and raises when it returns. The danger is in the delay: the
thread may be anywhere by then, in the middle of bookkeeping with a lock held. These are the rules that
keep it out of there:

1. Only an attempt that has been taken over is interrupted, and by whoever took it over. So its thread
   will find nothing in its box, and has to come by `absorb` before it does anything else.
2. The raiser holds the gate while it makes sure that the thread has not come by yet, *and* raises. The
   thread notes under the same gate that it has come by. So after that nothing new is raised.
3. What was raised before but has not struck yet is taken back, by the thread itself, after the gate.
4. The exception may strike anywhere on the thread's way from the end of `run` to here. There it holds no
   lock and has changed nothing: the runner's guard catches it and sends the thread here again. The guard
   first notes that it was struck, in a plain assignment, which can't be struck itself: see `struck`. From
   then on nothing new is raised, and at most one more is under way. For that one there is a second guard,
   around the first: a guard is open where it jumps back to the head of its own loop.
5. Inside `run` the thread may call its pool, or be in a listener that hears of the start. Meanwhile the
   gate is barred, and what is raised then strikes as the call returns. Barring it is a point at which
   whatever was raised before has struck. Between two attempts, where nothing is raised, it is barred by
   writing `barred`.
6. It may strike in a finalizer or a weak reference's callback that happens to run in the thread. CPython
   drops what is raised there, and the code runs on. So if the thread has not come back after `grace`,
   it is raised once more.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from retrypool.ctrl_c import here, shielded
from retrypool.errors import Interrupted

if TYPE_CHECKING:
    from retrypool.model.context import Context
    from retrypool.model.slots import Slot

__all__ = ["Gate", "shielded"]


class Gate:
    """Between those who raise in the thread of one slot, and that thread."""

    __slots__ = ("_absorbed", "_deferred", "_lock", "_raised", "_slot", "_thread_id", "barred", "struck")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._thread_id: int | None = None
        # Reentrant for finalizers: what ends with the last attempt may call the pool.
        self._lock = threading.RLock()
        self._absorbed: Context | None = None  # under _lock: the last attempt that came by `absorb`
        self._raised: Context | None = None  # under _lock: the last attempt that was raised in
        # Under _lock, but for the look of `unbar`: the attempt to raise in once not barred.
        self._deferred: Context | None = None
        self.barred = False  # written by the thread itself, also without `bar` between two attempts
        # Written by the thread itself, read under _lock: the last attempt in which it was struck on its way
        # back. Who raises holds _lock from before it reads this until it has raised, so there is at most
        # one who has read it before it was written and raises after that.
        self.struck: Context | None = None

    def open(self) -> None:
        """Say which thread it is: the one that calls."""
        self._thread_id = threading.get_ident()
        here.gate = self

    def interrupt(self, ctx: Context) -> bool:
        """Raise `Interrupted` in the thread, if it is still in that attempt, which was taken over.

        Returns whether it was raised; that says nothing of when it strikes.
        """
        with self._lock:
            # `stuck` names the attempt from when it was taken over until after `absorb`.
            if self._thread_id is None or self._slot.stuck is not ctx or ctx in (self._absorbed, self.struck):
                return False
            if self.barred:
                # Write _deferred, then read `barred`; `unbar` writes that, then reads _deferred.
                self._deferred = ctx
                if self.barred:
                    return True
                self._deferred = None
            self._raised = ctx
            return _set_async_exc(self._thread_id, Interrupted)

    def bar(self) -> None:
        """Have the thread left alone from now on. Called by the thread itself."""
        try:
            with self._lock:
                self.barred = True
            _let_strike()
        except BaseException:
            self._let_go()
            self.barred = False
            raise

    def unbar(self) -> None:
        """Have what was put off strike now, and what comes from now on at once."""
        self.barred = False
        if self._deferred is None:  # nearly always
            return
        try:
            with self._lock:
                deferred, self._deferred = self._deferred, None
                if deferred is None or self._slot.stuck is not deferred:
                    return
                self._raised = deferred
        except BaseException:
            self._let_go()
            raise
        raise Interrupted

    def repeat(self) -> None:
        """Raise once more what was raised in the attempt that the thread is still in."""
        raised = self._raised
        if raised is not None:
            self.interrupt(raised)

    def absorb(self, ctx: Context) -> bool:
        """See to it that nothing is raised for `ctx` any more; return whether anything was.

        Called by the thread itself, once the attempt is behind it. May be hit anywhere, and begins
        again then.
        """
        while True:
            try:
                with self._lock:
                    self._absorbed = ctx
                    raised = self._raised is ctx
                if raised and self._thread_id is not None:
                    _set_async_exc(self._thread_id, None)
                return raised
            except Interrupted:
                self._let_go()

    def _let_go(self) -> None:
        """Release the lock, should an interrupt have struck before the block that it was taken for.

        CPython is open there from 3.14 on, where `with lock` takes it by a call like any other.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._lock.release()


def _let_strike() -> None:
    """Do nothing: CPython looks at what was raised in a thread whenever it enters a function."""


def _set_async_exc(thread_id: int, kind: type[BaseException] | None) -> bool:
    """Have a thread raise `kind` at its next bytecode; None takes back what has not struck yet."""
    # Imported when first needed: most pools never interrupt, and ctypes costs more than all the rest.
    import ctypes

    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)
    if kind is None:
        prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
    function = prototype(("PyThreadState_SetAsyncExc", ctypes.pythonapi))
    return bool(function(thread_id, kind))
