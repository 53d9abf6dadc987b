"""The works of a pool: what goes on between the public methods, the worker threads and the scheduler.

Two rules hold throughout. Decide under the lock, act outside it: whoever changes something calls
`decided` before it leaves the lock, and `act` on what that returned after it. And one owner: a task is
in the hands of whoever took it out of the backlog, or its attempt out of the slot's box, and only the
owner says what becomes of it (see `attempts`).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from retrypool.callbacks import call_guarded
from retrypool.clock import Clock
from retrypool.core.hedging import Hedging
from retrypool.core.scheduler import Scheduler
from retrypool.core.schedules import TickDue
from retrypool.errors import WrongThread
from retrypool.events import Event, TaskDead, TaskEvent, WorkerStuck
from retrypool.model.context import Context, slot_here
from retrypool.model.describe import annotate, is_annotated
from retrypool.model.drain import Drain
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.policy.blame import Judge
from retrypool.policy.rates import Rate
from retrypool.threads.admission import Admission
from retrypool.threads.bonds import Bonds
from retrypool.threads.cancelling import Cancelling
from retrypool.threads.costs import Costs
from retrypool.threads.dead_tasks import DeadTasks
from retrypool.threads.hedges import Hedges
from retrypool.threads.intake import Intake
from retrypool.threads.interrupt import shielded
from retrypool.threads.kept import Kept
from retrypool.threads.leaving import Leaving
from retrypool.threads.observers import Listening, Observers
from retrypool.threads.outcome import Attempts
from retrypool.threads.parker import Bell
from retrypool.threads.queue_limit import QueueLimit
from retrypool.threads.races import Races
from retrypool.threads.spinning import spin_while_held
from retrypool.threads.steps import Step, Steps
from retrypool.threads.success import Successes
from retrypool.threads.takeover import Takeovers
from retrypool.threads.waking import Waking
from retrypool.threads.watchdog import Watchdog

if TYPE_CHECKING:
    from retrypool.threads.journal import Journal

__all__ = ["Engine"]

T = TypeVar("T")
R = TypeVar("R")
L = TypeVar("L")


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """What was let go of under the lock: it ends with this. For the engine itself; nobody is told."""

    things: list[object]


@dataclass(frozen=True, slots=True)
class Errand(Event):
    """Something to be done once the lock is left. For the engine itself; nobody is told."""

    run: Callable[[], object]


def _leave_alone(_event: WorkerStuck) -> None:
    """Do nothing for a stuck worker: there is no workers yet."""


class Engine(Generic[T, R]):
    """The state of a pool that its methods and its threads share."""

    # Who may touch what:
    #   scheduler            under `lock`, but for what its own text excepts
    #   closed, forked, exiting   set once, under `lock`; read without it
    #   drains               under `lock`
    #   guarded, announces   written under `lock`; dispatchers read it after they have appended (H2)
    #   bound                written under `lock`; read again under it by who lets a task in
    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        observers: Observers[T, R],
        scheduler: Scheduler,
        wait_for_workers: bool,
        judge: Judge,
        grace: float = 5.0,
        max_queue: int | None = None,
        patient: bool = True,
        kept: Kept | None = None,
        threaded: bool = True,
        careful: bool = False,
        journal: Journal | None = None,
        hedging: Hedging | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.clock = clock
        self.observers = observers
        self.scheduler = scheduler
        self.wait_for_workers = wait_for_workers
        scheduler.shortage.pool_name, scheduler.shortage.waits_for_workers = name, wait_for_workers
        self.judge = judge
        self.shows_data = True  # in the log, in notes on errors, in pictures; set by the pool
        self.grace = grace  # seconds after which a thread that has not come back counts as stuck
        self.threaded = threaded
        self.on_stuck: Callable[[WorkerStuck], None] = _leave_alone  # given by the workers
        self.chance = chance
        self.injector = scheduler.backlog.injector
        self.kept = kept  # has a lock of its own
        self.drains: dict[int, Drain[Any]] = {}  # those that end when this pool does, by their identity
        self.parked = scheduler.fleet.parked
        self.called = scheduler.fleet.called
        # Reentrant for the garbage collector alone: it may call the user's code in the middle of a step of
        # ours, and that may look at the pool. What it wants to change there is put off, see `Steps`.
        self.lock = threading.RLock()
        self.queue_limit = None if max_queue is None else QueueLimit(self, max_queue, patient=patient)
        self.waiters: set[Bell] = set()  # rung when no task waits or runs, or none ever can
        self.closed = False
        self.stopped = False  # it has come to its end, and that was told; under `lock`
        self.forked = False
        self.overstayed: set[Slot] = set()  # stuck for too long; under `lock`, for the workers to see to
        self.exiting = False  # with the interpreter: no thread can be started any more
        self.careful = careful  # no task is plain: the pool's own options see to that
        self.guarded = True  # a pool starts without workers
        self.announces = False  # whether it is guarded only because listeners hear of each task
        self.bound: QueueLimit | None = None  # the limit of the queue, if it is guarded only because of that
        self.journal = journal  # what is told of every task, if the pool has a storage
        self.admission = Admission(self)
        self.refusal, self.closing_refusal = self.admission.refusal, self.admission.closing_refusal
        self.watchdog = Watchdog(self)
        self.races = None if hedging is None else Races(self, hedging)
        self.hedges = None if hedging is None else Hedges(self, hedging)
        self.attempts = Attempts(self)
        self.successes = Successes(self)
        self.takeovers = Takeovers(self)
        self.cancelling = Cancelling(self)
        self.unwanted = self.cancelling.unwanted
        self.cancel_waiting = self.cancelling.cancel_waiting
        self.waking = Waking(self)
        self.leaving = Leaving()
        self.intake: Intake[T, R] = Intake(self)
        self.dead_tasks: DeadTasks[T, R] = DeadTasks(self)
        self.costs = Costs(self)
        self.bonds = Bonds(self)
        self.steps = Steps(self)
        self.step = Step(self)
        self.monotonic = clock.monotonic
        self._identity = None if journal is None else journal.identity

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def here(self) -> bool:
        """Whether the calling thread is one of the workers'."""
        slot = slot_here()
        return slot is not None and slot in self.scheduler.fleet.slots

    @property
    def identity(self) -> str:
        """A text that no other pool has, or no other storage, if it has one."""
        if self._identity is None:
            import uuid

            with self.lock:
                self._identity = self._identity or uuid.uuid4().hex[:12]
        return self._identity

    # -- deciding and acting ---------------------------------------------------------------------

    def decided(self) -> list[Event]:
        """Return what has happened, for `act`. Called under the lock, last."""
        wakeup = self.scheduler.next_wakeup()
        if wakeup is not None:
            self.watchdog.expect(wakeup)
        self.settle_waiters()
        return self.take_happened()

    @shielded
    def look(self, function: Callable[[], L]) -> L:
        """Return what `function()` finds under the lock. What it lets go of there ends after that."""
        nested = self.steps.in_step
        with self.lock:
            found = function()
            dropped = None if nested else self.scheduler.take_dropped()
        del dropped
        if self.steps and not nested:
            self.steps.finish()
        return found

    def take_happened(self) -> list[Event]:
        """Return what has happened, and what is to be dropped. Called under the lock."""
        scheduler = self.scheduler
        if scheduler.backlog.tombstones or scheduler.timers.tombstones:
            scheduler.clear_tombstones()
        if self.queue_limit is not None:
            self.queue_limit.call()
        happened = scheduler.take_happened()
        for event in happened:
            if isinstance(event, TaskDead):
                self.observers.hold(event)  # it may be requeued as soon as the lock is left
        if scheduler.dropped:
            happened.append(Dropped(0.0, scheduler.take_dropped()))
        return happened

    def act(self, happened: list[Event]) -> None:
        """Wake those who were called, and tell whom it concerns. Called outside the lock."""
        if self.called:
            self.wake_called()
        if self.journal is not None:
            for event in happened:
                self.journal.heard(event)
        for event in happened:  # those who wait for a task first: listeners may take their time
            if isinstance(event, TaskEvent) and event.task.done():
                error = event.dead.error if isinstance(event, TaskDead) else None
                if error is not None and not is_annotated(error, event.task):  # of a deadline, for one
                    annotate(error, event.task)
                event.task._announce()
        for event in happened:
            match event:
                case Errand(run=run):
                    call_guarded("errand", run)
                    continue
                case Dropped():
                    continue
                case TickDue(plan=plan, tick=tick):
                    plan.owner.fire(tick)
                    continue
                case WorkerStuck():
                    self.on_stuck(event)
            self.observers.tell(event)
        if self.scheduler.history.undescribed:
            self.scheduler.history.describe()
        if self.unwanted:
            self.cancelling.cancel_unwanted()
        if self.steps:
            self.steps.finish()

    def wake_called(self) -> None:
        """Wake those whom the scheduler called. Another thread that leaves the lock may have done so."""
        called = self.called
        while called:
            try:
                slot = called.popleft()
            except IndexError:
                return
            slot.wake()

    def settle_waiters(self) -> None:
        """Wake those who wait for the last task to end, if there is nothing left to wait for."""
        if self.waiters and (self.scheduler.idle() or self.scheduler.is_stranded()):
            for bell in self.waiters.copy():  # who ceases to wait takes its own out without the lock
                bell.ring()
            if self.watchdog.stands_in:
                self.watchdog.nudge()

    def review_guard(self) -> None:
        """Say anew whether dispatchers have to take the careful way. Called under the lock."""
        self.scheduler.endings.tells_cancelled = self.journal is not None or self.observers.wants_cancelled
        careful = (
            self.careful
            or self.journal is not None
            or self.closed
            or self.forked
            or self.kept is not None
            or (not self.scheduler.fleet.live and not self.wait_for_workers)
        )
        told, limit = self.observers.wants_dispatched, self.queue_limit
        self.guarded = careful or told or limit is not None
        self.announces = told and not careful and limit is None
        self.bound = None if careful or told else limit

    @shielded
    def listen(self, listener: Listening) -> None:
        """Tell `listener` of what happens from now on."""
        self.observers.add(listener)
        with self.lock:
            self.review_guard()

    @shielded
    def stop_listening(self, listener: Listening) -> None:
        """Tell `listener` nothing more."""
        self.observers.remove(listener)
        with self.lock:
            self.review_guard()

    def check_open(self, call: str) -> None:
        """Raise if `call`, which waits for tasks of this pool, can't be made now or by this thread."""
        self.steps.check(call)
        if self.here:
            raise WrongThread(call)
        if refusal := self.refusal():
            raise refusal

    @shielded
    def end_drains(self) -> None:
        """Tell the drains that no more comes from this pool."""
        with self.lock:
            drains, self.drains = self.drains, {}
        for drain in drains.values():
            drain._end_source(self)

    # -- what tasks need -------------------------------------------------------------------------

    def stand_by(self) -> None:
        """Do what nobody else might do. Called now and then by a thread that only waits."""
        self.watchdog.stand_by()

    def wake_another(self) -> None:
        """See `Waking.wake_another`."""
        self.waking.wake_another()

    def wait_begins(self, task: Task[Any, Any], timeout: float | None) -> Slot | None:
        """See `Steps.wait_begins`."""
        return self.steps.wait_begins(task, timeout)

    def run_errand(self, errand: Callable[[], object], now: float) -> None:
        """Have something done once the lock is left, with which the timers say that its time has come."""
        self.scheduler.report(Errand(now, errand))

    def attempt_at(self, slot: Slot) -> Any:
        """Return the context of what the calling thread, which is that of `slot`, is at."""
        running = self.look(lambda: self.scheduler.running_at(slot))
        return running[-1] if running else slot.stuck

    @shielded
    def restart(self, slot: Slot) -> None:
        """Have the worker at `slot` started afresh before its next task."""
        with self.step:
            self.scheduler.fleet.make_unfit(slot)

    def settle(self, slot: Slot, ctx: Context, actual: float, rate: Rate | None = None) -> None:
        """Correct what an attempt was taken to cost."""
        self.costs.settle(slot, ctx, actual, rate)

    def give_back(self, slot: Slot, task: Task[T, R]) -> None:
        """Undo a claim: in the meantime the slot was told to take nothing."""
        spin_while_held(self.lock)
        with self.step:
            if self.races is None or not self.races.leave(task, slot):
                self.scheduler.give_back(slot, task, self.monotonic())

    def expect_back(self, slot: Slot, ctx: Context) -> None:
        """See to it that it is noticed if the thread at `slot` does not come back in time."""
        if slot.retired:
            return  # nobody waits for it
        spin_while_held(self.lock)
        with self.step:
            when = self.monotonic() + self.grace
            self.scheduler.timers.add(when, self._overstayed, (slot, ctx))

    def _overstayed(self, case: tuple[Slot, Context], now: float) -> None:
        slot, ctx = case
        if slot.stuck is ctx:
            self.overstayed.add(slot)
            self.scheduler.report(WorkerStuck(now, slot.id, slot.name, slot.group.name))
