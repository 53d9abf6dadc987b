"""Records how an attempt ended, and weighs it as evidence for its task, its group and the fleet.

Pure, and under the pool's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retrypool.core.assignment import Assignment
from retrypool.core.history import History
from retrypool.core.records import owned
from retrypool.model.record import NO_GROUPS, Attempt, Record
from retrypool.model.slots import Group, Slot
from retrypool.model.task import Task
from retrypool.policy.blame import Scope, outcome_of
from retrypool.states import Outcome, TaskState

__all__ = ["Failures", "speaks_of_network"]

AnyTask = Task[Any, Any]

# These are OSErrors, and speak of one file or one permission.
_OF_ONE_ITEM = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ProcessLookupError,
    ChildProcessError,
)

MORE_THAN_ONE = 2  # attempts that a policy allows, so that an outage need not be the end of a task
GRACE = 5  # attempts that are given back to a task before there is an outage for sure

_CHARGEABLE = (Scope.TASK, Scope.OUTAGE, Scope.GROUP)


def speaks_of_network(error: BaseException) -> bool:
    """Return whether an error may come from an outage behind all groups."""
    kind = type(error)  # by its type: it may do anything when it is asked for its class
    return issubclass(kind, OSError) and not issubclass(kind, _OF_ONE_ITEM)


class Failures:
    """Records failures, and the successes that refute them."""

    def __init__(
        self,
        assignment: Assignment,
        history: History,
        delayed: Callable[[], int],
        pull_forward: Callable[[AnyTask, float], None],
    ) -> None:
        self._assignment = assignment
        self._filing = assignment.filing
        self._fleet = assignment.fleet
        self._quarantine = assignment.fleet.quarantine
        self._history = history
        self._delayed = delayed  # how many tasks wait for their moment
        self._pull_forward = pull_forward

    # -- failures --------------------------------------------------------------------------------

    def enter(
        self,
        slot: Slot,
        task: AnyTask,
        error: BaseException,
        scope: Scope,
        span: tuple[int, float, float],
        now: float,
        pause: float | None = None,
    ) -> tuple[Attempt, Scope]:
        """Record a failed attempt, and act on it. `span` is its number, start and end.

        Returns the attempt, and whose fault it is. `pause` is what a throttled group was told.
        """
        record, group = owned(task), slot.group
        if scope is Scope.GROUP and self._is_culprit(record):
            scope = Scope.TASK
        outage = self._quarantine.outage is not None and scope in _CHARGEABLE
        outcome = Outcome.EXCUSED if outage else outcome_of(scope, error)
        number, started, ended = span
        attempt = Attempt(number, slot.id, group.name, started, ended, outcome, error)
        record.history.append(attempt)
        record.entries += 1
        record.number = None
        record.running_time += ended - started
        record.tried_waived = record.urgent = False
        record.avoid = None
        record.keeps_place = True
        record.elsewhere = False
        if scope is Scope.THROTTLED:
            record.uncharged += 1
            self._quarantine.cool(group, pause, now)
            self._probe_over(slot, scope, now)
            self._assignment.review_tried(now)
        elif scope is Scope.UNRECOVERABLE:
            record.charged += 1
            self._probe_over(slot, scope, now)
        elif outage:
            record.elsewhere = True  # the outage is the delay
            self._probe_over(slot, scope, now)
        else:
            self._charge(record, scope, group)
            self._count(slot, task, record, error, scope, started, now)
        return attempt, scope

    def _is_culprit(self, record: Record) -> bool:
        """Return whether so many groups have taken the blame for a task that it must be its own."""
        health = self._fleet.health
        return health is not None and len(record.victims) >= health.witnesses

    def _charge(self, record: Record, scope: Scope, group: Group) -> None:
        """Charge a failure to the task, to its group, or to nobody."""
        others = self._fleet.live - group.alone
        beliefs = self._quarantine.beliefs
        if scope is Scope.GROUP and others:
            record.uncharged += 1
            if beliefs is None or beliefs.seems_well(group):  # one that is ill is no witness
                record.victims = record.victims | group.alone
        elif scope is Scope.NOBODY or (group.ejected and others):
            record.uncharged += 1
        else:
            record.charged += 1

    def _count(
        self,
        slot: Slot,
        task: AnyTask,
        record: Record,
        error: BaseException,
        scope: Scope,
        started: float,
        now: float,
    ) -> None:
        """Move the task on in its round, and weigh what the failure says of its group and of the fleet."""
        group, accused = slot.group, record.accused - slot.group.alone
        reach = self._filing.within_reach(task._settings.constraints, now)
        tried = record.tried | group.alone
        decides, fresh = not tried >= reach, record.round == 1
        if decides:
            record.tried = tried
            record.elsewhere = scope is Scope.GROUP or self._history.has_success_since(started)
        else:
            record.tried = NO_GROUPS
            record.round += 1
            record.keeps_place = False
        quarantine = self._quarantine
        beliefs = quarantine.beliefs
        ejected = group.ejected
        self._probe_over(slot, scope, now)
        if beliefs is None or ejected or scope is Scope.NOBODY:
            if not decides and beliefs is not None:
                self._carry_out(beliefs.strike(task, self._in_order(record.accused)), group, now)
                record.accused = NO_GROUPS
            return
        network = scope is Scope.OUTAGE or speaks_of_network(error)
        unseen = 0
        if fresh:
            unseen, slot.seen = slot.passed - max(slot.seen, slot.row_start), slot.passed
        found = beliefs.failed(
            group,
            task,
            error,
            own_fault=scope is Scope.GROUP,
            network=network,
            decides=decides,
            fresh=fresh,
            started=started,
            unseen=unseen,
            began=slot.row_began,
            accused=self._in_order(accused),
            live=[
                other
                for other in self._fleet.groups.values()  # in the order of their coming
                if other in self._fleet.live
                and (other.until is None or now >= other.until)
                and not _is_idle_for_good(other)
            ],
            left=self._left,
            has_success_begun_since=self._history.has_success_begun_since,
        )
        if decides:
            if scope is not Scope.GROUP:
                record.accused = record.accused | group.alone
        else:
            # All have failed it, so it speaks against none of them.
            if (struck := beliefs.strike(task, self._in_order(record.accused))).cleared:
                self._carry_out(struck, group, now)
            record.accused = NO_GROUPS
        if found.cleared or found.ill or found.suspect:
            self._carry_out(found, group, now)
        if found.outage:
            self._hold(now, error)
            record.elsewhere = record.keeps_place = True
        elif self._is_exhausted(task, record) and (
            (network and self._may_be_outage(record, error, len(reach)))
            or (decides and fresh and self._has_met_ill_groups(record, reach))
        ):
            _give_back(record, 1)
        elif found.suspect:
            record.elsewhere = record.urgent = True  # it brings the verdict
            self._rush(group, task, now)
        if found.ill:
            self._assignment.review_tried(now)

    def _is_exhausted(self, task: AnyTask, record: Record) -> bool:
        return record.charged >= max(task._settings.attempts, MORE_THAN_ONE)

    def _may_be_outage(self, record: Record, error: BaseException, groups: int) -> bool:
        """Return whether a task is about to die in what may be the first moments of an outage.

        Others fail too, and nothing that began after its first failure has succeeded. What succeeds in such a
        moment may have been under way before. It may take a failure of each group until that is known.
        """
        beliefs, charged = self._quarantine.beliefs, record.charged
        first = record.history[-min(charged, len(record.history))].started
        return (
            beliefs is not None
            and record.given_back < max(GRACE, groups)
            and beliefs.many_fail(error)
            and not self._history.has_success_begun_since(first)
        )

    def _has_met_ill_groups(self, record: Record, reach: frozenset[Group]) -> bool:
        """Return whether a task is about to die of groups that may be ill, while one that works is left.

        What those have cost it is given back.
        """
        beliefs = self._quarantine.beliefs
        assert beliefs is not None
        doubtful = sum([beliefs.doubts(group) for group in record.accused])
        return record.given_back < doubtful and any(beliefs.trusts(group) for group in reach - record.tried)

    def _carry_out(self, found: Any, group: Group, now: float) -> None:
        self._quarantine.carry_out(found, group, now)

    def _in_order(self, groups: frozenset[Group]) -> list[Group]:
        """Return those that are still there in the order of their coming, so that runs can be repeated."""
        if not groups:
            return []
        return [group for group in self._fleet.groups.values() if group in groups]

    def _left(self) -> int:
        """Return how many tasks have not ended."""
        running = sum([len(slot.running) for slot in self._fleet])
        return len(self._assignment.backlog) + running + 1 + self._delayed()

    def _probe_over(self, slot: Slot, scope: Scope | None, now: float) -> None:
        if scope in (Scope.UNRECOVERABLE, None):
            self._quarantine.probe_succeeded(slot, now)  # it was answered
        else:
            self._quarantine.probe_failed(slot, now)
        if slot.attentive:
            self._quarantine.attempt_over(slot, scope, now)

    # -- successes -------------------------------------------------------------------------------

    def succeeded(self, slot: Slot, task: AnyTask, now: float) -> None:
        """Count a success for its group, and against the groups that failed the task before."""
        group, record, beliefs = slot.group, task._record, self._quarantine.beliefs
        self._probe_over(slot, None, now)
        if beliefs is not None:
            if group.suspected is not None:
                self._carry_out(beliefs.refuted(group), group, now)
            for other in () if record is None else self._in_order(record.accused):
                if other is not group:
                    found = beliefs.succeeded_elsewhere(other, task)
                    self._carry_out(found, other, now)
                    if found.ill:
                        self._assignment.review_tried(now)

    def ended(self, task: AnyTask, now: float) -> None:
        """Drop a task as evidence that has ended without a result."""
        record, beliefs = task._record, self._quarantine.beliefs
        if record is not None and record.accused and beliefs is not None:
            for group in self._in_order(record.accused):
                self._carry_out(beliefs.strike(task, group.alone), group, now)
            record.accused = NO_GROUPS

    # -- steps -----------------------------------------------------------------------------------

    def _rush(self, group: Group, failed: AnyTask, now: float) -> None:
        """Put the other tasks of a suspect before all others."""
        beliefs = self._quarantine.beliefs
        assert beliefs is not None
        for task in beliefs.streak(group):
            record = task._record
            if task is failed or record is None or record.urgent:
                continue
            record.urgent = True
            if task._phase is TaskState.QUEUED:
                self._filing.refile(task, now)
            elif task._phase is TaskState.RETRYING and task._settings.retry.waits_between_rounds:
                self._pull_forward(task, now)

    def _hold(self, now: float, error: BaseException) -> None:
        """Begin an outage, and give back what it has cost the tasks so far."""
        usual = self._history.usual_duration()
        for task, count in self._quarantine.begin_outage(now, usual, error).items():
            record = task._record
            if record is not None and not task._phase.ended:
                record.accused = NO_GROUPS
                _give_back(record, count)


def _give_back(record: Record, count: int) -> None:
    """Excuse the last `count` attempts of a task that were charged."""
    record.charged = max(0, record.charged - count)
    history = record.history
    for number in range(len(history) - 1, -1, -1):
        if count and history[number].outcome in (Outcome.FAILED, Outcome.TIMED_OUT):
            history[number] = history[number]._replace(outcome=Outcome.EXCUSED)
            count -= 1


def _is_idle_for_good(group: Group) -> bool:
    """Return whether none of its workers is given anything until somebody says so."""
    slots = group.slots
    return not slots or (slots[0].paused and all(slot.paused for slot in slots))
