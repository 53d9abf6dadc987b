"""When a group counts as ill, for how long it is given nothing, and how it comes back."""

import math
from datetime import timedelta
from typing import Any

import pytest

from retrypool import (
    HealthPolicy,
    InvalidType,
    InvalidValue,
    Throttled,
    Unrecoverable,
    WorkerFault,
    WorkerSpec,
)
from retrypool.events import GroupCooling, GroupEjected, GroupOpened
from retrypool.testing import ManualPool

from .fleets import AT_ONCE, QUICK, Echo, claim_all, claimed, fail_on, fleet, heard, states

ILL = WorkerFault("ill")


def ejected(pool: ManualPool[Any, Any]) -> set[str]:
    return {name for name, state in states(pool).items() if state == "ejected"}


def succeed_on(pool: ManualPool[Any, Any], worker_id: int) -> None:
    pool.dispatch("good", worker=worker_id)
    claimed(pool, worker_id).finish("good")


def test_five_faults_in_a_row_eject_a_group_for_a_second() -> None:
    pool = fleet("a", "b")
    fail_on(pool, 0, [ILL] * 4)
    assert ejected(pool) == set()
    fail_on(pool, 0, [ILL])
    assert ejected(pool) == {"a"}
    assert pool.workers()[0].until == 1.0


def test_success_in_between_breaks_the_row() -> None:
    pool = fleet("a", "b")
    for _ in range(4):
        fail_on(pool, 0, [ILL] * 4)
        for _ in range(7):
            succeed_on(pool, 0)
    assert ejected(pool) == set()


def test_half_of_twenty_eject_it_too() -> None:
    pool = fleet("a", "b")
    for _ in range(10):
        assert ejected(pool) == set()
        succeed_on(pool, 0)
        fail_on(pool, 0, [ILL])
    assert ejected(pool) == {"a"}


def test_less_than_half_never_eject_it() -> None:
    pool = fleet("a", "b")
    for _ in range(50):
        fail_on(pool, 0, [ILL] * 2)
        for _ in range(3):
            succeed_on(pool, 0)
    assert ejected(pool) == set()


def test_good_past_does_not_hide_what_is_wrong_now() -> None:
    pool = fleet("a", "b")
    for _ in range(200):
        succeed_on(pool, 0)
    for _ in range(40):
        fail_on(pool, 0, [ILL] * 2)
        if ejected(pool):
            break
        succeed_on(pool, 0)
    assert ejected(pool) == {"a"}


def test_tasks_faults_are_not_the_groups() -> None:
    pool = fleet("a", "b")
    fail_on(pool, 0, [OSError(), Unrecoverable()] * 30)
    assert ejected(pool) == set()


def test_wave_of_faults_ejects_once() -> None:
    """Ten calls under way when it is ejected are no second, longer ejection."""
    pool = fleet("a", "b", concurrency=10)
    pool.dispatch_many(range(10), worker=0)
    for attempt in claim_all(pool):
        attempt.fail(ILL)
    assert pool.workers()[0].until == 1.0


def test_each_ejection_in_a_row_is_twice_as_long_up_to_a_cap() -> None:
    pool = fleet("a", "b")
    fail_on(pool, 0, [ILL] * 5)
    lengths = []
    for _ in range(12):
        until = pool.workers()[0].until
        assert until is not None
        lengths.append(until - pool.clock.monotonic())
        pool.clock.advance(lengths[-1])
        fail_on(pool, 0, [ILL])
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]


def test_ejected_group_is_given_one_real_task_and_must_succeed() -> None:
    events, listen = heard((GroupEjected, GroupOpened))
    pool = fleet("a", "b", concurrency=2, health=QUICK, listeners=[listen])
    fail_on_first(pool, 2)
    pool.dispatch_many(range(6), worker=0)
    pool.clock.advance(29.9)
    assert pool.claim() is None
    pool.clock.advance(0.1)
    probe = claimed(pool)
    assert states(pool)["a"] == "probing"
    assert pool.claim() is None
    probe.finish("well again")
    assert len(claim_all(pool)) == 2
    assert events == [GroupEjected(0.0, "a", 30.0), GroupOpened(30.0, "a")]


def fail_on_first(pool: ManualPool[Any, Any], times: int) -> None:
    """Let the first worker fail a few tasks, whichever of its slots they go to."""
    for _ in range(times):
        pool.dispatch("bad", worker=0)
    for attempt in claim_all(pool)[:times]:
        attempt.fail(ILL)
    for waiting in pool.tasks():
        waiting.cancel()


@pytest.mark.parametrize("error", [OSError("500"), ILL])
def test_failed_probe_shuts_it_out_again(error: Exception) -> None:
    pool = fleet("a", "b", health=QUICK)
    fail_on(pool, 0, [ILL] * 2)
    pool.clock.advance(30)
    fail_on(pool, 0, [error])
    assert pool.workers()[0].until == 90.0


def test_probe_that_is_throttled_has_told_nothing() -> None:
    """It cools as it was told, stays ejected, and is tried again."""
    pool = fleet("a", "b", health=QUICK)
    fail_on(pool, 0, [ILL] * 2)
    pool.clock.advance(30)
    pool.dispatch("again", worker=0)
    claimed(pool, 0).fail(Throttled(retry_after=5))
    assert (states(pool)["a"], pool.workers()[0].until) == ("ejected", 35.0)
    pool.clock.advance(5)
    claimed(pool, 0).finish("well")
    assert states(pool)["a"] == "active"


def test_count_starts_anew_once_it_has_succeeded() -> None:
    pool = fleet("a", "b", health=QUICK)
    fail_on(pool, 0, [ILL] * 2)
    pool.clock.advance(30)
    succeed_on(pool, 0)
    fail_on(pool, 0, [ILL])
    assert states(pool)["a"] == "active"
    fail_on(pool, 0, [ILL])
    assert pool.workers()[0].until == 60.0


@pytest.mark.parametrize(("groups", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_at_most_a_share_of_the_groups_is_ejected(groups: int, most: int) -> None:
    pool = fleet(*"abcdefg"[:groups], health=HealthPolicy(faults_in_a_row=2, ejected_share=0.5))
    for worker_id in range(groups):
        fail_on(pool, worker_id, [ILL] * 4)
    assert len(ejected(pool)) == most


def test_last_group_is_never_ejected_whatever_the_share() -> None:
    pool = fleet("a", "b", health=QUICK)
    fail_on(pool, 0, [ILL] * 2)
    fail_on(pool, 1, [ILL] * 10)
    assert ejected(pool) == {"a"}


@pytest.mark.parametrize("how", ["remove", "park"])
def test_last_group_is_not_left_ejected_when_the_others_go(how: str) -> None:
    """Better a try with an ill group than none at all for minutes."""
    pool = fleet("a", "b", health=QUICK)
    fail_on(pool, 0, [ILL] * 2)
    assert ejected(pool) == {"a"}
    pool.remove_worker(1) if how == "remove" else pool.cordon_worker(1, "revoked")
    assert ejected(pool) == set()
    task = pool.dispatch("needed")
    claimed(pool).finish("here it is")
    assert task.result() == "here it is"


def test_ejection_that_ends_early_does_not_end_a_cool_down() -> None:
    pool = fleet("a", "b", health=QUICK)
    pool.dispatch("throttled", worker=0)
    fail_on(pool, 0, [ILL] * 2)
    pool.clock.advance(30)
    claimed(pool, 0).fail(Throttled(retry_after=50))
    assert ejected(pool) == {"a"}
    pool.remove_worker(1)
    assert (states(pool)["a"], pool.workers()[0].until) == ("cooling", 80.0)


def test_cool_down_of_an_ejected_group_is_told_by_its_own_end() -> None:
    events, listen = heard((GroupCooling,))
    pool = fleet("a", "b", concurrency=2, health=QUICK, listeners=[listen])
    pool.dispatch("under way", worker=0)
    under_way = claimed(pool, 0)
    fail_on(pool, 0, [ILL] * 2)
    assert ejected(pool) == {"a"}
    under_way.fail(Throttled(retry_after=5))
    assert events == [GroupCooling(0.0, "a", 5.0)]


def test_nobody_idles_for_the_probe_of_an_ejected_group() -> None:
    """What all others have failed begins a new round with them, however soon the ill group is tried again."""
    pool = fleet("a", "b", "c")
    fail_on(pool, 0, [ILL] * 5)
    assert ejected(pool) == {"a"}
    task = pool.dispatch("fails twice")
    for worker in (1, 2):
        claimed(pool, worker).fail(OSError())
    claimed(pool, 1).finish("well")
    assert task.result() == "well"


def test_failed_probe_is_shut_out_although_too_many_are_ill_by_now() -> None:
    """The others left; it must not be tried again and again without a pause."""
    pool = fleet("a", "b", "c", "d", health=QUICK)
    fail_on(pool, 0, [ILL] * 2)
    fail_on(pool, 1, [ILL] * 2)
    pool.remove_worker(3)
    pool.clock.advance(30)
    fail_on(pool, 0, [ILL])
    assert pool.workers()[0].until == 90.0


def test_worker_that_leaves_takes_its_counts_with_it() -> None:
    """What one slot did in the past must not keep the rest of its group from being judged."""
    pool: ManualPool[Any, Any] = ManualPool(
        [WorkerSpec(Echo(), group="g"), WorkerSpec(Echo(), group="g"), WorkerSpec(Echo(), group="h")],
        retry=AT_ONCE,
    )
    for _ in range(100):
        succeed_on(pool, 0)
    fail_on(pool, 1, [ILL] * 4)
    pool.remove_worker(0)
    fail_on(pool, 1, [ILL])
    assert pool.workers()[0].state == "ejected"


def test_health_none_turns_it_all_off() -> None:
    pool = fleet("a", "b", "c", "d", "e", health=None)
    fail_on(pool, 0, [ILL] * 200)
    for number in range(20):
        task = pool.dispatch(number)
        claimed(pool, 0).fail(OSError())
        claimed(pool, 1).finish(None)
        assert task.done()
    assert ejected(pool) == set()


def test_policy_is_frozen_and_its_times_may_be_timedeltas() -> None:
    policy = HealthPolicy(ejection=timedelta(minutes=1))
    assert policy.ejection == 60.0
    with pytest.raises(AttributeError):
        policy.sample = 5  # type: ignore[misc]


@pytest.mark.parametrize("field", ["faults_in_a_row", "fault_share", "sample", "witnesses", "ejection"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_threshold_must_be_more_than_nothing(field: str, value: float) -> None:
    with pytest.raises(InvalidValue, match=field):
        HealthPolicy(**{field: value})


@pytest.mark.parametrize("field", ["faults_in_a_row", "fault_share", "longest_ejection", "ejected_share"])
@pytest.mark.parametrize("value", ["1", None, True])
def test_threshold_must_be_a_number(field: str, value: Any) -> None:
    with pytest.raises(InvalidType, match=field):
        HealthPolicy(**{field: value})


@pytest.mark.parametrize("field", ["fault_share", "ejected_share"])
def test_share_is_one_at_the_most(field: str) -> None:
    with pytest.raises(InvalidValue, match=field):
        HealthPolicy(**{field: 1.01})


@pytest.mark.parametrize("health", [True, 5, {"sample": 20}, HealthPolicy])
def test_health_must_be_a_policy(health: Any) -> None:
    with pytest.raises(InvalidType, match="health"):
        fleet("a", health=health)
