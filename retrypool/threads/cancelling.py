"""Cancelling tasks: those that wait, those that run, and those that nobody waits for any more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import ref

from retrypool.model.cancel import CancelToken, Following, reason_of
from retrypool.model.completion import Reporter
from retrypool.model.context import Context, slot_here
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.threads.interrupt import shielded
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.works import Works

__all__ = ["Cancelling"]


class Cancelling:
    """Cancels tasks of one pool, wherever they are. Called outside its lock."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        # What is to be cancelled soon: anybody appends; whoever calls `Engine.act` takes out.
        self.unwanted: deque[Task[Any, Any]] = deque()
        self._backlog = engine.scheduler.backlog
        self._cancel_plain = engine.scheduler.cancel_plain

    def cancel_waiting(self, task: Task[Any, Any], reason: str = "cancelled") -> bool:
        """Cancel a task if it waits; return whether it is cancelled.

        Without a shield, which would cost as much as all of this: `Endings.cancel_plain` can't be struck in
        its midst, and what there is to do after it, or is left to do by a strike, is done with care.
        """
        engine, backlog, limit = self._engine, self._backlog, self._engine.queue_limit
        nested = engine.lock._is_owned()  # type: ignore[attr-defined]
        try:
            if not nested:
                data, now = task.data, engine.monotonic()  # noqa: F841 - data: let go of after the lock
                with engine.lock:
                    cancelled = self._cancel_plain(task, reason, now)
                # Nobody is to be called or let in, nothing is to be swept out or was put off.
                if (
                    cancelled
                    and backlog.tombstones < backlog.sweep_at
                    and not (engine.waiters or engine.steps.later or (limit is not None and limit.waiting))
                ):
                    if task._completion is not None:  # handshake H6
                        self._announce(task)
                    return True
            return self._cancel_with_care(task, reason)
        except BaseException:
            # It may have struck as the lock was just taken: CPython is open there from 3.14 on.
            if not nested and engine.steps.in_step:
                engine.lock.release()
            self._cancel_with_care(task, reason)
            raise

    @shielded
    def _announce(self, task: Task[Any, Any]) -> None:
        task._announce()

    @shielded
    def _cancel_with_care(self, task: Task[Any, Any], reason: str) -> bool:
        """Cancel a task if it waits, or do what is left to do after that."""
        engine = self._engine
        if engine.steps.in_step:
            engine.steps.put_off(partial(self._cancel_with_care, task, reason))
            return False
        now = engine.monotonic()
        spin_while_held(engine.lock)
        with engine.lock:
            found = engine.scheduler.withdraw(task)
            if found:
                engine.scheduler.cancel(task, reason, now)
            happened = engine.decided()
        engine.act(happened)
        if not found and task.cancelled():
            task._announce()
        return task.cancelled()

    def cancel_task(
        self, task: Task[Any, Any], reason: str, *, interrupt: bool = False, patient: bool = True
    ) -> bool:
        """Cancel a task wherever it is; return False if it has ended, or does so just now.

        Without patience also if somebody has it in hand, who may be the thread that calls this.
        """
        if task.done():
            return task.cancelled()
        if self.cancel_waiting(task, reason):
            return True
        return self._cancel_in_hand(task, reason, interrupt=interrupt, patient=patient)

    @shielded
    def _cancel_in_hand(self, task: Task[Any, Any], reason: str, *, interrupt: bool, patient: bool) -> bool:
        """Cancel a task that did not wait just now."""
        engine = self._engine
        if engine.steps.in_step:
            engine.steps.put_off(partial(self.cancel_task, task, reason, interrupt=interrupt, patient=False))
            return False
        while not task.done():
            slot = task._slot
            if slot is not None and (ctx := self._take_over_from(slot, task)) is not None:
                engine.takeovers.end(slot, ctx, "drop", reason, interrupt=interrupt)
                return True
            # Somebody else has the task in hand. If its attempt failed, its owner looks at `cancelled`
            # after it has ceased to be deciding; else it has only a few steps to go.
            record = task._record
            if record is not None and record.deciding:
                record.cancelled = True
                if record.deciding:
                    return True
            # A worker can't wait for itself: a finalizer may call this where its task is in nobody's box.
            if not patient or (slot is not None and slot is slot_here() and slot.stuck is None):
                return False
            time.sleep(0)
            if self._cancel_with_care(task, reason):
                return True
        return task.cancelled()

    def _take_over_from(self, slot: Slot, task: Task[Any, Any]) -> Context | None:
        ctx: Context
        engine = self._engine
        with engine.lock:
            for ctx in engine.scheduler.running_at(slot):
                if ctx._task is task and engine.takeovers.take_over(slot, ctx):
                    return ctx
        return None

    @shielded
    def take_back(self, task: Task[Any, Any]) -> None:
        """Cancel a task whose dispatch was struck by a Ctrl-C, or was refused, unless a worker has it.

        It may have come in or not. If it has, somebody may rely on its dispatcher to wake a worker.
        """
        engine, record = self._engine, task._record
        with engine.step:
            engine.waking.searching = False
            if engine.scheduler.withdraw(task):
                engine.scheduler.cancel(task, "its dispatch was interrupted", engine.monotonic())
            if record is None or not record.entries:
                engine.scheduler.backlog.bury_unless_held(task)
            engine.scheduler.rouse()

    def obey(self, token: CancelToken, task: Task[Any, Any]) -> None:
        """Cancel `task` when `token` is cancelled. If a Ctrl-C strikes this, the task has to be ended."""
        if type(token) is CancelToken and token.deadline is None:
            follower = _Follower(self, token, task)
            task._report_to(follower)  # first: so its end always finds what is to be let go of
            token._listen(follower, follower.cancel)
            if task.done():
                follower.report(task)
        else:
            self._obey_in_time(token, task)

    @shielded
    def _obey_in_time(self, token: CancelToken, task: Task[Any, Any]) -> None:
        """The same for a token that its time may cancel, or that is of a class of the user's."""
        known = ref(task)

        def cancel(token: CancelToken) -> None:
            if (task := known()) is not None:
                self.cancel_task(task, reason_of(token))

        end = self._engine.bonds.follow(token, cancel)
        task.add_done_callback(lambda _: end())

    # -- what nobody waits for ---------------------------------------------------------------------

    @shielded
    def give_up(self, tasks: Iterable[Task[Any, Any]]) -> None:
        """Cancel what nobody waits for any more. Also called by the garbage collector, on any thread."""
        engine = self._engine
        tasks = tuple(tasks)
        if not engine.steps.put_off(partial(self._cancel_all, tasks, patient=False)):
            self._cancel_all(tasks, patient=not engine.here)

    def cancel_unwanted(self) -> None:
        """Cancel what was left to whoever comes by. Perhaps a worker, on its way to one of the tasks."""
        tasks = []
        with suppress(IndexError):
            while True:
                tasks.append(self.unwanted.popleft())
        self._cancel_all(tasks, patient=False)

    def _cancel_all(self, tasks: Iterable[Task[Any, Any]], *, patient: bool) -> None:
        left = []
        for task in tuple(tasks):
            self.cancel_task(task, "nobody waits for its result", patient=patient)
            if not task.done():
                left.append(task)  # it is in somebody's hands: another time
        self.unwanted.extend(left)


class _Follower(Reporter, Following):
    """Between a token and the task that it cancels: one object, which hears of both ends."""

    __slots__ = ("_cancelling", "_task", "_token")

    def __init__(self, cancelling: Cancelling, token: CancelToken, task: Task[Any, Any]) -> None:
        self._cancelling = cancelling
        self._token = token
        self._task = ref(task)  # a token that lives long keeps no task

    def cancel(self, token: CancelToken) -> None:
        """Cancel the task."""
        task = self._task()
        if task is not None:
            self._cancelling.cancel_task(task, reason_of(token))

    # A method in place of the attribute, which would be a reference to itself.
    def report(self, _task: Task[Any, Any]) -> None:
        """Let go of the token: the task has ended."""
        self._token._take_back(self)
