"""What makes no sense is refused at the call, by an error of its own type, and changes nothing."""

import math
from datetime import timedelta
from typing import Any

import pytest

from retrypool import (
    InvalidType,
    InvalidValue,
    Pool,
    RetryPoolError,
    TaskNotFound,
    WorkerNotFound,
    WorkerSpec,
)

BAD_SECONDS = [(-1, InvalidValue), (math.nan, InvalidValue), (math.inf, InvalidValue), ("1", InvalidType)]
BAD_SECONDS += [(timedelta(seconds=-1), InvalidValue), (True, InvalidType), (10**400, InvalidValue)]


class NoWorker:
    """Has no `run`."""


class Worker:
    def run(self, ctx: Any, data: Any) -> Any:
        return data


def refused(kind: type[Exception], call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert isinstance(caught.value, RetryPoolError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("workers", "names"),
    [
        ([NoWorker()], "a worker"),
        ([int, None], "a worker"),
        ([42], "a worker"),
        ([Worker], "an instance"),  # the class in place of an object of it
        (["run"], "a worker"),
        ("run", "workers"),
        (Worker(), "workers"),
        (7, "workers"),
        (None, "workers"),
    ],
)
def test_pool_of_what_is_no_worker(workers: Any, names: str) -> None:
    assert names in refused(InvalidType, Pool, workers)


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        *[("affinity_wait", value, kind) for value, kind in BAD_SECONDS],
        *[("timeout", value, kind) for value, kind in [*BAD_SECONDS, (0, InvalidValue)]],
        *[("time_limit", value, kind) for value, kind in [*BAD_SECONDS, (0, InvalidValue)]],
        *[("deadline", value, kind) for value, kind in [*BAD_SECONDS, (0, InvalidValue)]],
        *[("grace", value, kind) for value, kind in BAD_SECONDS],
        *[("exit_timeout", value, kind) for value, kind in BAD_SECONDS],
        ("affinity_wait", None, InvalidType),
        ("retry", 3, InvalidType),
        ("interrupt_on_timeout", "yes", InvalidType),
        ("copy_context", 1, InvalidType),
        ("options", ["a"], InvalidType),
        ("cancel", object(), InvalidType),
        ("on_success", 1, InvalidType),
        ("on_failure", "log", InvalidType),
        ("on_retry", [], InvalidType),
        ("on_dead", {}, InvalidType),
        ("listeners", [1], InvalidType),
        ("listeners", 1, InvalidType),
        ("dead_limit", -1, InvalidValue),
        ("dead_limit", 1.5, InvalidType),
        ("dead_limit", True, InvalidType),
        ("max_abandoned", -1, InvalidValue),
        ("max_abandoned", "many", InvalidType),
        ("wait_for_workers", "yes", InvalidType),
        ("name", 7, InvalidType),
        ("clock", 7, InvalidType),
    ],
)
def test_pool_with_an_option_that_makes_no_sense(option: str, value: Any, kind: type[Exception]) -> None:
    """No thread has been started then: the test would leave one behind."""
    refused(kind, Pool, [int] * 2, **{option: value})


def test_pool_with_an_option_that_there_is_none_of() -> None:
    with pytest.raises(TypeError, match="max_workers"):
        Pool([int], max_workers=4)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        *[(option, value, kind) for option in ("timeout", "time_limit") for value, kind in BAD_SECONDS],
        *[("delay", value, kind) for value, kind in [*BAD_SECONDS, (None, InvalidType)]],
        ("deadline", 0, InvalidValue),
        ("priority", 1.5, InvalidType),
        ("priority", "high", InvalidType),
        ("priority", None, InvalidType),
        ("retry", 3, InvalidType),
        ("retry", None, InvalidType),
        ("options", 3, InvalidType),
        ("metadata", 3, InvalidType),
        ("name", 3, InvalidType),
        ("interrupt_on_timeout", 1, InvalidType),
        ("copy_context", None, InvalidType),
        ("cancel", 3, InvalidType),
        ("atempts", 3, InvalidType),  # there is none of this name
    ],
)
def test_dispatch_with_an_option_that_makes_no_sense(
    stage: Any, option: str, value: Any, kind: type[Exception]
) -> None:
    pool = stage.pool([int])
    before = pool.stats()
    assert option in refused(kind, pool.dispatch, "1", **{option: value})
    assert option in refused(kind, pool.dispatch_many, "123", **{option: value})
    assert pool.stats() == before
    assert pool.dispatch("1").result(stage.within) == 1
    pool.close(timeout=stage.within)


def test_dispatch_many_of_what_cannot_be_iterated(stage: Any) -> None:
    pool = stage.pool([int])
    refused(InvalidType, pool.dispatch_many, 5)
    refused(InvalidType, pool.dispatch_many, 5, priority=1)
    assert pool.stats().dispatched == 0
    pool.close(timeout=stage.within)


@pytest.mark.parametrize(
    ("worker", "options", "kind"),
    [
        (NoWorker(), {}, InvalidType),
        (None, {}, InvalidType),
        (Worker, {}, InvalidType),
        (int, {"name": 3}, InvalidType),
        (int, {"name": ""}, InvalidValue),
        (int, {"group": 3}, InvalidType),
        (int, {"group": ""}, InvalidValue),
        (WorkerSpec(int), {"name": 3}, InvalidType),
    ],
)
def test_add_worker_that_makes_no_sense(
    stage: Any, worker: Any, options: dict[str, Any], kind: type[Exception]
) -> None:
    pool = stage.pool([int])
    stage.until(lambda: pool.workers()[0].state == "active")
    before = pool.workers()
    refused(kind, pool.add_worker, worker, **options)
    assert pool.workers() == before
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("worker_id", [99, -1, "0", None, 0.0])
@pytest.mark.parametrize("call", ["remove_worker", "pause_worker", "resume_worker"])
def test_id_of_no_worker_is_not_found(stage: Any, call: str, worker_id: Any) -> None:
    pool = stage.pool([int])
    stage.until(lambda: pool.workers()[0].state == "active")
    before = pool.workers()
    message = refused(WorkerNotFound, getattr(pool, call), worker_id)
    assert repr(worker_id) in message
    assert pool.workers() == before
    pool.close(timeout=stage.within)


@pytest.mark.parametrize(("value", "kind"), BAD_SECONDS)
def test_times_to_wait_that_make_no_sense(stage: Any, value: Any, kind: type[Exception]) -> None:
    pool = stage.pool([int])
    refused(kind, pool.wait, value)
    refused(kind, pool.close, value)
    refused(kind, pool.remove_worker, 0, value)
    refused(kind, pool.wait_with, bool, value)
    refused(InvalidValue, pool.wait_with, bool, 0)
    assert not pool.closed
    assert pool.dispatch("1").result(stage.within) == 1
    pool.close(timeout=stage.within)


def test_wait_with_what_cannot_be_called(stage: Any) -> None:
    pool = stage.pool([int])
    refused(InvalidType, pool.wait_with, 5)
    pool.close(timeout=stage.within)


def test_cancel_task_wants_a_task(stage: Any) -> None:
    for wrong in ("3", 3.0, True, None):
        with pytest.raises(InvalidType, match="what dispatch"):
            stage.pool([str]).cancel_task(wrong)
    with pytest.raises(TaskNotFound):
        stage.pool([str]).cancel_task(3)


@pytest.mark.parametrize(
    ("timeout", "error"), [("x", InvalidType), (True, InvalidType), (math.nan, InvalidValue)]
)
def test_result_with_a_timeout_that_makes_no_sense(stage: Any, timeout: Any, error: type[Exception]) -> None:
    pool = stage.pool([str])
    pool.pause()
    task = pool.dispatch(1)
    for wait in (task.result, task.exception):
        with pytest.raises(error):
            wait(timeout)
        with pytest.raises(TimeoutError):
            wait(timedelta(milliseconds=1))
        with pytest.raises(TimeoutError):
            wait(-1)


@pytest.mark.parametrize("long", [1e10, 10**18, 1e300, timedelta.max])
def test_time_that_no_thread_can_wait_is_as_long_as_it_takes(stage: Any, long: Any) -> None:
    pool = stage.pool([str, str])
    assert pool.dispatch(1).result(long) == "1"
    assert pool.wait(long)
    assert pool.wait_with(lambda stats: None, long)
    pool.remove_worker(0, timeout=long)
    assert len(pool.workers()) == 1
    pool.close(long)
