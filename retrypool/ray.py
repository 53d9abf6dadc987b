"""Workers in processes of a Ray cluster: `ray_workers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from typing_extensions import Unpack

from retrypool.checks import Duration, seconds
from retrypool.errors import InvalidType, InvalidValue, MissingExtra
from retrypool.model.worker import AnyWorker, WorkerSpec
from retrypool.remote.specs import HandOptions, remote_workers

__all__ = ["ray_workers"]

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")


def ray_workers(
    factory: Callable[[A], AnyWorker[T, R]],
    arguments: Iterable[A],
    *,
    per_process: int = 1,
    num_cpus: float = 0,
    num_gpus: float = 0,
    resources: Mapping[str, float] | None = None,
    runtime_env: Mapping[str, object] | None = None,
    start_timeout: Duration = 60.0,
    stop_timeout: Duration = 5.0,
    silence: Duration = 30.0,
    **options: Unpack[HandOptions],
) -> list[WorkerSpec[T, R]]:
    """Return a worker for each of the arguments, for `Pool(...)`; each lives in a Ray actor.

    `factory(argument)` is called there, at the worker's first task, and again elsewhere when its process is
    lost. Call `ray.init` before. `name` is what the workers' names begin with; the other options are those of
    `WorkerSpec`.

    - `per_process`: how many workers share one process, which costs 50 MB and a second to start. With one,
      the default, `interrupt_on_timeout` ends the process, and so whatever hangs in it. With more it ends
      Python code only, as it does in threads.
    - `num_cpus`, `num_gpus`, `resources`, `runtime_env`: what a process is given, as in `ray.remote`.
    - `start_timeout`: seconds for making a worker, after which it is made anew.
    - `stop_timeout`: seconds that `on_stop` and the other hooks are waited for.
    - `silence`: seconds without an answer to a ping after which a process is taken for lost.

    retrypool must be installed there, and Python be of the same version. Raises `MissingExtra` without the
    extra `retrypool[ray]`, and `InvalidType` or `InvalidValue`.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "ray_workers") from error
    from retrypool.remote.ray import RayEngine

    if isinstance(per_process, bool) or not isinstance(per_process, int):
        raise InvalidType("per_process", per_process, "a whole number, 1 or more")
    if per_process < 1:
        raise InvalidValue("per_process", per_process, "a whole number, 1 or more")
    if not ray.is_initialized():  # pyright: ignore[reportAttributeAccessIssue]
        raise InvalidValue("Ray", "not initialized", "connected to a cluster: call ray.init() first")
    asked = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources, "runtime_env": runtime_env}
    engine = RayEngine(
        ray,
        per_process=per_process,
        silence=seconds("silence", silence),
        options={option: value for option, value in asked.items() if value is not None},
    )
    return remote_workers(
        engine, factory, arguments, start_timeout=start_timeout, stop_timeout=stop_timeout, **options
    )
