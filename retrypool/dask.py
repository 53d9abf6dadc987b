"""Workers in the processes of a Dask cluster: `dask_workers`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import Unpack

from retrypool.checks import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue, MissingExtra
from retrypool.model.worker import AnyWorker, WorkerSpec
from retrypool.remote.specs import HandOptions, remote_workers

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["dask_workers"]

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")


def dask_workers(
    client: Client | Callable[[], Client],
    factory: Callable[[A], AnyWorker[T, R]],
    arguments: Iterable[A],
    *,
    workers: Collection[str] | None = None,
    resources: Mapping[str, float] | None = None,
    start_timeout: Duration = 60.0,
    stop_timeout: Duration = 5.0,
    silence: Duration = 30.0,
    **options: Unpack[HandOptions],
) -> list[WorkerSpec[T, R]]:
    """Return a worker for each of the arguments, for `Pool(...)`; each lives in a process of the cluster.

    `factory(argument)` is called there, at the worker's first task, and again elsewhere when its process is
    lost. Each worker has a thread of its own, whatever else runs in the process. `name` is what the workers'
    names begin with; the other options are those of `WorkerSpec`.

    - `client`: a client, or a function that makes one. A client closes itself when the scheduler is away for
      longer than its timeout; then tasks fail, unless there is a function to make another one with.
    - `workers`, `resources`: which processes may be taken, as in `Client.submit`; default: any.
    - `start_timeout`: seconds for making a worker, after which it is made elsewhere.
    - `stop_timeout`: seconds that `on_stop` and the other hooks are waited for.
    - `silence`: seconds without a heartbeat after which a process is taken for lost.

    retrypool must be installed there, and Python be of the same minor version. Raises `MissingExtra` without
    the extra `retrypool[dask]`, and `InvalidType` or `InvalidValue`.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("dask", "distributed", "dask_workers") from error
    from retrypool.remote.dask import DaskEngine

    connect = None if isinstance(client, Client) or not callable(client) else client
    client = client if connect is None else connect()
    if not isinstance(client, Client):
        raise InvalidType("client", client, "a distributed.Client, or a function that makes one")
    if client.asynchronous:  # pyright: ignore[reportFunctionMemberAccess]
        raise InvalidValue("client", client, "a Client that is not asynchronous")
    if isinstance(workers, str):
        raise InvalidType("workers", workers, "a list of addresses")
    engine = DaskEngine(
        client, connect, silence=seconds("silence", silence), workers=workers, resources=resources
    )
    return remote_workers(
        engine, factory, arguments, start_timeout=start_timeout, stop_timeout=stop_timeout, **options
    )
