"""The workers of a pool: who there is, who may be given something, who sleeps.

Pure, and under the pool's lock, but for what says otherwise.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from retrypool.core.quarantine import Quarantine
from retrypool.core.timers import Timers
from retrypool.errors import InvalidValue
from retrypool.events import Event
from retrypool.model.slots import Group, Slot
from retrypool.policy.health import HealthPolicy
from retrypool.policy.rates import Bucket, Pace, RateOption, as_pace

__all__ = ["Fleet"]


class Fleet:
    """Slots and their groups."""

    def __init__(
        self,
        timers: Timers,
        report: Callable[[Event], None],
        *,
        health: HealthPolicy | None = None,
        pace: Pace | None = None,
        parked: dict[Slot, None] | None = None,
    ) -> None:
        self._timers = timers
        self.health = health
        self.pace = pace  # of the whole pool
        self._alarm: float | None = None  # when the pool's pace allows the next call that waits for it
        self.slots: dict[Slot, None] = {}  # in the order in which they came
        self.groups: dict[str, Group] = {}
        self._former: dict[str, Group] = {}  # those without workers that were told to wait
        self._expected: dict[str, Group] = {}  # those that a storage knows, and that have no worker yet
        # Groups that could be given something, now or later. Replaced, never changed: read without the
        # lock.
        self.live: frozenset[Group] = frozenset()
        # The slots that wait for work and may be given any. Dispatchers take one out without the lock
        # (dict.popitem is atomic), and a slot that wakes takes itself out; all else is under the lock.
        self.parked: dict[Slot, None] = {} if parked is None else parked
        # Those to be woken, in this order, once the lock is left. Appended to under the lock; taken out by
        # whoever leaves it.
        self.called: deque[Slot] = deque()
        self.paused = False
        # The places of workers that worked once, could not be started afresh, and are tried again.
        self.returning: set[Slot] = set()
        self.version = 0  # counts who comes and goes; written under the lock, read without it
        self.quarantine = Quarantine(self, timers, report, health)

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self.slots))  # in one step: some look without the lock, while workers come and go

    # -- coming and going ------------------------------------------------------------------------

    def group(self, name: str, rate: RateOption) -> Group:
        """Return the group of this name, or a new one that `add` will make known.

        Raises `InvalidValue` if the group has another rate already.
        """
        group = self.groups.get(name)
        if group is None:
            return self._make_group(name, rate)
        if rate is not None and rate != group.rate:
            raise InvalidValue("rate", rate, f"that of its group {name!r}, which is {group.rate!r}")
        return group

    def _make_group(self, name: str, rate: RateOption) -> Group:
        expected = self._expected.get(name)
        if expected is not None:
            expected.rate, expected.pace = rate, as_pace(rate)
            return expected
        group, former = Group(name, rate), self._former.get(name)
        if former is not None:
            # Others have a part in it, who know nothing of our workers: what they were told still holds.
            group.follow(former)
        return group

    def add(self, slot: Slot) -> None:
        """Add a worker."""
        self.slots[slot] = None
        slot.group.slots.append(slot)
        self.quarantine.joined(slot)
        self.groups[slot.group.name] = slot.group
        self._former.pop(slot.group.name, None)
        self._expected.pop(slot.group.name, None)
        if slot.group.until is not None:
            self.bench(slot)
            self._timers.add(slot.group.until, self.quarantine.reopen, slot.group)
        self._review(slot.group)

    def expected(self, name: str) -> Group:
        """Return the group of this name, also if it is still to come."""
        group = self.groups.get(name) or self._expected.get(name)
        if group is None:
            group = self._expected[name] = Group(name)
        return group

    def recall(
        self, name: str, *, until: float | None, ejected: bool, ejections: int, throttles: int
    ) -> None:
        """Restore the state that a group had in another process: shut until a moment, as throttled or ill."""
        group = self.expected(name)
        group.ejections, group.throttles = ejections, throttles
        if until is not None:
            group.until = until
            group.ejected = ejected and self.health is not None
            if not ejected:
                group.cools_until = until
            if group.slots:
                self.quarantine.shut(group)
                self.quarantine.spare_the_last()

    def retire(self, slot: Slot, now: float) -> None:
        """Give `slot` nothing any more. Does not wake its thread: that is the caller's part."""
        if slot.retired:
            return
        slot.retired = True
        self.bench(slot)
        group = slot.group
        group.slots.remove(slot)
        self.quarantine.left(slot)
        if not group.slots:
            del self.groups[group.name]
            self._remember(group, now)
        self.quarantine.probe_not_made(slot, now)
        self._review(group)

    def _remember(self, group: Group, now: float) -> None:
        """Keep what a group without workers was told, as long as that matters."""
        self._former = {name: other for name, other in self._former.items() if other.owes(now)}
        if group.owes(now):
            self._former[group.name] = group

    def _review(self, group: Group) -> None:
        """Update whether `group` is live, after one of its slots has come or gone."""
        self.version += 1
        if any(slot.cordoned_for is None for slot in group.slots):
            self.live = self.live | group.alone
        else:
            self.live = self.live - group.alone
            self.quarantine.spare_the_last()

    # -- barring ---------------------------------------------------------------------------------

    def pause(self, slot: Slot) -> None:
        """Give `slot` nothing for now."""
        slot.paused = True
        self.bench(slot)
        self.called.append(slot)

    def resume(self, slot: Slot) -> None:
        """Give `slot` work again."""
        slot.paused = False
        slot.cordoned_for = None
        self._review(slot.group)
        self.called.append(slot)

    def bar(self, slot: Slot, reason: str) -> None:
        """Give `slot` nothing for good."""
        slot.cordoned_for = reason
        self.bench(slot)
        self._review(slot.group)

    def make_unfit(self, slot: Slot) -> None:
        """Give `slot` nothing until its worker has been remade."""
        slot.unfit = True
        self.bench(slot)
        self.called.append(slot)

    def pause_all(self) -> None:
        """Give no worker anything for now."""
        self.paused = True
        for slot in self:
            self.bench(slot)
            self.called.append(slot)

    def has_paused(self, slot: Slot) -> bool:
        """Return whether `slot` is paused, by itself or with all others."""
        return self.paused or slot.paused

    def resume_all(self) -> None:
        """Give all workers that are not paused one by one work again."""
        if not self.paused:
            return
        self.paused = False
        for slot in self:
            self.called.append(slot)

    def barred(self, slot: Slot, now: float) -> bool:
        """Return whether `slot` is given nothing now, whatever waits."""
        return (
            slot.retired
            or slot.paused
            or self.paused
            or slot.unfit
            or slot.cordoned_for is not None
            or slot.group.suspected is not None
            or slot.group.refuses(slot, now)
            or self.quarantine.holds
            or not self._may_call(slot, now)
        )

    def present(self, slot: Slot) -> bool:
        """Return whether `slot` could be given something, now or later."""
        return not (slot.retired or slot.cordoned_for is not None)

    def usable(self, slot: Slot) -> bool:
        """Return whether `slot` will be given something again if only one waits long enough."""
        return not (slot.paused or slot.retired or slot.given_up or slot.cordoned_for is not None)

    def may_help_itself(self, slot: Slot) -> bool:
        """Return whether `slot` may take from the injector without asking, as far as it is concerned."""
        group = slot.group
        return group.until is None and group.pace is None and self.pace is None and not self.quarantine.outage

    # -- sleeping --------------------------------------------------------------------------------

    def park(self, slot: Slot, now: float) -> None:
        """Park `slot`, if it may be given something; a slot that may not is called later."""
        slot.idle = True
        if not self.barred(slot, now):
            self.parked[slot] = None
        else:
            slot.direct = False
            self.set_alarms(slot.group, now)

    def unpark(self, slot: Slot) -> bool:
        """Take `slot` from among the parked; return whether it was there. Needs no lock."""
        return self.parked.pop(slot, slot) is None

    def bench(self, slot: Slot) -> None:
        """Keep `slot` from taking anything without asking, and from beginning what it has just taken."""
        slot.direct = False
        slot.go = False
        self.parked.pop(slot, None)

    def let_sleepers_in(self, slots: Iterable[Slot], now: float) -> None:
        """Park those idle `slots` that may be given something again, so that they can be called."""
        for slot in slots:
            # Who is away would not come; it looks for a task as it comes back.
            if slot.idle and not slot.away and not self.barred(slot, now):
                self.parked[slot] = None

    # -- pace ------------------------------------------------------------------------------------

    def _may_call(self, slot: Slot, now: float) -> bool:
        pace = slot.group.pace
        if pace is not None and pace.ready_at(now) > now:
            return False
        return self.pace is None or self.pace.ready_at(now) <= now

    def charge(self, slot: Slot, cost: float, now: float) -> None:
        """Charge the paces for a call of this cost that `slot` is about to make."""
        group = slot.group
        if group.pace is not None:
            group.pace.take(now, cost)
        if self.pace is not None:
            self.pace.take(now, cost)
        if group.pace is not None or self.pace is not None:
            for other in list(self.parked) if self.pace is not None else group.slots:
                if other in self.parked and not self._may_call(other, now):
                    self.bench(other)
            self.set_alarms(group, now)

    def is_measured(self, slot: Slot) -> bool:
        """Return whether some rate of a call at `slot` wants to know what its data costs."""
        return any(bucket.measured for bucket in self.buckets(slot))

    def buckets(self, slot: Slot) -> tuple[Bucket, ...]:
        """Return the told rates that a call at `slot` counts for. Needs no lock."""
        group, pool = slot.group.pace, self.pace
        return (() if group is None else group.buckets) + (() if pool is None else pool.buckets)

    def undo(self, slot: Slot, cost: float, now: float) -> None:
        """Give back what was charged for a call that is not made."""
        for pace in (slot.group.pace, self.pace):
            if pace is not None:
                pace.undo(cost)
        self._let_in_earlier(slot, now)

    def settle(self, slot: Slot, difference: float, now: float) -> None:
        """Correct a charge: the call cost so much more, or less."""
        for pace in (slot.group.pace, self.pace):
            if pace is not None:
                pace.settle(difference)
        if difference < 0:
            self._let_in_earlier(slot, now)

    def pour(self, slot: Slot, bucket: Bucket, difference: float, now: float) -> None:
        """Correct the charge to one of its rates: the call cost so much more, or less."""
        bucket.pour(difference)
        if difference < 0:
            self._let_in_earlier(slot, now)

    def _let_in_earlier(self, slot: Slot, now: float) -> None:
        """Call those who sleep for a pace, and may wait for a later moment than there now need be."""
        if slot.group.pace is not None:
            self._timers.add(max(slot.group.pace.ready_at(now), now), self._ring_group, slot.group)
        if self.pace is not None:
            self._timers.add(max(self.pace.ready_at(now), now), self._ring, None)

    def set_alarms(self, group: Group, now: float) -> None:
        """Set a timer that lets the sleepers of a pace in again when it allows a call.

        A group that is shut needs no alarm for its own pace: they are set when it may be tried again.
        """
        if group.pace is not None and not group.shut(now):
            when = group.pace.ready_at(now)
            if when > now and (group.alarm is None or when < group.alarm):
                group.alarm = when
                self._timers.add(when, self._ring_group, group)
        if self.pace is not None:
            when = self.pace.ready_at(now)
            if when > now and (self._alarm is None or when < self._alarm):
                self._alarm = when
                self._timers.add(when, self._ring, None)

    def _ring_group(self, group: Group, now: float) -> None:
        group.alarm = None
        self.let_sleepers_in(group.slots, now)
        self.set_alarms(group, now)

    def _ring(self, _: None, now: float) -> None:
        self._alarm = None
        self.let_sleepers_in(self, now)
        for group in self.groups.values():
            self.set_alarms(group, now)

    # -- outlook ---------------------------------------------------------------------------------

    def opens_at(self, slots: Iterable[Slot], now: float) -> float:
        """Return when the first of `slots` may be given something; infinity if none ever."""
        first = min((slot.group.open_at(now) for slot in slots if self.usable(slot)), default=math.inf)
        return first if self.pace is None else max(first, self.pace.ready_at(now))
