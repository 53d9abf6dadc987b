"""The scheduler does what the model does, whatever happens in whatever order."""

from collections import Counter

from hypothesis import settings
from hypothesis.stateful import invariant

from retrypool.events import TaskCancelled, TaskDead
from retrypool.states import TaskState

from .machine import Machine
from .model import AFFINITY_WAIT, ENDS


class SchedulerMachine(Machine):
    """What must hold after every step, and in the end."""

    @invariant()
    def no_task_is_lost_or_doubled(self) -> None:
        self.learn_of_fresh_starts()
        scheduler, backlog = self.scheduler, self.scheduler.backlog
        filed = [entry[2] for subqueue in backlog.subqueues.values() for entry in subqueue.tasks]
        queued = Counter([*backlog.injector, *filed])
        delayed = Counter(scheduler.timers.subjects(scheduler._due))
        held = Counter(desk.item.task for desk in self.desks if desk.item is not None)
        tombstones = 0
        for item in self.items:
            task, place = item.task, item.place
            found = (queued[task], delayed[task], held[task])
            match place:
                case "queue":
                    assert found == (1, 0, 0)
                case "timers":
                    assert found == (0, 1, 0)
                case "hand" | "run":
                    assert found == (0, 0, 1)
                case _:
                    assert task._phase is TaskState(place)
                    assert sum(found) <= (task._withdrawn is True)
                    tombstones += found[0] + found[2]
            if place in ("queue", "hand"):
                assert task._phase is TaskState.QUEUED
            elif place == "timers":
                assert task._phase is (TaskState.RETRYING if item.entries else TaskState.SCHEDULED)
        assert tombstones == backlog.tombstones
        assert backlog.filed == len(filed)
        assert sum(queued.values()) <= len(self.items)

    @invariant()
    def counts_are_what_can_be_counted(self) -> None:
        scheduler = self.scheduler
        if not any(desk.item is not None and desk.item.place in ENDS for desk in self.desks):
            assert len(scheduler.backlog) == len(self.at("queue"))
        assert scheduler.delayed == len(self.at("timers"))
        assert scheduler.endings.died == len(self.at("dead"))
        assert scheduler.endings.cancelled == len(self.at("cancelled"))
        assert Counter(scheduler.waiting()) == Counter(item.task for item in self.at("queue", "timers"))
        if scheduler.endings.dead_limit is not None:
            assert len(scheduler.endings.dead) <= scheduler.endings.dead_limit
        for event in scheduler.take_happened():
            if isinstance(event, TaskDead | TaskCancelled):
                self.reported[event.task] += 1
        assert self.reported == Counter(item.task for item in self.at("dead", "cancelled"))
        assert scheduler.fleet.live == self.live

    @invariant()
    def nobody_is_let_work_who_may_not(self) -> None:
        for desk in self.desks:
            health = desk.health
            if desk.slot.direct:
                assert not self.barred(desk)
                assert health.until is None
            if health.probe is not None:
                assert health.probe.slot.group.probe is health.probe.slot
        if not self.at("queue") and not any(desk.item for desk in self.desks):
            self.crossed = False

    @invariant()
    def nobody_waits_too_long_for_an_untried_worker(self) -> None:
        if not self.due():
            for subqueue in self.scheduler.backlog.subqueues.values():
                if subqueue.constraints.tried:
                    assert all(
                        since + AFFINITY_WAIT > self.now or task._withdrawn
                        for _, since, task in subqueue.tasks
                    )

    @invariant()
    def nobody_sleeps_while_there_is_work(self) -> None:
        """Unless somebody is up, or about to be: who claims, wakes the next one."""
        if self.due() or any(desk.moving for desk in self.desks):
            return
        for desk in self.desks:
            if desk.state == "asleep" and not self.barred(desk):
                left = [item for item in self.at("queue") if self.may_take(desk, item)]
                assert left == [], f"{desk} sleeps on {left}"
        idle = not self.at("queue", "timers") and all(desk.state == "asleep" for desk in self.desks)
        assert self.scheduler.idle() is idle or any(desk.state == "stuck" for desk in self.desks)

    def teardown(self) -> None:
        """Every task comes to an end, once all that may work is let work."""
        if not hasattr(self, "scheduler"):
            return
        if self.paused:
            self.pause_or_resume_all()
        for desk in self.desks:
            self.scheduler.fleet.resume(desk.slot)
        self.add_worker("D")
        for _ in range(2 * len(self.items) + 4):
            for desk in list(self.desks):
                if desk.state == "stuck":
                    desk.state = "awake"
                self.rest(desk)
            for n in range(len(self.running())):
                self.succeed(n)
            for check in CHECKS:
                check(self)
            if not self.at("queue", "timers", "hand", "run"):
                break
            self.now += 70
            self.advance()
        assert not self.at("queue", "timers", "hand", "run")


CHECKS = (
    SchedulerMachine.no_task_is_lost_or_doubled,
    SchedulerMachine.counts_are_what_can_be_counted,
    SchedulerMachine.nobody_is_let_work_who_may_not,
    SchedulerMachine.nobody_waits_too_long_for_an_untried_worker,
    SchedulerMachine.nobody_sleeps_while_there_is_work,
)

TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=50)
