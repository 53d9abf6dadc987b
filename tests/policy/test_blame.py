"""Whose fault a failure is, and what that costs the task."""

import logging
from datetime import timedelta
from typing import Any

import pytest

from retrypool import (
    UNLIMITED,
    AttemptTimeout,
    DeadReason,
    InvalidType,
    InvalidValue,
    RetryPolicy,
    Scope,
    TaskState,
    Throttled,
    Unrecoverable,
    WorkerFault,
)
from retrypool.policy.blame import as_judge
from retrypool.policy.retry import UNCHARGED

from ..core.fleets import AT_ONCE, claimed, fleet, outcomes, states


class TooMany(Exception):
    def __init__(self, retry_after: object = None) -> None:
        super().__init__("429")
        self.retry_after = retry_after


class Worse(TooMany):
    pass


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (OSError(), Scope.TASK),
        (KeyboardInterrupt(), Scope.TASK),
        (Throttled(), Scope.THROTTLED),
        (WorkerFault("x"), Scope.GROUP),
        (Unrecoverable(), Scope.UNRECOVERABLE),
        (type("Slower", (Throttled,), {})(), Scope.THROTTLED),
    ],
)
def test_error_speaks_for_itself(error: BaseException, scope: Scope) -> None:
    assert as_judge(None)(error)[0] is scope


@pytest.mark.parametrize(
    ("verdict", "scope"),
    [
        ("task", Scope.TASK),
        ("group", Scope.GROUP),
        ("nobody", Scope.NOBODY),
        ("throttled", Scope.THROTTLED),
        ("unrecoverable", Scope.UNRECOVERABLE),
        (Scope.GROUP, Scope.GROUP),
        (Throttled, Scope.THROTTLED),
        (WorkerFault, Scope.GROUP),
        (Unrecoverable, Scope.UNRECOVERABLE),
        (Throttled(retry_after=3), Scope.THROTTLED),
        (None, Scope.TASK),
    ],
)
def test_verdict_of_a_function_and_of_a_mapping_mean_the_same(verdict: Any, scope: Scope) -> None:
    assert as_judge(lambda _: verdict)(OSError())[0] is scope
    assert as_judge({OSError: verdict})(OSError())[0] is scope


def test_none_leaves_it_to_the_error() -> None:
    assert as_judge({Throttled: None, Exception: "group"})(Throttled())[0] is Scope.THROTTLED
    assert as_judge(lambda _: None)(WorkerFault("x"))[0] is Scope.GROUP


def test_most_specific_type_wins_whatever_the_order() -> None:
    entries: list[tuple[type[BaseException], str]] = [
        (BaseException, "task"),
        (OSError, "group"),
        (ConnectionError, "nobody"),
        (ConnectionResetError, "unrecoverable"),
    ]
    for table in (dict(entries), dict(reversed(entries))):
        judge = as_judge(table)
        found = [judge(error)[0].value for error in (ConnectionResetError(), BrokenPipeError(), OSError())]
        assert found == ["unrecoverable", "nobody", "group"]
        assert judge(SystemExit())[0] is Scope.TASK


def test_mapping_may_overrule_what_the_error_says() -> None:
    assert as_judge({Throttled: "nobody"})(Throttled())[0] is Scope.NOBODY


def test_table_is_copied() -> None:
    table: dict[type[BaseException], str] = {OSError: "group"}
    judge = as_judge(table)
    table[OSError] = "task"
    assert judge(OSError())[0] is Scope.GROUP


@pytest.mark.parametrize(
    ("verdict", "told"),
    [("throttled", 7), (Throttled, 7), (Throttled(retry_after=3), 3), (Throttled(), None)],
)
def test_time_to_wait_comes_from_the_verdict_or_from_the_error(verdict: Any, told: object) -> None:
    assert as_judge({TooMany: verdict})(Worse(retry_after=7)) == (Scope.THROTTLED, told)


@pytest.mark.parametrize("blame", [5, "group", [OSError], OSError("x"), {OSError()}])
def test_blame_of_a_wrong_type_is_refused(blame: Any) -> None:
    with pytest.raises(InvalidType):
        fleet("a", blame=blame)


@pytest.mark.parametrize(
    ("blame", "error"),
    [
        ({"OSError": "group"}, InvalidType),
        ({int: "group"}, InvalidType),
        ({OSError("x"): "group"}, InvalidType),
        ({OSError: "gruop"}, InvalidValue),
        ({OSError: 5}, InvalidValue),
        ({OSError: ValueError}, InvalidValue),
        ({OSError: []}, InvalidValue),
    ],
)
def test_table_that_makes_no_sense_is_refused_at_once(blame: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="blame"):
        fleet("a", blame=blame)


def raises(_: BaseException) -> Any:
    raise LookupError("broken blame")


@pytest.mark.parametrize("blame", [raises, lambda _: "gruop", lambda _: [], lambda _: OSError()])
def test_blame_that_fails_is_logged_and_blames_the_task(blame: Any, caplog: pytest.LogCaptureFixture) -> None:
    pool = fleet("a", "b", blame=blame)
    task = pool.dispatch(1)
    with caplog.at_level(logging.ERROR, "retrypool"):
        claimed(pool).fail(Throttled())
    assert "blame raised for Throttled" in caplog.text
    assert outcomes(task) == [("a", "failed")]
    assert states(pool)["a"] == "active"


def test_blame_that_wants_to_exit_blames_the_task_too() -> None:
    """As with `retry_if`: what a callback raises in a worker thread must not lose the task."""

    def blame(_: BaseException) -> Any:
        raise SystemExit

    pool = fleet("a", "b", blame=blame)
    task = pool.dispatch(1)
    claimed(pool).fail(OSError())
    assert task.state is TaskState.QUEUED


# -- what it costs ---------------------------------------------------------------------------------


def test_throttled_is_never_charged() -> None:
    pool = fleet("a", retry=RetryPolicy(attempts=1))
    task = pool.dispatch(1)
    for _ in range(UNCHARGED - 1):
        claimed(pool).fail(Throttled(retry_after=1))
        pool.clock.advance(1)
    claimed(pool).finish("done")
    assert task.result() == "done"


def test_uncharged_attempts_have_a_cap_of_their_own() -> None:
    pool = fleet("a", retry=AT_ONCE)
    task = pool.dispatch(1)
    for _ in range(UNCHARGED):
        assert not task.done()
        claimed(pool).fail(Throttled(retry_after=1))
        pool.clock.advance(1)
    assert pool.dead_tasks()[0].reason is DeadReason.ATTEMPTS
    assert len(task.history) == UNCHARGED


def test_uncharged_attempts_have_no_cap_when_attempts_have_none() -> None:
    pool = fleet("a", retry=RetryPolicy(attempts=UNLIMITED, delay=0))
    task = pool.dispatch(1)
    for _ in range(2 * UNCHARGED):
        claimed(pool).fail(Throttled(retry_after=1))
        pool.clock.advance(1)
    assert not task.done()


def test_requeued_task_has_all_its_uncharged_attempts_again() -> None:
    pool = fleet("a", retry=AT_ONCE)
    dead = pool.dispatch(1)
    for _ in range(UNCHARGED):
        claimed(pool).fail(Throttled(retry_after=1))
        pool.clock.advance(1)
    task = pool.requeue_dead_task(dead.id)
    claimed(pool).fail(Throttled(retry_after=1))
    assert not task.done()
    assert len(task.history) == UNCHARGED + 1


def test_worker_fault_is_not_charged_while_another_group_is_live() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(attempts=1, delay=0), health=None)
    task = pool.dispatch(1)
    for worker in (0, 1, 0, 1):
        claimed(pool, worker).fail(WorkerFault("ill"))
    claimed(pool).finish("done")
    assert task.result() == "done"


@pytest.mark.parametrize("gone", ["removed", "parked"])
def test_worker_fault_of_the_only_live_group_is_charged(gone: str) -> None:
    pool = fleet("a", "b", retry=RetryPolicy(attempts=1))
    pool.remove_worker(1) if gone == "removed" else pool.cordon_worker(1, "revoked")
    task = pool.dispatch(1)
    claimed(pool).fail(WorkerFault("ill"))
    assert task.state is TaskState.DEAD
    assert isinstance(task.exception(), WorkerFault)


def test_nobodys_fault_is_not_charged_but_the_task_goes_elsewhere() -> None:
    pool = fleet("a", "b", retry=RetryPolicy(attempts=1, delay=0), blame={OSError: "nobody"})
    task = pool.dispatch(1)
    claimed(pool, 0).fail(OSError())
    assert pool.claim(0) is None
    claimed(pool, 1).finish(1)
    assert outcomes(task) == [("a", "excused"), ("b", "succeeded")]


def test_throttled_wins_over_retry_if_and_on_failure() -> None:
    """That a worker was told to wait says nothing of the task."""
    pool = fleet("a", retry=RetryPolicy(attempts=1, retry_if=lambda _: False))
    task = pool.dispatch(1)
    claimed(pool).fail(Throttled(retry_after=1))
    assert not task.done()


def test_unrecoverable_by_blame_is_dead_with_the_error_it_raised() -> None:
    pool = fleet("a", "b", blame={FileNotFoundError: Unrecoverable})
    task = pool.dispatch(1)
    claimed(pool).fail(FileNotFoundError("404"))
    assert isinstance(task.exception(), FileNotFoundError)
    assert pool.dead_tasks()[0].reason is DeadReason.UNRECOVERABLE


def test_attempt_that_runs_out_of_time_can_be_blamed_on_the_group() -> None:
    pool = fleet("a", "b", timeout=5, blame={AttemptTimeout: WorkerFault}, retry=RetryPolicy(attempts=1))
    task = pool.dispatch(1)
    claimed(pool)
    pool.clock.advance(5)
    assert outcomes(task) == [("a", "worker_fault")]
    assert not task.done()


@pytest.mark.parametrize(
    ("told", "until"),
    [
        (7, 7.0),
        (timedelta(minutes=1), 60.0),
        ("12", 12.0),
        ("1500ms", 1.5),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after-ms": "2500", "Retry-After": "9"}, 2.5),
        ({}, 1.0),
        ("soon", 1.0),
        (None, 1.0),
        (float("nan"), 1.0),
        (object(), 1.0),
    ],
)
def test_group_cools_for_as_long_as_it_was_told(told: Any, until: float) -> None:
    pool = fleet("a")
    pool.dispatch(1)
    claimed(pool).fail(Throttled(retry_after=told))
    assert pool.workers()[0].until == until


def test_date_is_measured_by_the_pools_clock() -> None:
    pool = fleet("a")
    pool.clock.set_time(784_111_777.0 - 60)  # RFC 9110's example, less a minute
    pool.dispatch(1)
    claimed(pool).fail(Throttled(retry_after="Sun, 06 Nov 1994 08:49:37 GMT"))
    assert pool.workers()[0].until == 60.0


class Broken:
    def items(self) -> Any:
        raise RuntimeError("no headers")


@pytest.mark.parametrize("told", [Broken(), dict, type("Odd", (), {"items": lambda self: 5})()])
def test_headers_that_raise_are_garbage_too(told: Any) -> None:
    """`parse_retry_after` never raises: what it raised here would end the worker's thread."""
    pool = fleet("a")
    task = pool.dispatch(1)
    claimed(pool).fail(Throttled(retry_after=told))
    assert task.state is TaskState.QUEUED
    assert pool.workers()[0].until == 1.0
