"""The short way back: a failure that says nothing is entered, and its task put back, without the lock."""

from __future__ import annotations

from typing import Any

from retrypool.core.fleet import Fleet
from retrypool.core.outage import UNLIKELY
from retrypool.core.queue import Backlog
from retrypool.errors import AttemptTimeout
from retrypool.model.record import Attempt, Record
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.policy.retry import UNCHARGED
from retrypool.states import Outcome, TaskState

__all__ = ["QuickRetry"]

FEW = 3
"""Tasks failed in a row that are never looked at, where there is one group alone."""

# Bound once: looking a member up in its enum costs more than what is done with it.
_QUEUED, _FAILED, _TIMED_OUT = TaskState.QUEUED, Outcome.FAILED, Outcome.TIMED_OUT


class QuickRetry:
    """Where there is one group alone."""

    def __init__(self, fleet: Fleet, backlog: Backlog, *, allowed: bool) -> None:
        self._fleet = fleet
        self._line = backlog.injector.line
        self._next_seq = backlog.next_seq
        self._allowed = allowed  # False if each retry has to be counted

    def take(
        self, slot: Slot, task: Task[Any, Any], started: float, error: BaseException, ended: float
    ) -> bool:
        """Record a failure that is no evidence, and put the task back without the lock; if it may be so.

        That is where there is one group alone, so that each failure begins a new round, and where no look at
        the row of failures is due. The caller owns the task, and puts it back (handshake H12): the append
        comes last, and from then on whoever takes the task sees the rest.
        """
        group, fleet = slot.group, self._fleet
        record, settings = task._record, task._settings
        assert record is not None
        line = self._line(settings.priority)
        if (
            record.charged + 1 >= settings.counted
            or record.uncharged >= UNCHARGED
            or not self._allowed
            or fleet.live != group.alone
            or line is None
            or not record.plain
            or record.tried
            or slot.attentive
            or slot.retired
            or group.until is not None
            or fleet.quarantine.outage is not None
            or record.cancelled
            or (record.round == 1 and fleet.health is not None and _is_worth_a_look(slot, started))
        ):
            return False
        is_first = record.round == 1
        outcome = _TIMED_OUT if issubclass(type(error), AttemptTimeout) else _FAILED
        record.entries += 1
        record.history.append(Attempt(record.entries, slot.id, group.name, started, ended, outcome, error))
        record.charged += 1
        record.round += 1
        record.seq = self._next_seq()
        record.deciding = False  # H7: written, then `cancelled` is read
        if record.cancelled:
            record.deciding = True
            _take_out_again(record)
            return False
        record.running_time += ended - started
        record.tried_waived = record.urgent = record.keeps_place = record.elsewhere = False
        record.avoid = None
        task._slot = None
        task._phase = _QUEUED
        slot.failures[outcome._value_] += 1
        slot.retried += 1
        slot.passed += is_first
        line.append(task)
        return True


def _take_out_again(record: Record) -> None:
    record.history.pop()
    record.entries -= 1
    record.charged -= 1
    record.round -= 1


def _is_worth_a_look(slot: Slot, started: float) -> bool:
    """Return whether a task that failed at `slot` for the first time is to be looked at under the lock.

    So it is if there are so many in a row; that enters those that were passed by before. The next look is
    made when the row is twice as long. The attempt `started` then.
    """
    if slot.succeeded != slot.row_mark:
        slot.row_mark, slot.row_start, slot.row_began = slot.succeeded, slot.passed, started
        slot.look_at = FEW
    row = slot.passed - slot.row_start + 1
    if row >= slot.look_at and slot.succeeded:
        share = (slot.failed + 1) / (slot.failed + slot.succeeded + 4)
        if share**row < UNLIKELY:
            slot.look_at = 2 * row
            return True
    return False
