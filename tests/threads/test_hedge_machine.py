"""Second attempts in any order of events: a pool stepped by hand, whose calls end however and whenever."""

from collections import Counter
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retrypool import Hedge, Interrupted, RetryPolicy, Task, Throttled
from retrypool.events import Event, TaskCancelled, TaskDead, TaskSucceeded
from retrypool.testing import ManualAttempt, ManualPool

from ..core.fleets import fleet

ANY = st.integers(0, 1000)
SHARE = 0.6
ERRORS = st.sampled_from([ValueError("no"), OSError("down"), Throttled(retry_after=1.0)])


class Racing(RuleBasedStateMachine):
    """The rules. What has been told of a task, and what its attempts were told, is checked after each."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[ManualAttempt[Any, Any]] = []
        self.begun: dict[Task[Any, Any], list[ManualAttempt[Any, Any]]] = {}
        self.tasks: list[Task[Any, Any]] = []
        self.ends: Counter[int] = Counter()

    @initialize(
        names=st.integers(2, 4),
        timeout=st.sampled_from([None, None, 6.0]),
        attempts=st.sampled_from([2, 3, 1000]),
        keep_data=st.booleans(),
    )
    def open(self, names: int, timeout: float | None, attempts: int, keep_data: bool) -> None:
        self.keep_data = keep_data
        self.pool: ManualPool[Any, Any] = fleet(
            *"abcd"[:names],
            hedge=Hedge(after=1.0, quantile=0.5, share=SHARE, sample=2),
            retry=RetryPolicy(attempts=attempts, delay=0),
            timeout=timeout,
            listeners=[self.hear],
            grace=1e6,
        )
        for _ in range(3):  # so that it is known how long a call takes
            self.dispatch(hedge=True)
            self.claim()
            self.wait(1.0)
            self.finish(0)

    def hear(self, event: Event) -> None:
        if isinstance(event, TaskSucceeded | TaskDead | TaskCancelled):
            self.ends[event.task.id] += 1

    @rule(hedge=st.sampled_from([True, True, True, False]))
    def dispatch(self, hedge: bool) -> None:
        self.tasks.append(self.pool.dispatch("x", hedge=hedge, keep_data=self.keep_data))

    @rule()
    def claim(self) -> None:
        attempt = self.pool.claim()
        if attempt is not None:
            self.under_way.append(attempt)
            self.begun.setdefault(attempt.task, []).append(attempt)

    @rule()
    def straggle(self) -> None:
        """Let as many claim as there are tasks for, and take long."""
        self.dispatch(hedge=True)
        for _ in self.pool.workers():
            self.claim()
        self.wait(3.0)
        for _ in self.pool.workers():
            self.claim()

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.pool.clock.advance(seconds)

    @precondition(lambda self: self.under_way)
    @rule(which=ANY)
    def finish(self, which: int) -> None:
        attempt = self.under_way.pop(which % len(self.under_way))
        over = attempt.context.cancelled
        attempt.finish(attempt.context.attempt)
        if not over:  # whoever was not told that it is over has ended its task
            assert attempt.task.result(0) == attempt.context.attempt

    @precondition(lambda self: self.under_way)
    @rule(which=ANY, error=ERRORS)
    def fail(self, which: int, error: BaseException) -> None:
        attempt = self.under_way.pop(which % len(self.under_way))
        over, others = attempt.context.cancelled, self._live(attempt.task)
        attempt.fail(Interrupted() if over else error)
        if not over and others:  # the other goes on alone
            assert self._live(attempt.task) == others
            assert not attempt.task.done()

    @precondition(lambda self: self.under_way)
    @rule(which=ANY, fate=st.sampled_from(["retry", "drop", "dead"]))
    def interrupt(self, which: int, fate: Any) -> None:
        self.pool.interrupt_worker(self.under_way[which % len(self.under_way)].worker_id, task=fate)

    @precondition(lambda self: self.tasks)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        task = self.tasks[which % len(self.tasks)]
        was_done = task.done()
        assert self.pool.cancel_task(task) or was_done

    @rule(which=ANY, pause=st.booleans())
    def pause(self, which: int, pause: bool) -> None:
        workers = self.pool.workers()
        worker_id = workers[which % len(workers)].id
        (self.pool.pause_worker if pause else self.pool.resume_worker)(worker_id)

    def _runs(self, attempt: ManualAttempt[Any, Any]) -> bool:
        return attempt in self.under_way and not attempt.context.cancelled

    def _live(self, task: Task[Any, Any]) -> int:
        return sum(attempt.task is task and not attempt.context.cancelled for attempt in self.under_way)

    @invariant()
    def each_task_ends_once(self) -> None:
        for task in self.tasks:
            assert self.ends[task.id] == task.done()
            live = self._live(task)
            assert live == 0 if task.done() else live <= 2, task
            if live == 2:
                assert task._settings.hedge

    @invariant()
    def history_has_each_attempt_that_is_over_once(self) -> None:
        for task in self.tasks:
            numbers = sorted(attempt.number for attempt in task.history)
            under_way = [a.context.attempt for a in self.begun.get(task, ()) if self._runs(a)]
            assert sorted([*numbers, *under_way]) == list(range(1, len(numbers) + len(under_way) + 1))

    @invariant()
    def share_is_kept(self) -> None:
        if self.tasks:
            assert self.pool.stats().hedged <= SHARE * sum(map(len, self.begun.values()))

    def teardown(self) -> None:
        if not self.tasks:
            return
        for worker in self.pool.workers():
            self.pool.resume_worker(worker.id)
        for _ in range(3000):
            if all(task.done() for task in self.tasks) and not self.under_way:
                break
            self.claim()
            if self.under_way:
                self.under_way.pop(0).finish("at last")
            self.pool.clock.advance(0.5)
        self.each_task_ends_once()
        assert all(task.done() for task in self.tasks)
        assert self.pool.stats().racing == 0
        assert self.pool._engine.scheduler.idle()


TestRacing = Racing.TestCase
TestRacing.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
