"""Where a `Recorder` enters what happens: exact counts, and as much detail as there is room for.

Not thread-safe: the recorder enters one thing at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from math import inf

from retrypool.observe.recording.data import Counts, Recording, RunningAttempt, SlowTask, WorkerSeen
from retrypool.observe.recording.lanes import Bar, Lanes
from retrypool.observe.recording.series import Series
from retrypool.observe.recording.spans import Spans
from retrypool.observe.recording.tally import Error, count_error
from retrypool.states import DeadReason, Outcome

__all__ = ["Book"]

SLOWEST = 10  # tasks that are remembered for having taken long
WORKERS = 1000  # that are told apart
OTHERS = -1  # the id under which the attempts of all others are counted

_USEFUL = Outcome.SUCCEEDED.value


class Book:
    """What has been entered since `origin`, the moment in which recording began."""

    def __init__(self, origin: float, limit: int) -> None:
        self.origin = origin
        self.first = inf  # the first moment in which a task could have been taken
        self.last = origin  # the last moment of which anything is known
        self.lanes = Lanes(limit)
        self.spans = Spans()
        self.series = Series(origin, levels=("queued", "delayed", "running"), counts=("succeeded", "in_vain"))
        self.counts = Counts()
        self.workers: dict[int, WorkerSeen] = {}
        self._slowest: list[tuple[float, int, SlowTask]] = []  # a heap, the quickest of them first
        self._due: dict[int, float] = {}  # until when tasks wait out the delay before a retry
        self._stuck: set[int] = set()  # workers that have not come back
        self._texts: dict[str, str] = {}  # one string for all that are equal

    # -- workers ---------------------------------------------------------------------------------

    def add_worker(self, worker_id: int, name: str, group: str, threads: int, at: float) -> None:
        """Enter a worker that is new here, or has come back."""
        known = self.workers.get(worker_id)
        if known is not None:
            known.removed, known.error = None, ""
        elif len(self.workers) < WORKERS:
            self.workers[worker_id] = WorkerSeen(worker_id, name, group, threads, added=at)
            self.lanes.open(worker_id, name, group)

    def remove_worker(self, worker_id: int, at: float, error: str = "") -> None:
        """Enter that a worker has left, or could not be started."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.removed, worker.error = at, error
            self._stuck.discard(worker_id)
            for kind in ("paused", "cordoned", "stuck"):
                self.spans.finish(kind, worker_id, at)

    def stuck(self, worker_id: int, stuck: bool, at: float) -> None:
        """Enter that a worker has not come back from an attempt that is over, or that it has."""
        if stuck:
            self._stuck.add(worker_id)
            self.spans.begin("stuck", worker_id, at)
        else:
            self._stuck.discard(worker_id)
            self.spans.finish("stuck", worker_id, at)

    # -- attempts and tasks ----------------------------------------------------------------------

    def attempt(
        self,
        worker_id: int,
        bar: Bar,
        error: Error | None,
        ready: float,
        moved: bool,
        cost: float,
        in_all: float | None,
    ) -> None:
        """Enter an attempt that has ended. Its task has waited for it since `ready`.

        `in_all`: seconds that a task ran, this attempt included, if it has succeeded with it.
        """
        if bar.error:
            bar = self._shared(bar)
        worker = self.workers.get(worker_id) or self._unknown_worker(worker_id, bar.start)
        if self._stuck:
            self.stuck(worker_id, False, bar.start)
        worker.tally.add(bar.outcome, bar.end - bar.start, error, cost)
        self.lanes.add(worker_id, bar)
        self.last = max(self.last, bar.end)
        self._waited(bar.task_id, ready, bar.start)
        self.series.add_span("running", bar.start, bar.end)
        self.series.add_point("succeeded" if bar.outcome == _USEFUL else "in_vain", bar.end)
        counts = self.counts
        counts.starts += 1
        if bar.number > 1:
            counts.retries += 1
            counts.changes += moved
        else:
            counts.released = max(counts.released, ready)
        if in_all is not None:
            counts.succeeded += 1
            self._consider(in_all, bar.task_id, bar.label, bar.number, worker_id)

    def retrying(self, task_id: int, due: float) -> None:
        """Enter that a task waits out a delay until `due`."""
        self._due[task_id] = due

    def task_dead(
        self, dead: SlowTask, reason: DeadReason, error: Error | None, ready: float, at: float
    ) -> None:
        """Enter that a task is dead, which has waited since `ready` if it was not running."""
        self.counts.dead += 1
        count_error(self.counts.reasons, (reason.value, ": ".join(filter(None, error or ()))))
        self._waited(dead.task_id, ready, at)
        self._consider(dead.seconds, dead.task_id, dead.label, dead.attempts, dead.worker_id)

    def task_cancelled(self, task_id: int, ready: float, at: float) -> None:
        """Enter that a task was cancelled, which has waited since `ready` if it was not running."""
        self.counts.cancelled += 1
        self._waited(task_id, ready, at)

    # -- looking ---------------------------------------------------------------------------------

    def recording(
        self,
        *,
        pool: str,
        now: float,
        wall: float,
        waiting: Sequence[float],
        running: Sequence[RunningAttempt],
        rates: dict[str, float],
    ) -> Recording:
        """Return all that is known at `now`, as a value. `waiting`: since when tasks wait."""
        series = self.series.copy()
        for since in waiting:
            series.add_span("queued", since, now)
        for attempt in running:
            series.add_span("running", attempt.start, now)
        begin = min([self.first, *waiting, *(attempt.start for attempt in running)])
        begin = max(begin, self.origin) if begin < inf else self.origin
        end = max(now if waiting or running else self.last, begin)
        return Recording(
            pool=pool,
            begin=begin,
            end=end,
            wall=wall + begin,
            workers=[replace(worker, tally=worker.tally.copy()) for worker in self.workers.values()],
            lanes=self.lanes.copy(),
            spans=self.spans.until(end),
            span_counts=self.spans.counts.copy(),
            series=series,
            counts=self.counts.copy(),
            slowest=[task for _, _, task in sorted(self._slowest, reverse=True)],
            running=running,
            waiting=len(waiting),
            grain=self.lanes.grain,
            left_out=self.lanes.left_out,
            rates=rates,
        )

    # -- steps -----------------------------------------------------------------------------------

    def _waited(self, task_id: int, ready: float, until: float) -> None:
        ready = max(ready, self.origin)
        due = min(max(self._due.pop(task_id, ready), ready), until)
        self.first = min(self.first, due)
        self.last = max(self.last, until)
        self.series.add_span("delayed", ready, due)
        self.series.add_span("queued", due, until)
        self.counts.delayed += due - ready
        self.counts.queued += max(until - due, 0.0)

    def _consider(self, seconds: float, task_id: int, label: str, attempts: int, worker_id: int) -> None:
        """Remember a task if it is one of the slowest; of those that took equally long, the first."""
        full = len(self._slowest) >= SLOWEST
        if full and seconds <= self._slowest[0][0]:
            return
        entry = (seconds, -self.counts.ended, SlowTask(seconds, task_id, label, attempts, worker_id))
        if full:
            heapq.heapreplace(self._slowest, entry)
        else:
            heapq.heappush(self._slowest, entry)

    def _unknown_worker(self, worker_id: int, at: float) -> WorkerSeen:
        """Return the entry that counts for workers that were never announced, or are beyond the limit."""
        if len(self.workers) < WORKERS:
            self.add_worker(worker_id, f"worker-{worker_id}", "", 1, at)
            return self.workers[worker_id]
        return self.workers.setdefault(OTHERS, WorkerSeen(OTHERS, "others", "", 1, added=at))

    def _shared(self, bar: Bar) -> Bar:
        """Return the bar with its error text replaced by an equal one that is stored already."""
        if len(self._texts) >= 1000:
            self._texts.clear()
        return bar._replace(error=self._texts.setdefault(bar.error, bar.error))
