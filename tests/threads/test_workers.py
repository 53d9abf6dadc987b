"""Workers come, go, and say how they are; their hooks run in their own threads."""

import logging
import threading
from collections import Counter
from typing import Any

import pytest

from retrypool import NoWorkers, Outcome, RetryPolicy, WorkerNotFound, WorkerSpec
from retrypool.events import WorkerAdded, WorkerFailed


class Hooked:
    """Notes which hook ran in which thread."""

    def __init__(self, raising: str = "", error: BaseException | None = None) -> None:
        self.calls: list[tuple[str, threading.Thread]] = []
        self._raising = raising
        self._error = error

    def _note(self, name: str) -> None:
        self.calls.append((name, threading.current_thread()))
        if name == self._raising and self._error is not None:
            raise self._error

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def on_start(self) -> None:
        self._note("on_start")

    def on_stop(self) -> None:
        self._note("on_stop")

    def on_pause(self) -> None:
        self._note("on_pause")

    def on_resume(self) -> None:
        self._note("on_resume")

    def run(self, ctx: Any, data: object) -> object:
        self._note("run")
        return data


# -- hooks -------------------------------------------------------------------------------------------


def test_hooks_run_in_the_thread_of_the_worker_around_its_tasks(stage: Any) -> None:
    worker = Hooked()
    pool = stage.pool([worker])
    (thread,) = stage.worker_threads(pool)
    pool.dispatch("x").result(stage.within)
    pool.pause_worker(0)
    stage.until(lambda: "on_pause" in worker.names)
    pool.resume_worker(0)
    stage.until(lambda: "on_resume" in worker.names)
    pool.dispatch("y").result(stage.within)
    pool.close(timeout=stage.within)
    assert worker.names == ["on_start", "run", "on_pause", "on_resume", "run", "on_stop"]
    assert {where for _, where in worker.calls} == {thread}


def test_pause_of_the_whole_pool_is_a_pause_for_each_worker(stage: Any) -> None:
    workers = [Hooked(), Hooked()]
    pool = stage.pool(workers)
    stage.until(lambda: all("on_start" in worker.names for worker in workers))
    pool.pause()
    stage.until(lambda: all("on_pause" in worker.names for worker in workers))
    pool.resume()
    stage.until(lambda: all("on_resume" in worker.names for worker in workers))
    pool.close(timeout=stage.within)
    assert workers[0].names == ["on_start", "on_pause", "on_resume", "on_stop"]


def test_worker_whose_pause_is_over_before_it_notices_runs_no_hooks(stage: Any) -> None:
    running = stage.gate()

    class Held(Hooked):
        def run(self, ctx: Any, data: object) -> object:
            running.hold()
            return super().run(ctx, data)

    worker = Held()
    pool = stage.pool([worker])
    task = pool.dispatch("x")
    running.wait_until_reached()
    pool.pause_worker(0)
    pool.resume_worker(0)
    running.open()
    task.result(stage.within)
    pool.close(timeout=stage.within)
    assert worker.names == ["on_start", "run", "on_stop"]


def test_on_stop_runs_when_a_worker_is_removed(stage: Any) -> None:
    worker = Hooked()
    pool = stage.pool([worker, int])
    pool.remove_worker(0)
    assert worker.names == ["on_start", "on_stop"]
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("error", [OSError("no device"), SystemExit("no device")])
def test_worker_that_cannot_start_is_taken_out_and_the_others_go_on(
    stage: Any, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    broken = Hooked("on_start", error)
    with caplog.at_level(logging.ERROR, logger="retrypool"):
        pool = stage.pool([WorkerSpec(broken, name="broken"), int])
        stage.worker_threads(pool)[0].join(stage.within)
    tasks = pool.dispatch_many("123")
    assert [task.result(stage.within) for task in tasks] == [1, 2, 3]
    first, second = pool.workers()
    assert (first.state, first.error, first.calls) == ("failed", error, 0)
    assert (second.state, second.error) == ("active", None)
    assert "broken" in caplog.text
    assert "no device" in caplog.text
    assert pool.stats().workers == 1
    assert broken.names == ["on_start"]
    pool.close(timeout=stage.within)


def test_pool_whose_only_worker_cannot_start_has_none(stage: Any) -> None:
    pool = stage.pool([Hooked("on_start", OSError("no device"))])
    stage.join_workers(pool)
    with pytest.raises(NoWorkers):
        pool.dispatch("x")
    pool.close(timeout=stage.within)


def test_failed_worker_can_be_removed(stage: Any) -> None:
    pool = stage.pool([Hooked("on_start", OSError("no device")), int])
    stage.worker_threads(pool)[0].join(stage.within)
    pool.remove_worker(0)
    assert [info.id for info in pool.workers()] == [1]
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("error", [OSError("oh"), SystemExit("oh")])
@pytest.mark.parametrize("raising", ["on_pause", "on_resume", "on_stop"])
def test_other_hook_that_raises_is_logged_and_changes_nothing(
    stage: Any, caplog: pytest.LogCaptureFixture, raising: str, error: BaseException
) -> None:
    worker = Hooked(raising, error)
    pool = stage.pool([worker])
    with caplog.at_level(logging.ERROR, logger="retrypool"):
        pool.dispatch("x").result(stage.within)
        pool.pause_worker(0)
        stage.until(lambda: "on_pause" in worker.names)
        task = pool.dispatch("y")
        pool.resume_worker(0)
        assert task.result(stage.within) == "y"
        pool.close(timeout=stage.within)
    assert worker.names == ["on_start", "run", "on_pause", "on_resume", "run", "on_stop"]
    assert raising in caplog.text


# -- coming and going --------------------------------------------------------------------------------


def test_added_worker_takes_what_waits(stage: Any) -> None:
    pool = stage.pool([int], name="p")
    pool.pause_worker(0)
    task = pool.dispatch("1")
    added = pool.add_worker(str.upper, name="upper", group="text")
    assert task.result(stage.within) == "1"
    info = pool.workers()[-1]
    assert (info.id, info.name, info.group) == (added, "upper", "text")
    assert stage.worker_threads(pool)[-1].name == "p-upper"
    pool.close(timeout=stage.within)


def test_options_of_add_worker_go_before_those_of_the_spec(stage: Any) -> None:
    pool = stage.pool([WorkerSpec(int, name="a", group="g")])
    pool.add_worker(WorkerSpec(int, name="b", group="g"), name="c")
    pool.add_worker(WorkerSpec(int, name="b", group="g"), group="h")
    assert [(info.name, info.group) for info in pool.workers()] == [("a", "g"), ("c", "g"), ("b", "h")]
    pool.close(timeout=stage.within)


def test_ids_of_workers_are_not_used_twice(stage: Any) -> None:
    pool = stage.pool([int] * 2)
    pool.remove_worker(1)
    assert pool.add_worker(int) == 2
    assert [info.id for info in pool.workers()] == [0, 2]
    pool.close(timeout=stage.within)


def test_workers_that_are_called_alike_are_groups_of_their_own(stage: Any) -> None:
    """Unless they are told to share one, the failure of one says nothing about the other."""

    class FailsFirst:
        def run(self, ctx: Any, data: object) -> int:
            if data is None:
                data = ctx.worker_id
            if ctx.attempt == 1:
                raise OSError(data)
            return int(ctx.worker_id)

    pool = stage.pool([WorkerSpec(FailsFirst(), name="fetch") for _ in range(2)], affinity_wait=600)
    task = pool.dispatch("x", retry=RetryPolicy(attempts=2, delay=0))
    pool.close(timeout=stage.within)
    first, second = task.history
    assert first.worker_id != second.worker_id


def test_workers_of_one_group_fail_together(stage: Any) -> None:
    """A retry goes to another group, not to another worker of the one that failed."""
    tried: list[str] = []

    class Recorder:
        def run(self, ctx: Any, data: object) -> None:
            tried.append(ctx.group)
            raise OSError(data)

    workers = [WorkerSpec(Recorder(), group=group) for group in ("a", "a", "a", "b")]
    pool = stage.pool(workers, affinity_wait=600)
    pool.dispatch("x", retry=RetryPolicy(attempts=4, delay=0))
    pool.close(timeout=stage.within)
    assert [sorted(tried[:2]), sorted(tried[2:])] == [["a", "b"], ["a", "b"]]


def test_removed_worker_ends_its_task_first(stage: Any) -> None:
    running = stage.gate()
    pool = stage.pool([lambda data: (running.hold(), data)[1], int])
    pool.pause_worker(1)
    task = pool.dispatch("x")
    running.wait_until_reached()
    removing = stage.start(pool.remove_worker, 0, stage.within)
    stage.until(lambda: pool.workers()[0].state == "stopping")
    running.open()
    removing.result(stage.within)
    assert task.result(timeout=0) == "x"
    assert [info.id for info in pool.workers()] == [1]
    pool.close(timeout=stage.within)


def test_task_of_a_removed_worker_that_does_not_end_is_run_elsewhere(stage: Any) -> None:
    """The attempt is not charged, and what the first worker brings after that is ignored."""
    running = stage.gate()
    pool = stage.pool([lambda data: (running.hold(), "late")[1], str.upper])
    pool.pause_worker(1)
    task = pool.dispatch("x", retry=RetryPolicy(attempts=1))
    running.wait_until_reached()
    (hung, _) = stage.worker_threads(pool)
    pool.resume_worker(1)
    pool.remove_worker(0, timeout=0)
    assert task.result(stage.within) == "X"
    assert [attempt.outcome for attempt in task.history] == [Outcome.WITHDRAWN, Outcome.SUCCEEDED]
    running.open()
    hung.join(stage.within)
    assert task.result() == "X"
    pool.close(timeout=stage.within)
    stats = pool.stats()
    assert (stats.succeeded, stats.failures, stats.died) == (1, 0, 0)


def test_attempt_sees_that_its_worker_is_to_leave(stage: Any) -> None:
    gate, seen = stage.gate(), []

    class Worker:
        def run(self, ctx: Any, data: object) -> None:
            seen.append(ctx.stopping)
            gate.hold()
            seen.append(ctx.stopping)

    pool = stage.pool([Worker(), Worker()])
    pool.pause_worker(1)
    pool.dispatch("x")
    gate.wait_until_reached()
    removing = stage.start(pool.remove_worker, 0)
    stage.until(lambda: next(iter(pool._workers)).slot.retired)
    gate.open()
    removing.result(stage.within)
    assert seen == [False, True]


def test_worker_that_removes_itself_leaves_after_its_task(stage: Any) -> None:
    pool = stage.pool([lambda data: pool.remove_worker(0), str.upper])
    pool.pause_worker(1)
    task = pool.dispatch("x")
    task.result(stage.within)
    stage.until(lambda: len(pool.workers()) == 1 or not stage.worker_threads(pool)[0].is_alive())
    stage.until(lambda: pool.stats().workers == 1)
    assert [info.id for info in pool.workers()] == [1]
    pool.close(timeout=stage.within)


def test_removed_worker_is_not_found_any_more(stage: Any) -> None:
    pool = stage.pool([int] * 2)
    pool.remove_worker(1)
    for call in (pool.remove_worker, pool.pause_worker, pool.resume_worker):
        with pytest.raises(WorkerNotFound, match="no worker has the id 1; the pool has: 0"):
            call(1)
    pool.close(timeout=stage.within)


def test_one_worker_may_be_removed_by_two_threads_at_once(stage: Any) -> None:
    ready = threading.Barrier(2)

    def remove() -> str:
        ready.wait(stage.within)
        try:
            pool.remove_worker(0)
        except WorkerNotFound:
            return "not found"
        return "removed"

    pool = stage.pool([int] * 2)
    removing = [stage.start(remove) for _ in range(2)]
    assert "removed" in [each.result(stage.within) for each in removing]
    assert [info.id for info in pool.workers()] == [1]
    pool.close(timeout=stage.within)


# -- what there is to tell of them -------------------------------------------------------------------


def test_infos_of_workers(stage: Any) -> None:
    running = stage.gate()

    def run(data: str) -> int:
        running.hold()
        return int(data)

    pool = stage.pool([run])
    task = pool.dispatch("x", retry=RetryPolicy(attempts=1))
    running.wait_until_reached()
    (info,) = pool.workers()
    assert (info.state, info.task_id, info.calls) == ("active", task.id, 0)
    running.open()
    pool.dispatch("1")
    assert pool.wait(stage.within)
    (info,) = pool.workers()
    assert (info.state, info.task_id, info.task_ids) == ("active", None, ())
    assert (info.succeeded, info.failed, info.calls) == (1, 1, 2)
    pool.close(timeout=stage.within)


def test_worker_that_has_not_started_yet_says_so(stage: Any) -> None:
    starting = stage.gate()

    class Slow(Hooked):
        def on_start(self) -> None:
            starting.hold()

    pool = stage.pool([Slow()])
    starting.wait_until_reached()
    assert pool.workers()[0].state == "starting"
    task = pool.dispatch("x")
    starting.open()
    assert task.result(stage.within) == "x"
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("way", ["replace", "restart", "restart, from a factory"])
def test_worker_that_could_not_be_started_is_started_again_on_request(stage: Any, way: str) -> None:
    class Late:
        def on_start(self) -> None:
            if not mended.is_set():
                raise OSError("no device")

        def run(self, ctx: Any, data: str) -> str:
            return data

    mended = threading.Event()
    events: list[Any] = []
    spec = WorkerSpec(factory=Late) if "factory" in way else WorkerSpec(Late(), concurrency=2)
    pool = stage.pool([spec], wait_for_workers=True, listeners=[events.append])
    stage.until(lambda: sum(type(event) is WorkerFailed for event in events) == spec.concurrency)
    task = pool.dispatch("x")
    mended.set()
    if way == "replace":
        pool.replace_worker(0, str)
    else:
        pool.restart_worker(0)
    assert task.result(stage.within) == "x"
    assert [(info.id, info.group, info.error) for info in pool.workers()] == [(0, "worker-0", None)]
    assert {slot.group.name for slot in pool._engine.scheduler.fleet} == {"worker-0"}
    assert type(events[-1]) is not WorkerFailed
    assert sum(type(event) is WorkerAdded for event in events) == 1 + spec.concurrency


def test_counts_are_copied_in_one_step(stage: Any) -> None:
    """The worker's own thread may count a failure of a new kind meanwhile."""

    class Counts(Counter[str]):
        def __iter__(self) -> Any:
            raise AssertionError("step by step")

        def items(self) -> Any:
            raise AssertionError("step by step")

    pool = stage.pool([int], retry=RetryPolicy(attempts=1))
    slot = next(iter(pool._workers)).slot
    slot.failures = Counts({"failed": 2})
    assert pool.workers()[0].failures == {Outcome.FAILED: 2}
