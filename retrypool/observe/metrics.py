"""Metrics for Prometheus: read from pools when they are scraped, so that a task costs nothing more."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from retrypool.errors import InvalidType, InvalidValue, MissingExtra
from retrypool.events import AttemptEnded, AttemptStarted, Event
from retrypool.observe.watched import Watched
from retrypool.states import Outcome

__all__ = ["BUCKETS", "PoolCollector", "expose"]

# Of a pool, and of each of its workers: name, kind, text, labels.
_POOL = ("pool",)
_WORKER = ("pool", "worker", "group")
_FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "retrypool_tasks": ("gauge", "Tasks that have not ended, by state.", ("pool", "state")),
    "retrypool_tasks_ended": ("counter", "Tasks that have ended, by how.", ("pool", "state")),
    "retrypool_hedges": ("counter", "Second attempts of tasks that took long.", _POOL),
    "retrypool_hedges_won": ("counter", "Second attempts that ended their task.", _POOL),
    "retrypool_retries": ("counter", "Attempts after which a task was to be tried again.", _POOL),
    "retrypool_failures": ("counter", "Attempts that failed.", _POOL),
    "retrypool_dead_tasks": ("gauge", "Dead tasks that are kept.", _POOL),
    "retrypool_dead_tasks_dropped": ("counter", "Dead tasks that dead_limit pushed out.", _POOL),
    "retrypool_workers": ("gauge", "Workers, by state.", ("pool", "state")),
    "retrypool_abandoned_threads": ("gauge", "Threads given up that have not come back.", _POOL),
    "retrypool_groups_suspected": ("gauge", "Groups that wait for others to try what they failed.", _POOL),
    "retrypool_groups_ejected": ("gauge", "Groups that are given nothing because they are ill.", _POOL),
    "retrypool_ejections": ("counter", "Ejections of groups.", _POOL),
    "retrypool_outage": ("gauge", "1 while the pool holds, because all groups fail.", _POOL),
    "retrypool_outages": ("counter", "Times in which all groups failed.", _POOL),
    "retrypool_attempts": ("counter", "Attempts that ended, by outcome.", (*_WORKER, "outcome")),
    "retrypool_worker_running": ("gauge", "Attempts that run on the worker.", _WORKER),
    "retrypool_group_rate": ("gauge", "Calls per second that the group is held to.", ("pool", "group")),
}
_WAIT = "retrypool_wait_seconds"
_DURATION = "retrypool_attempt_seconds"
_HISTOGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    _WAIT: ("From the dispatch of a task to the start of its first attempt.", _POOL),
    _DURATION: ("From the start of an attempt to its end.", ("pool", "group", "outcome")),
}
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histograms' buckets, in seconds, where nobody says others."""

_STATES = ("starting", "active", "paused", "cooling", "suspect", "ejected", "stuck", "failed")
"""States of workers that are always told, so that a count which falls to 0 is seen to do so."""


class PoolCollector:
    """Exports one or more pools to Prometheus, at each scrape. Needs the extra `retrypool[prometheus]`.

    For a registry of `prometheus_client`: `registry.register(PoolCollector(pool))`; `expose` does that for
    the default one. Pools of the same name are exported as one. A pool that is gone is not exported any
    more; the collector does not keep it alive. With `histograms=True` it also listens to every attempt,
    which costs each task some microseconds, and exports how long tasks wait and attempts take; `buckets` are
    the upper bounds, in seconds. Raises `MissingExtra`, and `InvalidType` or `InvalidValue`.
    """

    def __init__(
        self,
        *pools: Watched,
        histograms: bool = False,
        buckets: Iterable[float] = BUCKETS,
    ) -> None:
        self._core = _prometheus()
        if not isinstance(histograms, bool):
            raise InvalidType("histograms", histograms, "True or False")
        self._buckets = _bounds(buckets)
        self._histograms = histograms
        self._pools: WeakKeyDictionary[Watched, _Stopwatch | None] = WeakKeyDictionary()
        self._lock = threading.Lock()  # around changes of _pools, and copies of it
        for pool in pools:
            self.add(pool)

    def add(self, pool: Watched) -> None:
        """Export `pool` as well."""
        if not callable(getattr(pool, "workers", None)) or not callable(getattr(pool, "stats", None)):
            raise InvalidType("a pool", pool, "a Pool")
        with self._lock:
            if pool in self._pools:
                return
            stopwatch = _Stopwatch(self._buckets) if self._histograms else None
            self._pools[pool] = stopwatch
        if stopwatch is not None:
            pool.add_listener(stopwatch)

    def remove(self, pool: Watched) -> None:
        """Stop exporting `pool`. Does nothing if it is not exported."""
        with self._lock:
            stopwatch = self._pools.pop(pool, None)
        if stopwatch is not None:
            pool.remove_listener(stopwatch)

    def describe(self) -> Iterator[Any]:
        """Return the families without samples, so that registering the collector does not scrape it."""
        yield from self._families().values()
        if self._histograms:
            yield from self._histogram_families().values()

    def collect(self) -> Iterator[Any]:
        """Return the current metrics. Prometheus calls this for each scrape."""
        families = self._families()
        with self._lock:
            pools = list(self._pools.items())
        # Two pools, or two workers, may have the same names: there must be one sample for both.
        samples: dict[tuple[str, tuple[str, ...]], float] = {}
        for pool, _ in pools:
            for name, labels, value in _samples(pool):
                samples[name, labels] = samples.get((name, labels), 0.0) + value
        for (name, labels), value in samples.items():
            families[name].add_metric(labels, value)
        yield from families.values()
        if self._histograms:
            yield from self._collect_histograms(pools)

    def _collect_histograms(self, pools: Sequence[tuple[Watched, _Stopwatch | None]]) -> Iterator[Any]:
        families = self._histogram_families()
        merged: dict[tuple[str, tuple[str, ...]], _Histogram] = {}
        for pool, stopwatch in pools:
            for (name, labels), histogram in stopwatch.read() if stopwatch is not None else ():
                key = name, (pool.name, *labels)
                known = merged.get(key)
                merged[key] = histogram if known is None else known.plus(histogram)
        for (name, labels), histogram in merged.items():
            families[name].add_metric(labels, histogram.cumulated(), histogram.total)
        yield from families.values()

    def _families(self) -> dict[str, Any]:
        kinds = {"gauge": self._core.GaugeMetricFamily, "counter": self._core.CounterMetricFamily}
        return {
            name: kinds[kind](name, text, labels=labels) for name, (kind, text, labels) in _FAMILIES.items()
        }

    def _histogram_families(self) -> dict[str, Any]:
        return {
            name: self._core.HistogramMetricFamily(name, text, labels=labels)
            for name, (text, labels) in _HISTOGRAMS.items()
        }


_exposed: WeakKeyDictionary[Any, PoolCollector] = WeakKeyDictionary()
_exposing = threading.Lock()


def expose(pool: Watched, *, registry: object = None, histograms: bool = False) -> PoolCollector:
    """Export `pool` in `registry`, by default the one that `prometheus_client` serves; return its collector.

    All pools that are exposed in one registry share one collector, as the names of their metrics must be
    known there once. The first call says whether there are histograms. Raises `MissingExtra`, and
    `InvalidValue` where a later call says otherwise.

    >>> from prometheus_client import CollectorRegistry
    >>> from retrypool import Pool
    >>> registry = CollectorRegistry()
    >>> with Pool([len], name="lengths") as pool:
    ...     collector = expose(pool, registry=registry)
    ...     _ = pool.dispatch("abc").result()
    ...     labels = {"pool": "lengths", "state": "succeeded"}
    ...     registry.get_sample_value("retrypool_tasks_ended_total", labels)
    1.0
    """
    target: Any = registry
    if target is None:
        _prometheus()
        from prometheus_client import REGISTRY

        target = REGISTRY
    with _exposing:
        collector = _exposed.get(target)
        if collector is None:
            collector = PoolCollector(pool, histograms=histograms)
            target.register(collector)
            _exposed[target] = collector
        elif histograms and not collector._histograms:
            raise InvalidValue("histograms", histograms, "False, as in the first call for this registry")
        else:
            collector.add(pool)
    return collector


# -- what is told --------------------------------------------------------------------------------


def _samples(pool: Watched) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Return names, labels and values; the same labels may come more than once, and are added up."""
    stats, name = pool.stats(), pool.name
    for state in ("queued", "delayed", "running"):
        yield "retrypool_tasks", (name, state), getattr(stats, state)
    for state, count in (
        ("succeeded", stats.succeeded),
        ("dead", stats.died),
        ("cancelled", stats.cancelled),
    ):
        yield "retrypool_tasks_ended", (name, state), count
    yield "retrypool_retries", (name,), stats.retries
    yield "retrypool_failures", (name,), stats.failures
    yield "retrypool_hedges", (name,), stats.hedged
    yield "retrypool_hedges_won", (name,), stats.hedges_won
    yield "retrypool_dead_tasks", (name,), stats.dead
    yield "retrypool_dead_tasks_dropped", (name,), stats.dead_dropped
    yield "retrypool_abandoned_threads", (name,), stats.abandoned
    yield "retrypool_groups_suspected", (name,), stats.suspects
    yield "retrypool_groups_ejected", (name,), stats.ejected
    yield "retrypool_ejections", (name,), stats.ejections
    yield "retrypool_outage", (name,), stats.outage
    yield "retrypool_outages", (name,), stats.outages
    for state in _STATES:
        yield "retrypool_workers", (name, state), 0
    rates: dict[str, float] = {}
    for worker in pool.workers():
        labels = (name, worker.name, worker.group)
        yield "retrypool_workers", (name, str(worker.state)), 1
        yield "retrypool_worker_running", labels, len(worker.task_ids)
        yield "retrypool_attempts", (*labels, Outcome.SUCCEEDED.value), worker.succeeded
        for outcome, count in worker.failures.items():
            yield "retrypool_attempts", (*labels, outcome.value), count
        if worker.rate is not None:
            rates[worker.group] = worker.rate
    for group, rate in rates.items():
        yield "retrypool_group_rate", (name, group), rate


@dataclass(slots=True)
class _Histogram:
    """A histogram of durations. Written under the lock of its stopwatch."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        place = next((i for i, bound in enumerate(self.bounds) if seconds <= bound), len(self.bounds))
        self.counts[place] += 1
        self.total += seconds

    def plus(self, other: _Histogram) -> _Histogram:
        counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        return _Histogram(self.bounds, counts, self.total + other.total)

    def cumulated(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus wants them: each with all that is below."""
        buckets, below = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(below)))
        return buckets


class _Stopwatch:
    """A listener that takes the time of each attempt."""

    listens_to = (AttemptStarted, AttemptEnded)

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._histograms: dict[tuple[str, tuple[str, ...]], _Histogram] = {}

    def on_event(self, event: Event) -> None:
        if isinstance(event, AttemptStarted):
            if event.number == 1:
                self._add((_WAIT, ()), event.at - event.task._dispatched)
        elif isinstance(event, AttemptEnded):
            attempt = event.attempt
            self._add((_DURATION, (attempt.group, attempt.outcome.value)), attempt.duration)

    def _add(self, key: tuple[str, tuple[str, ...]], seconds: float) -> None:
        with self._lock:
            histogram = self._histograms.get(key)
            if histogram is None:
                self._histograms[key] = histogram = _Histogram(self._bounds)
            histogram.add(max(0.0, seconds))

    def read(self) -> list[tuple[tuple[str, tuple[str, ...]], _Histogram]]:
        """Return copies of all histograms."""
        with self._lock:
            return [
                (key, _Histogram(self._bounds, list(histogram.counts), histogram.total))
                for key, histogram in self._histograms.items()
            ]


# -- small things --------------------------------------------------------------------------------


def _bounds(buckets: Iterable[float]) -> tuple[float, ...]:
    if isinstance(buckets, str) or not isinstance(buckets, Iterable):
        raise InvalidType("buckets", buckets, "upper bounds in seconds, such as (0.1, 1, 10)")
    bounds = tuple(buckets)
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            raise InvalidType("buckets", bound, "upper bounds in seconds, such as (0.1, 1, 10)")
    if not bounds or any(not bound > 0 or bound == float("inf") for bound in bounds):
        raise InvalidValue("buckets", bounds, "finite bounds of more than 0 s")
    if list(bounds) != sorted(set(bounds)):
        raise InvalidValue("buckets", bounds, "bounds that rise")
    return tuple(float(bound) for bound in bounds)


def _prometheus() -> Any:
    """Return the module that makes families of metrics. Raises `MissingExtra`."""
    try:
        from prometheus_client import core
    except ImportError:
        raise MissingExtra("prometheus", "prometheus-client", "metrics for Prometheus") from None
    return core
