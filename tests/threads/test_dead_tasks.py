"""Dead tasks are kept with all that is known of them, and can be taken out or given another chance."""

from typing import Any

import pytest

from retrypool import DeadReason, PoolClosed, RetryPolicy, TaskNotFound, TaskState, Unrecoverable


class Numbers:
    """Fails for what is no number, until it is told to accept anything."""

    def __init__(self) -> None:
        self.tolerant = False

    def run(self, ctx: Any, data: str) -> Any:
        return data if self.tolerant else int(data)


AT_ONCE = RetryPolicy(attempts=2, delay=0)


def died(stage: Any, *data: str, **options: Any) -> Any:
    """Return a pool in which these have died, in this order."""
    pool = stage.pool([Numbers()], retry=AT_ONCE, **options)
    for each in data:
        pool.dispatch(each, name=f"name of {each}").exception(stage.within)
    return pool


def tolerant(pool: Any) -> Any:
    next(iter(pool._workers)).worker.tolerant = True
    return pool


def test_dead_task_has_all_that_is_known(stage: Any) -> None:
    pool = stage.pool([Numbers()], retry=AT_ONCE, options={"of": "the pool"})
    task = pool.dispatch("x", name="ex")
    task.exception(stage.within)
    (dead,) = pool.dead_tasks()
    assert (dead.id, dead.name, dead.data, dead.reason) == (task.id, "ex", "x", DeadReason.ATTEMPTS)
    assert dead.error is task.exception()
    assert dead.errors == task.errors
    assert (dead.attempts, len(dead.history)) == (2, 2)
    assert list(dead.history) == task.history
    assert dead.duration == task.duration >= 0
    assert dict(dead.options) == {"of": "the pool"}
    pool.close(timeout=stage.within)


def test_reason_of_an_unrecoverable_task(stage: Any) -> None:
    def refuse(data: object) -> None:
        raise Unrecoverable(data)

    with stage.pool([refuse] * 2) as pool:
        task = pool.dispatch("x")
    (dead,) = pool.dead_tasks()
    assert (dead.reason, dead.attempts) == (DeadReason.UNRECOVERABLE, 1)
    assert isinstance(task.exception(), Unrecoverable)


def test_reason_of_a_task_that_is_not_to_be_retried(stage: Any) -> None:
    with stage.pool([int]) as pool:
        pool.dispatch("x", retry=RetryPolicy(retry_if=OSError))
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.NOT_RETRYABLE]


def test_list_of_dead_tasks_is_a_copy_the_oldest_first(stage: Any) -> None:
    pool = died(stage, "x", "y", "z")
    dead = pool.dead_tasks()
    assert [each.data for each in dead] == ["x", "y", "z"]
    dead.clear()
    assert pool.dead_count == len(pool.dead_tasks()) == 3
    pool.close(timeout=stage.within)


def test_pulled_task_is_out_of_the_pool(stage: Any) -> None:
    pool = died(stage, "x", "y")
    first = pool.dead_tasks()[0]
    assert pool.pull_dead_task(first.id) is first
    assert [each.data for each in pool.dead_tasks()] == ["y"]
    for call in (pool.pull_dead_task, pool.requeue_dead_task):
        with pytest.raises(TaskNotFound, match=f"no task {first.id} among the dead tasks"):
            call(first.id)
    assert pool.stats().died == 2
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("task_id", [0, -1, "1", None, [], 1.5])
def test_id_of_no_dead_task_is_not_found(stage: Any, task_id: Any) -> None:
    pool = died(stage, "x")
    for call in (pool.pull_dead_task, pool.requeue_dead_task):
        with pytest.raises(TaskNotFound):
            call(task_id)
    assert pool.dead_count == 1
    pool.close(timeout=stage.within)


def test_requeued_task_has_the_same_id_fresh_attempts_and_its_history(stage: Any) -> None:
    pool = died(stage, "x")
    (dead,) = pool.dead_tasks()
    task = tolerant(pool).requeue_dead_task(dead.id)
    assert task.result(stage.within) == "x"
    assert (task.id, task.name, task.data) == (dead.id, "name of x", "x")
    assert [attempt.number for attempt in task.history] == [1, 2, 1]
    assert task.history[:2] == list(dead.history)
    assert (task.attempts, len(task.errors)) == (3, 2)
    assert pool.dead_tasks() == []
    pool.close(timeout=stage.within)
    stats = pool.stats()
    assert (stats.died, stats.succeeded, stats.dispatched, stats.dead) == (1, 1, 2, 0)


def test_task_that_is_requeued_dies_again_after_as_many_attempts(stage: Any) -> None:
    pool = died(stage, "x", "y")
    task = pool.requeue_dead_task(pool.dead_tasks()[0].id)
    task.exception(stage.within)
    assert task.state is TaskState.DEAD
    dead = pool.dead_tasks()
    assert [(each.data, each.attempts) for each in dead] == [("y", 2), ("x", 4)]
    assert [attempt.number for attempt in dead[1].history] == [1, 2, 1, 2]
    pool.close(timeout=stage.within)


def test_future_of_the_dead_task_stays_as_it_is_when_it_is_requeued(stage: Any) -> None:
    pool = stage.pool([Numbers()], retry=AT_ONCE)
    first = pool.dispatch("x")
    error = first.exception(stage.within)
    tolerant(pool).requeue_dead_task(first.id).result(stage.within)
    assert first.exception() is error
    assert first.attempts == 2
    pool.close(timeout=stage.within)


def test_dead_task_cannot_be_requeued_after_close_and_stays(stage: Any) -> None:
    pool = died(stage, "x")
    pool.close(timeout=stage.within)
    (dead,) = pool.dead_tasks()
    with pytest.raises(PoolClosed):
        pool.requeue_dead_task(dead.id)
    assert pool.dead_tasks() == [dead]
    assert pool.pull_dead_task(dead.id) is dead


@pytest.mark.parametrize(("limit", "kept"), [(0, []), (1, ["z"]), (2, ["y", "z"]), (3, ["x", "y", "z"])])
def test_dead_limit_drops_the_oldest_and_counts_them(stage: Any, limit: int, kept: list[str]) -> None:
    pool = died(stage, "x", "y", "z", dead_limit=limit)
    assert [each.data for each in pool.dead_tasks()] == kept
    stats = pool.stats()
    assert (stats.died, stats.dead, stats.dead_dropped) == (3, len(kept), 3 - len(kept))
    pool.close(timeout=stage.within)


def test_dead_tasks_are_told_to_on_dead_also_those_that_are_not_kept(stage: Any) -> None:
    told: list[Any] = []
    pool = died(stage, "x", "y", dead_limit=0, on_dead=told.append)
    pool.close(timeout=stage.within)
    assert [dead.data for dead in told] == ["x", "y"]
