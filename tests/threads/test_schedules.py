"""Data that becomes a task over and over, in virtual time."""

import contextvars
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from retrypool import InvalidType, InvalidValue, Pool, PoolClosed, Schedule, TaskState
from retrypool.testing import FakeClock, ManualPool

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_pool(**options: Any) -> ManualPool[Any, Any]:
    return ManualPool([str, str], clock=FakeClock(time=START.timestamp()), **options)


def run_all(pool: ManualPool[Any, Any]) -> list[Any]:
    found = []
    while (attempt := pool.claim()) is not None:
        found.append(attempt.task.data)
        attempt.run()
    return found


def test_a_tick_comes_each_step_and_the_first_after_one() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=60)
    assert schedule.next_run == START + timedelta(seconds=60)
    counts = []
    for _ in range(6):
        pool.clock.advance(30)
        counts.append(len(run_all(pool)))
    assert counts == [0, 1, 0, 1, 0, 1]
    assert schedule.runs == 3
    assert schedule.skipped == 0


def test_a_month_of_hours_has_the_right_ticks() -> None:
    pool = make_pool()
    pool.schedule(lambda tick: tick, every=timedelta(hours=1), start=START)
    pool.clock.advance(0)
    found = run_all(pool)
    for _ in range(30 * 24):
        pool.clock.advance(3600)
        found += run_all(pool)
    assert found == [START + timedelta(hours=n) for n in range(30 * 24 + 1)]


def test_ticks_that_were_slept_through_become_one() -> None:
    pool = make_pool()
    schedule = pool.schedule(lambda tick: tick, every=60)
    pool.clock.advance(3600 + 5)
    assert run_all(pool) == [START + timedelta(hours=1)]
    assert schedule.runs == 1
    assert schedule.next_run == START + timedelta(seconds=3660)


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_ticks_that_were_missed_in_a_pause_of_the_pool_become_one(overlap: Any) -> None:
    pool = make_pool()
    schedule = pool.schedule(lambda tick: tick, every=60, overlap=overlap)
    pool.pause()
    for _ in range(10):
        pool.clock.advance(60)
    assert pool.tasks() == []
    pool.resume()
    assert run_all(pool) == [START + timedelta(minutes=10)]
    assert (schedule.runs, schedule.skipped) == (1, 0)
    pool.clock.advance(60)
    assert run_all(pool) == [START + timedelta(minutes=11)]


def test_overlap_skip_lets_ticks_go_while_the_last_task_has_not_ended() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=60)
    pool.clock.advance(60)
    attempt = pool.claim()
    assert attempt is not None
    assert schedule.last_task is attempt.task
    pool.clock.advance(60)
    pool.clock.advance(60)
    assert (schedule.runs, schedule.skipped) == (1, 2)
    attempt.run()
    pool.clock.advance(60)
    assert (schedule.runs, schedule.skipped) == (2, 2)
    assert schedule.last_task is not attempt.task


def test_overlap_queue_dispatches_every_tick() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=60, overlap="queue")
    for _ in range(5):
        pool.clock.advance(60)
    assert (schedule.runs, schedule.skipped) == (5, 0)
    assert len(run_all(pool)) == 5


def test_times_counts_tasks_and_then_it_is_over() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=60, times=2)
    for _ in range(5):
        pool.clock.advance(60)
        run_all(pool)
    assert schedule.runs == 2
    assert schedule.over
    assert schedule.next_run is None
    assert pool.schedules() == []


def test_until_is_the_last_moment_for_a_tick() -> None:
    pool = make_pool()
    by_date = pool.schedule("x", every=60, until=START + timedelta(seconds=180), overlap="queue")
    by_seconds = pool.schedule("x", every=60, until=179, overlap="queue")
    for _ in range(10):
        pool.clock.advance(60)
    assert (by_date.runs, by_seconds.runs) == (3, 2)
    assert by_date.over
    assert by_seconds.over


def test_until_in_the_past_is_a_schedule_that_is_over() -> None:
    pool = make_pool()
    assert pool.schedule("x", every=60, until=START - timedelta(days=1)).over
    assert pool.schedules() == []


def test_start_may_be_a_date_a_delay_or_long_ago() -> None:
    pool = make_pool()
    later = pool.schedule("x", every=60, start=START + timedelta(seconds=90))
    soon = pool.schedule("x", every=60, start=10)
    long_ago = pool.schedule("x", every=60, start=START - timedelta(days=1, seconds=20))
    assert later.next_run == START + timedelta(seconds=90)
    assert soon.next_run == START + timedelta(seconds=10)
    assert long_ago.next_run == START + timedelta(seconds=40)


def test_start_keeps_its_seconds_when_its_thread_is_late() -> None:
    pool = make_pool()
    ticks: list[datetime] = []
    pool.schedule(ticks.append, every=60, start=START + timedelta(seconds=30))
    for _ in range(10):
        pool.clock.advance(31.7)
        run_all(pool)
    assert all(tick.second == 30 and tick.microsecond == 0 for tick in ticks)
    assert ticks == [START + timedelta(seconds=30 + 60 * n) for n in range(5)]


def test_a_clock_that_is_set_moves_no_grid() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=600, overlap="queue")
    delayed = pool.dispatch("y", delay=600)
    pool.clock.set_time(START.timestamp() + 3600)
    pool.clock.advance(60)
    assert schedule.runs == 0
    pool.clock.set_time(START.timestamp() - 3600)
    pool.clock.advance(539)
    assert schedule.runs == 0
    assert delayed.state is TaskState.SCHEDULED
    pool.clock.advance(1)
    assert schedule.runs == 1
    assert delayed.state is TaskState.QUEUED


def test_a_date_to_start_at_follows_the_wall_clock_until_then() -> None:
    pool = make_pool()
    ticks: list[datetime] = []
    pool.schedule(ticks.append, every=60, start=START + timedelta(days=1), overlap="queue")
    pool.clock.set_time((START + timedelta(days=1, seconds=-20)).timestamp())
    pool.clock.advance(60)
    assert ticks == [START + timedelta(days=1)]
    pool.clock.advance(20)
    assert ticks == [START + timedelta(days=1, minutes=n) for n in range(2)]


def test_cron_follows_the_wall_clock_within_a_minute() -> None:
    pool = make_pool()
    ticks: list[datetime] = []
    schedule = pool.schedule(ticks.append, cron="0 * * * *", overlap="queue")
    pool.clock.set_time((START + timedelta(hours=5, minutes=30)).timestamp())
    pool.clock.advance(60)
    assert ticks == [START + timedelta(hours=5)]  # five were jumped over, and become one
    assert schedule.next_run == START + timedelta(hours=6)
    pool.clock.set_time((START + timedelta(minutes=58)).timestamp())
    pool.clock.advance(60)
    assert schedule.next_run == START + timedelta(hours=1)
    pool.clock.advance(60)
    assert ticks[1:] == [START + timedelta(hours=1)]


def test_a_small_correction_of_the_clock_repeats_no_tick() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", cron="0 * * * *", overlap="queue")
    pool.clock.advance(3600)
    assert schedule.runs == 1
    pool.clock.set_time((START + timedelta(minutes=60, seconds=-2)).timestamp())
    pool.clock.advance(60)
    pool.clock.advance(60)
    assert schedule.runs == 1


def test_cron_goes_through_the_changes_of_its_zone() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for first, days in ((datetime(2026, 3, 28, tzinfo=zone), 3), (datetime(2026, 10, 24, tzinfo=zone), 3)):
        pool = ManualPool([str], clock=FakeClock(time=first.timestamp()))
        ticks: list[datetime] = []
        pool.schedule(
            lambda tick, ticks=ticks: ticks.append(tick), cron="30 2 * * *", tz=zone, overlap="queue"
        )
        for _ in range(days * 24 * 4):
            pool.clock.advance(900)
        assert [tick.day - first.day for tick in ticks] == [0, 1, 2]
        assert {tick.tzinfo for tick in ticks} == {zone}


def test_cron_starts_at_its_start_and_not_before() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", cron="0 * * * *", start=START + timedelta(hours=3))
    assert schedule.next_run == START + timedelta(hours=3)
    assert pool.schedule("x", cron="0 * * * *").next_run == START + timedelta(hours=1)


def test_a_paused_schedule_lets_its_ticks_pass() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=60)
    schedule.pause()
    schedule.pause()
    assert schedule.paused
    assert schedule.next_run is None
    assert pool.schedules() == [schedule]
    pool.clock.advance(90)
    schedule.resume()
    schedule.resume()
    assert schedule.next_run == START + timedelta(seconds=120)
    assert (schedule.runs, schedule.skipped) == (0, 0)
    pool.clock.advance(30)
    assert schedule.runs == 1


def test_a_cancelled_schedule_ticks_no_more_and_leaves_its_task_alone() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=60)
    pool.clock.advance(60)
    schedule.cancel()
    schedule.cancel()
    schedule.resume()
    pool.clock.advance(600)
    assert (schedule.runs, schedule.over) == (1, True)
    assert run_all(pool) == ["x"]


def test_pausing_and_resuming_for_ever_leaves_nothing_behind() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=timedelta(days=1))
    for _ in range(5000):
        schedule.pause()
        schedule.resume()
    assert len(pool._engine.scheduler.timers) < 2500


def test_jitter_moves_a_tick_and_not_the_grid() -> None:
    pool = make_pool()
    pool._engine.chance = lambda: 0.5
    schedule = pool.schedule(lambda tick: tick, every=60, jitter=20, overlap="queue")
    assert schedule.next_run == START + timedelta(seconds=70)
    pool.clock.advance(60)
    assert run_all(pool) == []
    pool.clock.advance(10)
    assert run_all(pool) == [START + timedelta(seconds=60)]
    assert schedule.next_run == START + timedelta(seconds=130)


def test_data_that_cannot_be_made_skips_the_tick(caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool()
    schedule = pool.schedule(lambda tick: 1 / 0, every=60, times=1, name="bad")
    with caplog.at_level(logging.ERROR, "retrypool"):
        pool.clock.advance(60)
        pool.clock.advance(60)
    assert (schedule.runs, schedule.skipped) == (0, 2)
    assert not schedule.over
    assert "bad" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_pool_without_workers_skips_the_tick(caplog: pytest.LogCaptureFixture) -> None:
    pool = ManualPool()
    schedule = pool.schedule("x", every=60)
    pool.clock.advance(60)
    assert schedule.skipped == 1
    pool.add_worker(str)
    pool.clock.advance(60)
    assert schedule.runs == 1


def test_ticks_have_the_options_and_the_context_of_the_schedule() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    pool = make_pool()
    token = variable.set("mine")
    seen: list[str] = []
    schedule = pool.schedule(
        lambda tick: seen.append(variable.get()), every=60, name="n", priority=3, tags={"a"}, delay=5
    )
    variable.reset(token)
    pool.clock.advance(60)
    task = schedule.last_task
    assert task is not None
    assert (task.name, task.priority, task.tags, task.state) == ("n", 3, {"a"}, TaskState.SCHEDULED)
    assert seen == ["mine"]
    assert schedule.name == "n"


def test_data_may_use_the_pool_and_its_own_schedule() -> None:
    """It is called outside the lock, so none of this can hang."""
    pool = make_pool()
    made: list[Schedule[Any, Any]] = []

    def data(tick: datetime) -> str:
        pool.dispatch("other")
        pool.pause()
        pool.resume()
        made[0].cancel()
        return "last"

    made.append(pool.schedule(data, every=60))
    pool.clock.advance(60)
    assert run_all(pool) == ["other", "last"]
    assert made[0].over
    assert made[0].runs == 1


def test_a_tick_that_comes_while_data_is_made_waits_for_it() -> None:
    pool = make_pool()
    ticks: list[datetime] = []

    def data(tick: datetime) -> None:
        ticks.append(tick)
        if len(ticks) == 1:
            for _ in range(3):
                pool.clock.advance(60)

    schedule = pool.schedule(data, every=60, overlap="queue")
    pool.clock.advance(60)
    assert ticks == [START + timedelta(minutes=1), START + timedelta(minutes=4)]
    assert schedule.runs == 2


def test_closing_ends_schedules_first() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=60)
    pool.close()
    assert schedule.over
    assert pool.schedules() == []
    with pytest.raises(PoolClosed):
        pool.schedule("x", every=60)
    pool.clock.advance(600)
    assert schedule.runs == 0


def test_closing_lets_data_that_is_being_made_go() -> None:
    """The pool closes between a tick and its task: nothing is dispatched, nothing is skipped."""
    pool = make_pool()

    def data(tick: datetime) -> None:
        pool.close()

    schedule = pool.schedule(data, every=60)
    pool.clock.advance(60)
    assert (schedule.runs, schedule.skipped, schedule.over) == (0, 0, True)


def test_real_threads_tick_and_close() -> None:
    came = threading.Semaphore(0)
    with Pool([lambda data: came.release()] * 2) as pool:
        schedule = pool.schedule("x", every=0.002, times=3)
        for _ in range(3):
            assert came.acquire(timeout=5)
    assert schedule.runs == 3


def test_no_thread_is_added_for_schedules_and_delays() -> None:
    with Pool([str] * 2) as pool:
        pool.dispatch("x", delay=3600)
        before = threading.active_count()
        for _ in range(100):
            pool.schedule("x", every=3600)
            pool.dispatch("x", delay=3600)
            pool.dispatch("x", at=datetime.now(UTC) + timedelta(hours=1))
        assert threading.active_count() == before
        pool.close(delayed="cancel")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, InvalidValue, "every"),
        ({"every": 60, "cron": "* * * * *"}, InvalidValue, "every"),
        ({"every": 0}, InvalidValue, "every"),
        ({"every": 1e-9}, InvalidValue, "at least"),
        ({"every": "60"}, InvalidType, "every"),
        ({"every": float("nan")}, InvalidValue, "every"),
        ({"every": 60, "jitter": 61}, InvalidValue, "jitter"),
        ({"every": 60, "jitter": -1}, InvalidValue, "jitter"),
        ({"every": 60, "times": 0}, InvalidValue, "times"),
        ({"every": 60, "times": 1.5}, InvalidType, "times"),
        ({"every": 60, "times": True}, InvalidType, "times"),
        ({"every": 60, "start": datetime(2026, 1, 1)}, InvalidValue, "time zone"),  # noqa: DTZ001 - a naive one is the point
        ({"every": 60, "until": datetime(2026, 1, 1)}, InvalidValue, "time zone"),  # noqa: DTZ001 - a naive one is the point
        ({"every": 60, "start": "noon"}, InvalidType, "start"),
        ({"every": 60, "overlap": "merge"}, InvalidValue, "overlap"),
        ({"every": 60, "tz": "Europe/Nowhere"}, InvalidValue, "time zone"),
        ({"every": 60, "tz": 3}, InvalidType, "time zone"),
        ({"every": 60, "at": START}, InvalidValue, "start"),
        ({"every": 60, "prio": 1}, InvalidType, "prio"),
        ({"cron": "* * *"}, InvalidValue, "cron"),
        ({"cron": 5}, InvalidType, "cron"),
    ],
)
def test_bad_input_is_refused_at_the_call(options: dict[str, Any], error: type, words: str) -> None:
    pool = make_pool()
    with pytest.raises(error, match=words):
        pool.schedule("x", **options)
    assert pool.schedules() == []
    assert pool._engine.scheduler.next_wakeup() is None


def test_huge_numbers_are_no_trouble() -> None:
    pool = make_pool()
    schedule = pool.schedule("x", every=1e300)
    assert schedule.next_run is not None
    assert schedule.next_run.year == 9999
    pool.schedule("x", every=60, start=datetime.max.replace(tzinfo=UTC))
    pool.clock.advance(60)
    assert "every" in repr(schedule)


def test_cron_does_not_come_before_its_start_whatever_happens_before_it() -> None:
    pool = make_pool()
    begin = START + timedelta(days=1)
    schedule = pool.schedule("x", cron="*/5 * * * *", start=begin)
    schedule.pause()
    schedule.resume()
    assert schedule.next_run == begin
    pool.clock.set_time(pool.clock.time() - 3600)
    pool.clock.advance(60)
    assert schedule.next_run == begin
