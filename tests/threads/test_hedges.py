"""Second attempts of tasks that take much longer than others: who begins them, and what comes of the two."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrypool import (
    DeadReason,
    Drain,
    Hedge,
    InvalidType,
    Outcome,
    Pool,
    Recorder,
    RetryPolicy,
    SQLiteStorage,
    Task,
    Throttled,
    WorkerSpec,
)
from retrypool.events import AttemptEnded, AttemptStarted, Event, TaskSucceeded
from retrypool.metrics import expose
from retrypool.testing import ManualAttempt, ManualPool

from ..core.fleets import Echo, claimed, fleet

OFTEN = Hedge(share=1.0)
"""No limit to how many, so that one task is enough to see it."""


def warmed_up(*names: str, **options: Any) -> ManualPool[Any, Any]:
    """A fleet whose first worker has made ten calls of one second: a straggler is what takes three."""
    pool = fleet(*names, **{"hedge": OFTEN, "retry": RetryPolicy(attempts=3, delay=0), **options})
    for _ in range(10):
        pool.dispatch("warm up")
        attempt = claimed(pool, 0)
        pool.clock.advance(1.0)
        attempt.finish("warm")
    return pool


def race(
    pool: ManualPool[Any, Any], **options: Any
) -> tuple[Task[Any, Any], ManualAttempt[Any, Any], ManualAttempt[Any, Any]]:
    """Let the first worker take long for a task, and the second help it out."""
    task = pool.dispatch("slow", **options)
    first = claimed(pool, 0)
    assert pool.claim(1) is None
    limit = pool._engine.hedges.hedging.limit()  # type: ignore[union-attr]
    assert limit is not None
    pool.clock.advance(limit)
    return task, first, claimed(pool, 1)


def outcomes(task: Task[Any, Any]) -> list[tuple[int, int, str]]:
    return [(attempt.number, attempt.worker_id, attempt.outcome.value) for attempt in task.history]


# -- who begins one ------------------------------------------------------------------------------


def test_without_hedge_no_task_is_run_twice_at_once() -> None:
    pool = warmed_up("a", "b", hedge=None)
    pool.dispatch("slow")
    claimed(pool, 0)
    pool.clock.advance(1000.0)
    assert pool.claim(1) is None


def test_idle_worker_begins_a_task_that_takes_three_times_as_long_as_others_did() -> None:
    pool = warmed_up("a", "b")
    task = pool.dispatch("slow")
    claimed(pool, 0)
    pool.clock.advance(2.9)
    assert pool.claim(1) is None
    pool.clock.advance(0.1)
    second = claimed(pool, 1)
    assert second.task is task
    assert second.context.attempt == 2
    assert pool.stats().hedged == pool.stats().racing == 1


def test_worker_that_sleeps_is_woken_when_a_task_has_become_a_straggler() -> None:
    pool = warmed_up("a", "b")
    woken: list[str] = []
    pool._workers.find(1)[0].slot.wake = lambda: woken.append("b")
    pool.dispatch("slow")
    claimed(pool, 0)
    assert pool.claim(1) is None
    woken.clear()
    pool.clock.advance(2.5)
    assert woken == []
    pool.clock.advance(0.5)
    assert woken == ["b"]


def test_task_that_waits_goes_before_a_second_attempt() -> None:
    pool = warmed_up("a", "b")
    pool.dispatch("slow")
    claimed(pool, 0)
    pool.clock.advance(3.0)
    waiting = pool.dispatch("waits")
    assert claimed(pool, 1).task is waiting


def test_nobody_relies_on_a_worker_that_was_called_and_begins_a_second_attempt() -> None:
    """Another has taken what it was called for: the next task needs a call of its own."""
    pool = warmed_up("a", "b")
    pool.dispatch("slow")
    claimed(pool, 0)
    assert pool.claim(1) is None
    pool.clock.advance(3.0)
    engine, slot = pool._engine, pool._workers.find(1)[0].slot
    assert engine.hedges is not None
    engine.parked[slot] = None
    engine.waking.searching = True
    assert engine.hedges.begin(slot) is not None
    assert not engine.waking.searching


def test_there_are_no_three_attempts_at_once() -> None:
    pool = warmed_up("a", "b", "c")
    race(pool)
    pool.clock.advance(100.0)
    assert pool.claim(2) is None


def test_worker_of_the_same_group_is_no_help() -> None:
    pool = warmed_up("a", "b", concurrency=2)
    pool.dispatch("slow")
    attempt = claimed(pool, 0)
    pool.clock.advance(3.0)
    assert pool.claim(0) is None
    assert claimed(pool, 1).task is attempt.task


@pytest.mark.parametrize(
    ("why", "keep_away"),
    [
        ("paused", lambda pool: pool.pause_worker(1)),
        ("cordoned", lambda pool: pool.cordon_worker(1, "by hand")),
        ("the pool is paused", lambda pool: pool.pause()),
    ],
)
def test_worker_that_is_given_nothing_makes_no_second_attempt(
    why: str, keep_away: Callable[[Pool[Any, Any]], None]
) -> None:
    pool = warmed_up("a", "b")
    pool.dispatch("slow")
    claimed(pool, 0)
    keep_away(pool)
    pool.clock.advance(3.0)
    assert pool.claim(1) is None


def test_group_that_cools_makes_no_second_attempt() -> None:
    pool = warmed_up("a", "b")
    pool.dispatch("throttled", worker=1, retry=RetryPolicy(attempts=1))
    claimed(pool, 1).fail(Throttled(retry_after=60))
    pool.dispatch("slow")
    claimed(pool, 0)
    pool.clock.advance(3.0)
    assert pool.claim(1) is None


def test_group_whose_rate_is_used_up_makes_no_second_attempt() -> None:
    from retrypool import Rate

    pool = ManualPool(
        [WorkerSpec(Echo(), name="a"), WorkerSpec(Echo(), name="b", rate=Rate(1, per=3600))],
        hedge=Hedge(share=1.0, sample=1),
    )
    pool.dispatch("paid", worker=1)
    attempt = claimed(pool, 1)
    pool.clock.advance(1.0)
    attempt.finish("done")
    pool.dispatch("slow")
    claimed(pool, 0)
    pool.clock.advance(10.0)
    assert pool.claim(1) is None


def test_group_that_has_failed_a_task_is_not_given_it_again() -> None:
    pool = warmed_up("a", "b")
    task = pool.dispatch("slow")
    claimed(pool, 1).fail(ValueError("b can't"))
    first = claimed(pool, 0)
    assert first.task is task
    pool.clock.advance(3.0)
    assert pool.claim(1) is None


@pytest.mark.parametrize(
    "options",
    [
        {"hedge": False},
        {"retry": RetryPolicy(attempts=1)},
        {"worker": 0},
        {"exclude": {"b"}},
        {"drain": Drain()},
    ],
)
def test_tasks_that_must_not_run_there_or_twice_do_not(options: dict[str, Any]) -> None:
    pool = warmed_up("a", "b")
    pool.dispatch("slow", **options)
    claimed(pool, 0)
    pool.clock.advance(3.0)
    assert pool.claim(1) is None


def test_second_attempts_keep_to_their_share() -> None:
    pool = warmed_up("a", "b", hedge=True)
    pool.dispatch("slow")
    first = claimed(pool, 0)
    pool.clock.advance(3.0)
    assert pool.claim(1) is None  # it would be one in twelve
    first.finish("done")
    for _ in range(8):
        pool.dispatch("quick")
        attempt = claimed(pool, 0)
        pool.clock.advance(1.0)
        attempt.finish("quick")
    pool.dispatch("slow")
    claimed(pool, 0)
    pool.clock.advance(9.0)
    assert claimed(pool, 1).context.attempt == 2  # one in 21


def test_group_that_is_as_slow_itself_is_no_help() -> None:
    pool = warmed_up("a", "b")
    pool.dispatch("elsewhere", worker=1)
    attempt = claimed(pool, 1)
    pool.clock.advance(5.0)
    attempt.finish("after all")
    pool.dispatch("slow")
    claimed(pool, 0)
    pool.clock.advance(4.0)
    assert pool.claim(1) is None


def test_option_that_is_no_hedge_is_refused_at_the_call() -> None:
    with pytest.raises(InvalidType, match="hedge"):
        Pool([Echo()], hedge=3)  # type: ignore[arg-type]
    pool = fleet("a")
    with pytest.raises(InvalidType, match="hedge"):
        pool.dispatch(1, hedge=1)  # type: ignore[arg-type]


# -- one of the two succeeds -----------------------------------------------------------------------


def test_second_attempt_that_is_quicker_ends_the_task_and_the_first_is_told() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    pool.clock.advance(1.0)
    second.finish("from b")
    assert task.result(0) == "from b"
    assert first.context.cancelled
    assert outcomes(task) == [(1, 0, "superseded"), (2, 1, "succeeded")]
    assert task.attempts == 2
    first.finish("from a, much later")
    assert task.result(0) == "from b"
    stats = pool.stats()
    assert (stats.succeeded, stats.hedges_won, stats.racing, stats.failures) == (11, 1, 0, 0)
    assert pool._engine.scheduler.idle()
    assert pool.dispatch("next") is claimed(pool, 0).task


def test_first_attempt_that_is_quicker_after_all_ends_the_task_and_the_second_is_told() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    first.finish("from a")
    assert task.result(0) == "from a"
    assert second.context.cancelled
    assert outcomes(task) == [(2, 1, "superseded"), (1, 0, "succeeded")]
    second.fail(OSError("closed under it"))
    assert outcomes(task) == [(2, 1, "superseded"), (1, 0, "succeeded")]
    stats = pool.stats()
    assert (stats.succeeded, stats.hedged, stats.hedges_won, stats.failures) == (11, 1, 0, 0)
    assert pool._engine.scheduler.idle()


@pytest.mark.parametrize("winner", [0, 1])
def test_attempt_that_lost_counts_for_nothing_against_its_group(winner: int) -> None:
    pool = warmed_up("a", "b")
    for _ in range(10):
        _, *both = race(pool)
        both[winner].finish("done")
        both[1 - winner].fail(OSError("stopped"))
    assert pool.stats().ejections == pool.stats().failures == 0
    assert [info.failures for info in pool.workers()][1 - winner] == {Outcome.SUPERSEDED: 10}


def test_attempt_that_lost_frees_its_worker_when_it_comes_back() -> None:
    pool = warmed_up("a", "b")
    _, first, second = race(pool)
    second.finish("done")
    waiting = pool.dispatch("next", worker=0)
    assert pool.claim(0) is None if not first._slot.stuck else True
    first.finish("late")
    assert claimed(pool, 0).task is waiting


def test_task_that_lets_go_of_its_data_has_let_go_of_it() -> None:
    pool = warmed_up("a", "b")
    task, _, second = race(pool, keep_data=False)
    second.finish("done")
    assert task.data is None
    assert outcomes(task) == [(1, 0, "superseded"), (2, 1, "succeeded")]


def test_drain_gets_what_the_attempt_has_sent_that_won() -> None:
    pool, drain = warmed_up("a", "b"), Drain(commit="success")
    _, first, second = race(pool, drain=drain)
    first.context.send("from a")
    second.context.send("from b")
    second.finish("done")
    assert drain.drain() == ["from b"]


# -- one of the two fails ----------------------------------------------------------------------------


@pytest.mark.parametrize("loser", [0, 1])
def test_when_one_attempt_fails_the_other_goes_on_alone(loser: int) -> None:
    pool = warmed_up("a", "b")
    task, *both = race(pool)
    both[loser].fail(ValueError("not here"))
    assert not task.done()
    assert pool.stats().retries == 0
    both[1 - loser].finish("there")
    assert task.result(0) == "there"
    assert outcomes(task) == [(loser + 1, loser, "failed"), (2 - loser, 1 - loser, "succeeded")]
    assert pool._engine.scheduler.idle()


def test_only_when_both_have_failed_is_it_decided_what_becomes_of_the_task() -> None:
    told: list[str] = []
    pool = warmed_up(
        "a",
        "b",
        "c",
        on_failure=lambda _, error: told.append(str(error)),
        retry=RetryPolicy(attempts=3, delay=0),
    )
    task, first, second = race(pool)
    first.fail(ValueError("of a"))
    assert told == []
    second.fail(ValueError("of b"))
    assert told == ["of b"]
    assert outcomes(task) == [(1, 0, "failed"), (2, 1, "failed")]
    third = claimed(pool)
    assert (third.task, third.worker_id, third.context.attempt) == (task, 2, 3)
    third.fail(ValueError("of c"))
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.ATTEMPTS]


def test_one_fails_and_another_helps_out_the_one_that_still_runs() -> None:
    pool = warmed_up("a", "b", "c")
    task, first, second = race(pool)
    second.fail(ValueError("of b"))
    third = claimed(pool, 2)
    assert (third.task, third.context.attempt) == (task, 3)
    first.finish("after all")
    assert outcomes(task) == [(2, 1, "failed"), (3, 2, "superseded"), (1, 0, "succeeded")]


def test_attempt_that_runs_out_of_time_leaves_the_task_to_the_other() -> None:
    pool = warmed_up("a", "b", timeout=5.0)
    task, first, second = race(pool)
    pool.clock.advance(2.0)
    assert first.context.cancelled
    assert not second.context.cancelled
    second.finish("in time")
    assert outcomes(task) == [(1, 0, "timed_out"), (2, 1, "succeeded")]


def test_deadline_ends_both() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool, deadline=4.0)
    pool.clock.advance(1.0)
    assert first.context.cancelled
    assert second.context.cancelled
    assert [dead.reason for dead in pool.dead_tasks()] == [DeadReason.DEADLINE]
    assert outcomes(task) == [(1, 0, "timed_out"), (2, 1, "timed_out")]
    first.finish("late")
    second.finish("late")
    assert pool._engine.scheduler.idle()


# -- one of the two is taken away ----------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_worker_that_is_taken_from_a_task_leaves_it_to_the_other(which: int) -> None:
    pool = warmed_up("a", "b")
    task, *both = race(pool)
    pool.interrupt_worker(which, task="retry")
    assert both[which].context.cancelled
    assert pool.queue_size == 0
    both[1 - which].finish("done")
    assert outcomes(task) == [(which + 1, which, "withdrawn"), (2 - which, 1 - which, "succeeded")]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("fate", ["drop", "dead"])
def test_task_that_is_given_up_at_one_worker_is_given_up_at_both(which: int, fate: Any) -> None:
    pool = warmed_up("a", "b")
    task, *both = race(pool)
    pool.interrupt_worker(which, task=fate)
    assert task.done()
    assert all(attempt.context.cancelled for attempt in both)
    for attempt in both:
        attempt.finish("late")
    assert task.state.value == ("cancelled" if fate == "drop" else "dead")
    assert len(task.history) == 2
    assert pool._engine.scheduler.idle()


def test_task_that_is_cancelled_is_cancelled_at_both() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    assert pool.cancel_task(task)
    assert first.context.cancelled
    assert second.context.cancelled
    assert outcomes(task) == [(1, 0, "cancelled"), (2, 1, "cancelled")]


def test_task_that_is_cancelled_when_one_has_failed_is_cancelled_at_the_other() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    first.fail(ValueError("of a"))
    assert pool.cancel_task(task)
    assert second.context.cancelled


def test_pool_that_is_closed_by_force_cancels_a_race_once() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    assert pool.tasks() == [task]
    assert pool.force_close().running == [task]
    assert task.cancelled()
    assert first.context.cancelled
    assert second.context.cancelled
    assert pool.stats().racing == 0


def test_explain_names_both_workers() -> None:
    pool = warmed_up("a", "b")
    task, *_ = race(pool)
    text = pool.explain(task)
    assert "runs on a" in text
    assert "so b runs it too" in text


def test_log_says_who_begins_what_takes_long(caplog: pytest.LogCaptureFixture) -> None:
    pool = warmed_up("a", "b")
    with caplog.at_level(logging.INFO, logger="retrypool"):
        task, *_ = race(pool)
    assert f"task {task.id} has run for 3 s on a: b begins it too" in caplog.text


def test_listeners_hear_of_both_attempts_before_the_end_of_the_task() -> None:
    heard: list[tuple[str, int]] = []

    def listen(event: Event) -> None:
        if isinstance(event, AttemptStarted):
            heard.append(("started", event.number))
        elif isinstance(event, AttemptEnded):
            heard.append((event.attempt.outcome.value, event.attempt.number))
        elif isinstance(event, TaskSucceeded):
            heard.append(("task", 0))

    pool = warmed_up("a", "b", listeners=[listen])
    heard.clear()
    _, first, second = race(pool)
    second.finish("done")
    first.finish("late")
    assert heard == [("started", 1), ("started", 2), ("superseded", 1), ("succeeded", 2), ("task", 0)]


# -- races of races, with the worst moment forced -------------------------------------------------------


def test_second_attempt_that_begins_as_the_first_leaves_its_box_is_none() -> None:
    pool = warmed_up("a", "b")
    task = pool.dispatch("slow")
    first = claimed(pool, 0)
    assert pool.claim(1) is None
    pool.clock.advance(3.0)
    slot, ctx = first._slot, first.context

    class Table(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            slot.running.remove(ctx)  # the first attempt is about to succeed
            super().__setitem__(key, value)

    races: Any = pool._engine.races
    hedges: Any = pool._engine.hedges
    races.under_way = hedges._races = Table()
    assert pool.claim(1) is None
    assert races.under_way == {}
    pool._engine.successes.finish(slot, ctx, "in time")
    assert outcomes(task) == [(1, 0, "succeeded")]
    assert pool.stats().hedged == 0


def test_second_attempt_that_ends_while_the_first_is_about_to_win_counts_for_nothing() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    second._slot.running.remove(second.context)  # it has ended, and is on its way
    first.finish("from a")
    pool._engine.successes.finish(second._slot, second.context, "from b")
    assert task.result(0) == "from a"
    assert sorted(outcomes(task)) == [(1, 0, "succeeded"), (2, 1, "superseded")]
    assert pool.stats().succeeded == 11
    assert pool.stats().racing == 0


def test_second_attempt_that_fails_while_the_first_is_about_to_win_counts_for_nothing() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    second._slot.running.remove(second.context)
    first.finish("from a")
    pool._engine.attempts.failed(second._slot, second.context, ValueError("late"), 0.0)
    assert task.result(0) == "from a"
    assert sorted(outcomes(task)) == [(1, 0, "succeeded"), (2, 1, "superseded")]


def test_second_attempt_that_finds_the_first_just_ending_waits_for_what_comes_of_that() -> None:
    pool = warmed_up("a", "b")
    task, first, second = race(pool)
    for attempt in (first, second):
        attempt._slot.running.remove(attempt.context)
    waits = threading.Event()
    races: Any = pool._engine.races
    settled = races.under_way[task].settled
    wait = settled.wait
    settled.wait = lambda: (waits.set(), wait())
    thread = threading.Thread(
        target=pool._engine.successes.finish, args=(second._slot, second.context, "from b")
    )
    thread.start()
    assert waits.wait(10)
    pool._engine.attempts.failed(first._slot, first.context, ValueError("of a"), pool.clock.monotonic())
    thread.join(10)
    assert task.result(0) == "from b"
    assert outcomes(task) == [(1, 0, "failed"), (2, 1, "succeeded")]


def test_task_given_up_at_the_second_while_the_first_is_about_to_win_succeeds() -> None:
    pool = warmed_up("a", "b")
    task, first, _ = race(pool)
    first._slot.running.remove(first.context)
    pool.interrupt_worker(1, task="drop")
    assert not task.done()
    pool._engine.successes.finish(first._slot, first.context, "in time")
    assert task.result(0) == "in time"


def test_task_given_up_at_the_second_while_the_first_is_about_to_fail_is_cancelled() -> None:
    pool = warmed_up("a", "b")
    task, first, _ = race(pool)
    first._slot.running.remove(first.context)
    pool.interrupt_worker(1, task="drop")
    pool._engine.attempts.failed(first._slot, first.context, ValueError("of a"), pool.clock.monotonic())
    assert task.cancelled()


# -- with threads ------------------------------------------------------------------------------------


class Gated:
    """A worker whose call for "slow" lasts until it is cancelled, or the gate is opened."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.begun = threading.Event()

    def run(self, ctx: Any, data: Any) -> Any:
        if data == "slow" and self.gate is not None:
            self.begun.set()
            ctx.token.wait(60)
            ctx.check()
        return data, ctx.worker_id


def test_with_threads_an_idle_worker_ends_what_another_does_not() -> None:
    stuck = Gated(threading.Event())
    with Pool([stuck, Echo()], hedge=Hedge(share=1.0, sample=1)) as pool:
        pool.dispatch("warm up", worker=1).result(30)
        task = pool.dispatch("slow")
        other = pool.dispatch("slow", worker=0, hedge=False)
        if task.result(30) == "slow":  # it went to the quick one at once: the other is to be stuck
            assert stuck.begun.wait(30)
        other.cancel()
        pool.cancel_task(other)
    assert task.done()


def test_with_threads_every_task_ends_once() -> None:
    """Durations that differ widely, so that there are many races, of which either side wins some."""

    class Uneven:
        def __init__(self, place: int) -> None:
            self.place = place

        def run(self, ctx: Any, data: int) -> int:
            if (data * 7 + self.place * 3 + ctx.attempt) % 11 == 0:
                ctx.sleep(0.012)
            if (data + self.place) % 13 == 0:
                raise ValueError("now and then")
            return data

    ended: list[Task[Any, Any]] = []
    with Pool(
        [Uneven(place) for place in range(5)],
        hedge=Hedge(after=1.0, quantile=0.5, share=0.5, sample=5),
        retry=RetryPolicy(attempts=20, delay=0),
        on_success=ended.append,
    ) as pool:
        tasks = [pool.dispatch(number) for number in range(600)]
        assert [task.result(30) for task in tasks] == list(range(600))
    stats = pool.stats()
    assert sorted(task.id for task in ended) == sorted(task.id for task in tasks)
    assert stats.succeeded == 600
    assert stats.racing == stats.running == stats.queued == 0
    for task in tasks:
        numbers = [attempt.number for attempt in task.history]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))


# -- what is told of it, and kept ------------------------------------------------------------------------


def journaled(path: Path, **options: Any) -> ManualPool[Any, Any]:
    return warmed_up("a", "b", storage=SQLiteStorage(path, **options))


@pytest.mark.parametrize("record_starts", [False, True])
def test_race_that_its_process_leaves_goes_on_as_one_task(tmp_path: Path, record_starts: bool) -> None:
    pool = journaled(tmp_path / "run.db", record_starts=record_starts)
    task, first, _ = race(pool)
    first.fail(ValueError("of a"))
    assert pool.force_close().running == [task]
    again: ManualPool[Any, Any] = ManualPool([Echo()], storage=SQLiteStorage(tmp_path / "run.db"))
    assert [(waits.id, outcomes(waits)) for waits in again.tasks()] == [(task.id, [(1, 0, "failed")])]
    claimed(again).run()
    again.close()


def test_race_that_is_over_leaves_nothing_behind(tmp_path: Path) -> None:
    pool = journaled(tmp_path / "run.db")
    _, first, second = race(pool)
    second.finish("done")
    first.finish("late")
    pool.close()
    again: ManualPool[Any, Any] = ManualPool([Echo()], storage=SQLiteStorage(tmp_path / "run.db"))
    assert again.tasks() == []
    again.close()


def test_task_that_must_not_run_twice_at_once_is_not_in_another_process_either(tmp_path: Path) -> None:
    pool = journaled(tmp_path / "run.db")
    pool.dispatch("slow", hedge=False)
    pool.force_close()
    again: ManualPool[Any, Any] = ManualPool([Echo()], storage=SQLiteStorage(tmp_path / "run.db"))
    assert [task._settings.hedge for task in again.tasks()] == [False]
    again.force_close()


def test_metrics_count_second_attempts() -> None:
    registry = pytest.importorskip("prometheus_client").CollectorRegistry()
    pool = warmed_up("a", "b", name="races")
    expose(pool, registry=registry)
    _, _, second = race(pool)
    second.finish("done")
    labels = {"pool": "races"}
    assert registry.get_sample_value("retrypool_hedges_total", labels) == 1
    assert registry.get_sample_value("retrypool_hedges_won_total", labels) == 1
    superseded = {**labels, "worker": "a", "group": "a", "outcome": "superseded"}
    assert registry.get_sample_value("retrypool_attempts_total", superseded) == 1


def test_what_is_recorded_of_a_run_tells_the_attempt_that_lost_apart() -> None:
    pool = warmed_up("a", "b")
    with Recorder(pool) as recorder:
        _, first, second = race(pool)
        second.finish("done")
        first.finish("late")
        assert "superseded" in str(recorder.report())
