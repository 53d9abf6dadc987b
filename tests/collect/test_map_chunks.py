"""`map(chunk=)`: what is taken together is tried again one by one."""

import itertools
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from retrypool import InvalidType, InvalidValue, Pool, PoolClosed, RetryPolicy
from retrypool.model.chunk import PENDING, Chunk
from retrypool.model.context import Context
from retrypool.testing import ManualPool

AT_ONCE = RetryPolicy(attempts=3, delay=0)

both_orders = pytest.mark.parametrize("ordered", [True, False])


def double(item: int) -> int:
    return 2 * item


@both_orders
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 1000])
def test_results_are_those_of_the_items(count: int, ordered: bool) -> None:
    with Pool([double] * 3) as pool:
        results = list(pool.map(range(count), chunk=10, ordered=ordered))
    assert (results if ordered else sorted(results)) == [2 * item for item in range(count)]


def test_chunk_is_taken_at_once() -> None:
    """The history counts tasks: one for each chunk."""
    seen: list[object] = []

    class Worker:
        def run(self, ctx: Any, item: int) -> int:
            seen.append(ctx)
            return item

    with Pool([Worker()]) as pool:
        assert list(pool.map(range(20), chunk=10)) == list(range(20))
        assert pool.stats().succeeded == 20
    assert len({id(ctx) for ctx in seen}) == 2


@both_orders
def test_item_that_fails_is_tried_again_by_itself(ordered: bool) -> None:
    tries: dict[int, int] = {}

    def run(item: int) -> int:
        tries[item] = tries.get(item, 0) + 1
        if item % 7 == 3 and tries[item] == 1:
            raise OSError(item)
        return item

    with Pool([run] * 2, retry=AT_ONCE) as pool:
        results = list(pool.map(range(100), chunk=10, ordered=ordered))
    assert sorted(results) == list(range(100))
    assert not ordered or results == list(range(100))
    assert tries == {item: 2 if item % 7 == 3 else 1 for item in range(100)}


def test_other_worker_tries_an_item_that_failed() -> None:
    def broken(item: int) -> int:
        raise OSError(item)

    with Pool([broken, double], retry=RetryPolicy(attempts=5, delay=0)) as pool:
        assert list(pool.map(range(50), chunk=5)) == [2 * item for item in range(50)]
        assert pool.dead_tasks() == []


def test_item_that_is_told_of_twice_does_not_end_the_iteration() -> None:
    """Its chunk and it have ended before whoever consumes the results comes to look at either."""
    pulled = threading.Event()
    tries: list[int] = []

    def items() -> Iterator[int]:
        for item in range(8):
            if item == 3:
                pulled.set()
            yield item

    def run(item: int) -> int:
        tries.append(item)
        assert pulled.wait(20)
        if item == 2 and tries.count(2) == 1:
            raise OSError(item)
        return item

    with Pool([run], retry=AT_ONCE) as pool:
        mapped = pool.map(items(), chunk=2, window=4, ordered=False)
        first = next(mapped)
        assert pool.wait(20)
        assert sorted([first, *mapped]) == list(range(8))


@both_orders
def test_item_that_fails_for_good_is_dead_and_raised_in_its_place(ordered: bool) -> None:
    def run(item: int) -> int:
        if item == 13:
            raise ValueError(item)
        return item

    with Pool([run], retry=AT_ONCE) as pool:
        mapped = pool.map(range(30), chunk=10, ordered=ordered)
        with pytest.raises(ValueError, match="13"):
            list(mapped)
        (dead,) = pool.dead_tasks()
        assert (dead.data, dead.attempts) == (13, 3)


def test_end_of_an_item_that_failed_is_not_taken_for_the_end_of_its_chunk(stage: Any) -> None:
    """Somebody waits for the chunk already when the item becomes a task."""
    gates = {item: stage.gate() for item in (0, 1)}

    def run(item: int) -> int:
        gates[item].hold()
        if item == 0:
            raise ValueError(item)
        return item

    pool = stage.pool([run], retry=RetryPolicy(attempts=1))
    results = stage.start(list, pool.map([0, 1], chunk=2, return_exceptions=True))
    gates[0].wait_until_reached()
    stage.until(lambda: pool.tasks()[0]._completion is not None)
    gates[0].open()
    gates[1].wait_until_reached()
    assert pool.dead_tasks()
    gates[1].open()
    error, result = results.result(stage.within)
    assert isinstance(error, ValueError)
    assert result == 1


@both_orders
def test_errors_may_be_wanted_in_place_of_results(ordered: bool) -> None:
    def run(item: int) -> int:
        if item % 10 == 3:
            raise ValueError(item)
        return item

    with Pool([run] * 2, retry=RetryPolicy(attempts=1)) as pool:
        results = list(pool.map(range(30), chunk=7, ordered=ordered, return_exceptions=True))
    assert sorted(r for r in results if isinstance(r, int)) == [n for n in range(30) if n % 10 != 3]
    assert sorted(r.args[0] for r in results if isinstance(r, ValueError)) == [3, 13, 23]
    assert not ordered or isinstance(results[3], ValueError)


@both_orders
def test_what_the_iterable_raises_comes_after_the_results_before_it(ordered: bool) -> None:
    def items() -> Iterator[int]:
        yield from range(15)
        raise LookupError("no more")

    got: list[int] = []
    with Pool([double]) as pool, pytest.raises(LookupError, match="no more"):
        got.extend(pool.map(items(), chunk=10, ordered=ordered))
    assert sorted(got) == [2 * item for item in range(15)]


@both_orders
def test_no_more_items_are_pulled_than_the_window_holds(ordered: bool) -> None:
    pulled = itertools.count()
    with Pool([double]) as pool:
        mapped = pool.map(pulled, chunk=10, window=30, ordered=ordered)
        for _ in range(50):
            next(mapped)
        mapped.close()
    assert next(pulled) <= 90


def test_what_is_left_is_cancelled_when_the_iteration_ends_early(stage: Any) -> None:
    begun, gate = [], stage.gate()

    class Worker:
        def run(self, ctx: Any, item: int) -> int:
            begun.append(item)
            if item == 15:
                gate.hold()
            return item

    pool = stage.pool([Worker()])
    mapped = pool.map(range(1000), chunk=10)
    assert [next(mapped) for _ in range(10)] == list(range(10))
    gate.wait_until_reached()
    mapped.close()
    gate.open()
    pool.close(timeout=stage.within)
    assert begun == list(range(16))


def test_worker_that_takes_over_a_chunk_goes_on_where_it_had_come_to(stage: Any) -> None:
    gate = stage.gate()
    ran: list[int] = []

    def run(item: int) -> int:
        ran.append(item)
        if item == 5 and ran.count(5) == 1:
            gate.hold()
        return item

    pool = stage.pool([run])
    results = stage.start(list, pool.map(range(10), chunk=10))
    gate.wait_until_reached()
    pool.add_worker(run)
    pool.interrupt_worker(0, task="retry")
    assert results.result(stage.within) == list(range(10))
    assert ran[:6] == list(range(6))
    assert all(ran.count(item) == 1 for item in range(5))
    gate.open()


def test_late_result_of_an_attempt_that_is_over_goes_nowhere(stage: Any) -> None:
    late, next_one = stage.gate(), stage.gate()

    def first(item: int) -> str:
        if item == 1:
            late.hold()
        return f"first {item}"

    def second(item: int) -> str:
        if item == 2:
            next_one.hold()
        return f"second {item}"

    pool = stage.pool([first])
    results = stage.start(list, pool.map(range(4), chunk=4))
    late.wait_until_reached()
    pool.add_worker(second)
    pool.interrupt_worker(0, task="retry")
    next_one.wait_until_reached()
    late.open()
    stage.until(lambda: pool.workers()[0].state != "stuck")
    next_one.open()
    assert results.result(stage.within) == ["first 0", "second 1", "second 2", "second 3"]


def test_attempt_that_is_over_before_its_first_item_takes_nothing_from_the_next_one(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, check = stage.gate(), stage.gate(), Context.check

    def check_and_hold(ctx: Context) -> None:
        check(ctx)
        if not begun.reached:
            begun.hold()

    def second(item: int) -> int:
        if item == 1:
            gate.hold()
        return item

    pool = stage.pool([double])
    monkeypatch.setattr(Context, "check", check_and_hold)
    results = stage.start(list, pool.map(range(3), chunk=3))
    begun.wait_until_reached()
    pool.add_worker(second)
    pool.interrupt_worker(0, task="retry")
    gate.wait_until_reached()
    begun.open()
    stage.until(lambda: pool.workers()[0].state != "stuck")
    gate.open()
    assert results.result(stage.within) == [0, 1, 2]


def test_item_whose_failure_was_not_noted_in_full_is_not_run_again() -> None:
    """The attempt was interrupted on its way from one note to the other: there is a task for the item."""
    chunk = Chunk(["a", "b", "c"], None)
    results, failed = chunk.results, chunk.failed
    results.append("A")
    failed[1] = task = object()
    chunk.go_on()
    assert (chunk.results, chunk.failed) == (["A", PENDING], {1: task})
    results.append("late")
    assert chunk.results == ["A", PENDING]


@both_orders
def test_stop_iteration_is_a_failure_as_any_other(ordered: bool) -> None:
    def run(item: int) -> int:
        if item % 4 == 1:
            raise StopIteration(item)
        return item

    with Pool([run], retry=RetryPolicy(attempts=1)) as pool:
        results = list(pool.map(range(8), chunk=4, ordered=ordered, return_exceptions=True))
    assert sorted(result for result in results if isinstance(result, int)) == [0, 2, 3, 4, 6, 7]
    assert sorted(error.value for error in results if isinstance(error, StopIteration)) == [1, 5]


@pytest.mark.parametrize(
    "options", [{"listeners": [lambda event: None]}, {"max_queue": 5}, {"timeout": 60}, {"on_success": print}]
)
def test_where_each_item_has_to_be_a_task_they_go_one_by_one(options: Any, capsys: Any) -> None:
    seen: set[int] = set()

    class Worker:
        def run(self, ctx: Any, item: int) -> int:
            seen.add(ctx.task_id)
            return item

    with Pool([Worker()], **options) as pool:
        assert list(pool.map(range(20), chunk=10)) == list(range(20))
    assert len(seen) == 20


def test_items_go_one_by_one_where_no_thread_runs_them(stage: Any) -> None:
    pool = ManualPool([double])
    results = stage.start(list, pool.map(range(2), chunk=2))
    stage.until(lambda: len(pool.tasks()) == 2)
    pool.claim().run()
    pool.claim().run()
    assert results.result(stage.within) == [0, 2]
    pool.force_close()


def test_pool_that_is_closed_meanwhile_takes_no_more_chunks() -> None:
    pool = Pool([double])
    mapped = pool.map(itertools.count(), chunk=2, window=4)
    assert next(mapped) == 0
    pool.close()
    with pytest.raises(PoolClosed):
        list(mapped)


@pytest.mark.parametrize(("chunk", "kind"), [(0, InvalidValue), (-1, InvalidValue), (1.5, InvalidType)])
def test_chunk_that_makes_no_sense_is_refused(chunk: Any, kind: Any) -> None:
    with Pool([double]) as pool, pytest.raises(kind, match="chunk"):
        pool.map([1], chunk=chunk)


@both_orders
def test_results_are_let_go_of_as_they_are_consumed(ordered: bool) -> None:
    class Result:
        pass

    made: list[weakref.ref[Result]] = []

    def make(_item: int) -> Result:
        result = Result()
        made.append(weakref.ref(result))
        return result

    with Pool([make]) as pool:
        results = pool.map(range(10), chunk=10, ordered=ordered)
        for _ in range(4):
            next(results)
        assert sum(each() is not None for each in made) == 6
        results.close()


def test_chunk_that_is_taken_from_its_worker_as_an_item_has_failed_goes_on_behind_that(stage: Any) -> None:
    """The item is a task of its own by then, which must not be run for nothing beside the chunk's."""
    ran: list[int] = []

    def run(item: int) -> int:
        ran.append(item)
        if ran == [1, 2]:
            raise OSError
        return item

    def interrupt(_task: object, _error: object) -> None:
        pool.interrupt_worker(pool.workers()[0].id, task="retry", force=True)

    pool = stage.eager_pool([run], on_failure=interrupt)
    assert list(pool.map([1, 2, 3], chunk=3)) == [1, 2, 3]
    pool.close(timeout=stage.within)
    assert sorted(ran) == [1, 2, 2, 3]


def test_items_of_a_chunk_that_is_taken_from_its_worker_are_counted_once(stage: Any) -> None:
    def run(item: int) -> int:
        if item == 3 and not interrupted:
            interrupted.append(item)
            pool.interrupt_worker(pool.workers()[0].id, task="retry")
        return item

    interrupted: list[int] = []
    pool = stage.eager_pool([run])
    assert list(pool.map([1, 2, 3, 4], chunk=4)) == [1, 2, 3, 4]
    pool.close(timeout=stage.within)
    assert pool.stats().succeeded == 4


def test_items_of_a_chunk_that_is_taken_from_its_worker_at_its_end_are_counted_once(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, interrupted = Chunk.count, []

    def count_and_interrupt(chunk: Chunk, *args: int) -> int:
        counted = count(chunk, *args)
        if not interrupted:
            interrupted.append(chunk)
            pool.interrupt_worker(pool.workers()[0].id, task="retry")
        return counted

    monkeypatch.setattr(Chunk, "count", count_and_interrupt)
    pool = stage.eager_pool([double])
    assert list(pool.map([1, 2, 3], chunk=3)) == [2, 4, 6]
    pool.close(timeout=stage.within)
    assert interrupted
    assert pool.stats().succeeded == 3


@both_orders
def test_error_of_an_item_leaves_no_cycle_behind(stage: Any, ordered: bool, no_garbage: None) -> None:
    """Its traceback leads to the frame of its chunk, which knows of all that has failed."""

    class Broken(Exception):
        pass

    def run(item: int) -> int:
        if item == 3:
            raise Broken
        return item

    pool = stage.pool([run], retry=RetryPolicy(attempts=2, delay=0), dead_limit=0)
    known = []
    for result in pool.map(range(10), chunk=5, ordered=ordered, return_exceptions=True):
        if isinstance(result, Broken):
            known.append(weakref.ref(result))
        del result
    pool.close()
    assert [error() for error in known] == [None]
