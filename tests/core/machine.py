"""What can happen to a scheduler, in any order, and at any pace of its threads."""

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import initialize, precondition, rule

from retrypool.core.records import ended_early
from retrypool.core.scheduler import Scheduler
from retrypool.errors import AttemptTimeout
from retrypool.model.slots import Slot, cool_down
from retrypool.model.task import Attempt
from retrypool.policy.blame import Scope
from retrypool.policy.retry import RetryPolicy
from retrypool.states import DeadReason, Outcome, TaskState

from .model import AFFINITY_WAIT, ANY, Desk, Item, pick
from .parts import AtOnce, make_task
from .stepping import Stepping

POLICIES = {immediate: RetryPolicy(immediate=immediate) for immediate in (False, True)}
TRIED = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.WORKER_FAULT)
SCOPES = {
    Outcome.FAILED: Scope.TASK,
    Outcome.TIMED_OUT: Scope.TASK,
    Outcome.WORKER_FAULT: Scope.GROUP,
    Outcome.THROTTLED: Scope.THROTTLED,
}
COUNT = st.integers(1, 3)
GOES_ON = st.sampled_from([True, True, False])
RARELY = st.sampled_from([False] * 15 + [True])
DELAYS = st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, 6.0])


class Machine(Stepping):
    """The rules. Their parameters are drawn so that much work is done, and not much is undone."""

    @initialize(
        limit=st.sampled_from([None, 0, 2]), groups=st.sampled_from(["AB", "AAB", "ABC", "AABBC", "A"])
    )
    def open(self, limit: int | None, groups: str) -> None:
        self.scheduler = Scheduler(affinity_wait=AFFINITY_WAIT, dead_limit=limit)
        self.scheduler.fleet.called = AtOnce()
        for name in groups:
            self.add_worker(name)

    # -- tasks -------------------------------------------------------------------------------------

    def make(self, **wanted: Any) -> Item:
        item = Item(make_task(self.scheduler, self.now, **wanted))
        self.items.append(item)
        return item

    def accepted(self, item: Item) -> None:
        """The scheduler has just got a task, new or requeued."""
        wanted = item.task._settings
        if wanted.deadline is not None:
            item.deadline = self.now + wanted.deadline
        if wanted.delay > 0:
            self.defer(item, wanted.delay)
        else:
            self.enter(item)

    @rule(count=COUNT, goes_on=GOES_ON)
    def dispatch(self, count: int, goes_on: bool) -> None:
        """Plain tasks, without the lock."""
        for _ in range(count):
            item = self.make()
            self.scheduler.backlog.injector.usual.append(item.task)
            self.accepted(item)
            self.call_one()
        self.threads_go_on(goes_on)

    @rule(
        goes_on=GOES_ON,
        count=COUNT,
        priority=st.sampled_from([0, 0, 1, -1]),
        delay=DELAYS,
        deadline=st.sampled_from([None, None, None, 7.0]),
        immediate=st.booleans(),
    )
    def submit(
        self, goes_on: bool, count: int, priority: int, delay: float, deadline: float | None, immediate: bool
    ) -> None:
        for _ in range(count):
            item = self.make(priority=priority, delay=delay, deadline=deadline, retry=POLICIES[immediate])
            self.scheduler.submit(item.task, self.now)
            self.accepted(item)
        self.threads_go_on(goes_on)

    @precondition(lambda self: self.at("queue", "timers", "hand", "run"))
    @rule(n=ANY, everything=RARELY)
    def cancel(self, n: int, everything: bool) -> None:
        if everything:
            self.cancel_all_that_wait()
            return
        item = pick(self.at("hand") or self.at("queue", "timers", "run"), n)
        waits = item.place in ("queue", "timers") or (item.place == "hand" and item.task._slot is None)
        assert self.scheduler.withdraw(item.task) is waits
        if waits:
            assert not self.scheduler.withdraw(item.task)
            self.scheduler.cancel(item.task, "test", self.now)
            item.place = "cancelled"

    def cancel_all_that_wait(self) -> None:
        waiting = self.at("queue", "timers")
        tasks = self.scheduler.cancel_waiting("test", self.now)
        assert tasks == sorted((item.task for item in waiting), key=lambda task: task.id)
        for item in waiting:
            item.place = "cancelled"

    @precondition(lambda self: self.scheduler.endings.dead)
    @rule(n=ANY)
    def requeue(self, n: int) -> None:
        old = pick(list(self.scheduler.endings.dead.values()), n)
        item = Item(make_task(self.scheduler, self.now, like=old))
        self.items.append(item)
        dead = self.scheduler.endings.dead.pop(old.id)
        self.scheduler.resurrect(item.task, dead, self.now)
        self.accepted(item)
        assert item.task.history == list(old.history)

    # -- attempts ----------------------------------------------------------------------------------

    def running(self) -> list[Desk]:
        return [desk for desk in self.desks if desk.state == "run"]

    @precondition(lambda self: self.running())
    @rule(n=ANY, goes_on=GOES_ON)
    def succeed(self, n: int, goes_on: bool = False) -> None:
        desk = pick(self.running(), n)
        item = self.release(desk, "succeeded")
        item.task._phase = TaskState.SUCCEEDED
        if desk.slot.attentive:
            self.scheduler.succeeded(desk.slot, item.task, self.now)
        self.probe_over(desk)
        self.threads_go_on(goes_on)

    @precondition(lambda self: self.running())
    @rule(
        n=ANY,
        outcome=st.sampled_from([Outcome.FAILED, Outcome.FAILED, Outcome.WORKER_FAULT, Outcome.THROTTLED]),
        fate=st.sampled_from(["retry", "retry", "retry", "retry", "bury", "cancel"]),
        delay=DELAYS,
        retry_after=st.sampled_from([None, 0.0, 3.0]),
        goes_on=GOES_ON,
    )
    def fail(
        self, n: int, outcome: Outcome, fate: str, delay: float, retry_after: float | None, goes_on: bool
    ) -> None:
        desk = pick(self.running(), n)
        item = self.release(desk, "decided")
        self.failed(desk, item, outcome, retry_after)
        self.decide(item, fate, delay)
        self.threads_go_on(goes_on)

    @precondition(lambda self: len(self.running()) > 1)
    @rule(outcome=st.sampled_from(TRIED), delay=DELAYS, goes_on=GOES_ON)
    def all_fail(self, outcome: Outcome, delay: float, goes_on: bool) -> None:
        for desk in self.running():
            self.fail(self.running().index(desk), outcome, "retry", delay, None, False)
        self.threads_go_on(goes_on)

    @precondition(lambda self: self.running())
    @rule(n=ANY, fate=st.sampled_from(["retry", "retry", "bury"]), delay=DELAYS)
    def time_out(self, n: int, fate: str, delay: float) -> None:
        """The attempt is over, and the thread has not noticed."""
        desk = pick(self.running(), n)
        item = self.release(desk, "decided")
        desk.state = "stuck"
        self.failed(desk, item, Outcome.TIMED_OUT, None)
        self.decide(item, fate, delay)

    @precondition(lambda self: any(desk.state == "stuck" for desk in self.desks))
    @rule(n=ANY, goes_on=GOES_ON)
    def come_back(self, n: int, goes_on: bool) -> None:
        desk = pick([desk for desk in self.desks if desk.state == "stuck"], n)
        desk.state = "awake"
        self.threads_go_on(goes_on)

    def release(self, desk: Desk, place: str) -> Item:
        item, desk.item, desk.state = desk.item, None, "awake"
        assert item is not None
        item.place = place
        return item

    def failed(self, desk: Desk, item: Item, outcome: Outcome, retry_after: float | None) -> None:
        reach, group = self.reach, desk.slot.group
        error = AttemptTimeout(1.0, "timeout") if outcome is Outcome.TIMED_OUT else OSError()
        span = (item.entries + 1, desk.started, self.now)
        self.scheduler.failed(desk.slot, item.task, error, SCOPES[outcome], span, self.now, retry_after)
        assert item.task.history[-1].outcome is outcome
        item.entries += 1
        item.keeps_place, item.avoid = True, None
        if outcome is Outcome.THROTTLED:
            self.cooled(desk, retry_after)
            return
        item.tried |= {group}
        if item.tried >= reach:
            item.tried, item.keeps_place = frozenset(), False
        self.probe_over(desk)

    def taken_away(self, desk: Desk, item: Item) -> None:
        slot, outcome = desk.slot, Outcome.WITHDRAWN
        attempt = Attempt(item.entries + 1, slot.id, slot.group.name, desk.started, self.now, outcome)
        ended_early(item.task, attempt)
        item.entries += 1
        item.keeps_place, item.avoid = True, slot.id

    def probe_over(self, desk: Desk) -> None:
        health = desk.health
        if health.probe is desk:
            health.until, health.throttles, health.probe = None, 0, None

    def cooled(self, desk: Desk, retry_after: float | None) -> None:
        health = desk.health
        if health.until is None or self.now >= health.until or health.throttles == 0:
            health.throttles += 1  # what was under way when it began to cool is told the same thing again
        end = self.now + (cool_down(health.throttles) if retry_after is None else retry_after)
        health.until = max(end, health.until or end)
        health.probe = None
        assert desk.slot.group.until == health.until
        for item in self.at("queue", "timers", "hand"):
            if self.is_too_late(item) and item.task._slot is None:
                item.place = "dead"

    def decide(self, item: Item, fate: str, delay: float) -> None:
        task, scheduler = item.task, self.scheduler
        if fate == "bury" or (item.deadline is not None and item.deadline <= self.now + delay):
            scheduler.bury(task, DeadReason.ATTEMPTS, OSError(), self.now)
            item.place = "dead"
        elif fate == "cancel":
            scheduler.cancel(task, "test", self.now)
            item.place = "cancelled"
        else:
            scheduler.retry(task, delay, self.now)
            self.defer(item, delay) if delay else self.enter(item)

    # -- workers -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.desks) < 6)
    @rule(name=st.sampled_from("ABC"), goes_on=GOES_ON)
    def add_worker(self, name: str, goes_on: bool = False) -> None:
        group = self.scheduler.fleet.group(name, None)
        slot = Slot(self.number(), f"worker of {name}", group)
        desk = Desk(slot, self.health_of(group))
        slot.wake = lambda: setattr(desk, "called", True)
        self.scheduler.add(slot)
        slot.idle = False  # its thread starts
        self.desks.append(desk)
        self.threads_go_on(goes_on)

    @precondition(lambda self: self.desks)
    @rule(n=ANY, last=RARELY, at_once=st.booleans(), goes_on=GOES_ON)
    def retire(self, n: int, last: bool, at_once: bool, goes_on: bool) -> None:
        """A worker is told to leave; `at_once` takes its task away."""
        desk = pick(self.desks, n)
        if len(self.live) == 1 and not last:
            return
        news = not desk.slot.retired
        self.scheduler.retire(desk.slot, self.now)
        if desk.health.probe is desk:
            desk.health.probe = None
        if news:
            self.remember(desk)
        if at_once and desk.state == "run":
            item = self.release(desk, "decided")
            self.taken_away(desk, item)
            self.decide(item, "retry", 0.0)
            desk.state = "stuck"
        self.threads_go_on(goes_on)

    @precondition(lambda self: self.desks)
    @rule(n=ANY, everybody=RARELY, goes_on=GOES_ON)
    def pause_or_resume(self, n: int, everybody: bool, goes_on: bool) -> None:
        slot = pick(self.desks, n).slot
        if everybody or self.paused:
            self.pause_or_resume_all()
        elif slot.paused:
            self.scheduler.fleet.resume(slot)
        else:
            self.scheduler.fleet.pause(slot)
        self.threads_go_on(goes_on)

    def pause_or_resume_all(self) -> None:
        self.paused = not self.paused
        self.scheduler.fleet.pause_all() if self.paused else self.scheduler.fleet.resume_all()

    # -- time --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([5.0, 1.0, 3.0, 0.5, 70.0]), watched=GOES_ON, goes_on=GOES_ON)
    def let_time_pass(self, seconds: float, watched: bool, goes_on: bool) -> None:
        """The watchdog may be late: workers claim in between."""
        self.now += seconds
        if watched:
            self.advance()
        self.threads_go_on(goes_on)

    def advance(self) -> None:
        self.scheduler.advance(self.now)
        for item in sorted(self.at("timers"), key=lambda item: item.due):
            if item.due[0] <= self.now:
                self.enter(item)
        for item in self.at("queue", "timers", "hand"):
            if item.deadline is not None and item.deadline <= self.now:
                if item.place == "hand" and item.task._slot is not None:
                    item.deadline = None  # it is about to run, and the attempt has its own watch
                else:
                    item.place = "dead"
