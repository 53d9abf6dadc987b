"""What a `Recorder` knows at one moment: what reports, pictures and traces are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from retrypool.observe.recording.lanes import Lane
from retrypool.observe.recording.series import Series
from retrypool.observe.recording.spans import Span
from retrypool.observe.recording.tally import Tally

__all__ = ["Counts", "Recording", "RunningAttempt", "SlowTask", "WorkerSeen"]


@dataclass(slots=True)
class WorkerSeen:
    """A worker that took part in the run."""

    id: int
    name: str
    group: str
    threads: int
    added: float
    removed: float | None = None
    error: str = ""  # why it could not be started
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class SlowTask:
    """A task that took long."""

    seconds: float  # of running time, over all its attempts
    task_id: int
    label: str
    attempts: int
    worker_id: int  # that of the last attempt; 0 if there was none


@dataclass(slots=True)
class Counts:
    """What tasks came to, and what they waited for. Seconds are sums over all tasks."""

    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    retries: int = 0
    changes: int = 0  # retries on another worker
    queued: float = 0.0  # seconds in the queue
    delayed: float = 0.0  # seconds of delay and back-off
    starts: int = 0  # attempts that have waited so
    released: float = 0.0  # when the last task could have begun for the first time
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # of deaths, each with an error

    @property
    def ended(self) -> int:
        """How many tasks have ended."""
        return self.succeeded + self.dead + self.cancelled

    def copy(self) -> Counts:
        """Return another with the same counts."""
        return replace(self, reasons=self.reasons.copy())


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """An attempt that has not ended."""

    worker_id: int
    start: float
    number: int
    task_id: int
    label: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A run until one moment. Times are seconds on the pool's clock."""

    pool: str
    begin: float  # when the first task could have been taken
    end: float  # when the last one had ended, or now
    wall: float  # what the wall clock showed at the beginning, in seconds since the epoch
    workers: Sequence[WorkerSeen]
    lanes: Sequence[Lane]
    spans: Sequence[Span]
    span_counts: Mapping[tuple[str, str | int], int]  # how many there were, by kind and owner
    series: Series
    counts: Counts
    slowest: Sequence[SlowTask]  # the slowest first
    running: Sequence[RunningAttempt]
    waiting: int  # tasks
    grain: float  # attempts shorter than this are bundled; 0: all are kept one by one
    left_out: int  # attempts of workers that have no lane
    rates: dict[str, float]  # calls per second that groups are held to; all together under ""

    @property
    def length(self) -> float:
        """Seconds from the beginning to the end."""
        return self.end - self.begin

    def name_of(self, worker_id: int) -> str:
        """Return the name of a worker."""
        return next((worker.name for worker in self.workers if worker.id == worker_id), f"worker-{worker_id}")

    @property
    def total(self) -> Tally:
        """What the attempts of all workers came to."""
        total = Tally()
        for worker in self.workers:
            total.merge(worker.tally)
        return total
