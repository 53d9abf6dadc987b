"""Each error keeps its facts, through a pickle too, and says what to do."""

import copy
import inspect
import pickle
from datetime import timedelta
from typing import Any

import pytest

import retrypool
from retrypool import errors
from retrypool.errors import (
    AttemptTimeout,
    CloseTimeout,
    Interrupted,
    InvalidType,
    InvalidValue,
    MissingExtra,
    NoContext,
    NotStorable,
    NoWorkers,
    PoolClosed,
    QueueFull,
    RemoteError,
    RetryPoolError,
    SourceError,
    StorageError,
    StoredError,
    TaskLost,
    TaskNotFound,
    Throttled,
    Unrecoverable,
    WorkerFault,
    WorkerLost,
    WorkerNotFound,
    WrongThread,
)

# An error, its fields, and what its message has to hold: the value, and the advice.
CASES: list[tuple[BaseException, dict[str, Any], list[str]]] = [
    (
        InvalidValue("timeout", -1, "a positive number of seconds"),
        {"what": "timeout", "value": -1, "expected": "a positive number of seconds"},
        ["timeout is -1", "it must be a positive number of seconds"],
    ),
    (
        InvalidType("retry", "3", "a RetryPolicy"),
        {"what": "retry", "value": "3", "expected": "a RetryPolicy"},
        ["retry is '3' (str)", "it must be a RetryPolicy"],
    ),
    (
        MissingExtra("cron", "cronsim", "cron="),
        {"extra": "cron", "package": "cronsim", "what": "cron="},
        ["cron= needs cronsim", 'pip install "retrypool[cron]"'],
    ),
    (PoolClosed("pool-1"), {"pool": "pool-1"}, ["pool-1", "make a new pool"]),
    (PoolClosed("pool-1", "it was forked"), {"why": "it was forked"}, ["pool-1", "it was forked"]),
    (
        CloseTimeout(1.5, ["worker-0 (task 7)"], 3),
        {"timeout": 1.5, "running": ("worker-0 (task 7)",), "waiting": 3},
        ["1.5 s", "worker-0 (task 7)", "3 waiting", "force_close()"],
    ),
    (CloseTimeout(1.5, [], 0), {"running": (), "waiting": 0}, ["nothing"]),
    (QueueFull(10), {"limit": 10}, ["10 tasks", "max_queue"]),
    (WorkerNotFound("x", [0, 1]), {"worker_id": "x", "known": (0, 1)}, ["'x'", "0, 1"]),
    (WorkerNotFound(7), {"worker_id": 7, "known": ()}, ["7", "none"]),
    (
        TaskNotFound(7, "among the dead tasks"),
        {"task_id": 7, "where": "among the dead tasks"},
        ["task 7", "among the dead tasks"],
    ),
    (NoWorkers("pool-1"), {"pool": "pool-1"}, ["pool-1", "add_worker()", "wait_for_workers=True"]),
    (NoContext(), {}, ["current_context()", "inside a worker"]),
    (
        RemoteError("far.Error", "no page", "box"),
        {"kind": "far.Error", "message": "no page", "host": "box"},
        ["far.Error", "no page", "box"],
    ),
    (
        WorkerLost("api-1", "box", "it is gone"),
        {"worker": "api-1", "host": "box", "why": "it is gone"},
        ["api-1", "box", "it is gone"],
    ),
    (WorkerLost("api-1", None, "no room"), {"worker": "api-1", "host": None, "why": "no room"}, ["api-1"]),
    (WrongThread("close()"), {"call": "close()"}, ["close()", "another thread"]),
    (AttemptTimeout(2.5), {"seconds": 2.5, "limit": "timeout"}, ["2.5 s", "timeout"]),
    (AttemptTimeout(9.0, "deadline"), {"seconds": 9.0, "limit": "deadline"}, ["9 s", "deadline"]),
    (SourceError("a queue", "refused"), {"source": "a queue", "why": "refused"}, ["a queue: refused"]),
    (StorageError("run.db", "disk full"), {"where": "run.db", "why": "disk full"}, ["run.db: disk full"]),
    (
        NotStorable("data['x']", {1}, "use a list"),
        {"path": "data['x']", "value": {1}, "why": "use a list"},
        ["data['x'] is {1} (set)", "use a list"],
    ),
    (
        StoredError("shop.Down", "no answer"),
        {"kind": "shop.Down", "text": "no answer"},
        ["shop.Down: no answer"],
    ),
    (StoredError("shop.Down", ""), {"text": ""}, ["shop.Down"]),
    (TaskLost(3), {"losses": 3}, ["ended 3 times", "this task"]),
    (Interrupted(), {}, []),
    (Unrecoverable("no such page"), {}, ["no such page"]),
    (Throttled(), {"retry_after": None}, ["throttled"]),
    (Throttled("slow down", retry_after="120"), {"retry_after": "120"}, ["slow down"]),
    (Throttled(retry_after=timedelta(minutes=1)), {"retry_after": timedelta(minutes=1)}, ["throttled"]),
    (WorkerFault("proxy is gone"), {"error": "proxy is gone"}, ["proxy is gone"]),
]
IDS = [type(case[0]).__name__ for case in CASES]


def through_pickle(error: BaseException) -> BaseException:
    return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("error", "fields", "words"), CASES, ids=IDS)
def test_error_keeps_its_facts_and_says_what_to_do(
    error: BaseException, fields: dict[str, Any], words: list[str]
) -> None:
    assert {name: getattr(error, name) for name in fields} == fields
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize("way", [through_pickle, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(("error", "fields", "words"), CASES, ids=IDS)
def test_error_comes_through_whole(
    way: Any, error: BaseException, fields: dict[str, Any], words: list[str]
) -> None:
    again = way(error)
    assert type(again) is type(error)
    assert {name: getattr(again, name) for name in fields} == fields
    assert (str(again), again.args) == (str(error), error.args)


class QuotaUsedUp(Throttled):
    """What a user may derive."""


def test_error_derived_from_throttled_comes_through_as_what_it_is() -> None:
    error = QuotaUsedUp("quota", retry_after=3)
    error.add_note("token 4")
    again = through_pickle(error)
    assert type(again) is QuotaUsedUp
    assert (str(again), again.retry_after, again.__notes__) == ("quota", 3, ["token 4"])


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (InvalidValue, ValueError),
        (InvalidType, TypeError),
        (PoolClosed, RuntimeError),
        (CloseTimeout, TimeoutError),
        (AttemptTimeout, TimeoutError),
        (WorkerNotFound, LookupError),
        (TaskNotFound, LookupError),
        (NoContext, LookupError),
        (WrongThread, RuntimeError),
    ],
)
def test_error_is_also_what_others_would_catch(kind: type[BaseException], also: type[BaseException]) -> None:
    assert issubclass(kind, RetryPoolError)
    assert issubclass(kind, also)


def test_what_a_call_raises_is_a_retry_pool_error_and_what_a_worker_raises_is_not() -> None:
    kinds = {getattr(errors, name) for name in errors.__all__}
    by_workers = {Unrecoverable, Throttled, WorkerFault, Interrupted}
    assert {kind for kind in kinds if not issubclass(kind, RetryPoolError)} == by_workers


def test_interruption_is_no_exception() -> None:
    """`except Exception` in a worker must not swallow it."""
    assert not issubclass(Interrupted, Exception)


def test_every_error_is_tested_here_and_public() -> None:
    defined = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
    }
    assert {kind.__name__ for kind in defined} == set(errors.__all__)
    assert all(getattr(retrypool, name) is getattr(errors, name) for name in errors.__all__)
    assert defined - {type(case[0]) for case in CASES} == {RetryPoolError}


def test_message_can_be_made_of_a_number_too_long_to_write() -> None:
    """Python refuses to write integers of more than 4,300 digits."""
    with pytest.raises(InvalidValue) as caught:
        retrypool.fixed(10**5_000)
    assert "delay is" in str(caught.value)
