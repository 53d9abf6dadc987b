"""Groups, the failure domains of a pool: when they are given work, and when they are given a rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from retrypool.core.rates import RateOption, as_pace
from retrypool.durations import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue

if TYPE_CHECKING:
    from retrypool.core.seat import Seat

__all__ = ["Group", "HealthPolicy", "cool_down"]

FIRST_COOL_DOWN = 1.0
LONGEST_COOL_DOWN = 60.0
MERE_CHANCE = 1e-4  # how seldom a group may be taken for ill that was only unlucky


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """When a group counts as ill, and for how long it is given nothing then. Times are in seconds.

    A group is ejected when `faults_in_a_row` attempts failed by its own fault, or `fault_share` of at
    least `sample` attempts; or when it failed `witnesses` tasks that then succeeded elsewhere, and
    none succeeded on it meanwhile. If it has always failed some, more than `witnesses` are asked for:
    as many in a row as its own share of failures, in `sample` attempts or more, would bring about in
    one of 10,000 cases. The n-th time in a row it is ejected for n times `ejection`, up to
    `longest_ejection`; then it is given one task, and is back if that succeeds. At most `ejected_share`
    of the groups are ejected at a time, and never the last one.

    A task that `witnesses` healthy groups gave their own fault for is at fault itself from then on.
    """

    faults_in_a_row: int = 5
    fault_share: float = 0.5
    sample: int = 20
    witnesses: int = 3
    ejection: Duration = 30.0
    longest_ejection: Duration = 300.0
    ejected_share: float = 0.5

    def __post_init__(self) -> None:
        for what in ("ejection", "longest_ejection"):
            object.__setattr__(self, what, seconds(what, getattr(self, what), positive=True))
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidType(entry.name, value, "a number")
            if not value > 0:
                raise InvalidValue(entry.name, value, "more than 0")
        for share in ("fault_share", "ejected_share"):
            if getattr(self, share) > 1:
                raise InvalidValue(share, getattr(self, share), "a share, 1 at the most")


class Group:
    """A failure domain: a credential, a host, a quota. All fields are written under the pool's lock.

    Tried sets hold groups, not names: a group that leaves and one of the same name that comes later are
    two, and a task that the first has failed may go to the second.

    It is open; or shut until a moment, because it was throttled (it *cools*) or because it is ill (it
    is *ejected*). After that moment one attempt, the *probe*, shows whether it opens again.
    """

    __slots__ = (
        "alarm",
        "alone",
        "cools_until",
        "ejected",
        "ejections",
        "evidence",
        "evidence_mark",
        "failures_before",
        "faults",
        "faults_in_a_row",
        "name",
        "pace",
        "probe",
        "rate",
        "sample_mark",
        "seats",
        "streak_mark",
        "success_mark",
        "suspected",
        "throttles",
        "until",
    )

    def __init__(self, name: str, rate: RateOption = None) -> None:
        self.name = name
        self.alone = frozenset({self})  # the tried set of a task that only this group has failed
        self.seats: list[Seat] = []  # those not retired
        self.rate = rate
        self.pace = as_pace(rate)
        self.alarm: float | None = None  # when its workers will be woken because its pace allows a call
        self.until: float | None = None  # it is shut until then, and must then pass a probe
        self.cools_until = -math.inf  # the end of its last cool-down; an ejection may outlast it
        self.ejected = False  # it is shut because it is ill
        self.probe: Seat | None = None  # the seat whose attempt is the probe
        self.throttles = 0  # in a row
        self.ejections = 0  # in a row
        self.faults = 0  # its own, in the present sample
        self.faults_in_a_row = 0
        self.success_mark = 0  # its successes when faults_in_a_row was last counted
        self.sample_mark = 0  # its attempts when the sample was begun
        self.evidence = 0  # tasks that it failed and others did not, in a row
        self.evidence_mark = 0  # its successes when that was last counted
        self.suspected: float | None = None  # since when there is evidence enough
        # Written without the lock, by each seat that fails: of two at once, either will do.
        self.streak_mark = 0  # its successes when it last failed
        self.failures_before = 0  # its failures when it last failed after a success

    # -- shut and open ---------------------------------------------------------------------------

    def refuses(self, seat: Seat, now: float) -> bool:
        """Return whether the group is given nothing now, or its probe is another seat's."""
        if self.until is None:
            return False
        return now < self.until or (self.probe is not None and self.probe is not seat)

    def shut(self, now: float) -> bool:
        """Return whether the group is given nothing now."""
        return self.until is not None and now < self.until

    def open_at(self, now: float) -> float:
        """Return the moment from which it may be given something."""
        until = now if self.until is None else max(self.until, now)
        return until if self.pace is None else max(until, self.pace.ready_at(now))

    def cool(self, now: float, retry_after: float | None) -> float:
        """Give the group nothing for so long; None: 1 s, doubled with each time in a row, up to 60 s.

        A cool-down is never cut short by a later, shorter one. What calls are told that were under way
        when it began does not count as another time. Returns its end; an ejection may outlast it.
        """
        if not self.shut(now) or self.throttles == 0:
            self.throttles += 1
        until = now + (cool_down(self.throttles) if retry_after is None else retry_after)
        self.cools_until = max(self.cools_until, until)
        self.until = until if self.until is None else max(self.until, until)
        self.probe = None
        if self.pace is not None:
            self.pace.refused(now, self.until)
        return self.cools_until

    def eject(self, now: float, policy: HealthPolicy) -> float:
        """Give the group nothing until it has had time to recover. Returns until when."""
        self.ejections += 1
        length = seconds("ejection", policy.ejection) * self.ejections
        until = now + min(length, seconds("longest_ejection", policy.longest_ejection))
        self.until = until if self.until is None else max(self.until, until)
        self.ejected = True
        self.probe = None
        self._forget_faults()
        return self.until

    def reprieve(self) -> None:
        """End an ejection, but not a cool-down: the group is needed, and may try at once."""
        self.until = self.cools_until
        self.ejected = False

    def open(self) -> None:
        """Let all its workers work. What is known of its faults remains."""
        self.until = None
        self.probe = None
        self.throttles = 0

    def recover(self) -> None:
        """Open the group, and hold nothing against it any more."""
        self.open()
        self.cools_until = -math.inf
        self.ejected = False
        self.ejections = 0
        self._forget_faults()

    def owes(self, now: float) -> bool:
        """Return whether it has been told to wait, and the time for that is not over."""
        return self.cools_until > now or (self.pace is not None and self.pace.ready_at(now) > now)

    def follow(self, former: Group) -> None:
        """Take over what a group of the same name was told before all its workers left."""
        if former.cools_until > -math.inf:
            self.until = self.cools_until = former.cools_until
            self.throttles = former.throttles
        if self.rate == former.rate:
            self.pace = former.pace

    # -- seats -----------------------------------------------------------------------------------

    def join(self, seat: Seat) -> None:
        """Take a seat in. What it has done before is no news."""
        self.seats.append(seat)
        self._shift_marks(seat, 1)

    def leave(self, seat: Seat) -> None:
        """Let a seat go, and what it has done with it."""
        self.seats.remove(seat)
        self._shift_marks(seat, -1)

    def _shift_marks(self, seat: Seat, sign: int) -> None:
        self.success_mark += sign * seat.succeeded
        self.evidence_mark += sign * seat.succeeded
        self.sample_mark += sign * (seat.succeeded + seat.failed + seat.timed_out)

    # -- faults ----------------------------------------------------------------------------------

    def successes(self) -> int:
        """Return how many attempts have succeeded on its workers. Needs no lock."""
        seats = self.seats
        if len(seats) == 1:  # nearly always, and this is asked for each failure
            return seats[0].succeeded
        return sum(seat.succeeded for seat in seats)

    def successes_at_failure(self) -> int:
        """Return how many attempts have succeeded on its workers, now that one has failed. Needs no lock."""
        successes = self.successes()
        if successes != self.streak_mark:
            self.streak_mark = successes
            # That of a worker which has left is not among them.
            self.failures_before = max(0, self._attempts() - successes - 1)
        return successes

    def seems_well(self) -> bool:
        """Return whether nothing that it has done last was its own fault. Needs no lock."""
        return not self.ejected and (not self.faults_in_a_row or self.successes() != self.success_mark)

    def blame(self, policy: HealthPolicy) -> bool:
        """Count an attempt that failed by the group's own fault; return whether it is ill now."""
        successes = self.successes()
        if successes != self.success_mark:
            self.success_mark = successes
            self.faults_in_a_row = 0
        self.faults_in_a_row += 1
        self.faults += 1
        sample = self._attempts() - self.sample_mark
        if self.faults_in_a_row >= policy.faults_in_a_row:
            return True
        if sample >= policy.sample:
            if self.faults >= policy.fault_share * sample:
                return True
            self.sample_mark += sample
            self.faults = 0
        return False

    def is_news(self, successes: int, began: float) -> bool:
        """Return whether it says anything of the group that a task has succeeded which it failed.

        It began that task at `began`, and had so many successes when it failed it. Once there is
        evidence enough, only what it began later adds to it. Needs no lock.
        """
        if self.successes() != successes:
            return False
        since = self.suspected
        return since is None or self.evidence_mark != successes or began >= since

    def witness(self, policy: HealthPolicy, began: float, now: float) -> bool:
        """Count a task that it failed, begun at `began`, and another group did not; return whether it is ill.

        It may be in the middle of such work, and be about to succeed with it just as the others do. So it
        is only ill if it is at rest, or fails yet another one in the same way.
        """
        successes = self.successes()
        if successes != self.evidence_mark:
            self.evidence_mark = successes
            self.evidence = 0
            self.suspected = None
        self.evidence += 1
        if self.suspected is None and self.evidence >= self._evidence_wanted(policy):
            self.suspected = now
        return self.is_ill_at_rest() or (self.suspected is not None and began >= self.suspected)

    def _evidence_wanted(self, policy: HealthPolicy) -> int:
        """Return how many such tasks in a row say that it is ill, and not as unlucky as it always was."""
        failures = self.failures_before
        attempts = self.streak_mark + failures
        if failures == 0 or attempts < policy.sample:
            return policy.witnesses
        share = min(failures / attempts, 0.5)
        return max(policy.witnesses, math.ceil(math.log(MERE_CHANCE) / math.log(share)))

    def is_ill_at_rest(self) -> bool:
        """Return whether there is evidence enough against it, and it does nothing that could refute it."""
        return (
            self.suspected is not None
            and self.successes() == self.evidence_mark
            and all(seat.idle or seat.stuck is not None for seat in self.seats)
        )

    def _attempts(self) -> int:
        return sum(seat.succeeded + seat.failed + seat.timed_out for seat in self.seats)

    def _forget_faults(self) -> None:
        self.faults = self.faults_in_a_row = self.evidence = 0
        self.suspected = None
        self.sample_mark = self._attempts()

    def __repr__(self) -> str:
        return f"<Group {self.name}: {len(self.seats)} seats>"


def cool_down(throttles: int) -> float:
    """Return the seconds of a cool-down whose length nobody told, after so many in a row."""
    return min(FIRST_COOL_DOWN * 2.0 ** min(throttles - 1, 10), LONGEST_COOL_DOWN)
