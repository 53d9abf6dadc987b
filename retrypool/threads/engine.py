"""The works of a pool: what goes on between the public methods, the worker threads and the scheduler.

Two rules hold throughout. Decide under the lock, act outside it: whoever changes something calls
`decided` before it leaves the lock, and `act` on what that returned after it. And one owner: a task is
in the hands of whoever took it out of the backlog, or its attempt out of the seat's box, and only the
owner says what becomes of it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from math import inf
from typing import Any, Generic, TypeVar

from retrypool.clock import Clock
from retrypool.context import Context
from retrypool.core.retry import Cancel, Decision, Failure, GiveUp, RetryIn
from retrypool.core.scheduler import Scheduler
from retrypool.core.seat import Seat
from retrypool.core.settings import TaskSettings
from retrypool.errors import (
    AttemptTimeout,
    NoWorkers,
    PoolClosed,
    RetryPoolError,
    Throttled,
    WorkerFault,
)
from retrypool.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    TaskDispatched,
    TaskEvent,
    TaskRetrying,
    TaskSucceeded,
)
from retrypool.retry_after import parse_retry_after
from retrypool.task import Attempt, DeadTask, Outcome, Task, TaskState
from retrypool.threads.observers import Observers
from retrypool.threads.parking import Parker
from retrypool.threads.watchdog import Watchdog

__all__ = ["Engine"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")


class Engine(Generic[T, R]):
    """The state of a pool that its methods and its threads share."""

    # Who may touch what:
    #   scheduler            under `lock`, but for what its own text excepts
    #   closed, forked       set once, under `lock`; read without it
    #   guarded              written under `lock`. Dispatchers read it after they have appended a task
    #                        to the arrivals, and take the task back if it is set by then
    #   searching            anybody, at any time: a hint that a worker was just woken and will look
    #                        at the arrivals, so that nobody needs to wake another. It is set before a
    #                        seat is taken from the parked, and cleared by the seat before it looks
    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        observers: Observers[T, R],
        scheduler: Scheduler,
        wait_for_workers: bool,
        threaded: bool = True,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.clock = clock
        self.observers = observers
        self.scheduler = scheduler
        self.wait_for_workers = wait_for_workers
        self.threaded = threaded
        self.chance = chance
        self.arrivals = scheduler.backlog.arrivals
        self.lock = threading.Lock()
        self.settled = threading.Condition(self.lock)  # no task waits or runs, or none ever can
        self.waiters = 0  # threads that wait for `settled`
        self.closed = False
        self.forked = False
        self.guarded = True  # a pool starts without workers
        self.searching = False
        self.talkative = observers.listening or observers.on_success is not None
        self.watchdog = Watchdog(self)
        self.monotonic = clock.monotonic

    def __repr__(self) -> str:
        return f"<{self.name}>"

    # -- deciding and acting ---------------------------------------------------------------------

    def decided(self) -> list[Event]:
        """Return what has happened, for `act`. Called under the lock, last."""
        wakeup = self.scheduler.next_wakeup()
        if wakeup is not None:
            self.watchdog.expect(wakeup)
        self._settle()
        return self.scheduler.take_happened()

    def act(self, happened: list[Event]) -> None:
        """Tell whom it concerns. Called outside the lock."""
        for event in happened:
            if isinstance(event, TaskEvent) and event.task.done():
                event.task._announce()
            self.observers.tell(event)

    def _settle(self) -> None:
        """Wake those who wait for the last task to end, if there is nothing left to wait for."""
        if self.waiters and (self.scheduler.idle() or self.scheduler.staff.hopeless()):
            self.settled.notify_all()

    def review_guard(self) -> None:
        """Say anew whether dispatchers have to take the careful way. Called under the lock."""
        self.guarded = (
            self.closed
            or self.forked
            or self.observers.listening
            or (not self.scheduler.staff.live and not self.wait_for_workers)
        )

    def closing_refusal(self) -> RetryPoolError | None:
        """Return why the pool takes nothing at all any more, if so."""
        if self.forked:
            return PoolClosed(self.name, "it was made in the parent process; make one after the fork")
        if self.closed:
            return PoolClosed(self.name)
        return None

    def refusal(self) -> RetryPoolError | None:
        """Return why the pool takes no task now, if so."""
        if refusal := self.closing_refusal():
            return refusal
        if not self.scheduler.staff.live and not self.wait_for_workers:
            return NoWorkers(self.name)
        return None

    # -- the way in ------------------------------------------------------------------------------

    def dispatch(self, data: T, settings: TaskSettings) -> Task[T, R]:
        """Accept a task, the careful way."""
        if refusal := self.refusal():
            raise refusal
        now = self.monotonic()
        task: Task[T, R] = Task(self.scheduler.backlog.next_seq(), data, settings, self, now)
        if self.observers.listening:
            self.observers.tell(TaskDispatched(now, task))
        with self.lock:
            refusal = self.refusal()
            if refusal is None:
                self.scheduler.submit(task, now)
            happened = self.decided()
        self.act(happened)
        if refusal is not None:
            raise refusal
        return task

    def look_again(self, task: Task[T, R]) -> None:
        """Take a task back that was appended while the pool ceased to take any, and say why.

        If a worker has it already, it came in time.
        """
        with self.lock:
            refusal = self.refusal()
            if refusal is not None and not self.scheduler.withdraw(task):
                refusal = None
            happened = self.decided()
        self.act(happened)
        if refusal is not None:
            raise refusal

    def requeue(self, task_id: int) -> Task[T, R]:
        """Give a dead task fresh attempts."""
        now = self.monotonic()
        with self.lock:
            if refusal := self.refusal():
                raise refusal
            dead: DeadTask[T] = self.scheduler.pull_dead(task_id)
            task: Task[T, R] = Task(dead.id, dead.data, dead.settings, self, now)
            self.scheduler.resurrect(task, dead, now)
            happened = self.decided()
        self.act(happened)
        return task

    def cancel_waiting(self, task: Task[Any, Any]) -> bool:
        """Cancel a task if it waits."""
        with self.lock:
            found = self.scheduler.withdraw(task)
            if found:
                self.scheduler.cancel(task, "cancelled", self.monotonic())
            happened = self.decided()
        self.act(happened)
        return found or task.cancelled()

    def wake_one(self) -> None:
        """Wake a parked worker for what is in the arrivals. Called without the lock."""
        self.searching = True
        try:
            seat, _ = self.scheduler.staff.parked.popitem()
        except KeyError:  # others were quicker; whoever they woke has yet to look
            self.searching = False
        else:
            seat.wake()

    # -- the workers' side -----------------------------------------------------------------------

    def claim(self, seat: Seat, handed: Task[T, R] | None = None) -> Task[T, R] | None:
        """Return a task for `seat`, or None if there is none and it is parked. See `Scheduler.claim`."""
        with self.lock:
            task = self.scheduler.claim(seat, self.monotonic(), handed)
            happened = self.decided()
        self.act(happened)
        return task

    def wait_for_call(self, seat: Seat, parker: Parker) -> None:
        """Wait until there may be something for `seat`, which has just been parked."""
        # A dispatcher appends and then looks for parked seats; this seat was parked and looks now. A
        # seat that is benched is not among the parked, and is called when its time has come.
        if not (self.arrivals and self.scheduler.staff.unpark(seat)):
            parker.park()
            self.scheduler.staff.unpark(seat)
        seat.idle = False
        self.searching = False

    def begin(self, seat: Seat, task: Task[T, R], started: float) -> Context:
        """Make the context of an attempt that is about to start, with its time if that is limited."""
        ctx = Context(task, seat, self.clock, started)
        record = task._record
        if record is not None:
            ctx.attempt = record.entries + 1
        settings = task._settings
        if settings.limited:
            running_time = 0.0 if record is None else record.running_time
            left, limit = settings.time_left(running_time, started - task._dispatched)
            ctx._expires = started + left
            ctx._limit = (left, limit)
        return ctx

    def finish(self, seat: Seat, task: Task[T, R], ctx: Context, result: R) -> None:
        """End a task with a result. The hot loop has the same steps, without the calls."""
        task._started = ctx._started
        task._ended = self.monotonic()
        task._outcome = result
        seat.succeeded += 1
        task._phase = TaskState.SUCCEEDED
        task._announce()
        if seat.attentive or self.talkative:
            self.succeed(seat, task)

    def succeed(self, seat: Seat, task: Task[T, R]) -> None:
        """Tell of a success, when somebody wants to know."""
        if seat.attentive:
            with self.lock:
                self.scheduler.staff.probe_over(seat, self.monotonic())
                happened = self.decided()
            self.act(happened)
        if self.talkative:
            observers = self.observers
            observers.succeeded(task)
            if observers.listening:
                now = task._ended
                observers.tell(AttemptEnded(now, task, task.history[-1]))
                observers.tell(TaskSucceeded(now, task))

    def take_away(self, seat: Seat, ctx: Context, outcome: Outcome) -> None:
        """Put a task back whose attempt was taken over for a reason that is not the task's."""
        now = self.monotonic()
        task = ctx._task
        attempt = Attempt(ctx.attempt, seat.id, seat.group.name, ctx._started, now, outcome)
        self.scheduler.tried(task, attempt, seat.group)
        with self.lock:
            self.scheduler.retry(task, 0.0, now)
            happened = self.decided()
        self.act(happened)

    def came_back(self, seat: Seat) -> None:
        """Take a worker back whose attempt had been given up."""
        with self.lock:
            seat.stuck = None
            happened = self.decided()
        self.act(happened)

    # -- the life of an attempt that fails -------------------------------------------------------

    def fail(self, seat: Seat, ctx: Context, error: BaseException, ended: float) -> None:
        """Take an attempt from its failure to what becomes of its task. Called by the attempt's owner."""
        task: Task[T, R] = ctx._task
        attempt = Attempt(ctx.attempt, seat.id, seat.group.name, ctx._started, ended, _outcome(error), error)
        self.scheduler.tried(task, attempt, seat.group)
        self._blame(seat, error)
        action = self.observers.failed(task, error)
        decision = task._settings.retry.decide(self._failure(task, attempt, action), ended)
        if self.observers.listening:
            self.observers.tell(AttemptEnded(ended, task, attempt))
        self.carry_out(task, decision, error, None if seat.stuck is ctx else seat)

    def _failure(self, task: Task[T, R], attempt: Attempt, action: Any) -> Failure:
        record = task._record
        assert record is not None
        assert attempt.error is not None
        settings = task._settings
        deadline = settings.deadline
        return Failure(
            error=attempt.error,
            attempt=attempt.number,
            task=task,
            charged=record.charged,
            throttles=record.throttles,
            errors=record.errors() if settings.retry.attempts_for else None,
            running_time=record.running_time,
            time_limit=settings.time_limit,
            deadline=None if deadline is None else task._dispatched + deadline,
            action=action,
            random=self.chance,
        )

    def _blame(self, seat: Seat, error: BaseException) -> None:
        """Let the group answer for what is its own fault."""
        if isinstance(error, Throttled):
            retry_after = parse_retry_after(error.retry_after, now=self.clock.time())
            with self.lock:
                self.scheduler.staff.cool(seat.group, retry_after, self.monotonic())
                happened = self.decided()
            self.act(happened)
        elif seat.attentive:
            with self.lock:
                self.scheduler.staff.probe_over(seat, self.monotonic())
                happened = self.decided()
            self.act(happened)

    def carry_out(
        self, task: Task[T, R], decision: Decision, error: BaseException, seat: Seat | None
    ) -> None:
        """Do what was decided for a task whose attempt is over. Called by its owner, who then isn't.

        `seat` is given by the thread that works at it.
        """
        scheduler = self.scheduler
        now = self.monotonic()
        match decision:
            case RetryIn(delay):
                # Told before it is done: as soon as the task is back, another worker may end it.
                self.observers.retrying(task, error, delay)
                if self.observers.listening:
                    self.observers.tell(TaskRetrying(now, task, error, delay))
                if delay == 0 and seat is not None and scheduler.retry_at_once(task):
                    seat.retried += 1
                    if scheduler.staff.parked and not self.searching:
                        self.wake_one()
                    return
                with self.lock:
                    scheduler.retry(task, delay, now)
                    happened = self.decided()
            case GiveUp(reason, cause):
                with self.lock:
                    scheduler.bury(task, reason, cause or error, now)
                    happened = self.decided()
            case Cancel(reason):
                with self.lock:
                    scheduler.cancel(task, reason, now)
                    happened = self.decided()
        self.act(happened)

    # -- the watchdog's side ---------------------------------------------------------------------

    def catch_up(self) -> float:
        """Do all that is due; return when something is due next."""
        overdue: list[tuple[Seat, Context]] = []
        earliest = inf
        with self.lock:
            now = self.monotonic()
            self.scheduler.advance(now)
            wakeup = self.scheduler.next_wakeup()
            for seat in self.scheduler.staff.seats.values():
                for ctx in seat.running[:]:
                    if ctx._expires > now:
                        earliest = min(earliest, ctx._expires)
                    elif self.take_over(seat, ctx):
                        seat.timed_out += 1
                        overdue.append((seat, ctx))
            self._settle()
            happened = self.scheduler.take_happened()
        self.act(happened)
        for seat, ctx in overdue:
            self._time_out(seat, ctx, now)
        return earliest if wakeup is None else min(earliest, wakeup)

    def take_over(self, seat: Seat, ctx: Context) -> bool:
        """Make an attempt one's own, unless its worker has just ended it. Called under the lock."""
        try:
            seat.running.remove(ctx)  # atomic: the worker's pop gets it, or this
        except ValueError:
            return False
        seat.stuck = ctx
        return True

    def _time_out(self, seat: Seat, ctx: Context, now: float) -> None:
        assert ctx._limit is not None
        error = AttemptTimeout(*ctx._limit)
        ctx._cancel(error)
        self.fail(seat, ctx, error, now)


def _outcome(error: BaseException) -> Outcome:
    match error:
        case AttemptTimeout():
            return Outcome.TIMED_OUT
        case Throttled():
            return Outcome.THROTTLED
        case WorkerFault():
            return Outcome.WORKER_FAULT
    return Outcome.FAILED


def started(task: Task[Any, Any], ctx: Context, at: float) -> AttemptStarted:
    """Return the event of an attempt that starts."""
    return AttemptStarted(at, task, ctx.attempt, ctx.worker_id, ctx.group)
