"""interrupt_worker in all its combinations, restart_worker, and the ladder of remove_worker."""

import itertools
import threading
from contextlib import suppress
from typing import Any

import pytest

from retrypool import (
    DeadReason,
    Interrupted,
    InvalidValue,
    RetryPolicy,
    TaskState,
    WorkerNotFound,
    WorkerSpec,
)
from retrypool.states import Outcome
from retrypool.testing import ManualPool

FATES = ("retry", "drop", "dead")
THENS = ("keep", "pause", "restart", "remove")


class Spinner:
    """Spins on `"spin"` until it is interrupted or told; answers everything else."""

    def __init__(self, *, obedient: bool = False) -> None:
        self.obedient = obedient
        self.spinning = False
        self.released = threading.Event()
        self.struck = 0
        self.calls: list[str] = []

    def on_start(self) -> None:
        self.calls.append("start")

    def on_stop(self) -> None:
        self.calls.append("stop")

    def on_pause(self) -> None:
        self.calls.append("pause")

    def spin(self, ctx: Any) -> None:
        """Not in the `try` itself: what strikes as a loop jumps back may miss the block around the loop."""
        self.spinning = True
        while not self.released.is_set() and not (self.obedient and (ctx.cancelled or ctx.stopping)):
            pass

    def run(self, ctx: Any, data: object) -> object:
        if data != "spin":
            return data
        try:
            self.spin(ctx)
        except Interrupted:
            self.struck += 1
            raise
        return "late"


@pytest.mark.parametrize(("fate", "then", "force"), [*itertools.product(FATES, THENS, (False, True))])
def test_each_combination_does_what_it_says(stage, fate, then, force):
    spinner = Spinner(obedient=not force)
    pool = stage.eager_pool([spinner])
    worker = pool.workers()[0].id
    task = pool.dispatch("spin")
    stage.until(lambda: spinner.spinning)
    assert pool.interrupt_worker(worker, task=fate, then=then, force=force)

    # The thread.
    if force:
        stage.until(lambda: spinner.struck == 1)
    # The task.
    if fate == "retry":
        assert task.history[0].outcome is Outcome.WITHDRAWN
        spinner.released.set()
        pool.add_worker(str)
        assert task.result(stage.within) in {"late", "spin"}
        assert len(task.history) == 2
    elif fate == "drop":
        assert task.cancelled()
    else:
        assert task.state is TaskState.DEAD
        assert pool.dead_tasks()[0].reason is DeadReason.CALLBACK
    # The worker.
    match then:
        case "keep":
            stage.until(lambda: pool.workers()[0].state != "stuck")
            assert pool.dispatch("next").result(stage.within) == "next"
        case "pause":
            stage.until(lambda: "pause" in spinner.calls)
            assert pool.workers()[0].state == "paused"
        case "restart":
            stage.until(lambda: spinner.calls == ["start", "stop", "start"])
        case "remove":
            assert worker not in [each.id for each in pool.workers()]
            stage.until(lambda: spinner.calls == ["start", "stop"])
            stage.until(lambda: pool.stats().abandoned == 0)


@pytest.mark.parametrize("then", THENS)
def test_idle_worker_has_nothing_to_interrupt(stage, then):
    spinner = Spinner()
    pool = stage.eager_pool([spinner, str])
    worker = pool.workers()[0].id
    stage.until(lambda: spinner.calls == ["start"])
    assert pool.interrupt_worker(worker, then=then, force=True) is False
    if then == "restart":
        stage.until(lambda: spinner.calls == ["start", "stop", "start"])
    assert pool.dispatch("x").result(stage.within) == "x"
    assert spinner.struck == 0


def test_withdrawn_attempt_is_not_charged():
    pool = ManualPool([str] * 2, retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x")
    for _ in range(5):
        attempt = pool.claim()
        pool.interrupt_worker(attempt.worker_id)
        attempt.finish("too late")
    pool.claim().finish("in time")
    assert task.result() == "in time"
    assert task.attempts == 6


def test_group_of_a_withdrawn_attempt_is_not_blamed():
    pool = ManualPool([str])
    task = pool.dispatch("x")
    attempt = pool.claim()
    pool.interrupt_worker(attempt.worker_id)
    attempt.finish(None)
    assert pool.claim().worker_id == attempt.worker_id
    assert task.attempts == 1
    pool.force_close()


@pytest.mark.parametrize("wrong", [{"task": "redo"}, {"then": "explode"}])
def test_other_words_are_refused_and_nothing_happens(wrong):
    pool = ManualPool([str])
    pool.dispatch("x")
    attempt = pool.claim()
    with pytest.raises(InvalidValue, match="must be one of"):
        pool.interrupt_worker(attempt.worker_id, **wrong)
    assert not attempt.context.cancelled
    with pytest.raises(WorkerNotFound):
        pool.interrupt_worker(99)
    pool.force_close()


def test_interrupted_worker_with_a_factory_is_made_anew_in_its_thread(stage):
    made: list[Spinner] = []

    def make() -> Spinner:
        made.append(Spinner())
        return made[-1]

    pool = stage.eager_pool([WorkerSpec(factory=make)])
    task = pool.dispatch("spin")
    stage.until(lambda: made and made[0].spinning)
    assert pool.cancel_task(task, interrupt=True)
    assert pool.dispatch("next").result(stage.within) == "next"
    assert made[0].calls == ["start", "stop"]
    assert made[1].calls == ["start"]
    assert pool.stats().abandoned == 0


def test_worker_with_a_factory_that_came_back_by_itself_is_kept(stage):
    """Nothing was raised in it, so nothing is half-used."""
    made: list[Spinner] = []

    def make() -> Spinner:
        made.append(Spinner(obedient=True))
        return made[-1]

    pool = stage.eager_pool([WorkerSpec(factory=make)])
    task = pool.dispatch("spin")
    stage.until(lambda: made and made[0].spinning)
    assert pool.cancel_task(task)
    assert pool.dispatch("next").result(stage.within) == "next"
    assert len(made) == 1


def test_restart_waits_for_what_the_worker_runs(stage):
    spinner = Spinner()
    pool = stage.eager_pool([spinner])
    task = pool.dispatch("spin")
    stage.until(lambda: spinner.spinning)
    pool.restart_worker(pool.workers()[0].id)
    assert spinner.calls == ["start"]
    spinner.released.set()
    assert task.result(stage.within) == "late"
    stage.until(lambda: spinner.calls == ["start", "stop", "start"])


def test_restart_that_is_asked_for_during_a_restart_is_not_lost(stage):
    starting, go_on = threading.Semaphore(0), threading.Semaphore(0)

    class Slow:
        def on_start(self) -> None:
            starting.release()
            go_on.acquire(timeout=stage.within)

        def run(self, ctx: Any, data: object) -> object:
            return data

    pool = stage.eager_pool([Slow()])
    worker = pool.workers()[0].id
    assert starting.acquire(timeout=stage.within)
    go_on.release()
    pool.restart_worker(worker)
    assert starting.acquire(timeout=stage.within)
    pool.restart_worker(worker)
    go_on.release()
    assert starting.acquire(timeout=stage.within)
    go_on.release()
    assert pool.dispatch("x").result(stage.within) == "x"


def test_worker_whose_restart_fails_is_stopped_once(stage, caplog):
    calls: list[str] = []

    def make() -> Any:
        if calls:
            raise OSError("no more of them")
        calls.append("made")
        return spec

    class Once(Spinner):
        def on_stop(self) -> None:
            calls.append("stopped")

    spec = Once()
    pool = stage.eager_pool([WorkerSpec(factory=make), str])
    stage.until(lambda: spec.calls == ["start"])
    pool.restart_worker(pool.workers()[0].id)
    stage.until(lambda: pool.workers()[0].state == "failed")
    assert calls == ["made", "stopped"]
    assert pool.dispatch("x").result(stage.within) == "x"


@pytest.mark.parametrize("step", ["asked", "cancelled", "interrupted", "abandoned"])
def test_ladder_of_remove_worker(stage, step):
    """Each step is for those who have not left at the one before."""
    hang, asked = stage.hang(), threading.Event()
    spinner = Spinner()

    def obey(ctx: Any, data: object) -> object:
        spinner.spinning = True
        while not (ctx.stopping if step == "asked" else ctx.cancelled):
            pass
        asked.set()
        return "asked"

    class Leaving:
        def run(self, ctx: Any, data: object) -> object:
            if step == "abandoned":
                return hang()
            return spinner.run(ctx, data) if step == "interrupted" else obey(ctx, data)

    pool = stage.eager_pool([Leaving(), str])
    leaving, other = (worker.id for worker in pool.workers())
    pool.pause_worker(other)
    task = pool.dispatch("spin", retry=stage.once)
    stage.until(lambda: spinner.spinning or hang.hung)
    pool.remove_worker(
        leaving, timeout=stage.within if step == "asked" else 0.01, force=step == "interrupted"
    )
    assert leaving not in [worker.id for worker in pool.workers()]
    if step == "asked":
        assert task.result(stage.within) == "asked"
        assert task.attempts == 1
    else:
        assert task.history[0].outcome is Outcome.WITHDRAWN
        pool.resume_worker(other)
        assert task.result(stage.within) == "spin"
        if step == "abandoned":
            assert pool.stats().abandoned == 1
            hang.release()
        stage.until(lambda: pool.stats().abandoned == 0)
    assert spinner.struck == (step == "interrupted")
    with pytest.raises(WorkerNotFound):
        pool.remove_worker(leaving)


@pytest.mark.parametrize("_round", range(20))
def test_worker_removed_while_it_is_interrupted(stage, _round):
    """Two operators at once; and its timeout strikes as well."""
    spinner, at_once = Spinner(), threading.Barrier(2)
    pool = stage.eager_pool([spinner, str], timeout=0.005, interrupt_on_timeout=True)
    leaving, other = (worker.id for worker in pool.workers())
    pool.pause_worker(other)
    task = pool.dispatch("spin")
    stage.until(lambda: spinner.spinning)

    def interrupt() -> None:
        at_once.wait(stage.within)
        with suppress(WorkerNotFound):
            pool.interrupt_worker(leaving, force=True)

    def remove() -> None:
        at_once.wait(stage.within)
        pool.remove_worker(leaving, timeout=0.001, force=True)

    for each in (stage.start(interrupt), stage.start(remove)):
        each.result(stage.within)
    pool.resume_worker(other)
    assert task.result(stage.within) == "spin"
    stage.until(lambda: pool.stats().abandoned == 0)
    assert spinner.calls == ["start", "stop"]
    assert len(pool.workers()) == 1
    pool.close(timeout=stage.within)


def test_task_in_the_hand_of_a_worker_that_is_dismissed_is_not_lost(stage):
    """It was just claimed, and not begun: whoever waits for the pool waits for this task too."""
    begun, go_on = threading.Event(), threading.Event()

    class Resuming:
        def run(self, ctx: Any, data: object) -> object:
            return data

        def on_resume(self) -> None:
            begun.set()
            go_on.wait(stage.within)

        def on_pause(self) -> None:
            paused.set()

    paused = threading.Event()
    pool = stage.eager_pool([Resuming()])
    worker = pool.workers()[0].id
    pool.pause_worker(worker)
    assert paused.wait(stage.within)
    task = pool.dispatch("x")
    pool.resume_worker(worker)
    assert begun.wait(stage.within)
    pool.remove_worker(worker, timeout=0.001)
    pool.add_worker(lambda data: data)
    closing = stage.start(pool.close)
    go_on.set()
    closing.result(stage.within)
    assert task.result() == "x"
    assert task.attempts == 1
    assert pool.stats().succeeded == 1
