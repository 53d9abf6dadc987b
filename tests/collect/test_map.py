"""`Pool.map`: lazy, bounded, in order or not, and nothing goes on that nobody waits for."""

import itertools
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from retrypool import (
    InvalidType,
    InvalidValue,
    NoWorkers,
    Pool,
    PoolClosed,
    RetryPolicy,
    TaskState,
    WrongThread,
    fixed,
)
from retrypool.collect import chunks as chunks_module
from retrypool.collect import map as map_module
from retrypool.testing import FakeClock, ManualPool

ONCE = RetryPolicy(attempts=1)


def double(number: int) -> int:
    return 2 * number


def invert(number: int) -> float:
    return 1 / number


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def ordered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_results_come_in_the_order_of_the_items(stage: Any) -> None:
    pool = stage.pool([double] * 4)
    assert list(pool.map(range(1000), window=10)) == [2 * n for n in range(1000)]


def test_unordered_results_come_as_they_end(stage: Any) -> None:
    gate = stage.gate()

    def run(item: str) -> str:
        if item == "slow":
            gate.hold()
        return item

    pool = stage.pool([run] * 2)
    results = pool.map(["slow", "a", "b"], ordered=False)
    assert [next(results), next(results)] == ["a", "b"]
    gate.open()
    assert list(results) == ["slow"]


def test_every_result_comes_once_in_either_order(stage: Any, ordered: bool) -> None:
    pool = stage.pool([double] * 8)
    results = pool.map(range(5000), window=7, ordered=ordered)
    assert sorted(results) == [2 * n for n in range(5000)]


def test_failed_attempts_are_retried_before_anything_is_said(stage: Any, ordered: bool) -> None:
    seen: set[int] = set()

    def run(item: int) -> int:
        if item not in seen:
            seen.add(item)
            raise OSError
        return item

    pool = stage.pool([run] * 3, retry=RetryPolicy(delay=fixed(0)))
    assert sorted(pool.map(range(500), ordered=ordered)) == list(range(500))


def test_nothing_is_pulled_before_a_result_is_asked_for(stage: Any) -> None:
    pulled: list[int] = []
    pool = stage.pool([double])
    results = pool.map(pulled.append(n) or n for n in range(3))
    assert pulled == []
    assert list(results) == [0, 2, 4]


def test_no_more_than_the_window_is_in_flight_or_waits_to_be_consumed(ordered: bool) -> None:
    pool = ManualPool([double] * 2)
    pulled: list[int] = []
    items = (pulled.append(n) or n for n in itertools.count())
    results = pool.map(items, window=3, ordered=ordered, timeout=0)
    with pytest.raises(TimeoutError):
        next(results)
    assert pulled == [0, 1, 2]
    pool.force_close()


@pytest.mark.parametrize("chunk", [1, 10])
def test_item_that_waits_out_a_delay_does_not_starve_the_workers(stage: Any, chunk: int) -> None:
    """Its delay is over when fourteen windows of others have been run. No more than sixteen are pulled."""
    clock = FakeClock()
    failed = threading.Event()

    def run(item: int) -> int:
        if item == 0 and not failed.is_set():
            failed.set()
            raise OSError
        if item == 14 * 128:
            clock.advance(60)
        return item

    pulled: list[int] = []
    pool = stage.pool([run] * 2, clock=clock, health=None, retry=RetryPolicy(delay=fixed(60)))
    results = pool.map((pulled.append(n) or n for n in range(4000)), chunk=chunk)
    assert next(results) == 0
    assert len(pulled) <= 16 * 128
    assert list(results) == list(range(1, 4000))


def test_slow_item_does_not_starve_the_other_workers(stage: Any) -> None:
    enough = threading.Event()

    def run(item: int) -> int:
        if item == 0:
            assert enough.wait(stage.within)
        if item == 1000:
            enough.set()
        return item

    pool = stage.pool([run] * 2)
    assert list(pool.map(range(3000))) == list(range(3000))


@pytest.mark.parametrize(("chunk", "window"), [(1, 128), (10, 160)])
def test_window_grows_where_the_workers_run_out_of_items(
    ordered: bool, chunk: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that were pulled have ended when the one who iterates gets to see the first result."""
    pulled: list[int] = []
    in_flight: list[int] = []
    with Pool([double]) as pool:
        pool.pause()

        def all_end(wait: Any) -> Any:
            def waiting(*arguments: Any) -> Any:
                in_flight.append(len(pulled))
                pool.resume()
                assert pool.wait(10)
                pool.pause()
                return wait(*arguments)

            return waiting

        for module in (map_module, chunks_module):
            monkeypatch.setattr(module, "is_held_up", all_end(lambda *_: False))
        monkeypatch.setattr(map_module._Inbox, "wait", all_end(lambda *_: None))
        items = (pulled.append(n) or n for n in itertools.count())
        results = pool.map(items, ordered=ordered, chunk=chunk)
        for _ in range(3 * window):
            next(results)
        assert in_flight[0] == window
        assert len(pulled) <= 16 * window + 3 * window
        results.close()
        pool.resume()
    assert any(later - earlier > window for earlier, later in itertools.pairwise(in_flight))


def test_slow_item_does_not_widen_a_window_that_was_given(stage: Any) -> None:
    """Nothing behind it is pulled while the window is full of results that wait for it."""
    enough, pulled = threading.Event(), []

    def run(item: int) -> int:
        if item == 0:
            assert enough.wait(stage.within)
        return item

    pool = stage.pool([run] * 2)
    results = pool.map((pulled.append(n) or n for n in range(1000)), window=128, timeout=0.1)
    with pytest.raises(TimeoutError):
        next(results)
    assert pulled == list(range(128))
    enough.set()


def test_infinite_iterable_is_consumed_as_far_as_wanted(stage: Any, ordered: bool) -> None:
    pool = stage.pool([double] * 2)
    results = pool.map(itertools.count(), window=5, ordered=ordered)
    assert sorted(itertools.islice(results, 100))[:50] == [2 * n for n in range(50)]
    results.close()


def test_slow_iterable_does_not_hold_back_a_result_that_is_there(stage: Any, ordered: bool) -> None:
    """The second item is given only after the first result was there."""
    ended, first = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert first.wait(stage.within)
        yield 2
        assert ended.wait(stage.within)  # it would time out if the window were filled first
        yield 3

    pool = stage.pool([double], on_success=lambda task: first.set())
    results = pool.map(items(), window=100, ordered=ordered)
    assert next(results) == 2
    ended.set()
    assert sorted(results) == [4, 6]


def test_error_is_raised_where_its_item_stands(stage: Any) -> None:
    pool = stage.pool([invert] * 2, retry=ONCE)
    results = pool.map([1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_errors_are_yielded_on_request(stage: Any, ordered: bool) -> None:
    pool = stage.pool([invert], retry=ONCE)
    results = list(pool.map([1, 0, 2], return_exceptions=True, ordered=ordered))
    assert [results[0], results[2]] == [1, 0.5]
    assert isinstance(results[1], ZeroDivisionError)


def test_cancelled_item_is_an_error_like_others(ordered: bool) -> None:
    pool = ManualPool([double])

    def items() -> Iterator[int]:
        yield 1
        pool.force_close()

    results = list(pool.map(items(), return_exceptions=True, ordered=ordered))
    assert [type(result) for result in results] == [CancelledError]


def test_error_of_the_iterable_comes_after_the_results_before_it(stage: Any, ordered: bool) -> None:
    def items() -> Iterator[int]:
        yield from range(10)
        raise ValueError("no more")

    results: list[int] = []
    pool = stage.pool([double] * 2)
    with pytest.raises(ValueError, match="no more"):
        results.extend(pool.map(items(), ordered=ordered))
    assert sorted(results) == [2 * n for n in range(10)]


def test_pool_that_is_closed_meanwhile_refuses_after_the_results_before_it(stage: Any) -> None:
    pool = stage.pool([double] * 2)

    def items() -> Iterator[int]:
        yield 1
        pool.close()
        yield 2

    results = pool.map(items())
    assert next(results) == 2
    with pytest.raises(PoolClosed):
        next(results)


@pytest.mark.parametrize("way", ["close", "drop", "Ctrl-C"])
def test_what_is_left_is_cancelled_when_the_consumer_stops(stage: Any, ordered: bool, way: str) -> None:
    """What waits, and what runs: its worker is told."""
    filled, told = threading.Event(), threading.Event()

    class Worker:
        def run(self, ctx: Any, item: int) -> int:
            if item == 0:
                assert filled.wait(stage.within)
            else:
                assert ctx.token.wait(stage.within)
                told.set()
            return item

    def items() -> Iterator[int]:
        yield from range(3)
        filled.set()
        yield 3

    pool = stage.pool([Worker()])
    results = pool.map(items(), ordered=ordered)
    assert next(results) == 0
    tasks = pool.tasks()
    assert len(tasks) >= 2
    if way == "close":
        results.close()
    elif way == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt)
    del results
    assert {task.state for task in tasks} == {TaskState.CANCELLED}
    pool.close()
    if tasks[0].history:  # the worker was in one of them already
        assert told.is_set()


def test_break_in_a_loop_cancels_what_is_left(stage: Any, ordered: bool) -> None:
    ran: list[int] = []

    def run(item: int) -> int:
        ran.append(item)
        return item

    pool = stage.pool([run])
    for _ in pool.map(itertools.count(), window=50, ordered=ordered):
        break
    pool.wait()
    assert pool.stats().waiting == 0
    assert len(ran) <= 51


def test_iteration_that_times_out_cancels_what_is_left(stage: Any, ordered: bool) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    results = pool.map(range(3), timeout=0, ordered=ordered)
    with pytest.raises(TimeoutError):
        next(results)
    gate.open()
    assert pool.tasks() == []


def test_iteration_dropped_by_the_collector_in_a_thread_that_holds_the_lock_does_not_hang(stage: Any) -> None:
    """Nobody may wait for a lock that it holds itself; who holds it cancels the tasks once it is free."""
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    results = pool.map(range(5), timeout=60)
    consumer = stage.start(next, results)
    gate.wait_until_reached()
    tasks = pool.tasks()
    engine = pool._engine
    with engine.lock:
        engine.cancelling.give_up(tasks)
        assert any(not task.done() for task in tasks)
        happened = engine.decided()
    engine.act(happened)
    assert all(task.cancelled() for task in tasks)
    with pytest.raises(CancelledError):
        consumer.result(stage.within)


def test_worker_that_cancels_for_others_does_not_wait_for_the_task_in_its_own_hands(stage: Any) -> None:
    """It has claimed the task, and finds that nobody wants it, on its way to run it."""
    pool = stage.pool([double])
    engine = pool._engine
    pool.pause()
    tasks = pool.dispatch_many(range(3))
    engine.unwanted.extend(tasks)
    claim = engine.scheduler.claim
    handed: list[Any] = []

    def claim_and_look(*arguments: Any) -> Any:
        task = claim(*arguments)
        if task is not None:
            handed.append(task)
        return task

    engine.scheduler.claim = claim_and_look
    engine.scheduler.fleet.resume_all()  # without `act`, so that the worker is the first to come by
    tasks[0]._wait(stage.within)
    pool.close()
    assert handed[0] is tasks[0]
    assert tasks[0].result() == 0
    assert [task.state for task in tasks[1:]] == [TaskState.CANCELLED] * 2


def test_cancelling_many_at_once_does_not_nest(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    results = pool.map(range(5000), window=5000, timeout=0)
    with pytest.raises(TimeoutError):
        next(results)
    assert pool.tasks() == []


def test_results_are_not_kept(stage: Any, ordered: bool, no_garbage: None) -> None:
    class Thing:
        pass

    pool = stage.pool([lambda item: Thing()] * 2)
    for thing in pool.map(range(50), ordered=ordered):
        known = weakref.ref(thing)
        del thing
        assert known() is None


def test_error_leaves_no_cycle_behind(stage: Any, ordered: bool, no_garbage: None) -> None:
    class Broken(Exception):
        pass

    def run(item: int) -> None:
        raise Broken

    pool = stage.pool([run], retry=ONCE, dead_limit=0)

    def consume() -> "weakref.ref[Broken]":
        try:
            list(pool.map([1], ordered=ordered))
        except Broken as error:
            return weakref.ref(error)
        raise AssertionError

    known = consume()
    pool.close()
    assert known() is None


def test_options_are_those_of_dispatch(stage: Any) -> None:
    names: list[str | None] = []
    pool = stage.pool([double], on_success=lambda task: names.append(task.name))
    assert list(pool.map([1, 2], name="pair", priority=3)) == [2, 4]
    pool.close()
    assert names == ["pair", "pair"]


def test_two_maps_at_once_share_the_pool(stage: Any) -> None:
    pool = stage.pool([double] * 3)
    pairs = zip(pool.map(range(300)), pool.map(range(300), ordered=False), strict=True)
    first, second = zip(*pairs, strict=True)
    assert list(first) == sorted(second)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"window": 0}, InvalidValue),
        ({"window": 1.5}, InvalidType),
        ({"window": True}, InvalidType),
        ({"ordered": 1}, InvalidType),
        ({"return_exceptions": None}, InvalidType),
        ({"timeout": -1}, InvalidValue),
        ({"timeout": "soon"}, InvalidType),
        ({"priority": "high"}, InvalidType),
        ({"windows": 3}, InvalidType),
    ],
)
def test_option_that_makes_no_sense_is_refused_at_the_call(
    stage: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    pool = stage.pool([double])
    with pytest.raises(error):
        pool.map([1], **options)


def test_what_can_not_be_iterated_over_is_refused_at_the_call(stage: Any) -> None:
    with pytest.raises(InvalidType, match="iterable"):
        stage.pool([double]).map(3)


def test_pool_that_takes_nothing_refuses_at_the_call(stage: Any) -> None:
    pool = stage.pool([double])
    pool.close()
    with pytest.raises(PoolClosed):
        pool.map([1])
    with pytest.raises(NoWorkers):
        Pool().map([1])


def test_worker_can_not_wait_for_its_own_pool(stage: Any) -> None:
    pool = stage.pool([lambda item: list(pool.map([1]))], retry=ONCE)
    with pytest.raises(WrongThread):
        pool.dispatch(1).result()


def test_as_completed_gives_tasks_as_they_end(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([lambda item: gate.hold() if item == 0 else item] * 2)
    tasks = pool.dispatch_many(range(3))
    ended = pool.as_completed(tasks)
    assert {next(ended), next(ended)} == set(tasks[1:])
    gate.open()
    assert list(ended) == [tasks[0]]


def test_as_completed_that_is_not_run_to_its_end_keeps_nothing(stage: Any, no_garbage: None) -> None:
    """Not even while a task that it was to give has not ended."""

    class Result:
        pass

    gate = stage.gate()

    def run(data: str) -> Any:
        return gate.hold() if data == "held" else Result()

    pool = stage.pool([run] * 2)
    held, others = pool.dispatch("held"), pool.dispatch_many(range(3))
    given = pool.as_completed([held, *others])
    next(given)
    given.close()
    results = [weakref.ref(other.result(stage.within)) for other in others]
    del given, others
    stage.until(lambda: not any(result() for result in results))
    gate.open()
    held.result(stage.within)


def test_as_completed_times_out(stage: Any) -> None:
    gate = stage.gate()
    task = stage.pool([gate.hold]).dispatch(1)
    with pytest.raises(TimeoutError):
        next(stage.pool([double]).as_completed([task], timeout=0))


def test_as_completed_refuses_what_is_no_task_at_the_call(stage: Any) -> None:
    pool = stage.pool([double])
    with pytest.raises(InvalidType):
        pool.as_completed(["task"])
    with pytest.raises(InvalidValue):
        pool.as_completed([], timeout=-1)


def test_map_of_nothing_is_nothing(stage: Any, ordered: bool) -> None:
    assert list(stage.pool([double]).map([], ordered=ordered)) == []


def test_iteration_that_ends_as_a_task_is_about_to_be_told_of_disturbs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Inbox(map_module._Inbox[int, int]):
        """Ends as soon as somebody has looked what is to be told."""

        @property
        def _on_end(self) -> Any:
            told, self._told = self._told, None
            return told

        @_on_end.setter
        def _on_end(self, told: Any) -> None:
            self._told = told

    heard: list[object] = []
    with Pool([abs]) as pool:
        task = pool.dispatch(-1)
        assert task.result() == 1
        Inbox(heard.append).announce(task)
    assert heard == [task]
    assert not caplog.records
