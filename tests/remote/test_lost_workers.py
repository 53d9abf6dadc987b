"""Processes that are killed or stopped while they work. Nothing is lost, nothing reported twice."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrypool import Outcome, Pool, RetryPolicy, WorkerFault, WorkerLost, fixed
from retrypool.events import TaskDead, TaskSucceeded

from .test_remote_workers import caller, wait_for


class Ends:
    """Counts how often each task has ended."""

    listens_to = (TaskSucceeded, TaskDead)

    def __init__(self) -> None:
        self.times: Counter[int] = Counter()

    def __call__(self, event: Any) -> None:
        self.times[event.task.id] += 1


def _pid_of() -> Callable[[Any], int]:
    def pid_of(ctx: Any) -> int:
        return os.getpid()

    return pid_of  # local, so that it travels by value


pid_of = _pid_of()


def test_process_killed_in_a_call_costs_a_fault_and_nothing_else(processes: Any, tmp_path: Path) -> None:
    once = str(tmp_path / "once")

    def die_once(ctx: Any) -> str:
        import os
        import signal

        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "done"
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"

    ends = Ends()
    with Pool(
        processes.workers(caller(), ["a", "b", "c", "d"]), retry=RetryPolicy(attempts=1), listeners=[ends]
    ) as pool:
        tasks = pool.dispatch_many([lambda ctx: "done"] * 50 + [die_once] + [lambda ctx: "done"] * 50)
        assert {task.result() for task in tasks} == {"done"}
        failures = [attempt for task in tasks for attempt in task.history if attempt.error is not None]
        assert failures
        assert {attempt.outcome for attempt in failures} == {Outcome.WORKER_FAULT}
        for attempt in failures:
            assert isinstance(attempt.error, WorkerFault)
            assert isinstance(attempt.error.error, WorkerLost)
        # The worker is there again, in another process.
        lost = tasks[50].history[0].worker_id
        assert pool.dispatch(lambda ctx: "back", worker=lost).result() == "back"
        host = pool.workers()[lost].host
        assert host is not None
        assert host not in str(tasks[50].history[0].error)
    assert set(ends.times.values()) == {1}
    assert pool.dead_tasks() == []


def test_process_that_is_stopped_keeps_nobody_beyond_the_timeout(
    processes: Any, tmp_path: Path, stopped: Callable[[int], None]
) -> None:
    began, done = tmp_path / "began", tmp_path / "done"
    texts = str(began), str(done)

    def work(ctx: Any) -> str:
        import os
        import time
        from pathlib import Path

        if ctx.attempt > 1:
            return "elsewhere"
        Path(texts[0]).write_text(f"{os.getpid()}\n")
        time.sleep(0.5)
        Path(texts[1]).write_text("yes\n")
        return "too late"

    ends = Ends()
    with Pool(processes.workers(caller(), ["a", "b"]), listeners=[ends], grace=60) as pool:
        list(pool.map([pid_of] * 8))
        task = pool.dispatch(work, timeout=0.4)
        pid = int(wait_for(began))
        stopped(pid)
        assert task.result(20) == "elsewhere"
        assert task.history[0].outcome is Outcome.TIMED_OUT
        os.kill(pid, signal.SIGCONT)
        wait_for(done)
        assert [pool.dispatch(pid_of).result(20) for _ in range(4)]
    assert set(ends.times.values()) == {1}
    assert task.result() == "elsewhere"


def test_process_that_is_stopped_is_lost_after_its_silence(
    processes: Any, tmp_path: Path, stopped: Callable[[int], None]
) -> None:
    """Also without a timeout nothing hangs for ever."""
    began = tmp_path / "began"
    text = str(began)

    def work(ctx: Any) -> str:
        import os
        import time
        from pathlib import Path

        if ctx.attempt > 1:
            return "elsewhere"
        Path(text).write_text(f"{os.getpid()}\n")
        time.sleep(60)
        return "late"

    with Pool(processes.workers(caller(), ["a", "b"], silence=1.5)) as pool:
        list(pool.map([pid_of] * 8))
        task = pool.dispatch(work)
        stopped(int(wait_for(began)))
        assert task.result(40) == "elsewhere"
        assert task.history[0].outcome is Outcome.WORKER_FAULT
        assert "silent" in str(task.history[0].error)


@pytest.mark.ray
def test_interrupt_ends_code_that_hangs_in_c_by_ending_its_process(ray_cluster: Any) -> None:
    """What threads can't do: `interrupt_on_timeout` holds for any code."""

    def hang(ctx: Any) -> str:
        import time

        if ctx.attempt == 1:
            time.sleep(600)
        return "elsewhere"

    with Pool(ray_cluster.workers(caller(), ["a", "b"]), interrupt_on_timeout=True, grace=60) as pool:
        list(pool.map([pid_of] * 8))
        task = pool.dispatch(hang, timeout=0.3)
        assert task.result(30) == "elsewhere"
        hung = task.history[0].worker_id
        assert pool.dispatch(lambda ctx: "back", worker=hung).result(30) == "back"
        assert pool.stats().abandoned == 0


@pytest.mark.ray
def test_processes_of_ray_end_with_the_pool(ray_cluster: Any) -> None:
    with Pool(ray_cluster.workers(caller(), ["a", "b", "c", "d"], per_process=2)) as pool:
        pids = {pool.dispatch(pid_of, worker=n).result() for n in range(4)}
    assert len(pids) == 2
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.dask
def test_worker_that_hangs_in_c_on_dask_is_replaced(dask_cluster: Any) -> None:
    def hang(ctx: Any) -> str:
        import time

        if ctx.attempt == 1:
            time.sleep(3)
        return "elsewhere"

    pool = Pool(
        dask_cluster.workers(caller(), ["a"]),
        interrupt_on_timeout=True,
        grace=0.2,
        retry=RetryPolicy(delay=fixed(0)),
    )
    with pool:
        pool.dispatch(pid_of).result()
        task = pool.dispatch(hang, timeout=0.2)
        assert task.result(20) == "elsewhere"
        assert pool.stats().abandoned == 1
