"""A table of a pool's workers in the terminal, refreshed regularly."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from retrypool.checks import Duration, seconds
from retrypool.errors import MissingExtra
from retrypool.events import AttemptEnded, Event
from retrypool.model.worker import WorkerInfo
from retrypool.observe.ticker import Ticker, per_second
from retrypool.observe.watched import Watched
from retrypool.states import Outcome

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Live"]

LAST = 500
"""Latencies are those of so many attempts of a worker."""

RECENT = 30.0
"""Rates are those of so many seconds."""

_COLOURS = {
    "active": "green",
    "starting": "cyan",
    "probing": "yellow",
    "suspect": "yellow",
    "cooling": "yellow",
    "paused": "yellow",
    "stopping": "dim",
    "stopped": "dim",
}


class Live:
    """Shows a pool's workers while it is entered: see `Pool.live`."""

    def __init__(self, pool: Watched, interval: Duration, console: Console | None) -> None:
        self._interval = seconds("interval", interval, positive=True)
        try:
            import rich.live
        except ImportError:
            raise MissingExtra("progress", "rich", "pool.live()") from None
        self._pool = pool
        self._times = _Times()
        self._live = rich.live.Live(console=console, auto_refresh=False)
        self._ticker: Ticker | None = None
        self._began = 0.0
        self._before = 0

    def __enter__(self) -> Self:
        self._began, self._before = time.monotonic(), self._pool.stats().ended
        self._pool.add_listener(self._times)
        self._live.start()
        self._ticker = Ticker(self._pool.name, self._interval, self._draw, self._finish)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.remove_listener(self._times)
        if self._ticker is not None:
            self._ticker.stop()

    def _draw(self) -> None:
        self._live.update(self.table(), refresh=True)

    def _finish(self) -> None:
        self._draw()
        self._live.stop()

    def table(self) -> RenderableType:
        """Return the table as it is now, for those who show it in a place of their own."""
        from rich.table import Table

        pool, now = self._pool, time.monotonic()
        workers = pool.workers()
        table = Table(title=self._title(now), title_justify="left", expand=False)
        for column in ("worker", "state", "runs"):
            table.add_column(column)
        for column in ("calls", "failed", "p50", "p95", "calls/s"):
            table.add_column(column, justify="right")
        for worker in workers:
            table.add_row(*self._row(worker, now), style="dim" if worker.state == "stopped" else None)
        return table

    def _title(self, now: float) -> str:
        stats = self._pool.stats()
        elapsed = now - self._began
        rate = (stats.ended - self._before) / elapsed if elapsed > 0 else 0.0
        return (
            f"{self._pool.name}: {stats.queued:,} queued, {stats.delayed:,} delayed, "
            f"{stats.running:,} running, {stats.ended:,} ended ({per_second(rate)}/s), "
            f"{stats.retries:,} retries, {stats.died:,} dead{', OUTAGE' if stats.outage else ''}"
        )

    def _row(self, worker: WorkerInfo, now: float) -> list[Any]:
        from rich.text import Text

        name = worker.name if worker.group == worker.name else f"{worker.name} ({worker.group})"
        state = Text(worker.state, style=_COLOURS.get(worker.state, "red"))
        if worker.left is not None:
            state.append(f" for {_time(worker.left)}", style="default")
        elif worker.reason is not None:
            state.append(f": {worker.reason}", style="default")
        runs = ", ".join(f"task {task_id}" for task_id in worker.task_ids[:3])
        if worker.busy_for is not None:
            runs += f" for {_time(worker.busy_for)}"
        p50, p95, rate = self._times.of(worker.id, now)
        return [
            Text(name),
            state,
            Text(runs),
            f"{worker.calls:,}",
            Text(_failures(worker)),
            "" if p50 is None else _time(p50),
            "" if p95 is None else _time(p95),
            per_second(rate) + ("" if worker.rate is None else f" of {per_second(worker.rate)}"),
        ]


class _Times:
    """A listener that keeps how long the last attempts of each worker took, and when they ended."""

    listens_to = (AttemptEnded,)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[int, deque[tuple[float, float]]] = {}
        self._began = time.monotonic()

    def on_event(self, event: Event) -> None:
        if isinstance(event, AttemptEnded):
            attempt = event.attempt
            with self._lock:
                known = self._attempts.setdefault(attempt.worker_id, deque(maxlen=LAST))
                known.append((time.monotonic(), attempt.duration))

    def of(self, worker_id: int, now: float) -> tuple[float | None, float | None, float]:
        """Return the median of a worker's latencies, their 95th percentile, and its calls per second."""
        with self._lock:
            known = list(self._attempts.get(worker_id, ()))
        if not known:
            return None, None, 0.0
        latencies = sorted(duration for _, duration in known)
        since = max(now - RECENT, self._began)
        recent = [ended for ended, _ in known if ended >= since]
        if len(known) == LAST and len(recent) == LAST:  # there may have been more
            since = recent[0]
        rate = len(recent) / (now - since) if now > since else 0.0
        return latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.95)], rate


def _failures(worker: WorkerInfo) -> str:
    if not worker.failures:
        return ""
    if set(worker.failures) == {Outcome.FAILED}:
        return f"{worker.failures[Outcome.FAILED]:,}"
    return ", ".join(
        f"{count:,} {outcome.value.replace('_', ' ')}" for outcome, count in worker.failures.items()
    )


def _time(length: float) -> str:
    if length < 0.0009995:
        return f"{length * 1e6:.3g} µs"
    if length < 0.0995:
        return f"{length * 1000:.3g} ms"
    return f"{length:.1f} s" if length < 100 else f"{length / 60:.1f} min"
