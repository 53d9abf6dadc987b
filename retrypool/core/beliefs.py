"""What is believed of each group and of the whole fleet, and the verdicts: they are made here alone.

Pure, and under the pool's lock. Successes are not told one by one: they are counted by the slots, and looked
up here when something fails. What is found is returned as `Findings`, for others to carry out.

The rules:

- A *suspect* is a group that failed a few different tasks in a row, more than the others' share of failures
  makes likely. It is given nothing until one of these tasks has been tried elsewhere.
- A group is *ill* when the tasks that it failed and others did not are too many for chance: Page's cumulative
  sum test (E. S. Page, "Continuous Inspection Schemes", Biometrika 41, 1954). Each such task adds the log of
  how much likelier it is for a group that fails half of what the others do not, than for one that fails as
  often as they do; each success takes the same away; below nothing it does not go.
- A task that all groups have failed speaks against none of them.
- An *outage* is a row of failures of different tasks, on all groups and with no success anywhere, that is
  too long for the share of tasks that have failed so far. It is nobody's fault. Before the first success of
  all there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from retrypool.model.slots import Group, Slot
from retrypool.model.task import Task
from retrypool.policy.health import HealthPolicy

__all__ = ["Beliefs", "Findings", "Outage"]

AnyTask = Task[Any, Any]

CHANCE = 1e-6  # how seldom a group may be taken for ill that was only unlucky, for each attempt
DOUBT = 0.2  # how seldom a group that is as good as the others becomes a suspect, for each row
UNLIKELY = 1e-4  # how seldom a row of failures may be taken for an outage that was only bad luck
MEMORY = 400.0  # attempts by which shares of failures are counted
SHORT_OUTAGE = 1.0  # seconds after which an outage is doubted whose errors do not speak of the network
LEAST_WAIT = 0.001  # seconds from one probe of an outage to the next
USUAL_WAIT = 0.25  # up to which that doubles
LONGEST_WAIT = 2.0  # up to which it grows with the time that the outage lasts

SEVERAL = 3  # different tasks that have to fail, so that it may be an outage
LONGEST_ROW = 1000  # tasks that are remembered of those that failed in a row
MOST_ALARMS = 4  # that are counted
FALSE_ALARM = 2  # probes with which an outage is over that was none

_LIMIT = -math.log(CHANCE)


class Belief:
    """What is believed of one group."""

    __slots__ = (
        "bad",
        "faults",
        "faults_in_a_row",
        "good",
        "mark",
        "sample_mark",
        "score",
        "streak",
        "witnesses",
    )

    def __init__(self, group: Group) -> None:
        self.mark = group.successes()  # its successes when they were last looked up
        self.good = 0.0  # its successes, as far back as memory goes
        self.bad = 0.0  # and its failures
        # The different tasks that it failed since its last success, by id; None for those of which it is
        # known what others made of them. No task is kept alive by what is held against a group.
        self.streak: dict[int, ref[AnyTask] | None] = {}
        self.score = 0.0  # of the cumulative sum test
        self.witnesses = 0  # tasks that raised it since it was nothing
        self.faults = 0  # what its workers said was their own fault, in the present sample
        self.faults_in_a_row = 0
        self.sample_mark = group.attempts()  # its attempts when the sample was begun

    @property
    def undecided(self) -> bool:
        """Whether some task of the streak may still be tried elsewhere."""
        return any(known is not None for known in self.streak.values())

    def forget_faults(self, group: Group) -> None:
        """Begin with a clean slate."""
        self.streak.clear()
        self.score = 0.0
        self.witnesses = self.faults = self.faults_in_a_row = 0
        self.sample_mark = group.attempts()


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


@dataclass(slots=True)
class Findings:
    """What follows from a failure or a success."""

    suspect: bool = False  # the group that failed is a suspect from now on
    cleared: list[Group] = field(default_factory=list)  # suspects no more
    ill: list[Group] = field(default_factory=list)
    outage: bool = False


_NOTHING = Findings()


class Beliefs:
    """Evidence, for and against."""

    def __init__(self, policy: HealthPolicy) -> None:
        self.policy = policy
        self._of: dict[Group, Belief] = {}
        self.suspects: set[Group] = set()
        # The row: tasks that failed since the last success anywhere, by id, and how often each did.
        self._row: dict[int, tuple[ref[AnyTask], int]] = {}
        self._network = 0  # how many of these failures speak of the network
        self._failures = 0  # and how many there are
        self._kinds: set[type] = set()  # the types of their errors
        self._failing: set[Group] = set()  # and the groups that failed them
        self._mark = 0  # the successes of all groups when they were last looked up
        self._good = 0.0  # tasks that succeeded, as far back as memory goes
        self._bad = 0.0  # tasks that stood in a row
        self.has_worked = False  # something has succeeded
        self._doubted: set[type] = set()  # errors of an outage that was none
        self._false_alarms = 0  # outages in a row that were over at once: each makes the next less likely

    # -- groups come and go ----------------------------------------------------------------------

    def joined(self, slot: Slot) -> None:
        """Take in a slot that has just joined its group: what it has done before is no news."""
        belief = self._of.get(slot.group)
        if belief is None:
            self._of[slot.group] = Belief(slot.group)
        else:
            belief.mark += slot.succeeded
            belief.sample_mark += slot.attempts()
        self._mark += slot.succeeded

    def left(self, slot: Slot) -> None:
        """Leave out a slot that has just left its group, and what it has done with it."""
        group = slot.group
        self._mark -= slot.succeeded
        if not group.slots:
            self._of.pop(group, None)
            self.suspects.discard(group)
        else:
            self._of[group].mark -= slot.succeeded
            self._of[group].sample_mark -= slot.attempts()

    # -- failures --------------------------------------------------------------------------------

    def failed(
        self,
        group: Group,
        task: AnyTask,
        error: BaseException,
        *,
        own_fault: bool,
        network: bool,
        decides: bool,
        fresh: bool,
        accused: Collection[Group],
        live: Collection[Group],
        left: Callable[[], int],
    ) -> Findings:
        """Count a failure.

        `own_fault` says that the worker took the blame itself; `decides` that the task may go on to another
        group, which will tell more; `fresh` that not all have failed it before, in an earlier round: one that
        has failed everywhere is likely to fail again, outage or not, and stands in no row; `accused` are the
        groups that failed it before, in this round; `live` all that are given work; `left()` counts the tasks
        that have not ended.
        """
        found = Findings()
        if group not in self._of:  # its last worker has left
            return found
        belief = self._look_up(group)
        belief.bad += 1
        if own_fault:
            if self._is_ill_by_its_own_word(group, belief):
                found.ill.append(group)
        elif decides and len(belief.streak) < LONGEST_ROW:
            belief.streak[task.id] = ref(task)
        for other in accused:
            self._failed_elsewhere(other, task, by=belief, found=found)
        if fresh:
            self._stand_in_row(group, task, type(error), network=network)
        if not own_fault and decides and not found.ill and group not in self.suspects:
            found.suspect = self._is_suspicious(group, belief, live)
            if found.suspect:
                self.suspects.add(group)
        if self._is_outage(live, left):
            found.outage = True
        elif (
            self.suspects and len(live) > 1 and all(other in self.suspects or other.ejected for other in live)
        ):
            # Nobody is left who could bring a verdict.
            if self._row and self.policy.limit_of_outage:
                found.outage = True
            else:
                found.cleared += [other for other in live if other in self.suspects]
                found.suspect = False
                self.suspects.clear()
        return found

    def _look_up(self, group: Group) -> Belief:
        """Return what is believed of `group`, its latest successes counted."""
        belief = self._of[group]
        successes = group.successes()
        new = successes - belief.mark
        belief.mark = successes
        if new > 0:
            belief.streak.clear()
            belief.faults_in_a_row = 0
            if belief.score:
                share = self._share_of_others(group)
                belief.score = max(0.0, belief.score - new * _refutes(share))
                if not belief.score:
                    belief.witnesses = 0
            belief.good += new
        if (total := belief.good + belief.bad) > MEMORY:
            belief.good *= MEMORY / total
            belief.bad *= MEMORY / total
        return belief

    def _share_of_others(self, group: Group) -> float:
        """Return the share of the other groups' attempts that fail, as far as is known."""
        good = bad = 0.0
        for other, belief in self._of.items():
            if other is not group and not other.ejected:
                good += belief.good + (other.successes() - belief.mark)
                bad += belief.bad
        return min(0.9, max(0.001, (bad + 1) / (good + bad + 4)))

    def _is_suspicious(self, group: Group, belief: Belief, live: Collection[Group]) -> bool:
        length = len(belief.streak)
        if length < self.policy.witnesses or not belief.undecided:
            return False
        if not any(other is not group and not other.ejected for other in live):
            return False
        return self._share_of_others(group) ** length < DOUBT

    def _failed_elsewhere(self, other: Group, task: AnyTask, *, by: Belief, found: Findings) -> None:
        """A task that `other` failed has failed on another group as well: so that speaks less against it.

        Unless that other group is in doubt itself.
        """
        belief = self._of.get(other)
        if belief is None or task.id not in belief.streak or len(by.streak) >= self.policy.witnesses:
            return
        del belief.streak[task.id]
        self._clear(other, found)

    def _clear(self, group: Group, found: Findings) -> None:
        if group in self.suspects:
            self.suspects.discard(group)
            found.cleared.append(group)

    def _is_ill_by_its_own_word(self, group: Group, belief: Belief) -> bool:
        policy = self.policy
        belief.faults_in_a_row += 1
        belief.faults += 1
        sample = group.attempts() - belief.sample_mark
        if belief.faults_in_a_row >= policy.faults_in_a_row:
            return True
        if sample >= policy.sample:
            if belief.faults >= policy.fault_share * sample:
                return True
            belief.sample_mark += sample
            belief.faults = 0
        return False

    # -- what becomes of the tasks that a group failed -------------------------------------------

    def succeeded_elsewhere(self, group: Group, task: AnyTask) -> Findings:
        """Count a task that `group` failed and another did not."""
        found = Findings()
        if group not in self._of or group.ejected:
            return found
        belief = self._look_up(group)
        if task.id in belief.streak:
            belief.streak[task.id] = None
        share = self._share_of_others(group)
        belief.score += math.log(_ill_share(share) / share)
        belief.witnesses += 1
        if belief.score >= _LIMIT and belief.witnesses >= self.policy.witnesses:
            found.ill.append(group)
        elif not belief.undecided:
            self._clear(group, found)  # a witness too few: it is given one more task
        return found

    def strike(self, task: AnyTask, accused: Collection[Group]) -> Findings:
        """Let a task speak against nobody: all have failed it, or it has ended without telling."""
        found = None
        for group in accused:
            belief = self._of.get(group)
            if belief is not None and belief.streak.pop(task.id, None) and group in self.suspects:
                found = found or Findings()
                if not belief.undecided:
                    self._clear(group, found)
        return found or _NOTHING

    def refuted(self, group: Group) -> Findings:
        """Take notice that a suspect has succeeded."""
        found = Findings()
        if group in self._of:
            self._look_up(group)
        self._clear(group, found)
        return found

    def streak(self, group: Group) -> list[AnyTask]:
        """Return the tasks that others should try next, for the verdict on a suspect."""
        belief = self._of.get(group)
        known = () if belief is None else belief.streak.values()
        return [task for one in known if one is not None and (task := one()) is not None]

    def forget(self, group: Group) -> None:
        """Hold nothing against a group any more: it is ejected, or has recovered."""
        self.suspects.discard(group)
        if (belief := self._of.get(group)) is not None:
            belief.forget_faults(group)

    def seems_well(self, group: Group) -> bool:
        """Return whether nothing that it has done last was its own fault."""
        belief = self._of.get(group)
        if group.ejected or belief is None:
            return not group.ejected
        return not belief.faults_in_a_row or group.successes() != belief.mark

    # -- outages ---------------------------------------------------------------------------------

    def _stand_in_row(self, group: Group, task: AnyTask, kind: type, *, network: bool) -> None:
        successes = sum([each.successes() for each in self._of])
        if successes > self._mark:
            self.has_worked = True
            self._doubted.clear()
            self._good += successes - self._mark
            self._end_row()
        self._mark = successes
        known = task.id in self._row or len(self._row) < LONGEST_ROW
        if self.has_worked and kind not in self._doubted and known:
            _, count = self._row.get(task.id, (None, 0))
            self._row[task.id] = (ref(task), count + 1)
            self._failures += 1
            self._network += network
            self._kinds.add(kind)
            self._failing.add(group)

    def _end_row(self) -> None:
        self._bad += len(self._row)
        if (total := self._good + self._bad) > MEMORY:
            self._good *= MEMORY / total
            self._bad *= MEMORY / total
        self._clear_row()

    def _clear_row(self) -> None:
        self._row.clear()
        self._kinds.clear()
        self._failing.clear()
        self._network = self._failures = 0

    def _is_outage(self, live: Collection[Group], left: Callable[[], int]) -> bool:
        length = len(self._row)
        if length < SEVERAL or not self.policy.limit_of_outage:
            return False
        share = (self._bad + 1) / (self._good + self._bad + 4)
        if share**length >= UNLIKELY ** (1 + self._false_alarms):
            return False
        failing = self._failing | self.suspects
        if length >= len(live) and failing.issuperset(live):
            return True
        # So few tasks are left that they don't go round.
        return len(failing) >= min(len(live), 2) and length >= left()

    def many_fail(self, error: BaseException) -> bool:
        """Return whether several tasks have failed on groups that have not succeeded with any since."""
        if type(error) in self._doubted or not self.policy.limit_of_outage:
            return False
        tasks = set(self._row)
        for belief in self._of.values():
            tasks |= belief.streak.keys()
        return self.has_worked and len(tasks) >= SEVERAL

    def begin_outage(self, now: float, usual: float) -> tuple[Outage, dict[AnyTask, int]]:
        """Return the outage that begins, and the tasks that it struck, with the attempts to give back.

        `usual` is how many seconds a task takes.
        """
        network = 2 * self._network > self._failures
        limit = self.policy.limit_of_outage
        until = now + (limit if network else min(limit, SHORT_OUTAGE))
        struck = {task: count for known, count in self._row.values() if (task := known()) is not None}
        counts: dict[AnyTask, int] = {}
        for group, belief in self._of.items():
            for task in self.streak(group):
                counts[task] = counts.get(task, 0) + 1
            belief.streak.clear()
        for task, count in counts.items():
            struck[task] = max(struck.get(task, 0), count)
        self.suspects.clear()
        return Outage(now, until, network, max(usual, LEAST_WAIT)), struck

    def end_outage(self, outage: Outage, *, recovered: bool) -> None:
        """Begin a new row. If nothing has succeeded, such errors are no sign of an outage for now."""
        if not recovered:
            self._doubted |= self._kinds
            self._clear_row()
        elif outage.probes <= FALSE_ALARM:
            self._false_alarms = min(self._false_alarms + 1, MOST_ALARMS)
            self._end_row()  # so many failures in a row are usual here
        else:
            self._false_alarms = 0
            self._clear_row()


def _ill_share(share: float) -> float:
    """Return the share of failures of an ill group, where others fail `share`."""
    return (1 + share) / 2


def _refutes(share: float) -> float:
    """Return what a success takes from the score."""
    return math.log((1 - share) / (1 - _ill_share(share)))
