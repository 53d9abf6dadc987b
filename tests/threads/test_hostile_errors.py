"""Errors that fight back: each of their methods may raise, take its time, or ask the pool."""

from collections.abc import Callable
from typing import Any

import pytest

from retrypool import Pool, RetryPolicy, TaskState
from retrypool.clock import SystemClock

ONCE_MORE = RetryPolicy(attempts=2, delay=0)


class FightsEverything(Exception):
    """Raises whatever it is asked, from the moment when it is out."""

    armed = False

    def __getattribute__(self, name: str) -> Any:
        if type(self).armed:
            raise SystemExit(f"nobody reads {name}")
        return super().__getattribute__(name)


def error_whose(name: str, method: Callable[..., Any]) -> type[Exception]:
    return type(f"Error{name}", (Exception,), {name: method})


def raise_system_exit(*_: object) -> Any:
    raise SystemExit("not with me")


HOSTILE = {
    "__str__": error_whose("__str__", raise_system_exit),
    "__repr__": error_whose("__repr__", raise_system_exit),
    "__class__": error_whose("__class__", property(raise_system_exit)),
    "__bool__": error_whose("__bool__", raise_system_exit),
    "__eq__": type("E", (Exception,), {"__eq__": raise_system_exit, "__hash__": raise_system_exit}),
    "__traceback__": error_whose("__traceback__", property(raise_system_exit)),
    "__setattr__": error_whose("__setattr__", raise_system_exit),
    "__cause__": error_whose("__cause__", property(raise_system_exit)),
    "__getattribute__": error_whose("__getattribute__", raise_system_exit),
    "retry_after": error_whose("retry_after", property(raise_system_exit)),
    "__notes__": error_whose("__notes__", property(raise_system_exit)),
    "args": error_whose("args", property(raise_system_exit)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["run", "on_failure", "retry_if", "delay", "blame", "cost of a retry"])
def test_task_ends_whatever_its_error_does(stage: Any, name: str, where: str) -> None:
    kind = HOSTILE[name]

    def run(data: str) -> str:
        if data == "good":
            return data
        raise kind("bad") if where == "run" else OSError("bad")

    def fail(*_: object) -> Any:
        raise kind("bad")

    policy = RetryPolicy(
        attempts=2,
        delay=fail if where == "delay" else 0,
        retry_if=fail if where == "retry_if" else None,
    )
    pool = stage.pool(
        [run] * 2,
        retry=policy,
        on_failure=fail if where == "on_failure" else None,
        blame=fail if where == "blame" else None,
    )
    tasks = [pool.dispatch("bad") for _ in range(4)]
    good = pool.dispatch("good")
    assert good.result(stage.within) == "good"
    for task in tasks:
        assert task.exception(stage.within) is not None
        assert task.state is TaskState.DEAD
        assert pool.status(task.id).state is TaskState.DEAD
    pool.close(timeout=stage.within)
    assert {info.state for info in pool.workers()} <= {"stopping", "stopped"}


def test_error_that_raises_whatever_it_is_asked_ends_its_task(stage: Any) -> None:
    def run(data: object) -> None:
        error = FightsEverything("x")
        FightsEverything.armed = True
        raise error

    try:
        pool = stage.pool([run], retry=ONCE_MORE)
        task = pool.dispatch("x")
        stage.until(task.done)
        pool.close(timeout=stage.within)
        assert task.state is TaskState.DEAD
    finally:
        FightsEverything.armed = False


def test_error_whose_text_asks_the_pool_stops_nobody(stage: Any) -> None:
    """The text is made when no lock is held."""
    pools: list[Pool[Any, Any]] = []

    class Asks(Exception):
        def __str__(self) -> str:
            return f"{pools[0].queue_size} wait, {pools[0].stats().running} run"

    def run(data: object) -> None:
        raise Asks

    pools.append(stage.pool([run], retry=ONCE_MORE))
    task = pools[0].dispatch("x")
    assert isinstance(task.exception(stage.within), Asks)
    assert "0 wait" in str(pools[0].status(task.id).last_error)
    pools[0].close(timeout=stage.within)


def test_text_of_an_error_is_made_without_the_lock_for_status_of_a_task_that_waits(stage: Any) -> None:
    pools: list[Pool[Any, Any]] = []

    class Asks(Exception):
        def __str__(self) -> str:
            return f"{pools[0].queue_size} wait"

    def run(data: object) -> None:
        raise Asks

    pools.append(stage.pool([run], retry=RetryPolicy(attempts=2, delay=3600)))
    task = pools[0].dispatch("x")
    stage.until(lambda: task.state is TaskState.RETRYING)
    assert pools[0].status(task.id).last_error == "Asks: 1 wait"


def test_clock_that_raises_in_a_worker_costs_one_task_and_not_the_worker(
    stage: Any, hooks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An error from nowhere that is known ends what the thread has in hand, and is logged."""
    pool = stage.pool([lambda data: data])

    def raise_once() -> None:
        raise OSError("no time")

    pool.dispatch("first").result(stage.within)
    hooks.arm("taken", lambda: hooks.clock.call_next(stage.worker_threads(pool)[0].ident, raise_once))
    task = pool.dispatch("x")
    error = task.exception(stage.within)
    assert isinstance(error, OSError)
    assert pool.dispatch("y").result(stage.within) == "y"
    pool.close(timeout=stage.within)
    assert "goes on after an error" in caplog.text


def test_worker_whose_attributes_raise_is_logged_and_the_pool_closes(stage: Any) -> None:
    class Bites:
        bites = False

        def __getattribute__(self, name: str) -> Any:
            if type(self).bites:
                raise SystemExit(f"no {name}")
            return super().__getattribute__(name)

        def run(self, ctx: Any, data: object) -> object:
            type(self).bites = True
            return data

    pool = stage.pool([Bites(), lambda data: data])
    assert pool.dispatch("x").result(stage.within) == "x"
    pool.close(timeout=stage.within)


def test_type_of_an_error_may_have_a_metaclass_of_the_users(stage: Any) -> None:
    """It is asked for nothing, neither under the lock nor outside it: not for its hash either."""
    asked: list[str] = []

    class Meta(type):
        def __hash__(cls) -> int:
            asked.append("hash")
            raise ValueError("no hash")

        def __eq__(cls, other: object) -> bool:
            asked.append("eq")
            raise ValueError("no equality")

    class Odd(OSError, metaclass=Meta):
        pass

    def run(data: int) -> int:
        if data:
            raise Odd(data)
        return data

    pool = stage.pool([run] * 2, retry=RetryPolicy(attempts=2, delay=0))
    pool.dispatch(0).result(stage.within)
    tasks = pool.dispatch_many([1] * 3)
    kinds = [type(task.exception(stage.within)) for task in tasks]
    assert all(kind is Odd for kind in kinds)
    assert asked == []


def test_error_whose_traceback_another_thread_takes_off_is_tried_again() -> None:
    """Several threads raise the same error, and each of them takes off what the others have put there."""
    shared = ValueError("shared")
    seen: list[int] = []

    class Clock(SystemClock):
        def monotonic(self) -> float:
            shared.with_traceback(None)
            return super().monotonic()

    def run(item: int) -> int:
        seen.append(item)
        if len(seen) == 1:
            raise shared
        return item

    with Pool([run], clock=Clock(), retry=RetryPolicy(attempts=2, delay=0)) as pool:
        assert pool.dispatch(7).result(10) == 7
