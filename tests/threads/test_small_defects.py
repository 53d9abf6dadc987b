"""What a hostile review has found, each case small."""

import sys
import threading
from typing import Any

import pytest

from retrypool import (
    Budget,
    CancelToken,
    DeadReason,
    InvalidValue,
    NoWorkers,
    Pool,
    QueueFull,
    Rate,
    TaskState,
    WorkerSpec,
)
from retrypool.testing import ManualPool

HUGE = 10**400


@pytest.mark.parametrize(
    "call",
    [
        lambda: ManualPool([len]).dispatch("x", cost=HUGE),
        lambda: Rate(HUGE),
        lambda: Rate(1, burst=HUGE),
        lambda: Budget(ratio=HUGE),
        lambda: Budget(per_second=HUGE),
        lambda: Pool([len], timeout=HUGE),
    ],
)
def test_number_that_no_float_can_hold_is_refused(call: Any) -> None:
    with pytest.raises(InvalidValue):
        call()


def test_limit_that_no_list_can_have_is_no_limit() -> None:
    ManualPool([len], history_limit=HUGE, dead_limit=HUGE, max_queue=HUGE).force_close()


def test_task_that_always_interrupts_its_own_worker_is_dead_in_the_end(stage: Any) -> None:
    class Suicidal:
        def run(self, ctx: Any, data: object) -> None:
            pool.interrupt_worker(ctx.worker_id, task="retry")

    pool = stage.pool([Suicidal(), Suicidal()], health=None)
    task = pool.dispatch("x")
    stage.until(task.done)
    assert task.state is TaskState.DEAD
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.ATTEMPTS]
    assert task.attempts == 50
    pool.close(timeout=stage.within)


def test_many_priorities_cost_a_pool_nothing_when_it_closes(stage: Any, monkeypatch: Any) -> None:
    """How many tasks wait is counted, and not found out by a look at every subqueue."""
    pool = stage.pool([lambda data: data])
    pool.pause()
    tasks = [pool.dispatch(number, priority=number) for number in range(10_000)]
    backlog = pool._engine.scheduler.backlog
    assert len(backlog.subqueues) > 9_000
    looks: list[int] = []

    class Subqueues(dict[Any, Any]):
        def values(self) -> Any:
            looks.append(1)
            return super().values()

    backlog.subqueues = Subqueues(backlog.subqueues)
    pool.close(timeout=stage.within)
    assert all(task.done() for task in tasks)
    assert len(looks) < 1000


def test_dispatcher_does_not_wait_for_room_that_nobody_can_make(stage: Any) -> None:
    """The queue is full of tasks that wait for a worker that is not there."""
    pool = stage.pool([lambda data: data], max_queue=3)
    waiting = [pool.dispatch("x", require={"gpu"}, wait_for_worker=True) for _ in range(3)]
    assert pool.dispatch("y", block_timeout=stage.within).result(stage.within) == "y"
    pool.add_worker(WorkerSpec(lambda data: data, tags={"gpu"}))
    assert [task.result(stage.within) for task in waiting] == ["x"] * 3
    pool.close(timeout=stage.within)


def test_tasks_that_wait_for_a_worker_are_bounded_too(stage: Any) -> None:
    pool = stage.pool([lambda data: data], max_queue=3, on_full="raise")
    with pytest.raises(QueueFull):
        for _ in range(7):
            pool.dispatch("x", require={"gpu"}, wait_for_worker=True)
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("end", ["close", "force_close"])
def test_states_after_the_end(stage: Any, end: str) -> None:
    pool = stage.pool([lambda data: data])
    task, later = pool.dispatch("x"), pool.dispatch("y", delay=3600)
    schedule = pool.schedule("z", every=3600)
    task.result(stage.within)
    pool.close(timeout=stage.within, delayed="cancel") if end == "close" else pool.force_close()
    stage.join_workers(pool)
    assert (task.state, later.state) == (TaskState.SUCCEEDED, TaskState.CANCELLED)
    assert schedule.over
    assert schedule.next_run is None
    stage.until(lambda: [info.state for info in pool.workers()] == ["stopped"])
    stats = pool.stats()
    assert (stats.queued, stats.delayed, stats.running, stats.workers) == (0, 0, 0, 0)


def test_worker_of_a_token_is_forgotten_with_its_pool(no_garbage: None, stage: Any) -> None:
    """The application's token outlives many pools."""
    token = CancelToken()
    for _ in range(20):
        with Pool([WorkerSpec(len, cancel=token)], cancel=token) as pool:
            pool.dispatch("abc", cancel=token).result(stage.within)
            removed = pool.add_worker(len, cancel=token)
            pool.remove_worker(removed)
    assert token._callbacks == {}
    assert token._children == {}


def test_token_with_a_time_leaves_nothing_per_task() -> None:
    pool = ManualPool([len])
    token = CancelToken(clock=pool.clock)
    for _ in range(5000):
        pool.dispatch("abc", cancel=token.after(3600))
        pool.claim().run()
    assert len(pool._engine.scheduler.timers) <= 1100
    assert len(token._children) <= 1
    pool.close()


def test_workers_may_come_and_go_while_tasks_ask_for_them(stage: Any, switching_often: None) -> None:
    """A dispatch looks at a copy of who is there."""
    pool = stage.pool([WorkerSpec(lambda data: data, tags={"a"})])

    def come_and_go() -> None:
        for _ in range(150):
            pool.remove_worker(pool.add_worker(WorkerSpec(lambda data: data, tags={"b"})), timeout=0)

    coming = [stage.start(come_and_go) for _ in range(2)]
    while not all(future.done() for future in coming):
        try:
            pool.dispatch("x", require={"b"}).cancel()
        except NoWorkers:
            pass
    for future in coming:
        future.result(stage.within)
    pool.close(timeout=stage.within)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork here")
def test_child_makes_a_pool_while_the_parent_makes_tokens_and_waits(run: Any) -> None:
    """Locks of the whole package are made anew in a child: some other thread may have held them."""
    ended = run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        sys.setswitchinterval(1e-6)

        class Asks:
            def run(self, ctx, data):
                ctx.token

        pool = Pool([Asks() for _ in range(8)], timeout=60)
        waiting = [threading.Thread(target=lambda: pool.wait(), daemon=True)]

        def keep_busy():
            while not pool.closed:
                try:
                    for task in pool.dispatch_many(range(20)):
                        task.add_done_callback(id)
                        task.result()
                except PoolClosed:
                    pass

        busy = [threading.Thread(target=keep_busy, daemon=True) for _ in range(2)]
        for each in busy:
            each.start()
        for n in range(20):
            if (child := os.fork()) == 0:
                with Pool([Asks()]) as own:
                    task = own.dispatch(1)
                    task.result()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        pool.force_close()
        say("all well")
        """
    ).end()
    assert ended.out == ["all well"], ended


@pytest.mark.parametrize(
    "call", ["close()", "force_close()", "wait()", "stats()", "__exit__(None, None, None)"]
)
def test_finalizer_that_uses_a_pool_when_the_interpreter_is_over_hangs_nobody(run: Any, call: str) -> None:
    """Its threads are frozen by then."""
    ended = run(
        f"""
        class Owner:
            def __init__(self):
                self.pool = Pool([time.sleep] * 4, timeout=60)
                self.tasks = self.pool.dispatch_many([0.001] * 50)
                self.hung = self.pool.dispatch(3600)

            def __del__(self, write=os.write):
                self.pool.{call}
                write(1, b"finalized\\n")

        owner = Owner()
        owner.pool._lifecycle.exit_timeout = 0.01
        sys.modules["__main__"].me = owner
        """
    ).end()
    assert ended.returncode == 0, ended
    assert "finalized" in ended.out, ended


def test_huge_chunk_takes_all_items_at_once() -> None:
    with Pool([abs]) as pool:
        assert list(pool.map([1, -2, 3], chunk=HUGE)) == [1, 2, 3]


def test_time_to_wait_that_is_hugely_negative_is_over() -> None:
    pool = ManualPool([abs])
    with pytest.raises(TimeoutError):
        pool.dispatch(1).result(-HUGE)
    pool.force_close()


def test_worker_that_is_just_being_started_is_removed_without_waiting_for_it() -> None:
    """CPython refuses to wait for a thread that has its identity, and has not said yet that it runs."""

    class Begun(threading.Thread):
        ident = 1

    pool = ManualPool([abs] * 2)
    pool._workers.find(0)[0].thread = Begun()
    pool.remove_worker(0)
    pool._workers.find(1)[0].thread = Begun()
    pool.close()


@pytest.mark.parametrize("leave", ["remove_worker", "cordon_worker"])
def test_task_goes_back_to_the_worker_that_it_was_taken_from_if_all_others_leave(leave: str) -> None:
    pool = ManualPool([abs] * 2)
    task = pool.dispatch(-1)
    pool.claim(0)
    pool.interrupt_worker(0, task="retry")
    pool._engine.takeovers.came_back(pool._workers.find(0)[0].slot)
    getattr(pool, leave)(1, *(["no more"] if leave == "cordon_worker" else []))
    attempt = pool.claim(0)
    assert attempt is not None
    attempt.run()
    assert task.result() == 1
    pool.force_close()
