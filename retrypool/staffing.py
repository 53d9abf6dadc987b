"""The part of a pool's interface that is about its workers."""

from __future__ import annotations

from threading import TIMEOUT_MAX
from typing import Any, Generic

from typing_extensions import TypeVar, Unpack

from retrypool.checks import Duration, seconds
from retrypool.errors import InvalidType
from retrypool.model.worker import AnyWorker, SpecOptions, WorkerInfo, WorkerSpec, as_spec
from retrypool.threads.engine import Engine
from retrypool.threads.interrupt import shielded
from retrypool.threads.outcome import Fate
from retrypool.threads.workers import Then, Workers

__all__ = ["Staffing"]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)


class Staffing(Generic[T, R]):
    """Adding, removing, pausing and looking at workers. A base of `Pool`, and of nothing else."""

    _engine: Engine[T, R]
    _workers: Workers[T, R]

    def add_worker(
        self,
        worker: AnyWorker[T, R] | WorkerSpec[T, R] | None = None,
        **options: Unpack[SpecOptions[T, R]],
    ) -> int:
        """Add a worker, start its thread, and return its id.

        The options are those of `WorkerSpec`, and stand in place of what a spec says. Raises
        `PoolClosed`, and `InvalidType` or `InvalidValue` for what is no worker or makes no sense.
        """
        return self._workers.add(as_spec(worker, **options))

    def remove_worker(self, worker_id: int, timeout: Duration = 5.0, *, force: bool = False) -> None:
        """Let a worker leave, and wait for it.

        It takes nothing new, is asked through `ctx.stopping`, and its task may end within `timeout`
        seconds. After that the task is run elsewhere, at no charge; `ctx.cancelled` tells the code that
        still runs, with `force` it is interrupted, and its thread is left alone. Raises
        `WorkerNotFound`.
        """
        self._workers.remove(worker_id, min(seconds("timeout", timeout), TIMEOUT_MAX), force=force)

    def interrupt_worker(
        self, worker_id: int, *, task: Fate = "retry", then: Then = "keep", force: bool = False
    ) -> bool:
        """End what a worker runs, at once; return whether it ran anything.

        The task is run elsewhere at no charge (`"retry"`), ends cancelled (`"drop"`), or is dead
        (`"dead"`). The worker's thread is told through `ctx.cancelled`, and with `force` interrupted;
        until it comes back, the worker is occupied. Then it goes on (`"keep"`), is paused, restarted or
        removed. Raises `WorkerNotFound`, and `InvalidValue` for other words.
        """
        return self._workers.interrupt(worker_id, task, then, force=force)

    def restart_worker(self, worker_id: int) -> None:
        """Have a worker made anew, after what it runs: on_stop, its factory if it has one, on_start.

        One that is stuck and has a factory gets a new thread at once; one that could not be started is
        started again. Raises `WorkerNotFound`.
        """
        self._workers.restart(worker_id)

    def replace_worker(
        self,
        worker_id: int,
        worker: AnyWorker[T, R] | WorkerSpec[T, R] | None = None,
        **options: Unpack[SpecOptions[T, R]],
    ) -> None:
        """Put another resource in a worker's place, after what it runs: same id, name and group.

        What is known against its group is forgotten, and it is resumed if it was cordoned. One that is
        stuck, or could not be started, gets a new thread at once. Of a spec, `worker` and `factory`
        count. Raises `WorkerNotFound`, and what `add_worker` raises.
        """
        self._workers.supplant(worker_id, as_spec(worker, **options))

    def cordon_worker(self, worker_id: int, reason: str) -> None:
        """Give a worker nothing more for good, because its key was revoked, say; what it runs, it ends.

        Unlike a paused one, it counts as gone: no task waits for it. `workers()` shows the reason;
        `resume_worker` and `replace_worker` bring it back. Raises `WorkerNotFound`.
        """
        if not isinstance(reason, str):
            raise InvalidType("reason", reason, "a string")
        self._workers.cordon(worker_id, reason)

    def pause_worker(self, worker_id: int) -> None:
        """Give a worker nothing more until `resume_worker`; what it runs, it ends."""
        self._workers.pause(worker_id)

    def resume_worker(self, worker_id: int) -> None:
        """Give a worker tasks again that was paused or cordoned."""
        self._workers.resume(worker_id)

    @shielded
    def pause(self) -> None:
        """Give no worker anything until `resume`. Tasks are still accepted.

        Raises `PoolClosed`: a pool that closes runs what it has.
        """
        engine = self._engine
        with engine.lock:
            if refusal := engine.closing_refusal():
                raise refusal
            engine.scheduler.fleet.pause_all()
            happened = engine.decided()
        engine.act(happened)

    @shielded
    def resume(self) -> None:
        """Give the workers tasks again, but for those that were paused one by one."""
        engine = self._engine
        with engine.lock:
            engine.scheduler.fleet.resume_all()
            engine.scheduler.schedules.catch_up()
            happened = engine.decided()
        engine.act(happened)

    def workers(self) -> list[WorkerInfo]:
        """Return what there is to tell of each worker now."""
        return self._workers.infos()
