"""How many messages of a broker does a process work off, beside task queues with as many threads?"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .harness import OURS, Contest, Row, faster, scaled

THREADS = 8
MESSAGES = 20_000

_number = itertools.count(1).__next__


class Count:
    """What each message comes to: a call that counts, and knows when the first and the last came."""

    def __init__(self, wanted: int) -> None:
        self._wanted, self._calls = wanted, itertools.count(1).__next__
        self.first, self.last = 0.0, 0.0
        self.done = threading.Event()

    def __call__(self, *_arguments: object) -> None:
        number = self._calls()
        if number == 1:
            self.first = time.perf_counter()
        if number == self._wanted:
            self.last = time.perf_counter()
            self.done.set()

    def wait(self) -> None:
        if not self.done.wait(300):
            raise TimeoutError("not all messages came within five minutes")


def with_retrypool(url: str, name: str, size: int, count: Count) -> None:
    from retrypool import CancelToken, Pool
    from retrypool.sources import RabbitQueue, RedisStream

    source = (RedisStream if url.startswith("redis") else RabbitQueue)(url, name)
    source.send_many(range(size))
    stop = CancelToken()
    threading.Thread(target=lambda: (count.wait(), stop.cancel()), daemon=True).start()
    with Pool([count] * THREADS) as pool:
        pool.consume(source, window=500, cancel=stop)


def with_dramatiq(url: str, name: str, size: int, count: Count) -> None:
    def call(number: int) -> None:
        count(number)

    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.brokers.redis import RedisBroker

    broker: Any = RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=url)
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(call, actor_name="count", queue_name=name)
    for number in range(size):
        actor.send(number)
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    worker.start()
    count.wait()
    worker.stop()


def with_huey(url: str, name: str, size: int, count: Count) -> None:
    def call(number: int) -> None:
        count(number)

    from huey import RedisHuey

    queue = RedisHuey(name, url=url, results=False)
    task = queue.task()(call)
    for number in range(size):
        task(number)
    consumer = queue.create_consumer(workers=THREADS, worker_type="thread", periodic=False)
    consumer.start()
    count.wait()
    consumer.stop()


_counting: Callable[..., None]


def call_counter(number: int) -> None:
    """What RQ finds by its name."""
    _counting(number)


def with_rq(url: str, name: str, size: int, count: Count) -> None:
    """In one thread, as RQ has none: its workers are processes. This one does not fork, which is quicker."""
    global _counting  # noqa: PLW0603
    import redis
    from rq import Queue, SimpleWorker

    _counting = count
    connection = redis.Redis.from_url(url)
    queue = Queue(name, connection=connection)
    jobs = [Queue.prepare_data(call_counter, (number,)) for number in range(size)]
    for start in range(0, size, 1000):
        queue.enqueue_many(jobs[start : start + 1000])
    SimpleWorker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")
    count.wait()


def with_celery(url: str, name: str, size: int, count: Count) -> None:
    def call(number: int) -> None:
        count(number)

    from celery import Celery
    from celery.contrib.testing.worker import start_worker
    from kombu import Queue

    app = Celery("bench", broker=url, set_as_current=True)
    quorum = {"x-queue-type": "quorum"}
    app.conf.update(
        task_queues=[Queue(name, routing_key=name, queue_arguments=quorum)],
        task_default_queue=name,
        task_acks_late=True,
        worker_prefetch_multiplier=64,
        task_ignore_result=True,
        worker_hijack_root_logger=False,
        broker_transport_options={"confirm_publish": True},
        worker_detect_quorum_queues=True,
    )
    task = app.task(call, name="count")
    for number in range(size):
        task.delay(number)
    quiet: dict[str, Any] = {"perform_ping_check": False, "loglevel": "CRITICAL"}
    worker = start_worker(app, pool="threads", concurrency=THREADS, **quiet)
    worker.__enter__()  # left by the end of the process: stopping takes longer than it waits
    count.wait()


WITH: dict[str, Callable[[str, str, int, Count], None]] = {
    OURS: with_retrypool,
    "dramatiq": with_dramatiq,
    "huey": with_huey,
    "rq, one process": with_rq,
    "celery, threads": with_celery,
}


@functools.cache
def server(kind: str) -> str:
    """Return the URL of a server of our own, which the tests know how to start."""
    path = Path(__file__).parents[1] / "tests" / "sources" / "servers.py"
    spec = importlib.util.spec_from_file_location("servers", path)
    assert spec is not None
    assert spec.loader is not None
    servers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(servers)
    made = servers.RedisServer if kind == "redis" else servers.RabbitServer
    if reason := made.missing():
        raise RuntimeError(reason)
    folder = tempfile.TemporaryDirectory()
    running = made(Path(folder.name))
    running.start()
    atexit.register(folder.cleanup)
    atexit.register(running.stop)
    return str(running.url)


def measure(kind: str, engine: str, size: int) -> float:
    """Microseconds per message, from the first call to the last, in a process of its own."""
    name = f"bench-{os.getpid()}-{_number()}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sources", engine, server(kind), name, str(size)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    return float(done.stdout.split()[-1])


def contests(scale: float = 1.0) -> list[Contest]:
    def row(kind: str, engine: str, size: int, needs: str) -> Row:
        return Row(engine, functools.partial(measure, kind, engine), scaled(size, scale), needs=needs)

    redis = [
        row("redis", OURS, MESSAGES, "redis"),
        row("redis", "dramatiq", MESSAGES // 2, "dramatiq"),
        row("redis", "huey", MESSAGES // 2, "huey"),
        row("redis", "rq, one process", MESSAGES // 10, "rq"),
    ]
    rabbit = [
        row("rabbitmq", OURS, MESSAGES, "pika"),
        row("rabbitmq", "dramatiq", MESSAGES // 4, "dramatiq"),
        row("rabbitmq", "celery, threads", MESSAGES // 4, "celery"),
    ]
    peers = [each.label for each in redis[1:]], [each.label for each in rabbit[1:]]
    return [
        Contest(
            f"Redis, {THREADS} threads, messages with nothing to do",
            "µs per message",
            redis,
            tuple(faster(peer, 1.5) for peer in peers[0]),
            most_rounds=3,
        ),
        Contest(
            f"RabbitMQ, {THREADS} threads, messages with nothing to do",
            "µs per message",
            rabbit,
            tuple(faster(peer, 1.5) for peer in peers[1]),
            most_rounds=3,
        ),
    ]


if __name__ == "__main__":
    engine, url, name, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    counter = Count(size)
    WITH[engine](url, name, size, counter)
    print((counter.last - counter.first) / max(1, size - 1) * 1e6, flush=True)
    os._exit(0)  # peers leave threads behind
