"""One group alone: failures are put back without the lock, and looked at when many come in a row."""

from typing import Any

import pytest

from retrypool import HealthPolicy, RetryPolicy, TaskState, WorkerSpec
from retrypool.model.record import Record
from retrypool.testing import ManualPool

from .fleets import AT_ONCE, claimed, echo, fleet

DOWN = ConnectionError("down")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What has been entered under the lock."""
    from retrypool.core.failures import Failures

    entered: list[Any] = []
    enter = Failures.enter

    def note(self: Failures, slot: Any, task: Any, *rest: Any) -> Any:
        entered.append(task)
        return enter(self, slot, task, *rest)

    monkeypatch.setattr(Failures, "enter", note)
    return entered


def alike(workers: int, **options: Any) -> ManualPool[Any, Any]:
    """Workers of one group."""
    return ManualPool([WorkerSpec(echo, group="all")] * workers, **{"retry": AT_ONCE, **options})


def works(pool: ManualPool[Any, Any], worker: int = 0, times: int = 100) -> None:
    for number in range(times):
        pool.dispatch(number, priority=1)
        claimed(pool, worker).finish(number)
    pool.clock.advance(1)


def fails(pool: ManualPool[Any, Any], worker: int = 0, times: int = 1) -> None:
    """Let so many tasks fail that nobody has tried, while there are any."""
    for _ in range(times):
        claimed(pool, worker).fail(DOWN)


def holds(pool: ManualPool[Any, Any]) -> bool:
    return pool._engine.scheduler.fleet.quarantine.outage is not None


def test_third_failure_in_a_row_shows_an_outage_where_nothing_had_failed(looks: list[Any]) -> None:
    pool = alike(1)
    works(pool)
    pool.dispatch_many(range(10))
    for row in range(1, 4):
        assert not holds(pool)
        fails(pool)
        assert len(looks) == (row == 3)
    assert holds(pool)


def test_success_of_another_worker_meanwhile_ends_the_row() -> None:
    """The failures before it were counted by their worker alone."""
    pool = alike(2)
    works(pool)
    pool.dispatch_many(range(10))
    fails(pool, times=2)
    works(pool, 1, times=1)
    fails(pool)
    assert not holds(pool)


def test_what_has_failed_before_the_last_success_of_its_worker_is_not_of_the_row() -> None:
    pool = alike(2)
    works(pool)
    pool.dispatch_many(range(10))
    fails(pool, times=2)
    works(pool, times=1)
    fails(pool, times=2)
    assert not holds(pool)


def test_same_task_over_and_over_is_one_of_a_row(looks: list[Any]) -> None:
    pool = alike(1, retry=RetryPolicy(attempts=100, delay=0))
    works(pool)
    pool.dispatch("bad")
    for _ in range(50):
        claimed(pool).fail(DOWN)
    assert looks == []


@pytest.mark.parametrize(("health", "most"), [(HealthPolicy(outage_limit=0), 12), (None, 0)])
def test_long_row_is_looked_at_each_time_that_it_has_doubled(
    health: HealthPolicy | None, most: int, looks: list[Any]
) -> None:
    pool = alike(1, health=health)
    works(pool)
    tasks = pool.dispatch_many(range(5000))
    for _ in tasks:
        claimed(pool).fail(DOWN)
    assert len(looks) <= most
    for task in tasks:
        claimed(pool).finish("well")
        assert [attempt.outcome.value for attempt in task.history] == ["failed", "succeeded"]


def test_tasks_that_are_about_to_die_are_always_looked_at(looks: list[Any]) -> None:
    pool = fleet("a", retry=RetryPolicy(attempts=2, delay=0), health=None)
    task = pool.dispatch("bad")
    claimed(pool).fail(DOWN)
    assert looks == []
    claimed(pool).fail(DOWN)
    assert looks == [task]
    assert task.exception() is DOWN


class CancelledOnTheWay(Record):
    """A record whose task is cancelled between the first look and the second one (handshake H7)."""

    looks = 0

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        self.looks += 1
        return self.looks > 1

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        """Leave it to the looks."""


def test_failure_that_is_taken_back_because_its_task_is_cancelled_counts_once() -> None:
    """What is entered under the lock is not one that its worker has passed by."""
    pool = alike(1)
    works(pool)
    task = pool.dispatch("x")
    attempt = claimed(pool)
    task._record = CancelledOnTheWay(task.id)
    attempt.fail(DOWN)
    assert task.state is TaskState.CANCELLED
    assert len(task.history) == 1
    beliefs = pool._engine.scheduler.fleet.quarantine.beliefs
    assert beliefs is not None
    assert beliefs.row.length == 1
