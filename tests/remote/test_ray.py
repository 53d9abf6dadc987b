"""What is Ray's own."""

from typing import Any

import pytest

from retrypool import InvalidType, InvalidValue, Pool, RetryPolicy

from .test_remote_workers import caller, echo

pytestmark = pytest.mark.ray


def test_workers_can_share_processes(ray_cluster: Any) -> None:
    import os

    def work(ctx: Any) -> int:
        return os.getpid()

    with Pool(ray_cluster.workers(caller(), range(5), per_process=2)) as pool:
        assert len({pool.dispatch(work, worker=n).result() for n in range(5)}) == 3


def test_interrupt_spares_the_others_in_the_process(ray_cluster: Any) -> None:
    import os

    def spin(ctx: Any) -> int:
        while ctx.attempt == 1:
            pass
        return os.getpid()

    workers = ray_cluster.workers(caller(), ["a", "b"], per_process=2)
    with Pool(workers, interrupt_on_timeout=True, grace=60) as pool:
        [process] = {pool.dispatch(lambda ctx: os.getpid(), worker=n).result() for n in range(2)}
        task = pool.dispatch(spin, timeout=1, retry=RetryPolicy(attempts=9))
        assert task.result() == process
        spun = task.history[0].worker_id
        assert pool.dispatch(lambda ctx: os.getpid(), worker=spun).result() == process


def test_each_thread_of_a_worker_has_a_far_side_of_its_own(ray_cluster: Any) -> None:
    import os

    def work(ctx: Any) -> int:
        ctx.sleep(0.2)
        return os.getpid()

    with Pool(ray_cluster.workers(caller(), ["a"], concurrency=2)) as pool:
        assert len({task.result() for task in pool.dispatch_many([work] * 8)}) == 2


def test_wrong_options_are_refused(ray_cluster: Any) -> None:
    from retrypool.ray import ray_workers

    with pytest.raises(InvalidValue, match="per_process"):
        ray_workers(echo(), ["a"], per_process=0)
    with pytest.raises(InvalidType, match="per_process"):
        ray_workers(echo(), ["a"], per_process="1")  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="an option"):
        ray_workers(echo(), ["a"], nme="x")  # type: ignore[call-arg]
    with pytest.raises(InvalidValue, match="silence"):
        ray_workers(echo(), ["a"], silence=-1)


def test_ray_must_be_initialized(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from retrypool.ray import ray_workers

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InvalidValue, match=r"ray\.init"):
        ray_workers(echo(), ["a"])
