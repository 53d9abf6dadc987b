"""Whether a pool takes a task, and if not, why."""

from __future__ import annotations

from retrypool.errors import InvalidValue, PoolClosed, RetryPoolError
from retrypool.model.settings import TaskSettings
from retrypool.threads.works import Works

__all__ = ["Admission"]


class Admission:
    """Knows why one pool takes no tasks, or not those of certain settings. Needs no lock."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self.workers_seen: set[int | str] = set()  # ids, and names of groups; added to under the lock

    def closing_refusal(self) -> RetryPoolError | None:
        """Return why the pool takes nothing at all any more, if so."""
        if self._engine.forked:
            return PoolClosed(self._engine.name, "it was made in the parent process; make one after the fork")
        if self._engine.closed:
            return PoolClosed(self._engine.name)
        return None

    def refusal(self, settings: TaskSettings | None = None) -> RetryPoolError | None:
        """Return why the pool does not take a task (with these settings) now, if so."""
        if refusal := self.closing_refusal():
            return refusal
        if self._engine.wait_for_workers or (settings is not None and settings.wait_for_worker):
            return None
        if settings is not None and settings.exclude:
            # Whoever was there once may be named for ever: it may leave before the task is dispatched.
            unknown = [each for each in settings.exclude if each not in self.workers_seen]
            if unknown:
                known = sorted((each for each in self.workers_seen if isinstance(each, str)), key=str)
                return InvalidValue(
                    "exclude", unknown[0], f"the id of a worker, or a group: {', '.join(known)}"
                )
        fleet = self._engine.scheduler.fleet
        if not fleet.live:
            return None if fleet.returning else self._engine.scheduler.shortage.error()
        if settings is not None and settings.picky:
            # Workers come and go under the lock; without it, this is a look at a copy.
            slots = tuple(fleet)
            slots = (*filter(fleet.present, slots), *fleet.returning)
            if not any(map(settings.constraints.suits, slots)):
                return self._engine.scheduler.shortage.error(settings)
        return None
