"""What a remote worker is: created, called, watched, interrupted, lost, stopped.

`RemoteWorker` stands in the pool for a worker in another process, and its thread there for the thread of that
worker. The head keeps all that is scheduling; the far side knows one call at a time. An `Engine` says how
processes come about and carries the calls.

- The far side is made at the first call, not before; so a cluster that is not up yet stops nobody from
  starting. What could not be made is made again with back-off, and meanwhile its task goes elsewhere.
- The thread never waits for the engine alone. It wakes when the attempt is over, and looks from time to
  time whether the far side is still there. What is lost is a `WorkerFault`, and made anew, elsewhere.
- An attempt that is over is given up on the far side too. Until the call has come back, or its process has
  been ended, the worker is occupied, as one whose thread does not come back.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from typing import Any, Generic, TypeVar

from retrypool.errors import Interrupted, Unrecoverable, WorkerFault, WorkerLost
from retrypool.model.context import Context
from retrypool.remote.engine import EngineClosed, Place, Recipe
from retrypool.remote.wire import PYTHON, WIRE, Failed, Order, Started, dump, load, open_error

__all__ = ["BEAT", "RemoteWorker"]

T = TypeVar("T")
R = TypeVar("R")

BEAT = 1.0
"""Seconds after which a thread that waits looks whether what it waits for can still come."""


class RemoteWorker(Generic[T, R]):
    """A worker that is elsewhere, for a pool. One thread calls it."""

    def __init__(self, recipe: Recipe[Any, T, R]) -> None:
        self._recipe = recipe
        self._hand = f"{recipe.name}-{uuid.uuid4().hex[:8]}"
        self._calls = itertools.count(1)
        self._place: Place | None = None  # where it is, or is being made
        self._host: str | None = None  # the same in words, once it is there
        self._hooks: tuple[str, ...] = ()
        # It is being made. An attempt that is over does not stop that: the next one goes on waiting.
        self._placing: Future[Place] | None = None
        self._starting: Future[Any] | None = None
        self._until = 0.0

    def __repr__(self) -> str:
        return f"<remote worker {self._hand} on {self._host or 'no host yet'}>"

    def run(self, ctx: Context, data: T) -> R:
        """Have the far worker run."""
        call = next(self._calls)
        place = self._place if self._host is not None else self._begin(ctx)
        assert place is not None
        order = self._order(ctx, call, data)
        # An interrupt may strike anywhere from here on, and must not leave the far side behind.
        answer: Future[Any] | None = None
        ctx.check()
        try:
            answer = place.ask("call", self._hand, order)
            if not self._wait(ctx, answer, place.lost):
                self._see_out(place, call, answer, interrupt=False)
        except Interrupted:
            if answer is not None:
                self._see_out(place, call, answer, interrupt=True)
            raise
        except _Gone as gone:
            raise WorkerFault(self._lose(str(gone))) from None
        ctx.check()
        return self._open(ctx, answer)

    def on_stop(self) -> None:
        """Stop the far worker, and leave its place."""
        place, placing, host = self._place, self._placing, self._host
        self._forget()
        if place is None:
            if placing is not None:
                placing.add_done_callback(_leave_when_placed)
            return
        stopping = place.ask("stop", self._hand) if host is not None else None
        try:
            if stopping is not None and host is not None:
                self._raise_failure(stopping, host, place)
        finally:
            # One that does not stop may hang: then it goes on in that process, beside those to come.
            place.leave(lost=stopping is not None and not stopping.done())

    def on_pause(self) -> None:
        """Run the far worker's hook."""
        self._call_hook("on_pause")

    def on_resume(self) -> None:
        """Run the far worker's hook."""
        self._call_hook("on_resume")

    # -- made --------------------------------------------------------------------------------------

    def _begin(self, ctx: Context) -> Place:
        """Make the far worker, or go on with that, for as long as the attempt allows."""
        remaining = ctx.remaining
        # So that there is time left to say whose fault it is: a timeout would be the task's.
        until = inf if remaining is None else time.monotonic() + 0.9 * remaining
        try:
            return self._make(ctx, until)
        except _Over:
            ctx.check()
            raise WorkerFault(WorkerLost(self._recipe.name, None, "it is still being made")) from None

    def _make(self, ctx: Context, until: float) -> Place:
        recipe = self._recipe
        if self._placing is None and self._starting is None:
            if not recipe.wait_for_turn(ctx, until):
                raise _Over
            self._until = time.monotonic() + recipe.limits.start
            ctx._slot.where = None
        try:
            place = self._place
            if place is None:
                if self._placing is None:
                    self._placing = recipe.engine.place()
                self._wait_for_start(ctx, self._placing, until)
                place = self._place = self._placing.result()
                self._placing = None
            if self._starting is None:
                self._starting = place.ask("start", self._hand, WIRE, PYTHON, recipe.packed)
            self._wait_for_start(ctx, self._starting, until)
            answer = load(self._starting.result())
        except (_Over, Interrupted):
            raise
        except EngineClosed as closed:
            self._leave(lost=True)
            raise WorkerLost(recipe.name, None, str(closed)) from None
        except BaseException as error:  # an engine may raise what it likes
            hopeless = recipe.not_made(bug=_is_missing_module(error))
            lost = self._lose(f"it could not be made: {_said(error)}")
            raise (lost if hopeless else WorkerFault(lost)) from error
        self._starting = None
        if isinstance(answer, Failed):
            wrong = open_error(answer, "the far side")
            hopeless = recipe.not_made(bug=True)
            if recipe.to_be_moved:
                self._leave(lost=False)
            if hopeless:
                raise wrong
            raise WorkerFault(wrong) from wrong
        assert isinstance(answer, Started)
        recipe.made()
        self._host, self._hooks = answer.host, answer.hooks
        ctx._slot.where = answer.host
        return place

    def _wait_for_start(self, ctx: Context, future: Future[Any], until: float) -> None:
        if not self._wait(ctx, future, self._late, until):
            raise _Over

    def _late(self) -> str | None:
        if time.monotonic() >= self._until:
            return f"it was not there after {self._recipe.limits.start:g} s"
        return None if self._place is None else self._place.lost(started=False)

    # -- called ------------------------------------------------------------------------------------

    def _order(self, ctx: Context, call: int, data: T) -> bytes:
        """Write down what the far side is to know of the attempt."""
        deadline = ctx.deadline
        order = Order(
            call=call,
            task_id=ctx.task_id,
            attempt=ctx.attempt,
            name=ctx.name,
            worker_id=ctx.worker_id,
            group=ctx.group,
            seconds=None if deadline is None else deadline - ctx._started,
            remaining=ctx.remaining,
            options=dict(ctx.options),
            idempotency_key=ctx.idempotency_key,
            has_drain=ctx._task._settings.drain is not None,
            data=data,
        )
        try:
            return dump(order)
        except Exception as error:
            what = f"the data or the options of task {ctx.task_id} can't be sent to another process"
            raise Unrecoverable(f"{what}: {_said(error)}") from error

    def _wait(
        self, ctx: Context, future: Future[Any], lost: Callable[[], str | None], until: float = inf
    ) -> bool:
        """Wait for an answer; return False if the attempt is over before, or it is late. Raises `_Gone`."""
        if future.done():
            return True
        called = threading.Lock()
        called.acquire()

        def call(_: object) -> None:
            with suppress(RuntimeError):  # both have come at once
                called.release()

        future.add_done_callback(call)
        forget = ctx.token.on_cancel(call)
        try:
            while not future.done():
                left = until - time.monotonic()
                if ctx.cancelled or left <= 0:
                    return False
                if not called.acquire(timeout=min(BEAT, left)) and not future.done() and (why := lost()):
                    raise _Gone(why)
        finally:
            forget()
        return True

    def _see_out(self, place: Place, call: int, answer: Future[Any], *, interrupt: bool) -> None:
        """Give up a call whose attempt is over, and wait until it has come back or can't any more.

        The far side is told again until it has found the call: the message may have arrived before the call.
        """
        told: Future[Any] | None = None
        called = threading.Lock()
        called.acquire()
        answer.add_done_callback(lambda _: called.release())
        pause = 0.02
        while not answer.done():
            try:
                if interrupt and place.kill():
                    self._forget()
                    return
                if told is None or (told.done() and not _found(told)):
                    told = place.ask("tell", self._hand, call, interrupt=interrupt)
                called.acquire(timeout=pause)
                pause = min(BEAT, 2 * pause)
                if not answer.done() and place.lost() is not None:
                    self._leave(lost=True)
                    return
            except Interrupted:
                # Also once more after a while, if the first was swallowed.
                interrupt, told, pause = True, None, 0.02

    def _open(self, ctx: Context, future: Future[Any]) -> R:
        """Return the result of a call, or raise its error."""
        host = self._host or "the far side"
        try:
            answer = load(future.result())
        except BaseException as error:
            raise WorkerFault(self._lose(_said(error))) from error
        said = answer.said
        if said.restart:
            ctx.restart()
        if said.cost is not None:
            ctx.settle(said.cost)
        if said.sent is not None:
            self._pass_on(ctx, said.sent)
        if isinstance(answer, Failed):
            raise open_error(answer, host)
        try:
            result: R = load(answer.packed)
        except Exception as error:
            why = f"the result from {host} can't be unpickled here: {_said(error)}"
            raise Unrecoverable(why) from error
        return result

    def _pass_on(self, ctx: Context, sent: bytes) -> None:
        try:
            values = load(sent)
        except Exception as error:
            raise Unrecoverable(f"what was sent to the drain can't be unpickled: {_said(error)}") from error
        for value in values:
            ctx.send(value)

    # -- lost and left -----------------------------------------------------------------------------

    def _lose(self, why: str) -> WorkerLost:
        """Drop a far side that is gone; return the error for it."""
        host = self._host
        self._leave(lost=True)
        return WorkerLost(self._recipe.name, host, why)

    def _leave(self, *, lost: bool) -> None:
        place, placing = self._place, self._placing
        self._forget()
        if place is not None:
            place.leave(lost=lost)
        elif placing is not None:
            placing.add_done_callback(_leave_when_placed)

    def _forget(self) -> None:
        self._place = self._placing = self._starting = self._host = None
        self._hooks = ()

    def _call_hook(self, name: str) -> None:
        if self._place is not None and self._host is not None and name in self._hooks:
            self._raise_failure(self._place.ask("hook", self._hand, name), self._host, self._place)

    def _raise_failure(self, future: Future[Any], host: str, place: Place) -> None:
        """Wait for the answer to a hook, not for long; raise what it has raised."""
        until = time.monotonic() + self._recipe.limits.stop
        while True:
            try:
                answer = load(future.result(max(0.0, min(BEAT, until - time.monotonic()))))
                break
            except TimeoutError:
                if time.monotonic() >= until or place.lost() is not None:
                    return
            except Exception:  # noqa: BLE001 - it is gone, and its hooks with it
                return
        if isinstance(answer, Failed):
            raise open_error(answer, host)


class _Gone(Exception):
    """The far side can't answer any more."""


class _Over(Exception):
    """The attempt is over, or as good as over."""


def _said(error: BaseException) -> str:
    """Return the message of an error, without the pages that some engines add."""
    text = str(error) if isinstance(error, _Gone) else f"{type(error).__name__}: {error}"
    first, *others = text.strip().splitlines()
    return first[:300] if len(first) > 300 or not others else f"{first} [...]"


def _is_missing_module(error: BaseException) -> bool:
    """Return whether an engine did not find a module on the far side, retrypool most of the time."""
    return isinstance(error, ImportError) or "ModuleNotFoundError" in str(error)


def _found(told: Future[Any]) -> bool:
    """Return whether the far side has found the call that it was told of."""
    try:
        return bool(told.result())
    except BaseException:  # noqa: BLE001 - then it is lost, or will be asked again
        return False


def _leave_when_placed(placing: Future[Place]) -> None:
    with suppress(BaseException):
        placing.result().leave(lost=False)
