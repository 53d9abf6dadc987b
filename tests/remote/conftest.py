"""Clusters on this machine, each started by its own engine, and one that is a thread."""

import asyncio
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest

from retrypool.remote.host import Host
from retrypool.remote.specs import remote_workers

#: What CI says must be there: "dask ray".
REQUIRED = os.environ.get("RETRYPOOL_ENGINES", "").split()


def need(engine: str) -> None:
    module = {"dask": "distributed", "ray": "ray"}[engine]
    if importlib.util.find_spec(module) is None and engine not in REQUIRED:
        pytest.skip(f"{module} is not installed")


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """In place of the one for all tests: engines keep threads of their own. The pools' must be gone."""
    yield
    deadline = time.monotonic() + 5.0
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("pool-")]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left behind: {', '.join(left)}")
        time.sleep(0.01)


class Cluster:
    """Where remote workers can live, for tests that hold for each engine."""

    name: str
    has_processes = True  # that can be killed
    can_kill = False  # whether it ends a process that hangs

    def workers(self, factory: Callable[[Any], Any], arguments: Any, **options: Any) -> list[Any]:
        raise NotImplementedError


class LoopPlace:
    """A `Host` in this process, in an event loop that is a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.host: Host | None = Host()
        self.why: str | None = None  # it is lost

    def ask(self, method: str, *args: object, **kwargs: object) -> "Future[Any]":
        if self.host is None or self.why is not None:
            broken: Future[Any] = Future()
            broken.set_exception(OSError("it is gone"))
            return broken
        return asyncio.run_coroutine_threadsafe(getattr(self.host, method)(*args, **kwargs), self._loop)

    def lost(self, *, started: bool = True) -> str | None:
        return self.why

    def leave(self, *, lost: bool) -> None:
        self.host = None

    def kill(self) -> bool:
        return False


class LoopCluster(Cluster):
    """No engine at all: needs nothing, and runs everywhere."""

    name = "loop"
    has_processes = False

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="loop")
        self.thread.start()
        self.places: list[LoopPlace] = []
        self.place_now: Callable[[], Future[Any]] = self._place

    def _place(self) -> "Future[Any]":
        self.places.append(LoopPlace(self.loop))
        future: Future[Any] = Future()
        future.set_result(self.places[-1])
        return future

    def place(self) -> "Future[Any]":
        return self.place_now()

    def workers(self, factory: Callable[[Any], Any], arguments: Any, **options: Any) -> list[Any]:
        return remote_workers(
            self,
            factory,
            arguments,
            start_timeout=options.pop("start_timeout", 30.0),
            stop_timeout=5.0,
            **options,
        )

    def close(self) -> None:
        async def drain() -> None:
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(drain(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class DaskCluster(Cluster):
    name = "dask"

    def __init__(self) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
        )
        self.client = Client(self.cluster, direct_to_workers=True)

    def workers(self, factory: Callable[[Any], Any], arguments: Any, **options: Any) -> list[Any]:
        from retrypool.dask import dask_workers

        return dask_workers(self.client, factory, arguments, **options)

    def close(self) -> None:
        self.client.close()
        self.cluster.close()


class RayCluster(Cluster):
    name = "ray"
    can_kill = True

    def __init__(self) -> None:
        os.environ.update(RAY_AUTH_MODE="disabled", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
        import ray

        ray.init(
            address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False
        )

    def workers(self, factory: Callable[[Any], Any], arguments: Any, **options: Any) -> list[Any]:
        from retrypool.ray import ray_workers

        return ray_workers(factory, arguments, **options)

    def close(self) -> None:
        import ray

        ray.shutdown()


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[DaskCluster]:
    need("dask")
    cluster = DaskCluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    need("ray")
    cluster = RayCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def loop_cluster() -> Iterator[LoopCluster]:
    cluster = LoopCluster()
    yield cluster
    cluster.close()


ENGINES = [
    "loop",
    pytest.param("dask", marks=pytest.mark.dask),
    pytest.param("ray", marks=pytest.mark.ray),
]


@pytest.fixture(params=ENGINES)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Each of them in turn."""
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found


@pytest.fixture(params=ENGINES[1:])
def processes(request: pytest.FixtureRequest) -> Cluster:
    """Each that has processes, in turn."""
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found


@pytest.fixture
def stopped() -> Iterator[Callable[[int], None]]:
    """Stops processes, and lets them continue after the test at the latest."""
    pids: list[int] = []

    def stop(pid: int) -> None:
        pids.append(pid)
        os.kill(pid, signal.SIGSTOP)

    yield stop
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
