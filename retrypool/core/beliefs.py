"""What is believed of each group, and the verdicts: they are made here alone.

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

`outage.py` has the rule for the whole fleet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from retrypool.core.outage import LONGEST_ROW, MEMORY, SEVERAL, Row
from retrypool.model.slots import Group, Slot
from retrypool.model.task import Task
from retrypool.policy.health import HealthPolicy

__all__ = ["Beliefs", "Findings"]

AnyTask = Task[Any, Any]

CHANCE = 1e-6  # how seldom a group may be taken for ill that was only unlucky, for each attempt
DOUBT = 0.2  # how seldom a group that is as good as the others becomes a suspect, for each row
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
        """Reset the evidence against the group."""
        self.streak.clear()
        self.score = 0.0
        self.witnesses = self.faults = self.faults_in_a_row = 0
        self.sample_mark = group.attempts()


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
        self.row = Row(policy)

    # -- groups come and go ----------------------------------------------------------------------

    def joined(self, slot: Slot) -> None:
        """Add a slot to its group's counts: its earlier successes are no new evidence."""
        belief = self._of.get(slot.group)
        if belief is None:
            self._of[slot.group] = Belief(slot.group)
        else:
            belief.mark += slot.succeeded
            belief.sample_mark += slot.attempts()
        self.row.mark += slot.succeeded

    def left(self, slot: Slot) -> None:
        """Leave out a slot that has just left its group, and what it has done with it."""
        group = slot.group
        self.row.mark -= slot.succeeded
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
        started: float,
        unseen: int,
        began: float,
        accused: Collection[Group],
        live: Collection[Group],
        left: Callable[[], int],
        has_success_begun_since: Callable[[float], bool],
    ) -> Findings:
        """Count a failure.

        `own_fault` says that the worker took the blame itself; `decides` that the task may go on to another
        group, which will tell more; `fresh` that not all have failed it before, in an earlier round: one that
        has failed everywhere is likely to fail again, outage or not, and stands in no row; `unseen` and
        `began` are of the row at its worker, see `Row.enter`; `accused` are the groups that failed the task
        before, in this round; `live` all that are given work; `left()` counts the tasks that have not ended;
        `has_success_begun_since(moment)` says whether an attempt has succeeded that began since then.
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
            successes = sum([each.successes() for each in self._of])
            self.row.enter(
                group,
                task,
                error,
                network=network,
                started=started,
                unseen=unseen,
                began=began,
                successes=successes,
                has_success_begun_since=has_success_begun_since,
            )
        if not own_fault and decides and not found.ill and group not in self.suspects:
            found.suspect = self._is_suspicious(group, belief, live)
            if found.suspect:
                self.suspects.add(group)
        if self.row.is_outage(live, self.suspects, left):
            found.outage = True
        elif (
            self.suspects and len(live) > 1 and all(other in self.suspects or other.ejected for other in live)
        ):
            # No other group is left that could confirm or refute the suspicion.
            if self.row.tasks and self.policy.limit_of_outage:
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
        """Return the share of the other groups' attempts that fail, as far as is known.

        Those that fail one task after the other are left out, or the ill would hide each other.
        """
        good = bad = 0.0
        for other, belief in self._of.items():
            if other is not group and not self.doubts(other):
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
        """Drop a task as evidence: all groups have failed it, or it ended without a result."""
        found = None
        for group in accused:
            belief = self._of.get(group)
            if belief is not None and belief.streak.pop(task.id, None) and group in self.suspects:
                found = found or Findings()
                if not belief.undecided:
                    self._clear(group, found)
        return found or _NOTHING

    def refuted(self, group: Group) -> Findings:
        """Clear a suspect that has succeeded."""
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

    def doubts(self, group: Group) -> bool:
        """Return whether a group may be ill: it is ejected, or fails one task after the other."""
        belief = self._of.get(group)
        if group.ejected or belief is None:
            return group.ejected
        return len(belief.streak) >= self.policy.witnesses and group.successes() == belief.mark

    def trusts(self, group: Group) -> bool:
        """Return whether a group succeeded with what it did last. Having failed nothing is not enough."""
        belief = self._of.get(group)
        if group.ejected or belief is None:
            return not group.ejected and group.successes() > 0
        return group.successes() != belief.mark or (belief.good > 0 and not belief.streak)

    def seems_well(self, group: Group) -> bool:
        """Return whether nothing that it has done last was its own fault."""
        belief = self._of.get(group)
        if group.ejected or belief is None:
            return not group.ejected
        return not belief.faults_in_a_row or group.successes() != belief.mark

    # -- outages ---------------------------------------------------------------------------------

    def many_fail(self, error: BaseException) -> bool:
        """Return whether several tasks have failed on groups that have not succeeded with any since."""
        if self.row.doubts(error):
            return False
        tasks = set(self.row.tasks)
        for belief in self._of.values():
            tasks |= belief.streak.keys()
        return self.row.has_worked and len(tasks) + self.row.unseen >= SEVERAL

    def begin_outage(self) -> dict[AnyTask, int]:
        """Drop the failures as evidence against groups: they are part of an outage.

        Returns the tasks that it struck, with the attempts to give back.
        """
        struck = {task: count for known, count in self.row.tasks.values() if (task := known()) is not None}
        counts: dict[AnyTask, int] = {}
        for group, belief in self._of.items():
            for task in self.streak(group):
                counts[task] = counts.get(task, 0) + 1
            belief.streak.clear()
        for task, count in counts.items():
            struck[task] = max(struck.get(task, 0), count)
        self.suspects.clear()
        return struck


def _ill_share(share: float) -> float:
    """Return the share of failures of an ill group, where others fail `share`."""
    return (1 + share) / 2


def _refutes(share: float) -> float:
    """Return what a success takes from the score."""
    return math.log((1 - share) / (1 - _ill_share(share)))
