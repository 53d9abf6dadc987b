"""Cases that take the whole pool, stepped by hand: what the core is told, and by whom."""

import pytest

from retrypool import RetryPolicy, TaskState, Throttled, WorkerSpec
from retrypool.testing import ManualPool


def probing_pool() -> ManualPool[str, str]:
    """Two workers of one group, and the first of them runs its probe."""
    pool: ManualPool[str, str] = ManualPool([WorkerSpec(str, group="g"), WorkerSpec(str, group="g")])
    pool.dispatch("probe")
    attempt = pool.claim(0)
    assert attempt is not None
    attempt.fail(Throttled(retry_after=1))
    pool.clock.advance(1)
    assert pool.claim(0) is not None
    pool.dispatch("next")
    assert pool.claim(1) is None
    return pool


def test_probe_that_is_cancelled_lets_another_try() -> None:
    """Its thread may never come back."""
    pool = probing_pool()
    (probe,) = (task for task in pool.tasks() if task.state is TaskState.RUNNING)
    assert pool.cancel_task(probe)
    assert pool.claim(1) is not None
    pool.force_close()


def test_probe_that_is_removed_lets_another_try() -> None:
    pool = probing_pool()
    pool.remove_worker(0, timeout=0)
    assert pool.claim(1) is not None
    pool.force_close()


def test_dead_task_that_cannot_be_requeued_stays_among_the_dead() -> None:
    """Its cost is asked again, and the function fails this time."""
    costs = iter([1.0])
    pool = ManualPool([str], retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x", cost=lambda data: next(costs))
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(OSError())
    with pytest.raises(StopIteration):
        pool.requeue_dead_task(task.id)
    assert [dead.id for dead in pool.dead_tasks()] == [task.id]
    pool.force_close()
