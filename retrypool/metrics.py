"""Metrics for Prometheus, read from pools when they are scraped. Needs the extra `retrypool[prometheus]`.

`expose(pool)` is all that most programs need, beside `prometheus_client.start_http_server(port)`.
"""

from retrypool.observe.metrics import BUCKETS, PoolCollector, expose

__all__ = ["BUCKETS", "PoolCollector", "expose"]
