"""`workers()` and the events tell what state each worker is in, and what it has done."""

from typing import Any

import pytest

from retrypool import HealthPolicy, Outcome, Rate, Throttled, WorkerFault, WorkerSpec
from retrypool.events import GroupCooling, GroupEjected, GroupOpened, WorkerCordoned, WorkerResumed
from retrypool.testing import ManualPool

from ..core.fleets import AT_ONCE, QUICK, Echo, claimed, echo, fail_on, fleet, heard, states

ILL = WorkerFault("ill")


def test_each_state_in_a_life() -> None:
    pool = fleet("a", "b", health=QUICK)
    seen = []

    def note() -> None:
        [worker, _] = pool.workers()
        seen.append((worker.state, worker.until))

    note()
    pool.pause_worker(0)
    note()
    pool.resume_worker(0)
    pool.dispatch(1, worker=0)
    claimed(pool, 0).fail(Throttled(retry_after=4))
    note()
    pool.clock.advance(4)
    note()
    probe = claimed(pool, 0)
    note()
    probe.finish(None)
    note()
    fail_on(pool, 0, [ILL] * 2)
    note()
    pool.cordon_worker(0, "revoked")
    note()
    assert seen == [
        ("active", None),
        ("paused", None),
        ("cooling", 4.0),
        ("active", None),
        ("probing", None),
        ("active", None),
        ("ejected", 34.0),
        ("cordoned", 34.0),
    ]


def test_stuck_until_its_thread_comes_back() -> None:
    pool = fleet("a", timeout=1)
    pool.dispatch(1)
    attempt = claimed(pool)
    pool.clock.advance(1)
    assert states(pool) == {"a": "stuck"}
    attempt.finish("too late")
    assert states(pool) == {"a": "active"}


def test_every_worker_of_a_group_shows_that_it_is_probing() -> None:
    """The one that waits for the other's probe is not active: it is given nothing."""
    pool: ManualPool[Any, Any] = ManualPool(
        [WorkerSpec(Echo(), group="g"), WorkerSpec(Echo(), group="g")], retry=AT_ONCE
    )
    pool.dispatch_many(range(2))
    claimed(pool, 0).fail(Throttled(retry_after=5))
    pool.clock.advance(5)
    claimed(pool, 0)
    assert [worker.state for worker in pool.workers()] == ["probing", "probing"]


def test_calls_and_failures_by_outcome() -> None:
    pool = fleet("a", "b", blame={LookupError: "nobody"}, timeout=5, health=None)
    for error in (OSError(), OSError(), LookupError(), ILL, Throttled(retry_after=1)):
        fail_on(pool, 0, [error])
    pool.clock.advance(1)
    pool.dispatch(1, worker=0)
    claimed(pool, 0).finish(None)
    pool.dispatch(1, worker=0)
    attempt = claimed(pool, 0)
    pool.clock.advance(5)
    attempt.finish("too late")
    [worker, other] = pool.workers()
    assert (worker.succeeded, worker.failed, worker.calls) == (1, 6, 7)
    assert worker.failures == {
        Outcome.FAILED: 2,
        Outcome.EXCUSED: 1,
        Outcome.WORKER_FAULT: 1,
        Outcome.THROTTLED: 1,
        Outcome.TIMED_OUT: 1,
    }
    assert (other.calls, other.failures) == (0, {})


def test_rate_is_that_of_the_group() -> None:
    pool: ManualPool[Any, Any] = ManualPool(
        [
            WorkerSpec(Echo(), rate=Rate(600, per=60)),
            WorkerSpec(Echo(), rate=[Rate(2), Rate(9)]),
            WorkerSpec(Echo()),
        ]
    )
    assert [worker.rate for worker in pool.workers()] == [10.0, 2.0, None]


def test_each_cool_down_ejection_and_opening_is_told() -> None:
    events, listen = heard((GroupCooling, GroupEjected, GroupOpened))
    pool = fleet("a", "b", health=QUICK, listeners=[listen])
    fail_on(pool, 0, [ILL] * 2)
    pool.clock.advance(30)
    fail_on(pool, 0, [ILL])
    pool.clock.advance(60)
    pool.dispatch(1, worker=0)
    claimed(pool, 0).fail(Throttled(retry_after=3))
    pool.clock.advance(3)
    claimed(pool, 0).finish(None)
    assert events == [
        GroupEjected(0.0, "a", 30.0),
        GroupEjected(30.0, "a", 90.0),
        GroupCooling(90.0, "a", 93.0),
        GroupOpened(93.0, "a"),
    ]


def test_parking_and_resuming_is_told() -> None:
    events, listen = heard((WorkerCordoned, WorkerResumed))
    pool = fleet("a", listeners=[listen])
    pool.cordon_worker(0, "revoked")
    pool.resume_worker(0)
    assert events == [WorkerCordoned(0.0, 0, "a", "a", "revoked"), WorkerResumed(0.0, 0, "a", "a")]


def test_replacing_a_worker_tells_that_its_group_is_open() -> None:
    events, listen = heard((GroupOpened,))
    pool = fleet("a", "b", health=HealthPolicy(faults_in_a_row=1), listeners=[listen])
    fail_on(pool, 0, [ILL])
    pool.replace_worker(0, echo)
    assert events == [GroupOpened(0.0, "a")]


@pytest.mark.parametrize("cause", [Throttled(retry_after=5), OSError()])
def test_table_can_be_read_by_a_listener(cause: Exception) -> None:
    """Events are told outside the lock."""
    read: list[str] = []
    pools: list[ManualPool[Any, Any]] = []
    pools.append(fleet("a", listeners=[lambda _: read.extend(states(pool)["a"] for pool in pools)]))
    pools[0].dispatch(1)
    claimed(pools[0]).fail(cause)
    assert ("cooling" in read) is isinstance(cause, Throttled)
