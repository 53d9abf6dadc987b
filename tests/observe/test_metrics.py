"""What Prometheus is told, read as it reads it: from a scrape over HTTP."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

prometheus_client = pytest.importorskip("prometheus_client")
parser = pytest.importorskip("prometheus_client.parser")

from retrypool import InvalidType, InvalidValue, Pool, Rate, RetryPolicy, WorkerSpec  # noqa: E402
from retrypool.metrics import PoolCollector, expose  # noqa: E402
from retrypool.testing import ManualPool  # noqa: E402

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scraper:
    """A registry behind a real HTTP server, scraped and parsed as Prometheus does it."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._server, self._thread = prometheus_client.start_http_server(
            0, addr="127.0.0.1", registry=self.registry
        )

    def scrape(self) -> Samples:
        address = f"http://127.0.0.1:{self._server.server_port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as response:
            text = response.read().decode()
        samples: Samples = {}
        for family in parser.text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in samples, "Prometheus refuses a scrape with the same sample twice"
                samples[key] = sample.value
        return samples

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def scraper() -> Iterator[Scraper]:
    it = Scraper()
    yield it
    it.close()


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"retrypool_{name}", frozenset(labels.items())]


def test_scrape_tells_of_tasks_workers_and_attempts(scraper: Scraper) -> None:
    def fail(data: str) -> int:
        raise OSError(data)

    workers = [WorkerSpec(int, name="good"), WorkerSpec(fail, name="bad", group="shared", rate=Rate(5))]
    pool = ManualPool(workers, name="api", retry=RetryPolicy(attempts=2, delay=0))
    expose(pool, registry=scraper.registry)
    pool.dispatch("1")
    died = pool.dispatch("x")
    pool.claim(0).run()
    pool.claim(1).run()
    pool.claim(0).run()
    assert died.done()
    pool.dispatch("2")
    pool.dispatch("3", delay=60)
    running = pool.claim(0)
    samples = scraper.scrape()
    assert value(samples, "tasks", pool="api", state="running") == 1
    assert value(samples, "tasks", pool="api", state="queued") == 0
    assert value(samples, "tasks", pool="api", state="delayed") == 1
    assert value(samples, "tasks_ended_total", pool="api", state="succeeded") == 1
    assert value(samples, "tasks_ended_total", pool="api", state="dead") == 1
    assert value(samples, "tasks_ended_total", pool="api", state="cancelled") == 0
    assert value(samples, "retries_total", pool="api") == 1
    assert value(samples, "failures_total", pool="api") == 2
    assert value(samples, "dead_tasks", pool="api") == 1
    assert value(samples, "outage", pool="api") == value(samples, "outages_total", pool="api") == 0
    assert value(samples, "groups_ejected", pool="api") == value(samples, "ejections_total", pool="api") == 0
    assert value(samples, "workers", pool="api", state="active") == 2
    assert value(samples, "workers", pool="api", state="ejected") == 0
    assert value(samples, "worker_running", pool="api", worker="good", group="good") == 1
    assert value(samples, "attempts_total", pool="api", worker="good", group="good", outcome="succeeded") == 1
    assert value(samples, "attempts_total", pool="api", worker="bad", group="shared", outcome="failed") == 1
    assert value(samples, "group_rate", pool="api", group="shared") == 5
    running.finish(2)
    pool.force_close()


def test_counts_are_read_when_they_are_scraped(scraper: Scraper) -> None:
    with Pool([len] * 2, name="real") as pool:
        expose(pool, registry=scraper.registry)
        assert not pool._engine.guarded  # nobody listens: a task goes the quick way
        for expected in (10, 20):
            list(pool.map(["x"] * 10))
            samples = scraper.scrape()
            assert value(samples, "tasks_ended_total", pool="real", state="succeeded") == expected


def test_pools_and_workers_of_one_name_are_added_up(scraper: Scraper) -> None:
    twins = [WorkerSpec(len, name="twin", group="g"), WorkerSpec(len, name="twin", group="g")]
    first, second = ManualPool(twins, name="same"), ManualPool(twins, name="same")
    for pool in (first, second):
        assert expose(pool, registry=scraper.registry) is expose(pool, registry=scraper.registry)
        for worker_id in (0, 1):
            pool.dispatch("abc")
            pool.claim(worker_id).run()
    samples = scraper.scrape()
    assert value(samples, "attempts_total", pool="same", worker="twin", group="g", outcome="succeeded") == 4
    assert value(samples, "workers", pool="same", state="active") == 4


def test_histograms_tell_how_long_tasks_wait_and_attempts_take(scraper: Scraper) -> None:
    pool = ManualPool([len], name="api")
    expose(pool, registry=scraper.registry, histograms=True)
    pool.dispatch("abc")
    pool.clock.advance(2)
    attempt = pool.claim()
    pool.clock.advance(0.2)
    attempt.finish(3)
    samples = scraper.scrape()
    assert value(samples, "wait_seconds_sum", pool="api") == 2
    assert value(samples, "wait_seconds_bucket", pool="api", le="1.0") == 0
    assert value(samples, "wait_seconds_bucket", pool="api", le="2.5") == 1
    labels = {"pool": "api", "group": "worker-0", "outcome": "succeeded"}
    assert value(samples, "attempt_seconds_sum", **labels) == pytest.approx(0.2)
    assert value(samples, "attempt_seconds_bucket", **labels, le="0.1") == 0
    assert value(samples, "attempt_seconds_count", **labels) == 1


def test_pool_that_is_removed_is_told_of_no_more(scraper: Scraper) -> None:
    pool = ManualPool([len], name="api")
    collector = PoolCollector(pool, histograms=True)
    scraper.registry.register(collector)
    collector.remove(pool)
    collector.remove(pool)
    pool.dispatch("abc")
    pool.claim().run()
    assert not [name for name, _ in scraper.scrape() if name.startswith("retrypool")]


def test_collector_does_not_keep_a_pool(scraper: Scraper, no_garbage: None) -> None:
    with Pool([len], name="gone") as pool:
        collector = expose(pool, registry=scraper.registry)
    assert len(collector._pools) == 1
    pool = None  # type: ignore[assignment]
    import gc

    gc.collect()
    assert len(collector._pools) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"histograms": 1}, InvalidType),
        ({"buckets": "1"}, InvalidType),
        ({"buckets": ["1"]}, InvalidType),
        ({"buckets": []}, InvalidValue),
        ({"buckets": [1, 0.5]}, InvalidValue),
        ({"buckets": [0, 1]}, InvalidValue),
        ({"buckets": [1, float("inf")]}, InvalidValue),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        PoolCollector(**options)


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(InvalidType, match="a Pool"):
        PoolCollector(3)  # type: ignore[arg-type]


def test_histograms_are_settled_by_the_first_call() -> None:
    registry = prometheus_client.CollectorRegistry()
    pool = ManualPool([len])
    expose(pool, registry=registry)
    with pytest.raises(InvalidValue, match="histograms"):
        expose(pool, registry=registry, histograms=True)


def test_dashboard_asks_for_what_there_is() -> None:
    path = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"retrypool_\w+", target["expr"])
    }
    pool = ManualPool([WorkerSpec(len, rate=Rate(5))], name="api")
    registry = prometheus_client.CollectorRegistry()
    registry.register(PoolCollector(pool, histograms=True))
    pool.dispatch("abc")
    pool.claim().run()
    told = {sample.name for family in registry.collect() for sample in family.samples}
    assert asked
    assert asked <= told
    pool.close()
