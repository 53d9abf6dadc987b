"""Several threads and several workers in one failure domain; tasks that ask for certain workers."""

from typing import Any

import pytest

from retrypool import (
    InvalidType,
    InvalidValue,
    NoWorkers,
    Pool,
    Rate,
    TaskState,
    Throttled,
    WorkerSpec,
)
from retrypool.events import WorkerAdded, WorkerRemoved
from retrypool.testing import ManualPool

from .fleets import AT_ONCE, STUBBORN, Echo, claim_all, claimed, fleet, heard, outcomes

# -- concurrency -----------------------------------------------------------------------------------


def test_worker_with_several_threads_is_one_worker() -> None:
    pool = fleet("a", concurrency=3)
    pool.dispatch_many(range(5))
    attempts = claim_all(pool)
    assert len(attempts) == 3
    assert {attempt.worker_id for attempt in attempts} == {0}
    [worker] = pool.workers()
    assert sorted(worker.task_ids) == sorted(attempt.task.id for attempt in attempts)
    attempts[0].finish(None)
    attempts[1].fail(OSError())
    [worker] = pool.workers()
    assert (worker.succeeded, worker.failed, worker.calls) == (1, 1, 2)
    assert pool.stats().workers == 1


def test_hand_can_claim_for_each_thread_of_a_worker() -> None:
    pool = fleet("a", concurrency=2)
    pool.dispatch_many(range(3))
    assert pool.claim(0) is not None
    assert pool.claim(0) is not None
    with pytest.raises(InvalidValue, match="runs nothing"):
        pool.claim(0)


def test_its_threads_are_one_failure_domain() -> None:
    """A task that failed in one of them is not tried in another while there is another group."""
    pool = fleet("a", "b", concurrency=2)
    pool.dispatch(1)
    claimed(pool, 0).fail(OSError())
    attempt = pool.claim()
    assert attempt is not None
    assert attempt.worker_id == 1


def test_whole_worker_is_paused_parked_and_interrupted() -> None:
    pool = fleet("a", concurrency=3)
    tasks = pool.dispatch_many(range(3))
    pool.pause_worker(0)
    assert claim_all(pool) == []
    pool.resume_worker(0)
    assert len(claim_all(pool)) == 3
    assert pool.interrupt_worker(0, task="drop", then="pause")
    assert [task.cancelled() for task in tasks] == [True] * 3


def test_removing_a_worker_removes_all_its_threads_and_tells_once() -> None:
    events, listen = heard((WorkerAdded, WorkerRemoved))
    with Pool([WorkerSpec(Echo(), name="a", concurrency=3)], listeners=[listen]) as pool:
        pool.remove_worker(0)
        assert pool.workers() == []
        assert [type(event) for event in events] == [WorkerAdded, WorkerRemoved]


@pytest.mark.parametrize("concurrency", [0, -1])
def test_concurrency_is_at_least_one(concurrency: int) -> None:
    with pytest.raises(InvalidValue, match="concurrency"):
        WorkerSpec(Echo(), concurrency=concurrency)


@pytest.mark.parametrize("concurrency", [1.0, True, None, "2"])
def test_concurrency_is_a_whole_number(concurrency: Any) -> None:
    with pytest.raises(InvalidType, match="concurrency"):
        WorkerSpec(Echo(), concurrency=concurrency)


# -- groups ----------------------------------------------------------------------------------------


def test_workers_of_one_group_cool_together_and_are_tried_together() -> None:
    pool: ManualPool[Any, Any] = ManualPool(
        [WorkerSpec(Echo(), group="g"), WorkerSpec(Echo(), group="g"), WorkerSpec(Echo(), group="h")],
        retry=AT_ONCE,
    )
    pool.dispatch(1)
    claimed(pool, 0).fail(OSError())
    assert pool.claim(1) is None
    claimed(pool, 2).fail(Throttled(retry_after=9))
    assert [worker.state for worker in pool.workers()] == ["active", "active", "cooling"]


def test_workers_of_the_same_name_are_each_a_group_of_their_own() -> None:
    """A name is for people; two proxies that are both called "proxy" share no fate."""
    pool = fleet("proxy", "proxy")
    assert len({worker.group for worker in pool.workers()}) == 2


def test_group_that_is_given_by_name_may_be_joined_on_purpose() -> None:
    pool = fleet("a")
    pool.add_worker(Echo(), group="a")
    assert [worker.group for worker in pool.workers()] == ["a", "a"]


def test_pool_that_can_not_be_made_leaves_no_threads() -> None:
    """The fixture of all tests looks for them."""
    with pytest.raises(InvalidValue):
        Pool([WorkerSpec(Echo(), group="g", rate=Rate(1)), WorkerSpec(Echo(), group="g", rate=Rate(2))])


# -- requirements ----------------------------------------------------------------------------------


def tagged(*tags: set[str], **options: Any) -> ManualPool[Any, Any]:
    specs: list[WorkerSpec[Any, Any]] = [WorkerSpec(Echo(), tags=each) for each in tags]
    return ManualPool(specs, **{"retry": AT_ONCE, **options})


def test_task_goes_to_a_worker_that_has_all_it_requires() -> None:
    pool = tagged(set(), {"premium"}, {"premium", "eu"})
    pool.dispatch(1, require={"premium", "eu"})
    assert [pool.claim(0), pool.claim(1)] == [None, None]
    assert pool.claim(2) is not None


def test_task_for_nobody_in_particular_goes_to_anybody() -> None:
    pool = tagged({"premium"})
    pool.dispatch(1)
    assert pool.claim() is not None


def test_named_worker_and_excluded_ones() -> None:
    pool = fleet("a", "b", "c")
    pool.dispatch(1, worker=1)
    assert [pool.claim(0), pool.claim(2)] == [None, None]
    claimed(pool, 1).finish(None)
    pool.dispatch(2, exclude={0, "c"})
    assert [pool.claim(0), pool.claim(2)] == [None, None]
    assert pool.claim(1) is not None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"require": {"gold"}}, "gold"),
        ({"require": {"gold", "eu"}}, "'eu', 'gold'"),
        ({"worker": 99}, "the id 99"),
        ({"exclude": {0, "b"}}, "other than"),
        ({"worker": 0, "exclude": {"a"}}, "the id 0"),
        ({"worker": 0, "require": {"gold"}}, "gold"),
    ],
)
def test_what_no_worker_can_meet_is_refused_with_what_was_asked(wanted: Any, words: str) -> None:
    pool = fleet("a", "b")
    with pytest.raises(NoWorkers, match=words):
        pool.dispatch(1, **wanted)
    assert pool.queue_size == 0


@pytest.mark.parametrize("how", ["park", "remove"])
def test_worker_that_is_gone_meets_nothing(how: str) -> None:
    """Even if others of its group are there still."""
    pool: ManualPool[Any, Any] = ManualPool([WorkerSpec(Echo(), group="g"), WorkerSpec(Echo(), group="g")])
    pool.dispatch(1, worker=0)
    attempt = claimed(pool, 0)
    pool.cordon_worker(0, "revoked") if how == "park" else pool.remove_worker(0, timeout=0)
    with pytest.raises(NoWorkers):
        pool.dispatch(2, worker=0)
    attempt.finish(None)


def test_worker_that_is_paused_or_cooling_still_meets_it() -> None:
    pool = fleet("a", "b")
    pool.pause_worker(0)
    task = pool.dispatch(1, worker=0)
    pool.resume_worker(0)
    claimed(pool, 0).fail(Throttled(retry_after=5))
    pool.dispatch(2, worker=0)
    assert task.state is TaskState.QUEUED


def test_task_may_wait_for_a_worker_that_will_come() -> None:
    pool = fleet("a")
    task = pool.dispatch(1, require={"gold"}, wait_for_worker=True)
    assert pool.claim() is None
    pool.add_worker(Echo(), tags={"gold"})
    claimed(pool, 1).finish("gold")
    assert task.result() == "gold"


def test_worker_that_comes_later_and_may_not_take_a_task_leaves_it_to_the_others() -> None:
    """When it was dispatched, all workers would have done: it waits where anybody looks."""
    pool = tagged({"gold"})
    first, second = pool.dispatch(1, require={"gold"}), pool.dispatch(2, require=["gold"])
    pool.add_worker(Echo())
    assert pool.claim(1) is None
    attempt = claimed(pool, 0)
    assert attempt.task is first
    attempt.finish(None)
    assert pool.claim(1) is None
    assert claimed(pool, 0).task is second


@pytest.mark.parametrize("how", ["cordon", "remove"])
def test_what_all_workers_could_take_is_refused_once_none_is_left_that_can(how: str) -> None:
    """What is known of the workers is not remembered longer than it holds."""
    pool = tagged({"gold"})
    with pool.group(require={"gold"}) as group:
        tasks = [pool.dispatch(1, require={"gold"}), group.dispatch(2)]
        pool.add_worker(Echo())
        while (attempt := pool.claim(0)) is not None:
            attempt.finish(None)
        pool.cordon_worker(0, "revoked") if how == "cordon" else pool.remove_worker(0, timeout=0)
        with pytest.raises(NoWorkers):
            pool.dispatch(3, require={"gold"})
        with pytest.raises(NoWorkers):
            group.dispatch(4)
    assert [task.state for task in tasks] == [TaskState.SUCCEEDED] * 2


def test_retry_of_a_task_that_all_workers_could_take_goes_to_one_that_may() -> None:
    pool = tagged({"gold"}, {"gold"})
    pool.dispatch(1, require={"gold"})
    pool.add_worker(Echo())
    claimed(pool, 0).fail(OSError())
    assert [pool.claim(2), pool.claim(0)] == [None, None]
    assert pool.claim(1) is not None


def test_pool_that_waits_for_workers_waits_for_any_kind() -> None:
    pool: ManualPool[Any, Any] = ManualPool([], wait_for_workers=True)
    pool.dispatch(1, require={"gold"})
    pool.dispatch(2)
    pool.add_worker(Echo())
    assert len(claim_all(pool)) == 1


def test_task_that_nobody_can_take_is_cancelled_with_a_reason_when_the_pool_closes() -> None:
    with Pool([Echo()]) as pool:
        waits = pool.dispatch(1, require={"gold"}, wait_for_worker=True)
        pinned = pool.dispatch(2, worker=7, wait_for_worker=True)
        other = pool.dispatch(3, delay=0.01)
    assert waits.cancelled()
    assert pinned.cancelled()
    assert other.result() == 3
    assert "no worker" in str(waits._outcome)


def test_task_for_a_parked_worker_does_not_keep_the_pool_from_closing() -> None:
    with Pool([Echo(), Echo()]) as pool:
        pool.pause_worker(0)
        task = pool.dispatch(1, worker=0)
        pool.cordon_worker(0, "revoked")
        assert not pool.wait(timeout=20)
    assert task.cancelled()


def test_tried_set_starts_afresh_among_those_that_meet_the_requirement() -> None:
    """The third worker may not take it, and must not be waited for."""
    pool = tagged({"gold"}, {"gold"}, set(), retry=STUBBORN)
    task = pool.dispatch(1, require={"gold"})
    for worker in (0, 1, 0, 1):
        claimed(pool, worker).fail(OSError())
    assert [group for group, _ in outcomes(task)] == ["worker-0", "worker-1"] * 2


@pytest.mark.parametrize("wanted", [{"worker": 0}, {"exclude": {1, 2}}, {"require": {"gold"}}])
def test_only_worker_that_may_is_tried_again_at_once(wanted: Any) -> None:
    pool = tagged({"gold"}, set(), set(), retry=STUBBORN)
    pool.dispatch(1, **wanted)
    for _ in range(3):
        claimed(pool, 0).fail(OSError())


def test_parked_slot_in_a_live_group_is_not_waited_for() -> None:
    """The only other gold worker is parked for good; that its group lives on is no reason to wait."""
    pool: ManualPool[Any, Any] = ManualPool(
        [
            WorkerSpec(Echo(), group="g", tags={"gold"}),
            WorkerSpec(Echo(), group="g"),
            WorkerSpec(Echo(), group="h", tags={"gold"}),
        ],
        retry=STUBBORN,
    )
    pool.cordon_worker(0, "revoked")
    pool.dispatch(1, require={"gold"})
    claimed(pool, 2).fail(OSError())
    assert pool.claim(2) is not None


def test_priority_holds_among_tasks_that_ask_for_different_workers() -> None:
    pool = tagged({"gold"}, set())
    low = pool.dispatch("low", require={"gold"})
    plain = pool.dispatch("plain")
    high = pool.dispatch("high", require={"gold"}, priority=5)
    order = []
    for _ in range(3):
        attempt = claimed(pool, 0)
        order.append(attempt.task)
        attempt.finish(None)
    assert order == [high, low, plain]


@pytest.mark.parametrize(
    "wrong",
    [
        {"require": "gold"},
        {"require": {1}},
        {"require": None},
        {"exclude": "a"},
        {"exclude": {1.5}},
        {"exclude": [[1]]},
        {"exclude": {True}},
        {"exclude": None},
        {"worker": "a"},
        {"worker": True},
        {"wait_for_worker": 1},
    ],
)
def test_requirement_that_makes_no_sense_is_refused(wrong: Any) -> None:
    pool = fleet("a")
    with pytest.raises(InvalidType, match=next(iter(wrong))):
        pool.dispatch(1, **wrong)


def test_tags_are_a_set_of_strings() -> None:
    with pytest.raises(InvalidType, match="tags"):
        WorkerSpec(Echo(), tags="gold")
    assert WorkerSpec(Echo(), tags=["gold", "gold"]).tags == {"gold"}
