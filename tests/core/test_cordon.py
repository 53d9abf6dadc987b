"""Workers that are cordoned for good, brought back, and given another resource."""

from typing import Any

import pytest

from retrypool import InvalidType, NoWorkers, RetryPolicy, Throttled
from retrypool.testing import ManualPool

from .fleets import STUBBORN, claimed, echo, fleet, states


def test_parked_worker_is_given_nothing_until_it_is_resumed() -> None:
    pool = fleet("a", "b")
    pool.cordon_worker(0, "revoked")
    pool.dispatch(1)
    assert pool.claim(0) is None
    assert [(worker.state, worker.reason) for worker in pool.workers()] == [
        ("cordoned", "revoked"),
        ("active", None),
    ]
    pool.resume_worker(0)
    assert pool.claim(0) is not None
    assert states(pool)["a"] == "active"


def test_no_task_waits_for_a_parked_group() -> None:
    pool = fleet("a", "b", retry=STUBBORN)
    pool.dispatch(1)
    claimed(pool, 0).fail(OSError())
    pool.cordon_worker(1, "revoked")
    assert pool.claim(0) is not None


def test_pool_whose_workers_are_all_parked_takes_nothing() -> None:
    pool = fleet("a")
    pool.cordon_worker(0, "revoked")
    with pytest.raises(NoWorkers):
        pool.dispatch(1)


def test_replaced_worker_works_with_the_new_resource() -> None:
    """In a pool that is stepped by hand too, where no thread makes it anew."""
    pool: ManualPool[str, str] = ManualPool([str.upper, str.upper], retry=RetryPolicy(attempts=1))
    pool.cordon_worker(0, "revoked")
    pool.replace_worker(0, str.lower)
    task = pool.dispatch("Word", worker=0)
    claimed(pool, 0).run()
    assert task.result() == "word"


def test_replacing_forgets_what_is_known_against_the_group() -> None:
    pool = fleet("a", "b")
    pool.dispatch(1)
    claimed(pool, 0).fail(Throttled(retry_after=600))
    pool.replace_worker(0, echo)
    assert states(pool)["a"] != "cooling"


@pytest.mark.parametrize("reason", [None, 5, OSError("401")])
def test_reason_for_parking_is_a_string(reason: Any) -> None:
    with pytest.raises(InvalidType, match="reason"):
        fleet("a").cordon_worker(0, reason)
