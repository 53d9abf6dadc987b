"""Tasks with a date, where a task stands, and why it waits."""

import gc
import subprocess
import sys
import threading
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retrypool import (
    CloseTimeout,
    InvalidType,
    InvalidValue,
    Pool,
    RetryPolicy,
    TaskNotFound,
    TaskState,
    Throttled,
    WorkerSpec,
    fixed,
)
from retrypool.testing import FakeClock, ManualPool

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_pool(workers: int = 1, **options: Any) -> ManualPool[Any, Any]:
    return ManualPool([str] * workers, clock=FakeClock(time=START.timestamp()), **options)


def local(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M:%S}"


# -- dates ---------------------------------------------------------------------------------------


def test_a_task_with_a_date_waits_for_it() -> None:
    pool = make_pool()
    task = pool.dispatch("x", at=START + timedelta(seconds=90))
    assert task.state is TaskState.SCHEDULED
    assert pool.queue_size == 1
    pool.clock.advance(89.5)
    assert pool.claim() is None
    pool.clock.advance(0.5)
    assert pool.claim() is not None


@pytest.mark.parametrize("at", [START, START - timedelta(days=9), datetime.min.replace(tzinfo=UTC), None])
def test_the_past_means_now(at: datetime | None) -> None:
    assert make_pool().dispatch("x", at=at).state is TaskState.QUEUED


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_set_is_noticed_within_a_minute(hours: int) -> None:
    pool = make_pool()
    task = pool.dispatch("x", at=START + timedelta(hours=2))
    pool.clock.advance(30)
    pool.clock.set_time((START + timedelta(hours=hours)).timestamp())
    pool.clock.advance(60)
    assert task.state is (TaskState.QUEUED if hours > 0 else TaskState.SCHEDULED)
    pool.clock.advance(7 * 3600)
    assert task.state is TaskState.QUEUED


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"at": datetime(2026, 3, 1)}, InvalidValue, "which moment"),  # noqa: DTZ001 - a naive one is the point
        ({"at": 1_700_000_000}, InvalidType, "datetime"),
        ({"at": "2026-03-01"}, InvalidType, "datetime"),
        ({"at": START, "delay": 5}, InvalidValue, "without a delay"),
        ({"tags": "nightly"}, InvalidType, "set of strings"),
        ({"tags": [1]}, InvalidType, "string"),
        ({"tags": [[]]}, InvalidType, "string"),
        ({"tags": 5}, InvalidType, "set of strings"),
    ],
)
def test_bad_options_are_refused_at_the_call(options: dict[str, Any], error: type, words: str) -> None:
    pool = make_pool()
    with pytest.raises(error, match=words):
        pool.dispatch("x", **options)
    assert pool.queue_size == 0


def test_a_task_with_a_date_can_be_cancelled_and_dies_at_its_deadline() -> None:
    pool = make_pool()
    lost = pool.dispatch("x", at=START + timedelta(hours=1), deadline=60)
    gone = pool.dispatch("x", at=START + timedelta(hours=1))
    assert gone.cancel()
    pool.clock.advance(60)
    assert lost.state is TaskState.DEAD
    pool.clock.advance(3600)
    assert pool.tasks() == []


def test_closing_runs_what_was_delayed_or_ends_it() -> None:
    pool = make_pool(retry=RetryPolicy(delay=fixed(30)))
    late = [pool.dispatch("x", delay=60), pool.dispatch("x", at=START + timedelta(seconds=60))]
    retried = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(OSError())
    with pytest.raises(CloseTimeout):
        pool.close()
    assert [task.state for task in late] == [TaskState.SCHEDULED] * 2
    with pytest.raises(CloseTimeout):
        pool.close(delayed="cancel")
    assert [task.state for task in late] == [TaskState.CANCELLED] * 2
    assert retried.state is TaskState.RETRYING
    pool.clock.advance(30)
    attempt = pool.claim()
    assert attempt is not None
    attempt.run()
    pool.close()
    with pytest.raises(InvalidValue, match="delayed"):
        pool.close(delayed="maybe")  # type: ignore[arg-type]


def test_callbacks_see_name_tags_and_metadata() -> None:
    seen: list[Any] = []
    pool = make_pool(
        retry=RetryPolicy(attempts=1),
        on_dead=lambda dead: seen.append((dead.name, dead.tags, dead.metadata)),
        on_failure=lambda task, error: seen.append((task.name, task.tags, task.metadata)),
    )
    pool.dispatch("x", name="n", tags=["a", "b", "a"], metadata={"k": 1})
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(OSError())
    assert seen == [("n", frozenset("ab"), {"k": 1})] * 2


# -- status --------------------------------------------------------------------------------------


def test_status_follows_the_life_of_a_task() -> None:
    pool = make_pool(2, retry=RetryPolicy(delay=fixed(30)))
    task = pool.dispatch("x", delay=10)
    status = pool.status(task.id)
    assert (status.state, status.attempts) == (TaskState.SCHEDULED, 0)
    assert status.queued_at == START
    assert status.next_attempt_at == START + timedelta(seconds=10)
    pool.clock.advance(10)
    status = pool.status(task.id)
    assert (status.state, status.position, status.next_attempt_at) == (TaskState.QUEUED, 0, None)
    attempt = pool.claim(0)
    assert attempt is not None
    status = pool.status(task.id)
    assert (status.state, status.attempts) == (TaskState.RUNNING, 1)
    assert status.started_at == START + timedelta(seconds=10)
    attempt.fail(OSError("down"))
    status = pool.status(task.id)
    assert (status.state, status.attempts, status.tried) == (TaskState.RETRYING, 1, ("worker-0",))
    assert status.last_error == "OSError: down"
    assert status.next_attempt_at == START + timedelta(seconds=40)
    pool.clock.advance(30)
    attempt = pool.claim(1)
    assert attempt is not None
    pool.clock.advance(2)
    attempt.finish("y")
    status = pool.status(task.id)
    assert (status.state, status.attempts, status.tried) == (TaskState.SUCCEEDED, 2, ("worker-0",))
    assert (status.started_at, status.ended_at) == (
        START + timedelta(seconds=40),
        START + timedelta(seconds=42),
    )
    assert status.last_error == "OSError: down"


def test_status_tells_of_dead_cancelled_and_requeued_tasks() -> None:
    pool = make_pool(retry=RetryPolicy(attempts=1))
    dead = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(OSError("down"))
    cancelled = pool.dispatch("y")
    cancelled.cancel()
    assert pool.status(dead.id).state is TaskState.DEAD
    assert pool.status(cancelled.id).state is TaskState.CANCELLED
    assert pool.status(cancelled.id).started_at is None
    pool.requeue_dead_task(dead.id)
    assert pool.status(dead.id).state is TaskState.QUEUED
    attempt = pool.claim()
    assert attempt is not None
    attempt.run()
    assert pool.status(dead.id).state is TaskState.SUCCEEDED
    assert pool.status(dead.id).attempts == 2


def test_position_counts_those_that_go_before() -> None:
    pool = make_pool()
    low = [pool.dispatch("x") for _ in range(3)]
    high = [pool.dispatch("x", priority=1) for _ in range(2)]
    last = pool.dispatch("x", priority=-1)
    positions = [pool.status(task.id).position for task in (*high, *low, last)]
    assert positions == [0, 1, 2, 3, 4, 5]


def test_the_oldest_are_forgotten_and_unknown_ids_refused() -> None:
    pool = make_pool(history_limit=3)
    tasks = [pool.dispatch("x") for _ in range(5)]
    while (attempt := pool.claim()) is not None:
        attempt.run()
    for task in tasks[:2]:
        with pytest.raises(TaskNotFound):
            pool.status(task.id)
    assert [pool.status(task.id).state for task in tasks[2:]] == [TaskState.SUCCEEDED] * 3
    for unknown in (0, 99, "x", None, [], 1.5):
        with pytest.raises(TaskNotFound):
            pool.status(unknown)  # type: ignore[arg-type]
        with pytest.raises(TaskNotFound):
            pool.explain(unknown)  # type: ignore[arg-type]
    for wrong in (-1, 1.5, None, "x"):
        with pytest.raises((InvalidType, InvalidValue)):
            Pool(history_limit=wrong)  # type: ignore[arg-type]


def test_history_keeps_neither_data_nor_result_nor_error() -> None:
    class Thing:
        pass

    class Failure(Exception):
        pass

    pool = make_pool(2, retry=RetryPolicy(delay=fixed(0)))
    data, result, error = Thing(), Thing(), Failure("x")
    known = [weakref.ref(data), weakref.ref(result), weakref.ref(error)]
    pool.dispatch(data)
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(error)
    attempt = pool.claim()
    assert attempt is not None
    attempt.finish(result)
    task_id = attempt.task.id
    del data, result, error, attempt
    gc.collect()
    assert [each() for each in known] == [None] * 3
    assert pool.status(task_id).last_error == "Failure: x"


def test_an_error_that_cannot_speak_is_no_trouble() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    pool = make_pool(retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(Mute())
    assert pool.status(task.id).last_error == "Mute: its text could not be made"


def test_callbacks_may_ask_for_the_status_of_their_task() -> None:
    """It is in nobody's queue then, nor in a worker's hands: its fate is being decided."""
    seen: list[TaskState] = []
    pool: Pool[Any, Any]

    def fail(data: Any) -> None:
        raise OSError

    def ask(task: Any, *_: Any) -> None:
        seen.append(pool.status(task.id).state)
        assert pool.explain(task)
        assert pool.explain(task.id)

    with Pool([fail], retry=RetryPolicy(attempts=2, delay=fixed(0)), on_failure=ask, on_retry=ask) as pool:
        pool.dispatch("x").exception()
    assert len(seen) == 3


def test_no_live_task_is_ever_unknown() -> None:
    """While workers take, fail and end tasks all the time, each of them is known at every moment."""
    stop = threading.Event()

    def half(number: int) -> int:
        if number % 2 and not stop.is_set():
            raise OSError
        return number

    policy = RetryPolicy(attempts=10**9, delay=fixed(0))
    with Pool([half] * 3, retry=policy) as pool:
        for _ in range(300):
            tasks = [pool.dispatch(n) for n in range(4)]
            for task in tasks:
                assert pool.status(task.id).id == task.id
            stop.set()
            tasks[1].result()
            tasks[3].result()
            stop.clear()


# -- explain -------------------------------------------------------------------------------------


def test_explain_says_when_a_delayed_task_is_due() -> None:
    pool = make_pool(retry=RetryPolicy(delay=fixed(30)))
    delayed = pool.dispatch("x", delay=10)
    dated = pool.dispatch("x", at=START + timedelta(seconds=20))
    far = pool.dispatch("x", at=START + timedelta(days=40))
    assert pool.explain(delayed) == f"waits for its time, {local(START + timedelta(seconds=10))}"
    assert pool.explain(dated.id) == f"waits for its time, {local(START + timedelta(seconds=20))}"
    assert "2026-04-" in pool.explain(far)
    retried = pool.dispatch("x")
    attempt = pool.claim()
    assert attempt is not None
    attempt.fail(OSError())
    until = local(START + timedelta(seconds=30))
    assert pool.explain(retried) == f"waits out the delay before attempt 2, until {until}"


def test_explain_says_where_a_task_runs_and_how_it_ended() -> None:
    pool = make_pool()
    task = pool.dispatch("x")
    assert pool.explain(task) == "is next in line"
    attempt = pool.claim()
    assert attempt is not None
    assert pool.explain(task) == f"runs on worker-0 since {local(START)}, attempt 1"
    attempt.run()
    assert pool.explain(task) == f"has succeeded, since {local(START)}"
    assert pool.explain(task.id) == "has ended: succeeded"
    gone = pool.dispatch("x")
    gone.cancel()
    assert pool.explain(gone) == f"is cancelled, since {local(START)}: cancelled"


def test_explain_says_whom_a_task_waits_for() -> None:
    specs = [WorkerSpec(lambda data: data, name=f"{{w{n}}}") for n in range(5)]
    pool = ManualPool(specs, clock=FakeClock(time=START.timestamp()), retry=RetryPolicy(attempts=9, delay=0))
    task = pool.dispatch("x")
    for worker in (0, 1, 2):
        attempt = pool.claim(worker)
        assert attempt is not None
        attempt.fail(OSError())
    for worker in (3, 4):
        pool.dispatch("y", priority=1)
        attempt = pool.claim(worker)
        assert attempt is not None
        attempt.fail(Throttled(retry_after=4))
        attempt.task.cancel()
    until = local(START + timedelta(seconds=4))
    said = f"waits for a worker that has not tried it: 2 of 5 left, both cooling until {until}"
    end = local(START + timedelta(seconds=5))
    assert pool.explain(task) == f"{said}; any worker may take it from {end} on"


def test_explain_says_what_workers_are_at() -> None:
    pool = make_pool(3, timeout=60)
    running = [pool.dispatch("x") for _ in range(2)]
    for _ in running:
        pool.claim()
    pool.pause_worker(2)
    first, second = pool.dispatch("y"), pool.dispatch("z", timeout=None)
    end = local(START + timedelta(seconds=60))
    said = f"waits for a worker: 2 busy until at the latest {end}, 1 paused"
    assert pool.explain(first) == said
    assert pool.explain(second) == f"{said}; is behind 1 other"
    pool.resume_worker(2)
    assert pool.explain(second) == "is behind 1 other"
    pool.pause()
    assert pool.explain(first) == "waits until the pool, which is paused, is resumed"
    pool.resume()
    for worker in (0, 1, 2):
        pool.remove_worker(worker)
    assert pool.explain(first) == "waits for a worker: the pool has none"


def test_explain_knows_its_own_tasks_only() -> None:
    with pytest.raises(TaskNotFound):
        make_pool().explain(make_pool().dispatch("x"))


def test_a_pool_without_threads_does_not_hold_up_the_exit() -> None:
    script = "from retrypool.testing import ManualPool; p = ManualPool([len]); p.dispatch('x')"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=50)
