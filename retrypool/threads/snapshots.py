"""What a pool tells of its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from retrypool.model.worker import WorkerInfo
from retrypool.states import Outcome
from retrypool.threads.runner import Runner

__all__ = ["info_of"]


def info_of(crew: Sequence[Runner[Any, Any]], now: float, held: list[object]) -> WorkerInfo:
    """Return what there is to tell of the worker that these runners are. Called under the pool's lock.

    What runs may end meanwhile, and this be the last to hold it: so `held` holds it longer.
    """
    slots = [runner.slot for runner in crew]
    group = slots[0].group
    failures: Counter[str] = Counter()
    for counts in [counts for slot in slots for counts in (slot.failures, slot.lost)]:
        failures.update(dict.copy(counts))  # atomic: the slot's own thread counts meanwhile
    running_at = crew[0].engine.scheduler.running_at
    busy = [ctx for slot in slots for ctx in [*running_at(slot), slot.stuck] if ctx is not None]
    held.append(busy)
    return WorkerInfo(
        id=slots[0].id,
        name=slots[0].name,
        group=group.name,
        state=_state(crew, now),
        task_ids=tuple(ctx.task_id for ctx in busy),
        succeeded=sum(slot.succeeded for slot in slots),
        failed=sum(slot.failed + slot.timed_out for slot in slots),
        failures={Outcome(outcome): count for outcome, count in failures.items()},
        rate=None if group.pace is None else group.pace.per_second,
        until=group.until if group.shut(now) else _tried_again_at(crew),
        reason=slots[0].cordoned_for,
        error=next((runner.error for runner in crew if runner.error is not None), None),
        host=next((slot.where for slot in slots if slot.where is not None), None),
        left=group.until - now if group.until is not None and group.shut(now) else None,
        busy_for=max((now - ctx._started for ctx in busy), default=None),
    )


def _tried_again_at(crew: Sequence[Runner[Any, Any]]) -> float | None:
    """Return when it will be tried to start a worker that could not be started."""
    moments = [runner.retry_at for runner in crew if runner.error is not None]
    return min((moment for moment in moments if moment is not None), default=None)


def _state(crew: Sequence[Runner[Any, Any]], now: float) -> str:
    """Return the state of a worker: the first one that applies."""
    slots = [runner.slot for runner in crew]
    outage = crew[0].engine.scheduler.fleet.quarantine.outage is not None
    group = slots[0].group
    states = {
        "failed": any(runner.error is not None for runner in crew),
        "stopped": all(_has_stopped(runner) for runner in crew),
        "stopping": all(slot.retired for slot in slots),
        "stuck": all(slot.stuck is not None for slot in slots),
        "starting": not any(runner.ready for runner in crew),
        "cordoned": slots[0].cordoned_for is not None,
        "paused": slots[0].paused,
        "probing": group.probe is not None,
        "ejected": group.ejected and group.until is not None,
        "suspect": group.suspected is not None,
        "cooling": group.shut(now),
        "holding": outage and not any(slot.running for slot in slots),
    }
    return next((state for state, applies in states.items() if applies), "active")


def _has_stopped(runner: Runner[Any, Any]) -> bool:
    """Return whether a worker takes nothing more, and its thread has ended, if it ever had one."""
    slot = runner.slot
    return slot.retired and not slot.running and (runner.gone or runner.thread.ident is None)
