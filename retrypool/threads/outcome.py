"""The way back of an attempt that has failed, or was taken over from its worker. See `success` for the other.

An attempt belongs to whoever gets its context out of its slot's box (`Slot.running`): the worker that
ends it, or somebody who takes it over, because its time is up or because it is not wanted any more.
Only the owner goes on from there, so each attempt ends once, and its task has one owner at a time.
"""

from __future__ import annotations

from math import inf
from typing import Any

from retrypool.callbacks import log_broken, shown
from retrypool.core.records import take_in_hand
from retrypool.core.scheduler import CLOSED_BY_FORCE
from retrypool.ctrl_c import is_ctrl_c
from retrypool.errors import WorkerFault
from retrypool.events import AttemptEnded, AttemptStarted, TaskRetrying, attempt_started
from retrypool.model.context import Context, begin
from retrypool.model.describe import annotate
from retrypool.model.slots import Slot
from retrypool.model.task import Attempt, Task
from retrypool.policy.blame import Scope
from retrypool.policy.failure import Failure, FailureAction
from retrypool.policy.retry import Decision, GiveUp, RetryIn, RetryPolicy
from retrypool.policy.retry_after import parse_retry_after
from retrypool.states import DeadReason, Outcome, TaskState
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.works import Works

__all__ = ["Attempts"]

_TASK = Scope.TASK  # bound once: looking a member up in its enum costs more than what is done with it


class Attempts:
    """What can become of an attempt. Called outside the pool's lock, but for what says otherwise."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._observers = engine.observers
        self._monotonic = engine.clock.monotonic
        # Whether somebody of the pool itself has a part in each failure.
        self._watched = engine.races is not None or engine.journal is not None
        # The attempts that are over while their tasks' fate is not decided: nowhere else do these tasks
        # stand. Adding to a set and discarding from it are atomic, and each attempt is in it once.
        self.deciding: set[Context | Task[Any, Any]] = set()

    # -- begun -----------------------------------------------------------------------------------

    def expiry(self, task: Task[Any, Any], now: float) -> float:
        """Return when an attempt that starts now will be over, whatever limit says so."""
        left, _ = self.time_left(task, now)
        return now + left

    def starting(self, ctx: Context) -> AttemptStarted:
        """Return what is to be told of the start of an attempt, and have all else wait for that."""
        slot = ctx._slot
        event = attempt_started(ctx._started, ctx._task, ctx.attempt, slot.id, slot.group.name)
        self._observers.hold(event)
        return event

    # -- failed ----------------------------------------------------------------------------------

    def failed(
        self,
        slot: Slot,
        attempt: Context | Task[Any, Any],
        error: BaseException,
        ended: float,
        *,
        over: bool = False,
    ) -> None:
        """Take an attempt from its failure to what becomes of its task.

        Judged, recorded, stopped if its code still runs, told, decided, carried out. `over` says that the
        attempt was taken over: that is where timeouts join. A task stands for its first attempt, whose
        context nobody has wanted.
        """
        task, races = attempt if isinstance(attempt, Task) else attempt._task, self._engine.races
        self.deciding.add(attempt)
        is_back = False
        decision: Decision | None = None
        try:
            try:
                take_in_hand(task)
                scope, retry_after = self._judge(error)
                quiet = not (over or self._watched or self._observers.attends_failures)
                if quiet and scope is _TASK and not self._scheduler.over:
                    is_back = self._scheduler.retry_at_once(slot, task, attempt._started, error, ended)
                if is_back:
                    self._put_back(task)
                    return
                ctx = begin(attempt, slot, attempt._started, inf) if isinstance(attempt, Task) else attempt
                entry, scope, is_back = self._record(slot, ctx, error, scope, retry_after, ended, quiet=quiet)
                if is_back:
                    if races is not None:
                        self._leave(slot, ctx, entry, error, over=over)
                else:
                    if over:
                        self._stop(slot, ctx, error)
                    action = self._tell(task, entry, error)
                    decision = self._decide(task, entry, scope, action, over=over)
            except BaseException as broken:
                # The user's code runs in more places than callbacks: in a property of an error, for one.
                if is_ctrl_c(broken):
                    raise
                if is_back or (races is not None and races.abandon(task, slot)):
                    log_broken("an attempt of %r could not be brought to its end: another goes on", task)
                    decision = None
                else:
                    log_broken("what becomes of %r could not be decided: it is dead", task)
                    decision = GiveUp(DeadReason.POLICY_ERROR, broken)
            try:
                if decision is not None:
                    self._carry_out(slot, task, decision, error)
            except BaseException as broken:
                if is_ctrl_c(broken):
                    raise
                log_broken("what was decided of %r could not be done", task)
                self.lost(slot, task, broken)
        finally:
            self.deciding.discard(attempt)
            if isinstance(attempt, Context):
                attempt._let_go()

    def lost(self, slot: Slot, task: Task[Any, Any], error: BaseException) -> None:
        """Let a task be dead that the thread at `slot` had in hand when something broke down.

        Unless it has let go of the task before: then somebody else has it, or it has ended.
        """
        races = self._engine.races
        if races is not None and races.abandon(task, slot):
            return
        if task._slot is slot and task._phase is TaskState.RUNNING:
            take_in_hand(task)
            self.bury(task, DeadReason.POLICY_ERROR, error)

    def _judge(self, error: BaseException) -> tuple[Scope, object]:
        """Say whose fault an error is."""
        try:
            return self._engine.judge(error)
        except BaseException as wrong:
            if is_ctrl_c(wrong):
                raise
            log_broken("blame raised for %s: it blames the task", shown(error))
            return Scope.TASK, None

    def _record(
        self,
        slot: Slot,
        ctx: Context,
        error: BaseException,
        scope: Scope,
        retry_after: object,
        ended: float,
        *,
        quiet: bool,
    ) -> tuple[Attempt, Scope, bool]:
        """Enter a failed attempt, and what it says of its group and of the fleet.

        If it is `quiet`, that is, nobody is to be told, and the decision takes nothing but to count, the task
        is put back too: then the last of what is returned is True. So it is if another attempt goes on, or
        has ended the task.
        """
        engine, scheduler, task = self._engine, self._scheduler, ctx._task
        races = engine.races
        # Outside the lock: what was raised may have brought a type of its own.
        pause = None
        if scope is Scope.THROTTLED:
            pause = parse_retry_after(retry_after, now=engine.clock.time())
        span = (ctx.attempt, ctx._started, ended)
        is_back = False
        spin_while_held(engine.lock)
        with engine.lock:
            now = self._monotonic()
            if races is not None and races.is_lost(ctx):
                attempt, is_back = races.come_too_late(ctx), True
            else:
                attempt, scope = scheduler.failed(slot, task, error, scope, span, now, pause)
                if slot.stuck is ctx:
                    slot.lost[attempt.outcome._value_] += 1
                else:
                    slot.failures[attempt.outcome._value_] += 1  # hashing the member costs more than all this
                is_back = races is not None and races.leave(task, slot)
            if isinstance(error, WorkerFault) and error.restart:
                scheduler.fleet.make_unfit(slot)
            # A policy of the user's own is not asked under the lock.
            if (
                quiet
                and type(task._settings.retry) is RetryPolicy
                and (decision := self._count(task, scope)) is not None
            ):
                scheduler.retry(task, decision.delay, now)
                is_back = True
            happened = engine.decided()
        engine.act(happened)
        return attempt, scope, is_back

    def _put_back(self, task: Task[Any, Any]) -> None:
        """See to it that a task is taken that was put back without the lock, or ends."""
        engine = self._engine
        if self._scheduler.over:  # H12: read after the task was put back
            engine.cancelling.cancel_waiting(task, CLOSED_BY_FORCE)
        if engine.parked and not engine.waking.searching:
            engine.waking.wake_one()

    def _leave(self, slot: Slot, ctx: Context, attempt: Attempt, error: BaseException, *, over: bool) -> None:
        """Take leave of a task that goes on, or has ended, with another attempt."""
        if over:
            self._stop(slot, ctx, error)
        if self._observers.wants_ended:
            self._observers.tell(AttemptEnded(attempt.ended, ctx._task, attempt))
        if self._engine.journal is not None:
            if attempt.outcome is Outcome.SUPERSEDED:
                self._engine.journal.over(slot)
            else:
                self._engine.journal.failed(slot, ctx._task, 0.0)

    def _stop(self, slot: Slot, ctx: Context, error: BaseException) -> None:
        """Tell the code of an attempt that was taken over that nobody waits for it."""
        # Another error of its kind: the pool has hold of the context for a while, which is no reason to keep
        # what the task ends with.
        interrupt = ctx._task._settings.interrupt_on_timeout
        self._engine.takeovers.stop(slot, ctx, type(error)(*error.args), interrupt=interrupt)

    def _tell(self, task: Task[Any, Any], attempt: Attempt, error: BaseException) -> FailureAction | None:
        """Tell of the end of an attempt; return what `on_failure` wants."""
        observers = self._observers
        if observers.wants_ended:
            observers.tell(AttemptEnded(attempt.ended, task, attempt))
        return None if observers.on_failure is None else observers.failed(task, error)

    def _count(self, task: Task[Any, Any], scope: Scope) -> RetryIn | None:
        """Decide if that takes nothing but to count."""
        record, settings = task._record, task._settings
        assert record is not None
        if settings.span is None or record.cancelled:
            return None
        charged, uncharged = record.charged, record.uncharged
        return settings.retry.decide_by_count(scope, charged, uncharged, elsewhere=record.elsewhere)

    def _decide(
        self,
        task: Task[Any, Any],
        attempt: Attempt,
        scope: Scope,
        action: FailureAction | None,
        *,
        over: bool,
    ) -> Decision:
        """Ask the task's policy what becomes of it."""
        record, settings, error = task._record, task._settings, attempt.error
        assert record is not None
        assert error is not None
        if action is None and (decision := self._count(task, scope)) is not None:
            return decision
        failure = Failure(
            error=error,
            attempt=attempt.number,
            task=task,
            scope=scope,
            charged=record.charged,
            uncharged=record.uncharged,
            round=record.round,
            elsewhere=record.elsewhere,
            errors=record.errors() if settings.retry.attempts_for else None,
            running_time=record.running_time,
            time_limit=settings.time_limit,
            deadline=task._deadline,
            cancelled=record.cancelled,
            action=action,
            random=self._engine.chance,
        )
        if over:
            failure.use_up(attempt.ended)
        return settings.retry.decide(failure, attempt.ended)

    def _carry_out(self, slot: Slot, task: Task[Any, Any], decision: Decision, error: BaseException) -> None:
        """Do what was decided."""
        if isinstance(decision, RetryIn):
            if self._engine.journal is not None:
                self._engine.journal.failed(slot, task, decision.delay)
            observers = self._observers
            # Told before it is done: as soon as the task is back, another worker may end it.
            if observers.on_retry is not None:
                observers.retrying(task, error, decision.delay)
            if observers.wants_retrying:
                observers.tell(TaskRetrying(self._monotonic(), task, error, decision.delay))
            self.put_back(task, decision.delay)
        elif isinstance(decision, GiveUp):
            self.bury(task, decision.reason, error if decision.error is None else decision.error)
        else:
            self.cancel(task, decision.reason)

    # -- ends ------------------------------------------------------------------------------------

    def _is_cancelled(self, task: Task[Any, Any]) -> bool:
        """Close the decision on a task; return whether somebody wanted it cancelled until then.

        Handshake H7: write `deciding`, then read `cancelled`. So either it is seen here, or whoever cancels
        sees that it came too late, and says so.
        """
        record = task._record
        assert record is not None
        record.deciding = False
        return record.cancelled

    def put_back(self, task: Task[Any, Any], delay: float) -> None:
        """Let a task be claimed again in `delay` seconds. The scheduler closes the decision on it (H7)."""
        engine = self._engine
        spin_while_held(engine.lock)
        with engine.step:
            self._scheduler.retry(task, delay, self._monotonic())

    def bury(self, task: Task[Any, Any], reason: DeadReason, error: BaseException | None) -> None:
        """Let a task be dead, unless it has been cancelled meanwhile."""
        engine = self._engine
        annotate(error, task)  # before anybody can see it
        cancelled = self._is_cancelled(task)
        spin_while_held(engine.lock)
        with engine.lock:
            if cancelled:
                self._scheduler.cancel(task, "cancelled", self._monotonic())
            else:
                self._scheduler.bury(task, reason, error, self._monotonic())
            happened = engine.decided()
        engine.act(happened)

    def cancel(self, task: Task[Any, Any], reason: str | None) -> None:
        """Let a task end cancelled."""
        engine = self._engine
        spin_while_held(engine.lock)
        with engine.step:
            self._scheduler.cancel(task, reason, self._monotonic())

    def time_left(self, task: Task[Any, Any], now: float) -> tuple[float, str]:
        """Return the seconds that an attempt has which begins at `now`, and which limit says so."""
        record = task._record
        running_time = 0.0 if record is None else record.running_time
        return task._settings.time_left(running_time, now - task._dispatched)
