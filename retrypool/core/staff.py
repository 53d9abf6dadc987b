"""The workers of a pool: who there is, who may be given something, who sleeps.

Pure, and under the pool's lock, but for what says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from retrypool.core.agenda import Agenda
from retrypool.core.health import Group
from retrypool.core.seat import Seat
from retrypool.events import Event, GroupCooling, GroupOpened

__all__ = ["Staff"]


class Staff:
    """Seats and their groups."""

    def __init__(self, agenda: Agenda, report: Callable[[Event], None]) -> None:
        self._agenda = agenda
        self._report = report
        self.seats: dict[int, Seat] = {}
        self.groups: dict[str, Group] = {}
        self.live: frozenset[Group] = frozenset()  # replaced, never changed: read without the lock
        # The seats that wait for work and may be given any. Dispatchers take one out without the lock
        # (dict.popitem is atomic), and a seat that wakes takes itself out; all else is under the lock.
        self.parked: dict[Seat, None] = {}
        self.paused = False

    def __iter__(self) -> Iterator[Seat]:
        return iter(self.seats.values())

    def add(self, seat: Seat) -> None:
        """Add a worker."""
        self.seats[seat.id] = seat
        group = seat.group
        group.seats.append(seat)
        if group.name not in self.groups:
            self.groups[group.name] = group
            self.live = self.live | {group}

    def group(self, name: str) -> Group:
        """Return the group of this name, or a new one that `add` will make known."""
        return self.groups.get(name) or Group(name)

    def retire(self, seat: Seat, now: float) -> bool:
        """Give `seat` nothing any more; return whether its group is gone with it."""
        if seat.retired:
            return False
        seat.retired = True
        self._bench(seat)
        seat.wake()
        group = seat.group
        group.seats.remove(seat)
        if not group.seats:
            del self.groups[group.name]
            self.live = self.live - {group}
            return True
        if group.probe is seat:
            group.probe = None
            self._probe(group, now)
        return False

    def pause(self, seat: Seat) -> None:
        """Give `seat` nothing for now."""
        seat.paused = True
        self._bench(seat)
        seat.wake()

    def resume(self, seat: Seat) -> None:
        """Give `seat` work again."""
        seat.paused = False
        seat.wake()

    def make_unfit(self, seat: Seat) -> None:
        """Give `seat` nothing until its worker has been made anew."""
        seat.unfit = True
        self._bench(seat)
        seat.wake()

    def pause_all(self) -> None:
        """Give no worker anything for now."""
        self.paused = True
        for seat in self:
            self._bench(seat)

    def resume_all(self) -> None:
        """Give all workers that are not paused one by one work again."""
        self.paused = False
        for seat in self:
            seat.wake()

    def barred(self, seat: Seat, now: float) -> bool:
        """Return whether `seat` is given nothing now, whatever waits."""
        return seat.retired or seat.paused or seat.unfit or self.paused or seat.group.refuses(seat, now)

    def unpark(self, seat: Seat) -> bool:
        """Take `seat` from among the parked; return whether it was there. Needs no lock."""
        return self.parked.pop(seat, seat) is None

    def cool(self, group: Group, retry_after: float | None, now: float) -> float:
        """Give `group` nothing for a time (None: as `Group.cool` finds); return when it ends."""
        until = group.cool(now, retry_after)
        for seat in group.seats:
            seat.attentive = False
            self._bench(seat)
        self._agenda.add(until, self._probe, group)
        self._report(GroupCooling(now, group.name, until))
        return until

    def start_probe(self, seat: Seat) -> None:
        """Let the attempt that `seat` is about to make show whether its group has recovered."""
        seat.group.probe = seat
        seat.attentive = True
        seat.direct = False

    def probe_over(self, seat: Seat, now: float) -> None:
        """Take notice that an attempt at `seat` is over: if it was its group's probe, open the group."""
        seat.attentive = False
        group = seat.group
        if group.probe is not seat:
            return
        group.recover()
        self._report(GroupOpened(now, group.name))
        _wake_idle(group)

    def hopeless(self) -> bool:
        """Return whether no worker is left that could ever take a task, as things stand."""
        return all(seat.paused or seat.retired for seat in self)

    def _bench(self, seat: Seat) -> None:
        """Keep `seat` from taking anything without asking."""
        seat.direct = False
        self.parked.pop(seat, None)

    def _probe(self, group: Group, now: float) -> None:
        """The cool-down of a group is over, unless it was made longer: let one of its workers try."""
        if not group.cooling(now):
            _wake_idle(group)


def _wake_idle(group: Group) -> None:
    for seat in group.seats:
        if seat.idle:
            seat.wake()
