"""`Pool(max_queue=…)`: a bound that holds, and that nobody waits for in vain."""

import threading
from typing import Any

import pytest

from retrypool import InvalidType, InvalidValue, NoWorkers, Pool, PoolClosed, QueueFull, RetryPolicy, fixed
from retrypool.testing import ManualPool

AT_ONCE = RetryPolicy(attempts=2, delay=fixed(0))


def same(item: Any) -> Any:
    return item


def blocked(pool: Any) -> int:
    return len(pool._engine.queue_limit.waiting)


def until_blocked(pool: Any, count: int, within: float) -> None:
    """Wait until so many dispatchers wait; they tell nobody."""
    ended = threading.Event()
    for _ in range(int(within / 0.001)):
        with pool._engine.lock:
            if blocked(pool) == count:
                return
        ended.wait(0.001)
    raise AssertionError(f"{blocked(pool)} wait, not {count}")


def test_full_queue_raises_if_it_is_to() -> None:
    pool = ManualPool([same], max_queue=2, on_full="raise")
    pool.dispatch(1)
    pool.dispatch(2)
    with pytest.raises(QueueFull) as caught:
        pool.dispatch(3)
    assert caught.value.limit == 2
    assert pool.queue_size == 2
    assert pool.claim() is not None
    pool.dispatch(3)


def test_delayed_tasks_take_room() -> None:
    pool = ManualPool([same], max_queue=1, on_full="raise")
    task = pool.dispatch(1, delay=10)
    with pytest.raises(QueueFull):
        pool.dispatch(2)
    task.cancel()
    pool.dispatch(2)


def test_dispatch_waits_for_room(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold], max_queue=1)
    pool.dispatch("runs")
    gate.wait_until_reached()
    pool.dispatch("waits")
    dispatching = stage.start(pool.dispatch, "comes later")
    until_blocked(pool, 1, stage.within)
    assert pool.queue_size == 1
    gate.open()
    dispatching.result(stage.within).result(stage.within)


def test_dispatch_that_waited_long_enough_raises(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold], max_queue=1)
    pool.dispatch("runs")
    gate.wait_until_reached()
    pool.dispatch("waits")
    for patience in (0, 0.01):
        with pytest.raises(QueueFull):
            pool.dispatch("too many", block_timeout=patience)
    assert blocked(pool) == 0


def test_patience_of_a_task_goes_before_that_of_the_pool(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold], max_queue=1, on_full="raise")
    pool.dispatch("runs")
    gate.wait_until_reached()
    pool.dispatch("waits")
    dispatching = stage.start(pool.dispatch, "comes later", block_timeout=stage.within)
    until_blocked(pool, 1, stage.within)
    gate.open()
    dispatching.result(stage.within).result(stage.within)


def test_bound_holds_however_many_dispatch(stage: Any, switching_often: None) -> None:
    """Nobody overtakes the count, neither those who dispatch nor those who claim or cancel."""
    limit, most = 5, [0]
    pool: Any = None

    def run(item: int) -> int:
        most[0] = max(most[0], pool.queue_size)
        return item

    pool = stage.pool([run] * 4, max_queue=limit)

    def dispatch_many() -> None:
        for number in range(150):
            task = pool.dispatch(number)
            most[0] = max(most[0], pool.queue_size)
            if number % 7 == 0:
                task.cancel()

    dispatching = [stage.start(dispatch_many) for _ in range(8)]
    for future in dispatching:
        future.result(60)
    pool.close()
    stats = pool.stats()
    assert 0 < most[0] <= limit
    assert stats.succeeded + stats.cancelled == 8 * 150


def test_every_place_that_comes_free_is_taken(stage: Any) -> None:
    """Several come free at once, and one dispatcher after the other is called."""
    gate = stage.gate()
    pool = stage.pool([gate.hold], max_queue=3)
    pool.dispatch("runs")
    gate.wait_until_reached()
    waiting = pool.dispatch_many(range(3))
    dispatching = [stage.start(pool.dispatch, number) for number in range(3)]
    until_blocked(pool, 3, stage.within)
    with pool._engine.lock:
        pool._engine.scheduler.cancel_waiting("all at once", 0.0)
        happened = pool._engine.decided()
    pool._engine.act(happened)
    for future in dispatching:
        future.result(stage.within)
    assert all(task.cancelled() for task in waiting)
    assert pool.queue_size == 3
    gate.open()


def test_retries_do_not_wait(stage: Any) -> None:
    """The queue is full when the attempt fails, and its task goes back to it all the same."""
    gate = stage.gate()
    failed: set[Any] = set()

    def run(item: str) -> str:
        gate.hold()
        if item not in failed:
            failed.add(item)
            raise OSError
        return item

    pool = stage.pool([run] * 2, max_queue=1, retry=AT_ONCE)
    first = [pool.dispatch(name, block_timeout=stage.within) for name in "ab"]
    gate.wait_until_reached(2)
    last = pool.dispatch("c")
    gate.open()
    assert [task.result(stage.within) for task in [*first, last]] == ["a", "b", "c"]


def test_requeued_task_does_not_wait(stage: Any) -> None:
    gate = stage.gate()

    def run(item: str) -> str:
        if item == "dies":
            raise OSError
        gate.hold()
        return item

    pool = stage.pool([run], max_queue=1, on_full="raise", retry=RetryPolicy(attempts=1))
    dead = pool.dispatch("dies")
    assert dead.exception(stage.within)
    pool.dispatch("runs")
    gate.wait_until_reached()
    pool.dispatch("waits")
    again = pool.requeue_dead_task(dead.id)
    gate.open()
    assert again.exception(stage.within)


@pytest.mark.parametrize("by_force", [False, True])
def test_closing_wakes_those_who_wait(stage: Any, by_force: bool) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold], max_queue=1)
    pool.dispatch("runs")
    gate.wait_until_reached()
    pool.dispatch("waits")
    dispatching = [stage.start(pool.dispatch, n) for n in range(3)]
    until_blocked(pool, 3, stage.within)
    closing = stage.start(pool.force_close if by_force else pool.close)
    for future in dispatching:
        with pytest.raises(PoolClosed):
            future.result(stage.within)
    gate.open()
    closing.result(stage.within)


def test_the_last_worker_that_leaves_wakes_those_who_wait(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold], max_queue=1)
    pool.dispatch("runs")
    gate.wait_until_reached()
    pool.dispatch("waits")
    dispatching = stage.start(pool.dispatch, "comes too late")
    until_blocked(pool, 1, stage.within)
    removing = stage.start(pool.remove_worker, pool.workers()[0].id)
    with pytest.raises(NoWorkers):
        dispatching.result(stage.within)
    gate.open()
    removing.result(stage.within)


def test_worker_that_dispatches_to_its_own_pool_does_not_wait_for_itself(stage: Any) -> None:
    pool: Any = None

    def run(item: int) -> None:
        if item:
            pool.dispatch(0)
            pool.dispatch(0)

    pool = stage.pool([run], max_queue=1, retry=RetryPolicy(attempts=1))
    with pytest.raises(QueueFull):
        pool.dispatch(1).result(stage.within)


def test_callback_on_a_worker_does_not_wait_for_itself(stage: Any) -> None:
    errors: list[type[BaseException]] = []
    pool: Any = None

    def on_success(task: Any) -> None:
        try:
            pool.dispatch(0)
            pool.dispatch(0)
        except QueueFull as error:
            errors.append(type(error))

    def run(item: int) -> int:
        return item

    pool = stage.pool([run], max_queue=1, on_success=lambda task: on_success(task) if task.data else None)
    pool.dispatch(1)
    pool.wait()
    assert errors == [QueueFull]


def test_worker_waits_if_it_says_how_long(stage: Any) -> None:
    """Another worker makes the room."""
    pool: Any = None

    def run(item: int) -> int:
        if item:
            for _ in range(5):
                pool.dispatch(0, block_timeout=stage.within)
        return item

    pool = stage.pool([run] * 2, max_queue=1)
    assert pool.dispatch(1).result(stage.within) == 1
    pool.close()
    assert pool.stats().succeeded == 6


def test_map_waits_for_room_whatever_the_pool_does_when_full(stage: Any) -> None:
    pool = stage.pool([same] * 2, max_queue=2, on_full="raise")
    assert list(pool.map(range(200), window=50)) == list(range(200))


def test_tasks_that_ask_for_something_are_bounded_too(stage: Any) -> None:
    pool = stage.pool([same] * 2, max_queue=2)
    tasks = [pool.dispatch(n, priority=n % 3) for n in range(100)]
    assert [task.result(stage.within) for task in tasks] == list(range(100))


def test_dispatch_that_fails_leaves_no_place_taken(stage: Any) -> None:
    pool = stage.pool([same], max_queue=1, on_full="raise")

    def cost(item: Any) -> float:
        raise ValueError("priceless")

    for _ in range(3):
        with pytest.raises(ValueError, match="priceless"):
            pool.dispatch(1, cost=cost)
    assert pool.dispatch(2).result(stage.within) == 2


def test_cancelled_tasks_that_wait_for_a_worker_are_not_discounted_twice() -> None:
    """They don't count as such, nor as tasks that no worker who is there can take."""
    pool = ManualPool([same], max_queue=20, on_full="raise")
    absent = [pool.dispatch(n, require={"gpu"}, wait_for_worker=True) for n in range(20)]
    absent[-1].cancel()
    with pytest.raises(QueueFull):
        for _ in range(21):
            pool.dispatch("present")
    assert pool.queue_size == 19 + 20
    pool.force_close()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_queue": 0}, InvalidValue),
        ({"max_queue": "many"}, InvalidType),
        ({"max_queue": 1, "on_full": "drop"}, InvalidValue),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(
    stage: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        stage.pool([same], **options)
    with pytest.raises(InvalidValue):
        stage.pool([same]).dispatch(1, block_timeout=-1)


@pytest.mark.parametrize("ordered", [True, False])
def test_map_does_not_wait_for_room_longer_than_its_time(ordered: bool) -> None:
    release = threading.Event()
    with Pool([lambda _: release.wait(30)], max_queue=1) as pool:
        with pytest.raises(TimeoutError):
            list(pool.map(range(4), timeout=0.05, ordered=ordered))
        assert not release.is_set()
        release.set()
