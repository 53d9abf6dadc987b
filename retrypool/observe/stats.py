"""Counts of a pool at one moment."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stats"]


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

    @property
    def waiting(self) -> int:
        """Tasks that wait, for a worker or for their moment."""
        return self.queued + self.delayed

    @property
    def dispatched(self) -> int:
        """Tasks accepted so far, those that were requeued counted again."""
        return self.waiting + self.running + self.ended

    @property
    def ended(self) -> int:
        """Tasks that have come to their end."""
        return self.succeeded + self.died + self.cancelled
