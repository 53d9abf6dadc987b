"""Who is given nothing for a while: groups that cool, suspects, ill groups, and all in an outage.

Carries out what `beliefs` finds. Pure, and under the pool's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from retrypool.core.beliefs import Beliefs, Findings
from retrypool.core.outage import Outage
from retrypool.core.timers import Timers
from retrypool.events import (
    Event,
    GroupCooling,
    GroupEjected,
    GroupOpened,
    GroupSuspected,
    OutageBegan,
    OutageEnded,
)
from retrypool.model.slots import Group, Slot
from retrypool.model.task import Task
from retrypool.policy.blame import Scope
from retrypool.policy.health import HealthPolicy
from retrypool.policy.rates import Pace

__all__ = ["Quarantine"]

PATIENCE = 1.0
"""Seconds after which a suspect is given one more task, if there is no verdict."""


class Wards(Protocol):
    """What there is to look after: a `Fleet`, as far as it matters here."""

    pace: Pace | None
    groups: dict[str, Group]
    live: frozenset[Group]

    def __iter__(self) -> Iterator[Slot]: ...
    def bench(self, slot: Slot) -> None: ...
    def let_sleepers_in(self, slots: Iterable[Slot], now: float) -> None: ...
    def set_alarms(self, group: Group, now: float) -> None: ...


class Quarantine:
    """The groups of a fleet that are shut, and the fleet as a whole while it holds."""

    def __init__(
        self,
        fleet: Wards,
        timers: Timers,
        report: Callable[[Event], None],
        health: HealthPolicy | None,
    ) -> None:
        self._fleet = fleet
        self._timers = timers
        self._report = report
        self._health = health
        self.beliefs = None if health is None else Beliefs(health)
        self.outage: Outage | None = None
        self.holds = False  # nobody is given anything now, because of an outage: its probe is not due
        self.ejections = 0  # since the pool was made, as are the following
        self.outages = 0

    # -- groups come and go ----------------------------------------------------------------------

    def joined(self, slot: Slot) -> None:
        """Add a slot that has joined its group."""
        if self.beliefs is not None:
            self.beliefs.joined(slot)
        slot.attentive = self.outage is not None or slot.group.suspected is not None

    def left(self, slot: Slot) -> None:
        """Leave out a slot that has left its group."""
        if self.beliefs is not None:
            self.beliefs.left(slot)

    # -- cooling, and probes of one group --------------------------------------------------------

    def cool(self, group: Group, retry_after: float | None, now: float) -> float:
        """Give `group` nothing for a time (None: as `Group.cool` finds); return when it ends."""
        until = group.cool(now, retry_after)
        self.shut(group)
        self._report(GroupCooling(now, group.name, until))
        return until

    def probe_not_made(self, slot: Slot, now: float) -> None:
        """End a probe that `slot` does not make after all, so that another slot may make it."""
        slot.attentive = self.outage is not None
        if slot.group.probe is slot:
            slot.group.probe = None
            self.reopen(slot.group, now)
        outage = self.outage
        if outage is not None and outage.prober is slot:
            outage.prober = None
            self._probe_due(outage, now)

    def start_probe(self, slot: Slot) -> None:
        """Make the next attempt at `slot` the probe of its group, or of the outage."""
        outage = self.outage
        if outage is not None:
            outage.prober, outage.due = slot, False
            self.holds = True
            outage.probes += 1
            for other in self._fleet:
                if other is not slot:
                    self._fleet.bench(other)
        if slot.group.until is not None:
            slot.group.probe = slot
        slot.attentive = True

    def attempt_over(self, slot: Slot, scope: Scope | None, now: float) -> None:
        """Record the end of an attempt that was its group's probe.

        `scope` is None for a success. A group that was throttled is open again if it is not throttled
        now; one that was ill has to succeed.
        """
        group = slot.group
        probe = group.probe is slot
        slot.attentive = self.outage is not None
        if probe:
            group.probe = None
            if group.ejected:
                self._try_over(group, scope, now)
            elif not group.shut(now):
                group.open()
                self._opened(group, now)

    def _try_over(self, group: Group, scope: Scope | None, now: float) -> None:
        """An ill group has been given one task: say whether it is ill still."""
        if scope in (Scope.GROUP, Scope.TASK, Scope.OUTAGE):
            self._shut_out(group, now)
        elif scope in (None, Scope.UNRECOVERABLE):
            self.forgive(group, now)
        else:
            self.reopen(group, now)  # it has told nothing: let another one try

    def _opened(self, group: Group, now: float) -> None:
        if group.until is None:  # else it still cools, or must pass a probe
            self._report(GroupOpened(now, group.name))
        self._fleet.let_sleepers_in(group.slots, now)
        self._fleet.set_alarms(group, now)

    def forgive(self, group: Group, now: float) -> None:
        """Open a group, whatever is known against it: it has recovered, or has a new resource."""
        was_shut = group.until is not None or group.suspected is not None
        group.recover()
        group.suspected = None
        if self.beliefs is not None:
            self.beliefs.forget(group)
        if was_shut:
            self._opened(group, now)

    def reopen(self, group: Group, now: float) -> None:
        """A group has been shut for long enough, unless that was prolonged: let one worker try."""
        if not group.shut(now):
            self._fleet.let_sleepers_in(group.slots, now)
            self._fleet.set_alarms(group, now)

    def shut(self, group: Group) -> None:
        """Give the workers of a group nothing until the moment that it is shut until."""
        assert group.until is not None
        for slot in group.slots:
            slot.attentive = self.outage is not None
            self._fleet.bench(slot)
        self._timers.add(group.until, self.reopen, group)

    # -- suspects and ill groups -----------------------------------------------------------------

    def carry_out(self, found: Findings, group: Group, now: float) -> None:
        """Act on the findings about `group`; an outage is begun by the caller."""
        for other in found.cleared:
            self._clear(other, now)
        for other in found.ill:
            self._eject(other, now)
        if found.suspect:
            self._suspect(group, now)

    def _suspect(self, group: Group, now: float) -> None:
        group.suspected = now
        for slot in group.slots:
            slot.attentive = True  # a success of what is under way clears it
            self._fleet.bench(slot)
        self._timers.add(now + PATIENCE, self._lose_patience, (group, now))
        self._report(GroupSuspected(now, group.name))

    def _clear(self, group: Group, now: float) -> None:
        if group.suspected is not None:
            group.suspected = None
            self._opened(group, now)

    def _lose_patience(self, case: tuple[Group, float], now: float) -> None:
        group, since = case
        if group.suspected == since:
            assert self.beliefs is not None
            self.beliefs.suspects.discard(group)
            self._clear(group, now)

    def _eject(self, group: Group, now: float) -> None:
        """Give an ill group nothing for a time, unless too many are ill already."""
        assert self._health is not None
        assert self.beliefs is not None
        live = self._fleet.live
        ill = {other for other in live if other.ejected} | group.alone
        many = len(ill) > self._health.ejected_share * len(live) or len(ill) == len(live)
        self.beliefs.suspects.discard(group)
        if group in live and not many:
            self._shut_out(group, now)
        else:
            self._clear(group, now)

    def _shut_out(self, group: Group, now: float) -> None:
        assert self._health is not None
        assert self.beliefs is not None
        until = group.eject(now, self._health)
        group.suspected = None
        self.beliefs.forget(group)
        self.ejections += 1
        self.shut(group)
        self._report(GroupEjected(now, group.name, until))
        self.spare_the_last()

    def spare_the_last(self) -> None:
        """If no group but ill ones is left, because others have gone, let the first of them try at once."""
        live = self._fleet.live
        if live and all(group.ejected for group in live):
            group = min(live, key=lambda group: group.until or 0.0)
            group.reprieve()
            self._timers.add(group.cools_until, self.reopen, group)

    # -- outages ---------------------------------------------------------------------------------

    def begin_outage(self, now: float, usual: float, error: BaseException) -> dict[Task[Any, Any], int]:
        """Hold the pool. Returns the tasks that the outage struck, with the attempts to give back."""
        assert self.beliefs is not None
        outage = self.beliefs.row.begin(now, usual)
        struck = self.beliefs.begin_outage()
        self.outage, self.holds = outage, True
        self.outages += 1
        for group in self._fleet.groups.values():
            group.suspected = None
        for slot in self._fleet:
            slot.attentive = True
            self._fleet.bench(slot)
        self._timers.add(outage.until, self._doubt, outage)
        self._report(OutageBegan(now, outage.until, error))
        self._probe_due(outage, now)
        return struck

    def probe_failed(self, slot: Slot, now: float) -> None:
        """Wait for the next probe, if this was one of an outage."""
        outage = self.outage
        if outage is not None and outage.prober is slot:
            outage.prober = None
            self._timers.add(now + outage.next_wait(now), self._probe_due, outage)

    def probe_succeeded(self, slot: Slot, now: float) -> None:
        """End an outage. What was begun before it tells less: then it is time for another probe."""
        outage = self.outage
        if outage is None:
            return
        if outage.prober is slot:
            self._end_outage(outage, now, recovered=True)
        elif outage.prober is None:
            self._probe_due(outage, now)

    def _probe_due(self, outage: Outage, now: float) -> None:
        """Park all idle slots as eligible: the first to claim a task makes the probe."""
        if self.outage is outage and outage.prober is None:
            outage.due, self.holds = True, False
            slots = list(self._fleet)
            turn = outage.probes % len(slots) if slots else 0
            # Sleepers are called last in, first out.
            self._fleet.let_sleepers_in(reversed(slots[turn:] + slots[:turn]), now)

    def _doubt(self, outage: Outage, now: float) -> None:
        """It has taken too long: the tasks are to blame."""
        if self.outage is outage:
            self._end_outage(outage, now, recovered=False)

    def _end_outage(self, outage: Outage, now: float, *, recovered: bool) -> None:
        assert self.beliefs is not None
        self.outage, self.holds = None, False
        self.beliefs.row.end(outage, recovered=recovered)
        self._report(OutageEnded(now, now - outage.began, recovered))
        self._fleet.let_sleepers_in(self._fleet, now)
        for group in self._fleet.groups.values():
            self._fleet.set_alarms(group, now)
