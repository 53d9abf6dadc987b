"""An outage is nobody's fault: the pool holds, charges nothing, and goes on at the first success."""

import itertools
from typing import Any

import pytest

from retrypool import HealthPolicy, RetryPolicy, TaskState
from retrypool.events import OutageBegan, OutageEnded
from retrypool.testing import ManualPool

from .fleets import claimed, fleet, heard, outcomes, states

DOWN = ConnectionError("down")


def works(pool: ManualPool[Any, Any], times: int = 100) -> None:
    for number in range(times):
        pool.dispatch(number)
        claimed(pool).finish(number)


def goes_down(pool: ManualPool[Any, Any], error: Exception = DOWN) -> list[Any]:
    """Let every group fail a different task, all at the same time."""
    tasks = pool.dispatch_many(range(10))
    for attempt in [claimed(pool, worker) for worker in (0, 1, 2)]:
        attempt.fail(error)
    return list(tasks)


def holds(pool: ManualPool[Any, Any]) -> bool:
    return pool._engine.scheduler.fleet.quarantine.outage is not None


def probe(pool: ManualPool[Any, Any]) -> Any:
    """Let the time pass until somebody is given a task."""
    for _ in range(20):
        for worker in range(3):
            if (attempt := pool.claim(worker)) is not None:
                return attempt
        wakeup = pool._engine.scheduler.next_wakeup()
        assert wakeup is not None
        pool.clock.advance(max(0.0, wakeup - pool.clock.monotonic()))
    raise AssertionError("nobody is given anything")


def test_pool_holds_when_all_groups_fail_and_goes_on_at_the_first_success() -> None:
    events, listen = heard((OutageBegan, OutageEnded))
    pool = fleet("a", "b", "c", listeners=[listen])
    works(pool)
    tasks = goes_down(pool)
    assert holds(pool)
    probe(pool).finish("up again")
    assert not holds(pool)
    assert [type(event) for event in events] == [OutageBegan, OutageEnded]
    while pool.tasks():
        claimed(pool).finish("well")
    assert all(task.state is TaskState.SUCCEEDED for task in tasks)


def test_one_probe_is_made_at_a_time() -> None:
    pool = fleet("a", "b", "c")
    works(pool)
    goes_down(pool)
    probe(pool)
    pool.clock.advance(0.1)
    assert [pool.claim(worker) for worker in range(3) if not pool.workers()[worker].task_ids] == [None] * 2


def test_nothing_is_charged_in_an_outage_nor_for_what_showed_it() -> None:
    pool = fleet("a", "b", "c", retry=RetryPolicy(attempts=2, delay=0))
    works(pool)
    tasks = goes_down(pool)
    for _ in range(40):
        probe(pool).fail(DOWN)
    assert holds(pool)
    assert not any(task.done() for task in tasks)
    assert {outcome for task in tasks for _, outcome in outcomes(task)} == {"excused"}


def test_probes_come_at_growing_intervals() -> None:
    pool = fleet("a", "b", "c")
    works(pool)
    goes_down(pool)
    moments = []
    for _ in range(30):
        attempt = probe(pool)
        moments.append(pool.clock.monotonic())
        attempt.fail(DOWN)
    gaps = [round(later - earlier, 9) for earlier, later in itertools.pairwise(moments)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.01
    assert gaps[-1] == 2.0


@pytest.mark.parametrize(("error", "lasts"), [(ValueError("bad item"), 1.0), (DOWN, 300.0)])
def test_outage_is_short_unless_its_errors_speak_of_the_network(error: Exception, lasts: float) -> None:
    pool = fleet("a", "b", "c")
    works(pool)
    goes_down(pool, error)
    outage = pool._engine.scheduler.fleet.quarantine.outage
    assert outage is not None
    assert outage.until - outage.began == lasts


def test_blame_may_say_that_an_error_speaks_of_an_outage() -> None:
    pool = fleet("a", "b", "c", blame={LookupError: "outage"})
    works(pool)
    goes_down(pool, KeyError("gone"))
    outage = pool._engine.scheduler.fleet.quarantine.outage
    assert outage is not None
    assert outage.network


def test_tasks_are_to_blame_when_the_limit_is_over_until_something_succeeds() -> None:
    events, listen = heard((OutageEnded,))
    policy = HealthPolicy(outage_limit=5)
    pool = fleet("a", "b", "c", health=policy, listeners=[listen], retry=RetryPolicy(attempts=2, delay=0))
    works(pool)
    tasks = goes_down(pool)
    pool.clock.advance(5)
    assert not holds(pool)
    while not all(task.done() for task in tasks):
        claimed(pool).fail(DOWN)
    assert not holds(pool)
    assert [event.recovered for event in events if isinstance(event, OutageEnded)] == [False]
    works(pool)
    goes_down(pool)
    assert holds(pool)


def test_limit_of_nothing_turns_outages_off() -> None:
    pool = fleet("a", "b", "c", health=HealthPolicy(outage_limit=0))
    works(pool)
    goes_down(pool)
    assert not holds(pool)


def test_what_has_never_worked_is_no_outage() -> None:
    pool = fleet("a", "b", "c", retry=RetryPolicy(attempts=3, delay=0))
    tasks = pool.dispatch_many(range(20))
    while not all(task.done() for task in tasks):
        claimed(pool).fail(DOWN)
        assert not holds(pool)
    assert all(task.attempts == 3 for task in tasks)


def test_one_bad_task_alone_is_no_outage() -> None:
    pool = fleet("a", "b", "c", retry=RetryPolicy(attempts=9, delay=0))
    works(pool)
    task = pool.dispatch("bad")
    while not task.done():
        claimed(pool).fail(DOWN)
        assert not holds(pool)
    assert task.attempts == 9


def test_group_alone_that_fails_is_no_outage() -> None:
    """The others have not been asked."""
    pool = fleet("a", "b", "c")
    works(pool)
    tasks = pool.dispatch_many(range(10), worker=0)
    for _ in tasks:
        if (attempt := pool.claim(0)) is not None:
            attempt.fail(DOWN)
    assert not holds(pool)


def test_what_began_before_the_outage_only_brings_the_probe_forward() -> None:
    pool = fleet("a", "b", "c", concurrency=2)
    works(pool)
    pool.dispatch("long")
    long = claimed(pool, 0)
    goes_down(pool)
    probe(pool).fail(DOWN)
    assert holds(pool)
    long.finish("began in better times")
    assert holds(pool)
    assert any(pool.claim(worker) for worker in (1, 2))


def test_task_that_arrives_in_an_outage_is_tried_as_its_probe() -> None:
    pool = fleet("a", "b", "c", retry=RetryPolicy(attempts=2, delay=60))
    works(pool)
    goes_down(pool)
    for task in pool.tasks():
        task.cancel()
    assert holds(pool)
    pool.clock.advance(10)
    task = pool.dispatch("new")
    probe(pool).finish("well")
    assert task.result() == "well"
    assert not holds(pool)


def test_success_of_what_was_under_way_does_not_hide_an_outage() -> None:
    pool = fleet("a", "b", "c")
    works(pool, 20)
    pool.dispatch_many(range(10))
    began_in_better_times = claimed(pool, 0)
    pool.clock.advance(0.1)
    for _ in range(3):
        claimed(pool, 1).fail(DOWN)
    began_in_better_times.finish("well")
    for _ in range(3):
        claimed(pool, 2).fail(DOWN)
    claimed(pool, 0).fail(DOWN)
    assert holds(pool)


def test_explain_and_the_table_of_workers_say_so() -> None:
    pool = fleet("a", "b", "c")
    works(pool)
    tasks = goes_down(pool)
    probe(pool).fail(DOWN)
    assert pool.explain(tasks[-1]).startswith("waits for the end of an outage")
    assert set(states(pool).values()) == {"holding"}
    stats = pool.stats()
    assert (stats.outage, stats.outages, stats.suspects, stats.ejected) == (True, 1, 0, 0)


def test_outage_that_was_over_at_once_makes_the_next_one_harder_to_declare() -> None:
    pool = fleet("a", "b", "c", retry=RetryPolicy(attempts=99, delay=0))
    works(pool)
    declared = []
    for _ in range(3):
        goes_down(pool)
        declared.append(holds(pool))
        if holds(pool):
            probe(pool).finish("false alarm")
        while pool.tasks():
            claimed(pool).finish("well")
    assert declared == [True, False, False]


def test_probe_comes_back_to_the_task_that_it_was_made_with() -> None:
    """It may succeed after some more tries, where each task fails a few times."""
    pool = fleet("a", "b", "c")
    works(pool)
    goes_down(pool)
    tried = []
    for _ in range(6):
        attempt = probe(pool)
        tried.append(attempt.task.id)
        attempt.fail(DOWN)
    assert len(set(tried[::2])) == 1
    assert len(set(tried[1::2])) == 3
    assert len(pool._engine.scheduler.backlog) == len(pool.tasks()) == 10


def test_tasks_that_have_failed_everywhere_and_fail_again_are_no_outage() -> None:
    """The bad items of a batch are what is left at its end, and all of them fail."""
    pool = fleet("a")
    tasks = pool.dispatch_many(range(80))
    while (attempt := pool.claim()) is not None:
        attempt.fail(DOWN) if attempt.task.data % 4 == 0 else attempt.finish(None)
        assert not holds(pool)
    assert {task.state for task in tasks[::4]} == {TaskState.DEAD}
