"""Figures of a run that a report is made of: the best possible run, and what prevented it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from retrypool.observe.recording.data import Recording, WorkerSeen

__all__ = ["Facts"]


@dataclass(frozen=True, slots=True)
class Facts:
    """Figures of one recording."""

    recording: Recording
    capacity: float  # seconds that all threads together were there for
    resting: float  # of these, those in which they were given nothing
    speeds: dict[int, float]  # useful calls per second that each worker is capable of

    @classmethod
    def of(cls, recording: Recording) -> Facts:
        """Return the figures of `recording`."""
        capacity = sum(_presence(recording, worker) * worker.threads for worker in recording.workers)
        resting = sum(
            min(rest_of(recording, worker), _presence(recording, worker)) * worker.threads
            for worker in recording.workers
        )
        return cls(recording, capacity, resting, _speeds(recording))

    @property
    def utilisation(self) -> float:
        """The share of their time in which the workers ran something."""
        running = sum(self.recording.end - attempt.start for attempt in self.recording.running)
        busy = self.recording.total.busy + running
        return min(busy / self.capacity, 1.0) if self.capacity else 0.0

    @property
    def optimum(self) -> float | None:
        """Seconds that the run could have taken, or None if nothing has succeeded.

        All tasks that have ended by work, none of them twice, shared out in proportion to the speeds of the
        workers; not before the last task was there, and not faster than rates and refusals allow.
        """
        return self.optimum_without(())

    def optimum_without(self, left_out: Collection[int]) -> float | None:
        """Return the same for a pool without these workers."""
        recording = self.recording
        speeds = {id: speed for id, speed in self.speeds.items() if id not in left_out}
        together = self._together(speeds)
        if not together:
            return None
        work = recording.counts.succeeded + unrecoverable(recording)
        shortest = min(1 / speed * self._threads(id) for id, speed in speeds.items())
        last = max(recording.counts.released - recording.begin, 0.0)
        return min(max(work / together, shortest, last), recording.length)

    def _together(self, speeds: dict[int, float]) -> float:
        """Return the useful calls per second of these workers together, within the rates."""
        rates = self._rates_in_calls() | self._let_through()
        of_groups: Counter[str] = Counter()
        for worker in self.recording.workers:
            of_groups[worker.group] += speeds.get(worker.id, 0.0)  # type: ignore[assignment]
        within = sum(min(speed, rates.get(group) or speed) for group, speed in of_groups.items())
        return min(within, rates.get("") or within)

    def _rates_in_calls(self) -> dict[str, float]:
        """Return the rates in calls per second, each of the usual cost."""
        calls: Counter[str] = Counter()
        costs: dict[str, float] = {}
        for worker in self.recording.workers:
            for name in (worker.group, ""):
                calls[name] += worker.tally.calls
                costs[name] = costs.get(name, 0.0) + worker.tally.cost
        return {
            name: rate * calls[name] / costs[name] if costs.get(name) else rate
            for name, rate in self.recording.rates.items()
        }

    def _let_through(self) -> dict[str, float]:
        """Return the useful calls per second of the groups that were told to slow down."""
        refused: Counter[str] = Counter()
        succeeded: Counter[str] = Counter()
        for worker in self.recording.workers:
            refused[worker.group] += worker.tally.outcomes["throttled"]
            succeeded[worker.group] += worker.tally.succeeded
        length = self.recording.length
        return {group: succeeded[group] / length for group, count in refused.items() if count and length}

    def _threads(self, worker_id: int) -> int:
        return next(worker.threads for worker in self.recording.workers if worker.id == worker_id)

    def slow_workers(self, times: float = 3.0) -> list[tuple[WorkerSeen, float]]:
        """Return workers that need so many times as long as the others, and how many times that is.

        By medians, so that a long task makes nobody slow.
        """
        known = [worker for worker in self.recording.workers if worker.tally.succeeded >= 2]
        lengths = {worker.id: worker.tally.useful.quantile(0.5) for worker in known}
        found = []
        for worker in known:
            others = [lengths[other.id] for other in known if other is not worker]
            if others and (usual := median(others)) > 0 and lengths[worker.id] >= times * usual:
                found.append((worker, lengths[worker.id] / usual))
        # Half of all workers and more are not slow: the others are quick.
        return found if 2 * len(found) < len(known) or len(known) == 2 else []

    def seconds_with_only(self, workers: Collection[int]) -> float:
        """Return for how long some of these workers ran something, and nobody else did."""
        total, before, inside, outside = 0.0, 0.0, 0, 0
        for moment, worker_id, change in self._changes():
            if inside and not outside:
                total += moment - before
            if worker_id in workers:
                inside += change
            else:
                outside += change
            before = moment
        return total

    def seconds_idle_while_delayed(self) -> float:
        """Return for how long nothing ran, while tasks waited out delays."""
        series = self.recording.series
        pairs = zip(series.values("running"), series.values("delayed"), strict=True)
        return series.width * sum(1 for running, delayed in pairs if running < 0.01 and delayed > 0.5)

    def _changes(self) -> list[tuple[float, int, int]]:
        """Return when each attempt began and ended, the ends first where both are at once."""
        recording = self.recording
        found = [(bar.start, lane.worker_id, 1) for lane in recording.lanes for bar in lane.bars]
        found += [(bar.end, lane.worker_id, -1) for lane in recording.lanes for bar in lane.bars]
        found += [(attempt.start, attempt.worker_id, 1) for attempt in recording.running]
        found += [(recording.end, attempt.worker_id, -1) for attempt in recording.running]
        return sorted(found, key=lambda change: (change[0], change[2]))


def rest_of(recording: Recording, worker: WorkerSeen, kinds: Sequence[str] = ()) -> float:
    """Return for how many seconds a worker was given nothing: for reasons of these kinds, or for any."""
    return sum(end - start for start, end in _united(recording, worker, kinds))


def _united(recording: Recording, worker: WorkerSeen, kinds: Sequence[str]) -> Iterator[tuple[float, float]]:
    reached = recording.begin
    for span in recording.spans:
        if (kinds and span.kind not in kinds) or span.who not in (worker.id, worker.group, ""):
            continue
        start, end = max(span.start, reached), min(span.end, recording.end)
        if end > start:
            yield start, end
            reached = end


def unrecoverable(recording: Recording) -> int:
    """Return how many tasks could not succeed anywhere."""
    reasons = recording.counts.reasons
    return sum(count for (reason, _), count in reasons.items() if reason == "unrecoverable")


def _presence(recording: Recording, worker: WorkerSeen) -> float:
    end = recording.end if worker.removed is None else worker.removed
    return max(0.0, min(end, recording.end) - max(worker.added, recording.begin))


def _speeds(recording: Recording) -> dict[int, float]:
    """Return the useful calls per second of the workers that made any.

    A worker that made few may have had long or short ones by chance: one call of the usual length is added.
    """
    usual = recording.total.useful.quantile(0.5)
    return {
        worker.id: worker.threads * (useful.count + 1) / (useful.total + usual)
        for worker in recording.workers
        if (useful := worker.tally.useful).count and useful.total + usual > 0
    }
