"""A Ctrl-C at any bytecode of a public call, which the program catches: the pool is whole after it."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from retrypool import (
    CancelToken,
    Drain,
    InvalidValue,
    Pool,
    QueueFull,
    RetryPolicy,
    TaskNotFound,
    WorkerNotFound,
    WorkerSpec,
)
from retrypool.ctrl_c import main_gate

from .striking import Strike

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT"),
    # Where a generator is closed that was not run to its end, Python drops what strikes.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WITHIN = 20.0


def same(data: Any) -> Any:
    if data == "bad":
        raise OSError(data)
    return data


def make(**options: Any) -> Pool[Any, Any]:
    specs = [WorkerSpec(same, tags={"tag"}), WorkerSpec(same)]
    return Pool(specs, retry=RetryPolicy(attempts=1), **options)


def with_group(pool: Any) -> None:
    with pool.group() as group:
        group.dispatch_many(range(3))


def with_view(pool: Any) -> None:
    view = pool.as_executor()
    view.submit(int).exception(WITHIN)
    view.shutdown()


def with_drain(pool: Any) -> None:
    drain: Drain[Any] = Drain(commit="success")
    pool.dispatch("x", drain=drain).result(WITHIN)
    drain.drain()


def with_token(pool: Any) -> None:
    token = CancelToken()
    task = pool.dispatch("x", delay=3600, cancel=token.after(3600))
    token.cancel()
    assert task.cancelled()


def with_schedule(pool: Any) -> None:
    schedule = pool.schedule("x", every=3600)
    schedule.pause()
    schedule.cancel()


def with_dead(pool: Any) -> None:
    task = pool.dispatch("bad")
    task.exception(WITHIN)
    pool.requeue_dead_task(task.id).exception(WITHIN)
    pool.pull_dead_task(task.id)


def with_worker(pool: Any) -> None:
    added = pool.add_worker(same)
    pool.pause_worker(added)
    pool.resume_worker(added)
    pool.cordon_worker(added, "no more")
    pool.replace_worker(added, same)
    pool.interrupt_worker(added)
    pool.restart_worker(added)
    pool.remove_worker(added)


def looking(pool: Any) -> None:
    task = pool.dispatch("x", delay=3600)
    pool.stats(), pool.workers(), pool.tasks(), pool.explain(task), pool.status(task.id)
    task.cancel()


CALLS: dict[str, Callable[[Any], object]] = {
    "dispatch": lambda pool: pool.dispatch("x"),
    "dispatch, with a delay": lambda pool: pool.dispatch("x", delay=0.0001),
    "dispatch, for some": lambda pool: pool.dispatch("x", require={"tag"}, timeout=5, deadline=50),
    "dispatch_many": lambda pool: pool.dispatch_many(range(3)),
    "result": lambda pool: pool.dispatch("x").result(WITHIN),
    "results": lambda pool: [task.result(WITHIN) for task in pool.dispatch_many(range(3))],
    "exception": lambda pool: pool.dispatch("bad").exception(WITHIN),
    "cancel": lambda pool: pool.dispatch("x", delay=3600).cancel(),
    "cancel_task": lambda pool: pool.cancel_task(pool.dispatch("x", delay=3600)),
    "wait": lambda pool: (pool.dispatch("x"), pool.wait(WITHIN)),
    "wait_with": lambda pool: (pool.dispatch("x"), pool.wait_with(id, 0.1)),
    "map": lambda pool: list(pool.map(range(3), window=2)),
    "map, as they come": lambda pool: list(pool.map(range(3), window=2, ordered=False)),
    "map, in chunks": lambda pool: list(pool.map(range(6), chunk=2)),
    "dispatch, with a token": lambda pool: pool.dispatch("x", cancel=CancelToken()),
    "as_completed": lambda pool: list(pool.as_completed(pool.dispatch_many(range(3)))),
    "group": with_group,
    "as_executor": with_view,
    "drain": with_drain,
    "token": with_token,
    "schedule": with_schedule,
    "dead tasks": with_dead,
    "workers": with_worker,
    "looking": looking,
    "pause": lambda pool: (pool.pause(), pool.resume()),
    "add_done_callback": lambda pool: pool.dispatch("x").add_done_callback(id),
}
CLOSING: dict[str, Callable[[Any], object]] = {
    "close": lambda pool: (pool.dispatch("x"), pool.close(WITHIN)),
    "close, with delayed": lambda pool: (pool.dispatch("x", delay=3600), pool.close(delayed="cancel")),
    "force_close": lambda pool: (pool.dispatch("x", delay=3600), pool.force_close()),
}


def check(pool: Any, strike: Strike) -> None:
    where = strike.struck_at
    assert main_gate() is None, where
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, where
    assert not pool._engine.lock._is_owned(), where


def strikes(patience: float, most: int) -> "list[int]":
    """The first ones all, then as many as there is patience for."""
    step = max(1, round(3 / patience))
    return [number for number in range(1, most) if number < 40 or number % step == 0]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"listeners": [id]},
    {"max_queue": 3},
    {"keep_results": True, "listeners": [id]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "told", "bounded", "kept"])
@pytest.mark.parametrize("name", CALLS)
def test_pool_goes_on_after_a_strike(name: str, options: dict[str, Any], patience: float) -> None:
    for number in strikes(patience, 10_000):
        pool = make(**options)
        strike = Strike(number)
        struck = strike(partial(CALLS[name], pool))
        check(pool, strike)
        with suppress(TaskNotFound, WorkerNotFound, InvalidValue):
            pool.resume_worker(0)
        pool.resume()
        for task in pool.tasks():
            if task.state == "scheduled":
                task.cancel()
        after = pool.dispatch_many(["after"] * 4, block_timeout=WITHIN)
        assert [task.result(WITHIN) for task in after] == ["after"] * 4, strike.struck_at
        for schedule in pool.schedules():
            schedule.cancel()
        assert pool.wait(WITHIN), strike.struck_at
        stats = pool.stats()
        assert (stats.queued, stats.delayed, stats.running) == (0, 0, 0), strike.struck_at
        pool.close(WITHIN)
        if not struck:
            return
    raise AssertionError("it never came to its end")


def exact(pool: Any) -> bool:
    """Whether each withdrawn task that is counted is in the queue, and no other."""
    backlog = pool._engine.scheduler.backlog
    tasks = [*backlog.injector, *(entry[2] for each in backlog.subqueues.values() for entry in each.tasks)]
    return backlog.tombstones == sum(task._withdrawn is True for task in tasks)


MAPS: dict[str, dict[str, Any]] = {
    "in order": {},
    "as they come": {"ordered": False},
    "in chunks": {"chunk": 2},
    "in chunks, as they come": {"chunk": 2, "ordered": False},
    "some workers": {"require": {"tag"}, "priority": 3},
    "with a deadline": {"deadline": 3600},
    "careful": {"delay": 3600},
}


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "told", "bounded", "kept"])
@pytest.mark.parametrize("name", MAPS)
def test_map_that_is_struck_leaves_no_task_behind(
    name: str, options: dict[str, Any], patience: float
) -> None:
    """Nor does one that ends by itself, and is struck while it does."""

    def call(pool: Any) -> None:
        with suppress(TimeoutError):
            list(pool.map(range(6), window=4, timeout=0, **MAPS[name]))

    for number in strikes(patience, 10_000):
        pool = make(**options)
        pool.pause()
        strike = Strike(number)
        struck = strike(partial(call, pool))
        check(pool, strike)
        assert pool.tasks() == [], strike.struck_at
        assert exact(pool), strike.struck_at
        pool.close(WITHIN)
        if not struck:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("paused", [True, False])
def test_place_in_the_queue_is_not_lost_to_a_strike(paused: bool, patience: float) -> None:
    """Whether the dispatch that is struck waits in vain, or its place comes free meanwhile."""

    def call(pool: Any) -> None:
        with suppress(QueueFull):
            pool.dispatch_many(range(4), block_timeout=0.001 if paused else WITHIN)

    for number in strikes(patience, 10_000):
        pool = make(max_queue=1)
        if paused:
            pool.pause()
        strike = Strike(number)
        struck = strike(partial(call, pool))
        check(pool, strike)
        limit: Any = pool._engine.queue_limit
        assert (limit.taken, limit.waiting) == (0, {}), strike.struck_at
        assert exact(pool) or not paused, strike.struck_at
        pool.resume()
        after = pool.dispatch_many(["after"] * 4, block_timeout=WITHIN)
        assert [task.result(WITHIN) for task in after] == ["after"] * 4, strike.struck_at
        pool.close(WITHIN)
        if not struck:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "told", "bounded", "kept"])
def test_tasks_whose_cancellation_is_struck_are_counted(options: dict[str, Any], patience: float) -> None:
    for number in strikes(patience, 10_000):
        pool = make(**options)
        pool.pause()
        tasks = [pool.dispatch("x") for _ in range(3)]
        told: list[Any] = []
        tasks[1].add_done_callback(told.append)
        strike = Strike(number)
        struck = strike(lambda tasks=tasks: [task.cancel() for task in tasks])  # type: ignore[misc]
        check(pool, strike)
        cancelled = [task for task in tasks if task.cancelled()]
        assert exact(pool), strike.struck_at
        assert pool.queue_size == 3 - len(cancelled), strike.struck_at
        assert pool.stats().cancelled == len(cancelled), strike.struck_at
        assert [pool.status(task.id).state for task in cancelled] == ["cancelled"] * len(cancelled)
        if "begin" not in strike.struck_at:  # where the callback itself is what the Ctrl-C ends
            assert told == [task for task in cancelled if task is tasks[1]], strike.struck_at
        pool.force_close()
        if not struck:
            return
    raise AssertionError("it never came to its end")


TOKENS: dict[str, Callable[[], CancelToken]] = {
    "plain": CancelToken,
    "with a deadline": lambda: CancelToken().after(3600),
    "cancelled": lambda: (token := CancelToken(), token.cancel())[0],
}


@pytest.mark.parametrize("options", [{}, {"require": {"tag"}}, {"deadline": 3600}, {"delay": 3600}])
@pytest.mark.parametrize("name", TOKENS)
def test_task_whose_dispatch_was_struck_follows_its_token(
    name: str, options: dict[str, Any], patience: float
) -> None:
    for number in strikes(patience, 10_000):
        pool, token = make(), TOKENS[name]()
        pool.pause()
        strike = Strike(number)
        struck = strike(lambda pool=pool, token=token: pool.dispatch("x", cancel=token, **options))  # type: ignore[misc]
        check(pool, strike)
        token.cancel()
        assert pool.tasks() == [], strike.struck_at
        assert not token._callbacks, strike.struck_at
        assert exact(pool), strike.struck_at
        pool.close(WITHIN)
        if not struck:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("name", CLOSING)
def test_pool_can_be_closed_after_a_strike(name: str, patience: float) -> None:
    for number in strikes(patience, 10_000):
        pool = make()
        strike = Strike(number)
        struck = strike(partial(CLOSING[name], pool))
        check(pool, strike)
        for task in pool.tasks():
            task.cancel()
        pool.close(WITHIN)
        assert pool._engine.scheduler.idle(), strike.struck_at
        if not struck:
            return
    raise AssertionError("it never came to its end")
