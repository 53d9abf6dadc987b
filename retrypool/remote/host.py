"""The far half of a remote worker: what runs in a process of the cluster.

An engine makes one `Host` in a process, as an actor whose methods are coroutines: they answer while calls
run. Each hand of it has a worker, which the factory makes here, and a thread, which alone calls that
worker. Nothing that the user's code raises leaves by way of the engine: it is written down as a `Failed`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from retrypool.errors import Interrupted, RemoteError, Unrecoverable
from retrypool.model.context import occupy
from retrypool.model.slots import Group, Slot
from retrypool.model.worker import check_worker, hook, run_of
from retrypool.remote.context import RemoteContext
from retrypool.remote.wire import PYTHON, WIRE, Failed, Order, Result, Said, Started, dump, failed, load
from retrypool.threads.interrupt import Gate

__all__ = ["HOOKS", "Host"]

log = logging.getLogger("retrypool")

HOOKS = ("on_stop", "on_pause", "on_resume")

Answer = Started | Result | Failed
Job = Callable[[], Answer]


class Host:
    """The hands of one process. Its methods are called by the engine, in an event loop.

    Packed arguments and answers are bytes: an engine must not try to understand them.
    """

    with_threads = True  # each hand has its own

    def __init__(self) -> None:
        self._hands: dict[str, _Hand] = {}

    async def start(self, hand: str, wire: int, python: str, recipe: bytes) -> bytes:
        """Make the worker of a hand; answer `Started` or `Failed`. The head says which versions it speaks."""
        if (wire, python) != (WIRE, PYTHON):
            theirs = f"Python {python} and version {wire} of the protocol"
            ours = f"Python {PYTHON} and version {WIRE}"
            why = f"the head runs {theirs}, this process {ours}: they must be the same"
            return dump(failed(RemoteError("a version mismatch", why, where())))
        made = self._hands[hand] = _Hand(hand, with_thread=self.with_threads)
        answer = await self.ask(made, partial(made.start, recipe))
        if isinstance(answer, Failed):
            self._hands.pop(hand, None)
            made.end()
        return dump(answer)

    async def call(self, hand: str, order: bytes) -> bytes:
        """Run one attempt; answer `Result` or `Failed`."""
        known = self._hands[hand]
        return dump(await self.ask(known, partial(known.call, order)))

    async def tell(self, hand: str, call: int, *, interrupt: bool) -> bool:
        """Say that nobody waits for a call any more; with `interrupt`, end it as a thread can be ended.

        Answers whether the call runs: it may have ended, or not have come yet.
        """
        known = self._hands.get(hand)
        return known is not None and known.give_up(call, interrupt=interrupt)

    async def hook(self, hand: str, name: str) -> bytes:
        """Run a hook of the worker; answer `Result` or `Failed`."""
        known = self._hands[hand]
        return dump(await self.ask(known, partial(known.hook, name)))

    async def stop(self, hand: str) -> bytes:
        """End a hand, after what it runs; answer what became of its `on_stop`."""
        known = self._hands.pop(hand, None)
        if known is None:
            return dump(Result(dump(None)))
        known.slot.retired = True
        answer = await self.ask(known, partial(known.hook, "on_stop"))
        known.worker = None
        known.end()
        return dump(answer)

    async def ping(self) -> str:
        """Answer, and so show that the process is alive."""
        return where()

    async def ask(self, hand: _Hand, job: Job) -> Answer:
        """Have the thread of a hand do a job, and wait for the answer."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()

        def resolve(value: Answer) -> None:
            if not answer.done():  # the engine may have given up the call
                answer.set_result(value)

        def reply(value: Answer) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(resolve, value)

        hand.put(job, reply)
        return await answer

    def __del__(self) -> None:
        # The head is gone, or has let go: nobody will call the hands any more.
        for hand in getattr(self, "_hands", {}).values():
            hand.slot.retired = True
            hand.end()


class ThreadedHost(Host):
    """The same for engines that call methods in threads: each call has one, which waits. See `Steps`."""

    async def ask(self, hand: _Hand, job: Job) -> Answer:
        """Have the thread of a hand do a job, and block until there is an answer."""
        answers: list[Answer] = []
        answered = threading.Lock()
        answered.acquire()

        def reply(value: Answer) -> None:
            answers.append(value)
            answered.release()

        hand.put(job, reply)
        answered.acquire()
        return answers[0]


class SoloHost(Host):
    """The same for one hand, where the engine does all that is for it in one thread: that is the hand's."""

    with_threads = False

    async def ask(self, hand: _Hand, job: Job) -> Answer:
        """Do a job here and now."""
        occupy(hand.slot)
        return job()


class Steps:
    """A host whose coroutines never wait, called as functions.

    It has none itself: Ray would take it for another kind of actor, whose calls cost half as much again.
    """

    def __init__(self, *, solo: bool) -> None:
        self._host = SoloHost() if solo else ThreadedHost()

    def run(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the host."""
        try:
            getattr(self._host, method)(*args, **kwargs).send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError(f"{method} has waited")

    def call(self, packed: bytes) -> Any:
        """Run one attempt. It has one argument, because each costs the engine some time."""
        hand, _, order = packed.partition(b"\0")
        return self.run("call", hand.decode(), order)


def where() -> str:
    """Return the name of this process: the machine's, and its number there."""
    return f"{socket.gethostname()} (process {os.getpid()})"


class _Hand:
    """A worker and its thread. The thread knows nothing of the `Host`, so that this one can go."""

    def __init__(self, name: str, *, with_thread: bool) -> None:
        self.slot = Slot(-1, name, Group(name))
        self.worker: Any = None
        self._gate = Gate(self.slot)
        self._jobs: queue.SimpleQueue[tuple[Job, Callable[[Answer], None]] | None] = queue.SimpleQueue()
        self._call: int | None = None  # the call that runs; written by its thread before and after `_ctx`
        self._ctx: RemoteContext | None = None
        if with_thread:
            threading.Thread(target=self._live, name=f"retrypool-{name}", daemon=True).start()

    # -- in other threads --------------------------------------------------------------------------

    def put(self, job: Job, reply: Callable[[Answer], None]) -> None:
        """Have the thread do a job, after those before, and tell the answer."""
        self._jobs.put((job, reply))

    def give_up(self, call: int, *, interrupt: bool) -> bool:
        """Cancel a call; return False if it does not run."""
        ctx = self._ctx
        if ctx is None or self._call != call:
            return False
        self.slot.stuck = ctx
        if not ctx.cancelled:
            ctx._cancel("the attempt is over")
        if interrupt:
            self._gate.interrupt(ctx)
        return True

    def end(self) -> None:
        """Let the thread end, after its jobs; a worker that is still there is stopped first."""
        self._jobs.put(None)

    # -- in the thread -----------------------------------------------------------------------------

    def _live(self) -> None:
        occupy(self.slot)
        self._gate.open()
        todo: list[tuple[Job, Callable[[Answer], None]]] = []  # what has not been answered
        while True:
            try:
                if todo:  # an interrupt has come too late, on the way from a call to its answer
                    self._absorb()
                    todo.pop()[1](failed(Interrupted("interrupted")))
                job = self._jobs.get()
                if job is None:
                    break
                todo.append(job)
                answer = job[0]()
                todo.pop()
                job[1](answer)
                job = answer = None  # type: ignore[assignment]
            except Interrupted:
                continue
        if self.worker is not None:
            self.hook("on_stop")

    def start(self, recipe: bytes) -> Answer:
        """Make the worker and start it."""
        try:
            factory, argument = load(recipe)
        except BaseException as error:  # noqa: BLE001 - the answer tells it
            # A module that is missing here, most of the time.
            wrong = RemoteError(type(error).__name__, f"the factory can't be loaded: {error}", where())
            wrong.__cause__ = error
            return failed(wrong)
        try:
            worker = factory(argument)
            check_worker(worker)
            if on_start := hook(worker, "on_start"):
                on_start()
        except BaseException as error:  # noqa: BLE001 - the answer tells it
            return failed(error)
        self.worker = worker
        return Started(where(), tuple(name for name in HOOKS if hook(worker, name)))

    def hook(self, name: str) -> Answer:
        """Run a hook, if the worker has it."""
        try:
            if function := hook(self.worker, name):
                function()
        except BaseException as error:
            log.exception("%s of %s raised", name, self.slot.name)
            return failed(error)
        return Result(dump(None))

    def call(self, packed: bytes) -> Answer:
        """Run one attempt. No interrupt is left pending, wherever it strikes."""
        try:
            order: Order = load(packed)
        except BaseException as error:  # noqa: BLE001 - the answer tells it
            why = f"the data can't be unpickled: {error}"
            return failed(RemoteError(type(error).__name__, why, where()))
        slot = self.slot
        if slot.id != order.worker_id or slot.group.name != order.group:
            slot.id, slot.group = order.worker_id, Group(order.group)
        ctx = RemoteContext(order, slot)
        try:
            slot.running.append(ctx)
            self._ctx, self._call = ctx, order.call
            run, takes_context = run_of(self.worker)
            value = run(ctx, order.data) if takes_context else run(order.data)
        except BaseException as error:  # noqa: BLE001 - the answer tells it
            # The first frame is this one.
            trace = error.__traceback__
            if trace is not None:
                BaseException.with_traceback(error, trace.tb_next or trace)
            self._absorb()
            return failed(error, self._said(ctx))
        self._absorb()
        try:
            result = dump(value)
        except BaseException as error:  # noqa: BLE001 - the answer tells it
            why = f"the result can't be sent to the head: {error!r}"
            return failed(Unrecoverable(why), self._said(ctx))
        return Result(result, self._said(ctx))

    def _absorb(self) -> None:
        """Come back from a call: from here on it can't be given up or interrupted."""
        ctx, self._call = self._ctx, None
        if ctx is not None:
            self._gate.absorb(ctx)
        self._ctx = self.slot.stuck = None
        self.slot.running.clear()

    def _said(self, ctx: RemoteContext) -> Said:
        """Return what the attempt has said to its context."""
        sent: bytes | None = None
        if ctx._sent:
            try:
                sent = dump(ctx._sent)
            except Exception:
                log.exception(
                    "what task %s has sent to its drain does not pickle: it is dropped", ctx.task_id
                )
        return Said(sent, ctx._cost, ctx._restart)
