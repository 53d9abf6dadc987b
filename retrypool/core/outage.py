"""When an outage is taken to have begun, and how it is probed.

Pure, and under the pool's lock. The rule:

- An *outage* is a row of failures of different tasks, on all groups and with no success anywhere, that is
  too long for the share of tasks that have failed so far. It is nobody's fault. Before the first success of
  all there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from weakref import ref

from retrypool.model.slots import Group, Slot
from retrypool.model.task import Task
from retrypool.policy.health import HealthPolicy

__all__ = ["LONGEST_ROW", "MEMORY", "SEVERAL", "UNLIKELY", "Outage", "Row"]

AnyTask = Task[Any, Any]

UNLIKELY = 1e-4  # how seldom a row of failures may be taken for an outage that was only bad luck
MEMORY = 400.0  # attempts by which shares of failures are counted
LONGEST_ROW = 1000  # tasks that are remembered of those that failed in a row
SHORT_OUTAGE = 1.0  # seconds after which an outage is doubted whose errors do not speak of the network
LEAST_WAIT = 0.001  # seconds from one probe of an outage to the next
USUAL_WAIT = 0.25  # up to which that doubles
LONGEST_WAIT = 2.0  # up to which it grows with the time that the outage lasts
SEVERAL = 3  # different tasks that have to fail, so that it may be an outage
MOST_ALARMS = 4  # that are counted
FALSE_ALARM = 2  # probes with which an outage is over that was none


@dataclass(eq=False, slots=True)
class Outage:
    """A time in which the pool holds: nobody is given anything but, one at a time, the probe."""

    began: float
    until: float  # it is taken for an outage no longer than that
    network: bool  # whether its errors speak of the network
    wait: float  # seconds until the next probe, once one has failed
    due: bool = True  # whether a probe may be made now
    prober: Slot | None = None  # the slot that makes it
    probes: int = 0
    tried: ref[AnyTask] | None = None  # the task that is probed with in every other turn

    def next_wait(self, now: float) -> float:
        """Return the seconds until the next probe: they double, and later grow with the outage."""
        wait = self.wait
        self.wait = 2 * wait
        return min(wait, max(USUAL_WAIT, (now - self.began) / 4), LONGEST_WAIT)


class Row:
    """The tasks that failed since the last success anywhere."""

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        # Tasks that failed since the last success anywhere, by id, and how often each did.
        self.tasks: dict[int, tuple[ref[AnyTask], int]] = {}
        self.unseen = 0  # and how many more, which their workers counted by themselves
        self._network = 0  # how many of these failures speak of the network
        self._failures = 0  # and how many there are
        # The types of their errors, by identity: what hashes a type may be the user's, a metaclass.
        self._kinds: dict[int, type] = {}
        self._failing: set[Group] = set()  # and the groups that failed them
        self._began = 0.0  # when the first of these attempts did
        self.mark = 0  # the successes of all groups when they were last looked up
        self._good = 0.0  # tasks that succeeded, as far back as memory goes
        self._bad = 0.0  # tasks that stood in a row
        self.has_worked = False  # something has succeeded
        self._doubted: dict[int, type] = {}  # errors of an outage that was none
        self._false_alarms = 0  # outages in a row that were over at once: each makes the next less likely

    def enter(
        self,
        group: Group,
        task: AnyTask,
        error: BaseException,
        *,
        network: bool,
        started: float,
        unseen: int,
        began: float,
        successes: int,
        has_success_begun_since: Callable[[float], bool],
    ) -> None:
        """Count a failure of an attempt that `started` then.

        `successes` is how many attempts have succeeded so far, on all groups. What was under way when the row
        began may succeed in an outage: only what began later ends a row of some length. `unseen` other tasks
        failed before at the same worker, the first of them in an attempt that `began` then.
        """
        kind = type(error)
        if successes > self.mark:
            self.has_worked = True
            self._doubted.clear()
            self._good += successes - self.mark
            if self.length < SEVERAL or has_success_begun_since(self._began):
                self._close()
        self.mark = successes
        if not self.tasks:
            self._began = started
        known = task.id in self.tasks or len(self.tasks) < LONGEST_ROW
        if self.has_worked and id(kind) not in self._doubted and known:
            _, count = self.tasks.get(task.id, (None, 0))
            self.tasks[task.id] = (ref(task), count + 1)
            self._failures += 1
            self._network += network
            self._kinds[id(kind)] = kind
            self._failing.add(group)
            if unseen and not has_success_begun_since(began):  # it is the same row
                self.unseen += unseen
                self._began = min(self._began, began)

    @property
    def length(self) -> int:
        """How many tasks have failed in a row."""
        return len(self.tasks) + self.unseen

    def _close(self) -> None:
        self._bad += self.length
        if (total := self._good + self._bad) > MEMORY:
            self._good *= MEMORY / total
            self._bad *= MEMORY / total
        self._clear()

    def _clear(self) -> None:
        self.tasks.clear()
        self._kinds.clear()
        self._failing.clear()
        self._network = self._failures = self.unseen = 0

    def is_outage(
        self, live: Collection[Group], suspects: Collection[Group], left: Callable[[], int]
    ) -> bool:
        """Return whether the row is too long for chance, and goes around all groups."""
        length = self.length
        if length < SEVERAL or not self._policy.limit_of_outage:
            return False
        share = (self._bad + 1) / (self._good + self._bad + 4)
        if share**length >= UNLIKELY ** (1 + self._false_alarms):
            return False
        failing = self._failing.union(suspects)
        if length >= len(live) and failing.issuperset(live):
            return True
        # So few tasks are left that they don't go round.
        return len(failing) >= min(len(live), 2) and length >= left()

    def doubts(self, error: BaseException) -> bool:
        """Return whether such an error can be no sign of an outage now."""
        return id(type(error)) in self._doubted or not self._policy.limit_of_outage

    def begin(self, now: float, usual: float) -> Outage:
        """Return the outage that begins. `usual` is how many seconds a task takes."""
        network = 2 * self._network > self._failures
        limit = self._policy.limit_of_outage
        until = now + (limit if network else min(limit, SHORT_OUTAGE))
        return Outage(now, until, network, max(usual, LEAST_WAIT))

    def end(self, outage: Outage, *, recovered: bool) -> None:
        """Begin a new row. If nothing has succeeded, such errors do not count as an outage for now."""
        if not recovered:
            self._doubted |= self._kinds
            self._clear()
        elif outage.probes <= FALSE_ALARM:
            self._false_alarms = min(self._false_alarms + 1, MOST_ALARMS)
            self._close()  # so many failures in a row are usual here
        else:
            self._false_alarms = 0
            self._clear()
