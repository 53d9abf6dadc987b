"""What a service asks of a pool: tasks by id, what holds it back, an end in good order."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest

from retrypool import (
    InvalidType,
    InvalidValue,
    Pool,
    Rate,
    RetryPolicy,
    TaskNotFound,
    TaskState,
    Throttled,
    WorkerSpec,
    WrongThread,
)
from retrypool.testing import ManualPool

ONCE = RetryPolicy(attempts=1)


def run_all(pool: ManualPool[Any, Any]) -> None:
    while (attempt := pool.claim()) is not None:
        attempt.run()


# -- tasks by id ---------------------------------------------------------------------------------


def test_task_is_found_by_its_id_while_it_waits_and_runs() -> None:
    pool = ManualPool([len])
    task = pool.dispatch("abc")
    assert pool.task(task.id) is task
    attempt = pool.claim()
    assert pool.task(task.id) is task
    attempt.finish(3)
    with pytest.raises(TaskNotFound, match="keep_results="):
        pool.task(task.id)


def test_tasks_that_have_ended_are_kept_with_results_and_errors() -> None:
    pool = ManualPool([int], keep_results=True, retry=ONCE)
    good, bad, gone = (pool.dispatch(data) for data in ("1", "x", "2"))
    gone.cancel()
    run_all(pool)
    assert pool.task(good.id).result() == 1
    assert isinstance(pool.task(bad.id).exception(), ValueError)
    assert pool.task(gone.id).cancelled()
    assert [result.id for result in pool.results()] == [good.id, bad.id, gone.id]


def test_so_many_are_kept_and_the_first_to_end_goes_first() -> None:
    pool = ManualPool([len, len], keep_results=2)
    slow = pool.dispatch("slow")
    attempt = pool.claim(0)
    tasks = [pool.dispatch(data) for data in "abc"]
    for _ in tasks:
        pool.claim(1).run()
    with pytest.raises(TaskNotFound):
        pool.task(tasks[0].id)
    assert pool.task(slow.id) is slow
    attempt.finish(4)
    with pytest.raises(TaskNotFound):
        pool.task(tasks[1].id)
    assert [pool.task(task.id) for task in (slow, tasks[2])] == [slow, tasks[2]]
    assert len(pool.results()) == 2


def test_what_has_ended_is_kept_for_so_long() -> None:
    pool = ManualPool([len], keep_results=True, keep_for=timedelta(minutes=1))
    task = pool.dispatch("abc")
    pool.claim().run()
    pool.clock.advance(59)
    assert pool.task(task.id) is task
    pool.clock.advance(1)
    with pytest.raises(TaskNotFound):
        pool.task(task.id)
    assert pool.results() == []


def test_map_of_a_pool_that_keeps_results_works_as_usual() -> None:
    with Pool([len] * 2, keep_results=5) as pool:
        assert sorted(pool.map(["a"] * 100, ordered=False)) == [1] * 100
        assert list(pool.map(["ab"] * 100)) == [2] * 100
        pool.wait()
        assert [result.value for result in pool.results()] == [2] * 5


def test_requeued_task_is_found_as_what_it_is_now() -> None:
    pool = ManualPool([int], keep_results=True, retry=ONCE)
    dead = pool.dispatch("x")
    run_all(pool)
    again = pool.requeue_dead_task(dead)
    assert pool.task(dead.id) is again


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep_results": -1}, InvalidValue),
        ({"keep_results": "all"}, InvalidType),
        ({"keep_results": None}, InvalidType),
        ({"keep_for": 5}, InvalidValue),
        ({"keep_results": 3, "keep_for": 0}, InvalidValue),
    ],
)
def test_keeping_that_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="keep_"):
        Pool([len], **options)


def test_tasks_are_named_by_id_or_object_everywhere() -> None:
    pool = ManualPool([int], retry=ONCE)
    tasks = [pool.dispatch("x") for _ in range(4)]
    for named in (tasks[0], tasks[0].id):
        assert pool.status(named).state is TaskState.QUEUED
        assert pool.explain(named) == "is next in line"
    assert pool.cancel_task(tasks[3].id)
    assert tasks[3].cancelled()
    run_all(pool)
    assert not pool.cancel_task(tasks[0].id)
    assert pool.pull_dead_task(tasks[0]).id == tasks[0].id
    (dead, _) = pool.dead_tasks()
    assert pool.status(dead).state is TaskState.DEAD
    assert pool.requeue_dead_task(dead).id == dead.id
    assert pool.requeue_dead_task(tasks[2].id).id == tasks[2].id
    pool.force_close()


def test_task_of_another_pool_is_not_taken_for_one_of_the_same_id() -> None:
    ours, others = ManualPool([len]), ManualPool([len])
    task, other = ours.dispatch("a"), others.dispatch("b")
    assert task.id == other.id
    for ask in (ours.status, ours.explain, ours.task):
        with pytest.raises(TaskNotFound):
            ask(other)
    assert not ours.cancel_task(other)
    assert not other.cancelled()


def test_status_is_json() -> None:
    pool = ManualPool([int], retry=RetryPolicy(attempts=2, delay=60))
    task = pool.dispatch("x")
    pool.claim().run()
    status = pool.status(task).to_dict()
    assert json.loads(json.dumps(status)) == status
    assert status["state"] == "retrying"
    assert status["tried"] == ["worker-0"]
    assert status["last_error"].startswith("ValueError: ")  # type: ignore[attr-defined]
    assert str(status["next_attempt_at"]).endswith("+00:00")
    assert status["ended_at"] is None


# -- the end -------------------------------------------------------------------------------------


def test_force_close_tells_what_ran_apart_from_what_waited(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    running = pool.dispatch("a")
    gate.wait_until_reached()
    waiting = [pool.dispatch(data) for data in "bc"]
    cancelled = pool.force_close()
    assert cancelled == cancelled.queued == waiting
    assert cancelled.running == [running]
    assert all(task.cancelled() for task in [*waiting, running])
    again = pool.force_close()
    assert again == again.running == []


SERVICE = """
import signal, sys, threading, time
from retrypool import Pool, PoolClosed
begun, stopping = threading.Event(), threading.Event()
def run(data):
    begun.set()
    if data == "hang":
        time.sleep(30)
    stopping.wait(30)
    return data
{before}
pool = Pool([run])
pool.drain_on_signals({options})
first, second = pool.dispatch("{data}"), pool.dispatch("b")
begun.wait(30)
print("ready", flush=True)
try:
    while not pool.closed:
        time.sleep(0.001)
    stopping.set()
    while True:
        time.sleep(0.001)
finally:
    print(first.state.value, second.state.value, flush=True)
"""


def serve(before: str = "", options: str = "", data: str = "a", signals: int = 1) -> tuple[int, str]:
    """Run a service, send it SIGTERM, and return how it ended and what it wrote."""
    source = SERVICE.format(before=before, options=options, data=data)
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(signals):
            child.send_signal(signal.SIGTERM)
        written, _ = child.communicate(timeout=40)
    return child.returncode, written.strip()


needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to handle")


@needs_signals
def test_signal_drains_the_pool_and_ends_the_process_with_its_finally_clauses() -> None:
    assert serve() == (128 + signal.SIGTERM, "succeeded succeeded")


@needs_signals
def test_signal_goes_on_to_who_handled_it_before() -> None:
    before = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
    assert serve(before) == (7, "succeeded succeeded")


@needs_signals
def test_what_is_not_over_in_time_is_given_up() -> None:
    code, written = serve(options="timeout=0.05", data="hang")
    assert (code, written) == (128 + signal.SIGTERM, "cancelled cancelled")


@needs_signals
def test_signals_are_handled_as_before_after_stop() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Pool([len]) as pool:
        with pool.drain_on_signals():
            assert signal.getsignal(signal.SIGTERM) != before
        assert signal.getsignal(signal.SIGTERM) == before
        with pool.drain_on_signals([signal.SIGTERM, signal.SIGUSR1]) as drain:
            drain.stop()
            assert signal.getsignal(signal.SIGTERM) == before


@needs_signals
def test_second_signal_closes_by_force(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    task = pool.dispatch("a")
    gate.wait_until_reached()
    passed = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: passed.set())
    try:
        with pool.drain_on_signals([signal.SIGUSR1]):
            os.kill(os.getpid(), signal.SIGUSR1)
            stage.until(lambda: pool.closed)
            assert not task.done()
            os.kill(os.getpid(), signal.SIGUSR1)
            stage.until(passed.is_set)
            assert task.cancelled()
    finally:
        signal.signal(signal.SIGUSR1, before)
        gate.open()


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="all signals have names here")
def test_signal_without_a_name_will_do(stage: Any) -> None:
    number = signal.SIGRTMIN + 3
    passed = threading.Event()
    before = signal.signal(number, lambda *_: passed.set())
    try:
        pool = stage.pool([len])
        with pool.drain_on_signals([number]):
            os.kill(os.getpid(), number)
            stage.until(passed.is_set)
        assert pool.closed
    finally:
        signal.signal(number, before)


def test_signals_that_make_no_sense_are_refused(stage: Any) -> None:
    pool = stage.pool([len])
    for wrong, error in (("SIGTERM", InvalidType), ([1.5], InvalidType), ([], InvalidValue)):
        with pytest.raises(error, match="signals"):
            pool.drain_on_signals(wrong)
    with pytest.raises(InvalidValue, match="signals"):
        pool.drain_on_signals([signal.SIGTERM, 9 if sys.platform != "win32" else 99])
    with pytest.raises(WrongThread, match="main thread"):
        stage.start(pool.drain_on_signals).result(stage.within)


# -- what holds a pool back ----------------------------------------------------------------------


def test_pool_with_nothing_to_do_says_so() -> None:
    pool = ManualPool([len])
    assert pool.explain() == "no task waits, no task runs."
    assert ManualPool(wait_for_workers=True).explain().endswith("There is no worker, and no work.")


def test_pool_whose_workers_are_busy_says_so() -> None:
    pool = ManualPool([len, len])
    for _ in range(4):
        pool.dispatch("x")
    attempts = [pool.claim(), pool.claim()]
    assert pool.explain() == "2 tasks wait, 2 tasks run. No worker is free: both busy."
    pool.pause()
    assert "The pool is paused" in pool.explain()
    for attempt in attempts:
        attempt.finish(1)
    pool.force_close()


def test_pool_that_is_held_back_by_rates_and_cool_downs_says_until_when() -> None:
    def slow(data: str) -> None:
        raise Throttled(retry_after=60)

    pool = ManualPool([WorkerSpec(slow, name="a"), WorkerSpec(len, name="b", rate=Rate(1, per=60))])
    for _ in range(3):
        pool.dispatch("x")
    pool.claim(0).run()
    pool.claim(1).run()
    text = pool.explain()
    assert "2 tasks wait" in text
    assert "1 cooling until " in text
    assert "1 held back by a rate until " in text
    pool.force_close()


def test_pool_says_what_nobody_can_take() -> None:
    pool = ManualPool([len])
    pool.dispatch("x", require={"gpu"}, wait_for_worker=True)
    pool.dispatch("x", require={"gpu"}, wait_for_worker=True)
    assert "The worker is free." in pool.explain()
    assert "2 tasks ask for a worker that has the tags ['gpu']: there is none." in pool.explain()
    pool.force_close()


def test_pool_names_its_slow_worker() -> None:
    pool = ManualPool([WorkerSpec(lambda data: data, name=f"token-{name}") for name in "abd"])
    for _ in range(42):
        pool.dispatch("x")
    pool.claim(2)
    for _ in range(20):
        pool.claim(0).run()
        pool.claim(1).run()
    text = pool.explain()
    assert "token-d is slow: it has made 0 calls, the usual is 20, and is at its next since " in text
    pool.force_close()


def test_pool_tells_of_what_is_delayed() -> None:
    pool = ManualPool([len])
    pool.dispatch("x", delay=60)
    assert pool.explain().startswith("no task waits, no task runs, 1 task is delayed (the first until ")
    pool.force_close()


def test_long_queue_is_explained_in_no_time() -> None:
    """With the pool's lock held: so each task is looked at once."""
    looks = 0
    pool = ManualPool([WorkerSpec(len, group="a"), WorkerSpec(len, group="b")])
    for number in range(3_000):
        pool.dispatch("x", delay=60 + number)
        pool.dispatch("x", priority=number % 50, require={"gpu"}, wait_for_worker=True)
    moment = pool._engine.scheduler.timers.moment

    def count(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return moment(*arguments)

    pool._engine.scheduler.timers.moment = count  # type: ignore[method-assign]
    text = pool.explain()
    assert looks <= 1
    assert "3000 tasks wait, no task runs, 3000 tasks are delayed (the first until " in text
    assert text.count("for a worker that has the tags ['gpu']") == 1
    assert "3000 tasks ask" in text
    pool.force_close()
