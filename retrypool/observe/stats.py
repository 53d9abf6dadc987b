"""Counts of a pool at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retrypool.threads.engine import Engine
from retrypool.threads.workers import Workers

__all__ = ["Stats", "count"]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of a pool at one moment."""

    queued: int  # tasks that could be claimed now
    delayed: int  # tasks that wait for their moment
    running: int  # attempts
    succeeded: int  # tasks, since the pool was made, as are the following
    died: int
    cancelled: int
    retries: int
    failures: int  # attempts
    dead: int  # dead tasks that are kept
    dead_dropped: int  # dead tasks that dead_limit pushed out
    workers: int
    abandoned: int  # threads that were given up and have not come back
    suspects: int = 0  # groups that are given nothing until others have tried what they failed
    ejected: int = 0  # groups that are given nothing because they are ill
    ejections: int = 0  # since the pool was made
    outages: int = 0  # the same
    outage: bool = False  # whether the pool holds now, because all groups fail
    hedged: int = 0  # second attempts of tasks that took long, since the pool was made
    hedges_won: int = 0  # those that ended their task
    racing: int = 0  # tasks that have two attempts under way

    @property
    def waiting(self) -> int:
        """Tasks that wait, for a worker or for their moment."""
        return self.queued + self.delayed

    @property
    def dispatched(self) -> int:
        """Tasks accepted so far, those that were requeued counted again."""
        return self.waiting + self.running - self.racing + self.ended

    @property
    def ended(self) -> int:
        """Tasks that have come to their end."""
        return self.succeeded + self.died + self.cancelled


def count(engine: Engine[Any, Any], workers: Workers[Any, Any]) -> Stats:
    """Return the counts of a pool. Costs a look at each worker."""
    scheduler, hedges = engine.scheduler, engine.hedges

    def look() -> Stats:
        groups, quarantine = scheduler.fleet.groups.values(), scheduler.fleet.quarantine
        slots = [runner.slot for runner in workers]
        tally = workers.tally()
        return Stats(
            queued=len(scheduler.backlog),
            delayed=scheduler.delayed,
            running=sum(len(slot.running) for slot in slots),
            succeeded=tally.succeeded,
            died=scheduler.endings.died,
            cancelled=scheduler.endings.cancelled,
            retries=tally.retried + scheduler.retried,
            failures=tally.failed + tally.timed_out,
            dead=len(scheduler.endings.dead),
            dead_dropped=scheduler.endings.dead_dropped,
            workers=len({slot.id for slot in slots if not slot.retired}),
            abandoned=workers.abandoned,
            suspects=sum(group.suspected is not None for group in groups),
            ejected=sum(group.ejected and group.until is not None for group in groups),
            ejections=quarantine.ejections,
            outages=quarantine.outages,
            outage=quarantine.outage is not None,
            hedged=0 if hedges is None else hedges.hedging.hedged,
            hedges_won=0 if hedges is None else hedges.hedging.won,
            racing=0 if engine.races is None else len(engine.races.under_way),
        )

    return engine.look(look)
