"""What `explain` says of a task that waits for a fleet, and when."""

import re

from retrypool import Rate, Throttled

from ..core.fleets import claimed, fleet


def test_it_says_when_the_first_cooling_group_opens() -> None:
    pool = fleet("a", "b")
    task = pool.dispatch(1)
    claimed(pool, 0).fail(Throttled(retry_after=100))
    claimed(pool, 1).fail(Throttled(retry_after=45))
    assert re.search(r"both cooling until .*:05", pool.explain(task))


def test_it_says_that_a_pace_is_waited_for() -> None:
    pool = fleet("a", rate=Rate(1, per=10))
    pool.dispatch(1)
    task = pool.dispatch(2)
    claimed(pool).finish(None)
    assert "waits for the rate of the pool" in pool.explain(task)


def test_it_says_that_no_worker_meets_the_requirement() -> None:
    pool = fleet("a")
    assert "gold" in pool.explain(pool.dispatch(1, require={"gold"}, wait_for_worker=True))


def test_it_says_that_the_worker_it_is_for_is_parked() -> None:
    pool = fleet("a", "b")
    task = pool.dispatch(1, worker=0)
    pool.cordon_worker(0, "revoked")
    assert "cordoned" in pool.explain(task)
