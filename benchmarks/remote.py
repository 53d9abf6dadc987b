"""What does a call to a remote worker cost through the pool, beside bare actor calls of the same engine?"""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from .harness import Contest, Row, faster, scaled

PROCESSES = 4
CALLS = 2_000
HANDS = (4, 40, 400)
BARE = "bare actors, a thread each"


class Echo:
    """A bare actor, and what the pool's workers do. Some calls take their time."""

    def call(self, seconds: float) -> float:
        if seconds:
            time.sleep(seconds)
        return seconds


def make(_number: int) -> Any:
    return Echo().call


@functools.cache
def dask_client() -> Any:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=PROCESSES, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
    )
    client = Client(cluster, direct_to_workers=True)
    atexit.register(cluster.close)
    atexit.register(client.close)
    return client


@functools.cache
def ray_module() -> Any:
    import ray

    ray.init(address="local", num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False)
    return ray


@functools.cache
def pool(engine: str, hands: int) -> Any:
    """A pool whose workers have all been called once."""
    from retrypool import Pool

    if engine == "dask":
        from retrypool.dask import dask_workers

        workers = dask_workers(dask_client(), make, range(hands), start_timeout=300)
    else:
        from retrypool.ray import ray_workers

        ray_module()
        workers = ray_workers(make, range(hands), per_process=max(1, hands // PROCESSES), start_timeout=300)
    made: Any = Pool(workers)
    for task in [made.dispatch(0.0, worker=number) for number in range(hands)]:
        task.result()
    return made


@functools.cache
def bare(engine: str, hands: int) -> Sequence[Callable[[float], float]]:
    """A function for each actor that calls it and waits. As many processes as the pool has."""
    if engine == "dask":
        client = dask_client()
        futures = [client.submit(Echo, actor=True, pure=False, key=f"bare-{hands}-{n}") for n in range(hands)]
        actors = [future.result() for future in futures]

        def ask_dask(actor: Any, seconds: float) -> Any:
            return actor.call(seconds).result()

        return [functools.partial(ask_dask, actor) for actor in actors]
    ray = ray_module()
    share = max(1, hands // PROCESSES)
    kind = ray.remote(Echo).options(num_cpus=0, max_concurrency=share)
    processes = [kind.remote() for _ in range(min(hands, PROCESSES))]

    def ask_ray(actor: Any, seconds: float) -> Any:
        return ray.get(actor.call.remote(seconds))

    found = [functools.partial(ask_ray, processes[n % len(processes)]) for n in range(hands)]
    for ask in found:
        ask(0.0)
    return found


@functools.cache
def threads(hands: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(hands)


def with_pool(size: int, engine: str, hands: int, seconds: float) -> float:
    """Microseconds per call."""
    ready = pool(engine, hands)
    started = perf_counter()
    ready.dispatch_many([seconds] * size)
    ready.wait()
    return (perf_counter() - started) / size * 1e6


def with_bare_actors(size: int, engine: str, hands: int, seconds: float) -> float:
    """The same: each thread calls its actor as long as there is something to do."""
    asks = bare(engine, hands)
    left = iter(range(size))
    taking = threading.Lock()

    def work(ask: Callable[[float], float]) -> None:
        while True:
            with taking:
                if next(left, None) is None:
                    return
            ask(seconds)

    started = perf_counter()
    list(threads(hands).map(work, asks))
    return (perf_counter() - started) / size * 1e6


def contests(scale: float = 1) -> list[Contest]:
    found = []
    for engine, module in (("dask", "distributed"), ("ray", "ray")):
        for hands, seconds in [*((hands, 0.0) for hands in HANDS), (40, 0.05)]:
            calls = scaled(CALLS if not seconds else CALLS // 4, scale)
            options = {"engine": engine, "hands": hands, "seconds": seconds}
            rows = [
                Row("retrypool", functools.partial(with_pool, **options), calls, module),
                Row(BARE, functools.partial(with_bare_actors, **options), calls, module),
            ]
            what = "no-op" if not seconds else f"{seconds * 1000:g} ms"
            setting = f"{engine}, {what}, {hands} hands in {PROCESSES} processes"
            found.append(Contest(setting, "µs/call", rows, (faster(BARE, 0.8),)))
    return found
