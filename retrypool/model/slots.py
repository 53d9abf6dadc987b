"""What the scheduler knows of a worker, its slot, and of the failure domain that it belongs to, its group."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from retrypool.policy.health import HealthPolicy
from retrypool.policy.rates import RateOption, as_pace

__all__ = ["Group", "Slot", "cool_down"]


FIRST_COOL_DOWN = 1.0

LONGEST_COOL_DOWN = 60.0


def _nobody() -> None:
    """Wake nobody: the slot of a worker without a thread."""


def _never(_attempt: Any) -> bool:
    """Interrupt nobody."""
    return False


class Slot:
    """One worker, as far as scheduling goes. One thread works at a slot at a time."""

    # Who may write what:
    #   direct, go, attentive, paused, cordoned_for, unfit, retired, stuck, given_up, subqueues, timed_out,
    #   lost, seen       under the pool's lock
    #   idle             its own thread: set as it parks (H11, H14), cleared when it wakes and before
    #                    it looks for a task
    #   away             its own thread: set before its worker is remade, cleared before it looks for a task
    #   running          a box for the attempt that runs. Its own thread puts it in; whoever gets it
    #                    out decides how the attempt ends (handshake H5)
    #   asks, succeeded, failed, failures, retried, passed, row_start, row_mark, row_began, look_at, where
    #                    its own thread alone; anybody may read them
    __slots__ = (
        "asks",
        "attentive",
        "away",
        "cordoned_for",
        "direct",
        "failed",
        "failures",
        "given_up",
        "go",
        "group",
        "id",
        "idle",
        "interrupt",
        "look_at",
        "lost",
        "name",
        "passed",
        "paused",
        "retired",
        "retried",
        "row_began",
        "row_mark",
        "row_start",
        "running",
        "seen",
        "stuck",
        "subqueues",
        "succeeded",
        "tags",
        "timed_out",
        "unfit",
        "waits_for",
        "wake",
        "where",
    )

    def __init__(
        self,
        id: int,
        name: str,
        group: Group,
        tags: frozenset[str] = frozenset(),
    ) -> None:
        self.id = id
        self.name = name
        self.group = group
        self.tags = tags
        # Given by the threads. The first ends the wait of the slot's thread, and is harmless if it does
        # not wait; the second raises in it, if it is still in that attempt.
        self.wake: Callable[[], None] = _nobody
        self.interrupt: Callable[[Any], bool] = _never
        self.direct = False  # it may take from the injector without asking
        self.go = False  # what it has claimed, or taken by itself, it may begin
        self.attentive = False  # the scheduler wants to hear of its next success
        self.idle = True  # its thread has no task in hand, and is not about to take one
        self.away = False  # its thread does not sleep though it is idle: its worker starts, or is remade
        self.paused = False
        self.cordoned_for: str | None = None  # why it is given nothing for good
        self.waits_for: Any = None  # the task that its thread waits for without end; under the pool's lock
        self.unfit = False  # its worker must be remade before it is given a task
        self.retired = False  # it takes nothing any more
        self.asks = False  # its code wants a context for each attempt
        self.running: list[Any] = []  # contexts, and tasks that nobody has wanted one of; see `attempts_at`
        self.stuck: Any = None  # an attempt that is over, while its thread has not come back
        self.given_up = False  # it has been stuck for too long, and there is nothing to replace it with
        self.subqueues: list[Any] = []  # the queue's own: a heap of those that it may take from
        self.succeeded = 0
        self.failed = 0
        self.failures: dict[str, int] = defaultdict(int)  # attempts by outcome, as its own thread ended them
        self.lost: dict[str, int] = defaultdict(int)  # the same, for those that were taken over
        self.retried = 0
        self.passed = 0  # tasks whose first failure was here, and has not been looked at; see `QuickRetry`
        self.seen = 0  # how many of these were counted later, where rows of failures are judged
        # The row of these since its last success.
        self.row_start = 0  # how many there were before
        self.row_mark = 0  # its successes then
        self.row_began = 0.0  # when the first of these attempts did
        self.look_at = 0  # how long the row has to be for the next look
        self.timed_out = 0
        self.where: str | None = None  # the process that its worker lives in, if it is another one

    def attempts(self) -> int:
        """Return how many attempts have ended here."""
        return self.succeeded + self.failed + self.timed_out

    def __repr__(self) -> str:
        return f"<Slot {self.id} of {self.group.name}>"


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
        "name",
        "pace",
        "probe",
        "rate",
        "slots",
        "suspected",
        "throttles",
        "until",
    )

    def __init__(self, name: str, rate: RateOption = None) -> None:
        self.name = name
        self.alone = frozenset({self})  # the tried set of a task that only this group has failed
        self.slots: list[Slot] = []  # those not retired
        self.rate = rate
        self.pace = as_pace(rate)
        self.alarm: float | None = None  # when its workers will be woken because its pace allows a call
        self.until: float | None = None  # it is shut until then, and must then pass a probe
        self.cools_until = -math.inf  # the end of its last cool-down; an ejection may outlast it
        self.ejected = False  # it is shut because it is ill
        self.probe: Slot | None = None  # the slot whose attempt is the probe
        self.throttles = 0  # in a row
        self.ejections = 0  # in a row
        self.suspected: float | None = None  # since when it is given nothing because its failures look bad

    # -- shut and open ---------------------------------------------------------------------------

    def refuses(self, slot: Slot, now: float) -> bool:
        """Return whether the group is given nothing now, or its probe is another slot's."""
        if self.until is None:
            return False
        return now < self.until or (self.probe is not None and self.probe is not slot)

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
        return self.cools_until

    def eject(self, now: float, policy: HealthPolicy) -> float:
        """Give the group nothing until it has had time to recover. Returns until when."""
        self.ejections += 1
        until = now + policy.length_of_ejection(self.ejections)
        self.until = until if self.until is None else max(self.until, until)
        self.ejected = True
        self.probe = None
        return self.until

    def reprieve(self) -> None:
        """End an ejection, but not a cool-down: the group is needed, and may try at once."""
        self.until = self.cools_until
        self.ejected = False

    def open(self) -> None:
        """Give all its workers tasks again. The record of its faults is kept."""
        self.until = None
        self.probe = None
        self.throttles = 0

    def recover(self) -> None:
        """Open the group, and clear the record of its faults."""
        self.open()
        self.cools_until = -math.inf
        self.ejected = False
        self.ejections = 0

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

    # -- counts ----------------------------------------------------------------------------------

    def successes(self) -> int:
        """Return how many attempts have succeeded on its workers. Needs no lock."""
        slots = self.slots
        if len(slots) == 1:  # nearly always, and this is asked for each failure
            return slots[0].succeeded
        return sum([slot.succeeded for slot in slots])

    def attempts(self) -> int:
        """Return how many attempts have ended on its workers."""
        return sum([slot.attempts() for slot in self.slots])

    def __repr__(self) -> str:
        return f"<Group {self.name}: {len(self.slots)} slots>"


def cool_down(throttles: int) -> float:
    """Return the seconds of a cool-down whose length nobody told, after so many in a row."""
    return min(FIRST_COOL_DOWN * 2.0 ** min(throttles - 1, 10), LONGEST_COOL_DOWN)
