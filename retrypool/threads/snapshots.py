"""What a pool tells of its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from retrypool.task import Outcome
from retrypool.threads.runner import Runner
from retrypool.worker import WorkerInfo

__all__ = ["info_of"]


def info_of(crew: Sequence[Runner[Any, Any]], now: float) -> WorkerInfo:
    """Return what there is to tell of the worker that these runners are. Called under the pool's lock."""
    seats = [runner.seat for runner in crew]
    group = seats[0].group
    failures: Counter[str] = Counter()
    for counts in [counts for seat in seats for counts in (seat.failures, seat.lost)]:
        failures.update(dict.copy(counts))  # atomic: the seat's own thread counts meanwhile
    busy = [ctx for seat in seats for ctx in [*seat.running, seat.stuck] if ctx is not None]
    return WorkerInfo(
        id=seats[0].id,
        name=seats[0].name,
        group=group.name,
        state=_state(crew, now),
        task_ids=tuple(ctx.task_id for ctx in busy),
        succeeded=sum(seat.succeeded for seat in seats),
        failed=sum(seat.failed + seat.timed_out for seat in seats),
        failures={Outcome(outcome): count for outcome, count in failures.items()},
        rate=None if group.pace is None else group.pace.per_second,
        until=group.until if group.shut(now) else None,
        reason=seats[0].barred_for,
        error=next((runner.error for runner in crew if runner.error is not None), None),
    )


def _state(crew: Sequence[Runner[Any, Any]], now: float) -> str:
    """Return the state of a worker: the first one that applies."""
    seats = [runner.seat for runner in crew]
    group = seats[0].group
    states = {
        "failed": any(runner.error is not None for runner in crew),
        "stopping": all(seat.retired for seat in seats),
        "stuck": all(seat.stuck is not None for seat in seats),
        "starting": not any(runner.ready for runner in crew),
        "parked": seats[0].barred_for is not None,
        "paused": seats[0].paused,
        "probing": group.probe is not None,
        "ejected": group.ejected and group.until is not None,
        "cooling": group.shut(now),
    }
    return next((state for state, applies in states.items() if applies), "active")
