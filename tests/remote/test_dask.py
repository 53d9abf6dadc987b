"""What is Dask's own: its scheduler, its clients."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retrypool import InvalidType, InvalidValue, Outcome, Pool, RetryPolicy, WorkerLost, fixed

from .conftest import need
from .test_remote_workers import caller, echo

pytestmark = pytest.mark.dask


@pytest.fixture
def spawn() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts the command of a scheduler or a worker."""
    need("dask")
    children: list[subprocess.Popen[bytes]] = []

    def start(what: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *arguments]
        children.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        return children[-1]

    yield start
    for child in children:
        child.kill()
    for child in children:
        child.wait(20)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_pool_goes_on_when_the_scheduler_was_killed_and_started_again(
    spawn: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    from distributed import Client

    port = free_port()
    scheduler = "scheduler", "--host", "127.0.0.1", "--port", str(port)
    worker = "worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny"
    first = spawn(*scheduler)
    spawn(*worker)

    def work(ctx: Any) -> int:
        ctx.sleep(0.01)
        return ctx.attempt  # type: ignore[no-any-return]

    with (
        Client(f"tcp://127.0.0.1:{port}", timeout="40s", direct_to_workers=True) as client,
        Pool(_workers(client, caller(), ["a", "b"]), retry=RetryPolicy(attempts=1), timeout=30) as pool,
    ):
        tasks = pool.dispatch_many([work] * 400)
        tasks[20].result(30)
        first.kill()
        spawn(*scheduler)
        spawn(*worker)  # those of before have ended, as Dask's do
        attempts = [task.result(50) for task in tasks]
    assert len(attempts) == 400
    outcomes = {attempt.outcome for task in tasks for attempt in task.history}
    assert outcomes == {Outcome.SUCCEEDED, Outcome.WORKER_FAULT}
    assert pool.dead_tasks() == []


def _workers(client: Any, *arguments: Any, **options: Any) -> Any:
    from retrypool.dask import dask_workers

    return dask_workers(client, *arguments, **options)


def test_client_that_is_not_the_default_one_will_do(dask_cluster: Any) -> None:
    from distributed import Client

    with (
        Client(dask_cluster.cluster, set_as_default=False) as other,
        Pool(_workers(other, echo(), ["a", "b"])) as pool,
    ):
        assert len(list(pool.map(range(20)))) == 20


def test_closed_client_ends_the_tasks_with_a_clear_error(dask_cluster: Any) -> None:
    """Nobody can work any more: so nothing is tried for long."""
    from distributed import Client

    with Client(dask_cluster.cluster) as client:
        pool = Pool(
            _workers(client, echo(), ["a", "b", "c", "d"]), retry=RetryPolicy(attempts=2, delay=fixed(0))
        )
        pool.dispatch(1).result()
    with pool:
        tasks = pool.dispatch_many(range(50))
        for task in tasks:
            error = task.exception(20)
            assert isinstance(error, WorkerLost)
            assert "client is closed" in str(error)
    assert len(pool.dead_tasks()) == 50


def test_function_that_makes_a_client_makes_another_when_it_has_closed(dask_cluster: Any) -> None:
    from distributed import Client

    made: list[Any] = []

    def connect() -> Any:
        made.append(Client(dask_cluster.cluster.scheduler_address, set_as_default=False))
        return made[-1]

    with Pool(_workers(connect, echo(), ["a", "b"]), timeout=30) as pool:
        assert len(list(pool.map(range(10)))) == 10
        made[0].close()
        assert len(list(pool.map(range(10)))) == 10
    assert len(made) == 2
    made[1].close()


def test_workers_may_be_kept_to_some_processes(dask_cluster: Any) -> None:
    import os

    address = min(dask_cluster.client.scheduler_info()["workers"])
    with Pool(dask_cluster.workers(caller(), ["a", "b", "c", "d"], workers=[address])) as pool:
        pids = {pool.dispatch(lambda ctx: os.getpid(), worker=n).result() for n in range(4)}
        assert len(pids) == 1


def test_wrong_clients_are_refused(dask_cluster: Any) -> None:
    from distributed import Client

    with pytest.raises(InvalidType, match="client"):
        _workers("tcp://127.0.0.1:8786", echo(), "a")
    with pytest.raises(InvalidType, match="workers"):
        _workers(dask_cluster.client, echo(), ["a"], workers="tcp://127.0.0.1:8786")
    with pytest.raises(InvalidType, match="an option"):
        _workers(dask_cluster.client, echo(), ["a"], nme="x")
    with pytest.raises(InvalidType, match="factory"):
        _workers(dask_cluster.client, None, ["a"])

    async def asynchronous() -> None:
        client = Client(dask_cluster.cluster.scheduler_address, asynchronous=True, set_as_default=False)
        try:
            with pytest.raises(InvalidValue, match="asynchronous"):
                _workers(client, echo(), ["a"])
        finally:
            await client
            await client.close()

    dask_cluster.client.sync(asynchronous)
