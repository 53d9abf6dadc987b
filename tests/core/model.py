"""The model that the scheduler is held against: lists and sets, searched from end to end."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from retrypool.core.scheduler import Scheduler
from retrypool.model.slots import Group, Slot
from retrypool.model.task import Task
from retrypool.states import TaskState

ANY = st.integers(0, 1000)  # picks one of what there is, modulo their number
AFFINITY_WAIT = 5.0
ENDS = ("succeeded", "dead", "cancelled")
MOVING = ("awake", "holding", "seated", "asking", "settling")


@dataclass(eq=False)
class Item:
    """A task in the model."""

    task: Task[Any, Any]
    place: str = "new"  # queue, timers, hand, run, and the three ends
    entry: int = 0  # its place in the queue
    came: int = 0  # when it came there, as a number among all that ever did
    keeps_place: bool = False  # if it comes back at once
    avoid: int | None = None  # the worker that it was taken away from
    entered: float = 0.0
    due: tuple[float, int] = (0.0, 0)
    deadline: float | None = None
    entries: int = 0
    tried: frozenset[Group] = frozenset()
    opened: tuple[int, frozenset[Group]] | None = None  # the step at which, and who had tried it

    @property
    def rank(self) -> tuple[int, int]:
        wanted = self.task._settings
        return (-wanted.priority, 0 if wanted.retry.immediate and self.entries else 1)


@dataclass(eq=False)
class Health:
    """The state of a group in the model."""

    until: float | None = None
    throttles: int = 0
    probe: "Desk | None" = None


@dataclass(eq=False)
class Desk:
    """A worker and its thread in the model."""

    slot: Slot
    health: Health
    state: str = "asking"  # a new thread finds nothing and asks
    called: bool = False
    item: Item | None = None  # in its hand, or running
    started: float = 0.0
    since: int = 0  # when it took what it has in hand

    @property
    def moving(self) -> bool:
        return self.state in MOVING or (self.state == "asleep" and self.called)


class Model(RuleBasedStateMachine):
    """What there is, where it stands, and who may do what."""

    scheduler: Scheduler

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.items: list[Item] = []
        self.desks: list[Desk] = []
        self.health: dict[Group, Health] = {}
        self.former: dict[str, Health] = {}  # of groups without workers that were told to wait
        self.paused = False
        self.searching = False
        self.crossed = False  # two threads held a task at once: first in, first out is not promised then
        self.step = 0
        self.reported: Counter[Task[Any, Any]] = Counter()
        self.number = itertools.count(1).__next__

    # -- what the model knows ----------------------------------------------------------------------

    def health_of(self, group: Group) -> Health:
        """What is known of a group; if it is new, of the one of the same name that went before it."""
        former = self.former.pop(group.name, None) or Health()
        return self.health.setdefault(group, Health(former.until, former.throttles))

    def remember(self, desk: Desk) -> None:
        """Keep what its group was told, if all its workers are gone."""
        group = desk.slot.group
        if group in self.live:
            return
        self.former[group.name] = desk.health
        self.former = {name: other for name, other in self.former.items() if (other.until or 0.0) > self.now}

    @property
    def live(self) -> frozenset[Group]:
        return frozenset(desk.slot.group for desk in self.desks if not desk.slot.retired)

    def is_near(self, group: Group) -> bool:
        """Whether it can be back within the time that a task waits for an untried group."""
        until = self.health[group].until
        return until is None or until <= self.now + AFFINITY_WAIT

    @property
    def reach(self) -> frozenset[Group]:
        """The groups of a round."""
        return frozenset(group for group in self.live if self.is_near(group)) or self.live

    def is_in_vain(self, item: Item) -> bool:
        """Whether no untried worker can be back in time."""
        return not any(
            desk.slot.group not in item.tried
            and desk.slot.id != item.avoid
            and not desk.slot.retired
            and self.is_near(desk.slot.group)
            for desk in self.desks
        )

    def at(self, *places: str) -> list[Item]:
        return [item for item in self.items if item.place in places]

    def barred(self, desk: Desk) -> bool:
        health = desk.health
        cooling = health.until is not None and (self.now < health.until or health.probe not in (None, desk))
        return desk.slot.retired or desk.slot.paused or self.paused or cooling

    def may_take(self, desk: Desk, item: Item) -> bool:
        untried = desk.slot.group not in item.tried and desk.slot.id != item.avoid
        return untried or item.opened is not None or item.tried >= self.live

    def goes_before(self, first: Item, second: Item) -> bool:
        """Whether `first` must be claimed before `second`, by a slot that may take both."""
        if first.rank != second.rank:
            return first.rank < second.rank
        return not self.crossed and first.entry < second.entry

    def opens_at(self) -> float:
        """When the first worker may be given something, as far as its group goes; infinity for never."""
        usable = [desk.health for desk in self.desks if not (desk.slot.paused or desk.slot.retired)]
        return min((max(health.until or self.now, self.now) for health in usable), default=math.inf)

    def is_too_late(self, item: Item) -> bool:
        return item.deadline is not None and math.inf > self.opens_at() >= item.deadline

    def enter(self, item: Item) -> None:
        if self.is_too_late(item):
            item.place = "dead"
        else:
            item.came = self.number()
            if not item.keeps_place:
                item.entry = item.came
            item.place, item.entered, item.opened = "queue", self.now, None

    def defer(self, item: Item, delay: float) -> None:
        item.place, item.due, item.opened = "timers", (self.now + delay, self.number()), None
        item.keeps_place = False

    def claimed(self, desk: Desk, item: Item, *, since: float = math.inf) -> None:
        """Check a claim, and do it in the model.

        What entered after `since` came too late to go before it.
        """
        assert item.place == "queue"
        assert not self.barred(desk)
        assert self.may_take(desk, item)
        before = [i for i in self.at("queue") if i.came < since and self.may_take(desk, i)]
        first = [i for i in before if self.goes_before(i, item)]
        assert first == [], f"{first} should have gone before {item}"
        assert item.task._slot is desk.slot
        if desk.health.until is not None:
            assert desk.health.probe is None, "two probes at a time"
            desk.health.probe = desk
            assert desk.slot.attentive
        desk.item, desk.state, desk.started = item, "run", self.now
        item.place = "run"
        item.task._phase = TaskState.RUNNING

    def learn_of_fresh_starts(self) -> None:
        """The scheduler may start a tried set afresh as soon as every live group is in it, or later."""
        self.step += 1
        for item in self.at("queue", "timers", "hand"):
            record = item.task._record
            tried = frozenset() if record is None else record.tried
            if tried != item.tried:
                assert not tried, f"{item} was not tried by all of {tried}"
                assert item.tried >= self.live, f"{item} has not been tried by all of {self.live}"
            if record is not None and record.tried_waived and item.opened is None:
                assert self.now >= item.entered + 0.99 * AFFINITY_WAIT or self.is_in_vain(item)
                item.opened = (self.step, item.tried)
            item.tried = tried

    def due(self) -> bool:
        """Whether the watchdog has something to do, and has not done it yet."""
        wakeup = self.scheduler.next_wakeup()
        return wakeup is not None and wakeup <= self.now


def pick(among: list[Any], n: int) -> Any:
    return among[n % len(among)]
