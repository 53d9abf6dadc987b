"""Schedules that have a name go on in the next process."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retrypool import InvalidValue, MemoryStorage, NotStorable, Pool
from retrypool.testing import FakeClock, ManualPool

from .conftest import BackEnd


def by_hand(storage: Any, clock: FakeClock) -> ManualPool[Any, Any]:
    return ManualPool([str], storage=storage, clock=clock)


def run(pool: ManualPool[Any, Any]) -> list[Any]:
    """Run what is due, and return its data."""
    found = []
    while (attempt := pool.claim()) is not None:
        found.append(attempt.task.data)
        attempt.finish(None)
    return found


def test_schedule_goes_on_with_what_was_missed_as_one_tick(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    pool.schedule("x", every=60, name="minutely", priority=2)
    clock.advance(60)
    assert run(pool) == ["x"]
    pool.force_close()
    clock.advance(200)  # three ticks pass while there is no process
    pool = by_hand(storage, clock)
    (schedule,) = pool.schedules()
    clock.advance(0)
    assert run(pool) == ["x"]
    assert (schedule.name, schedule.runs) == ("minutely", 2)
    assert schedule.next_run == datetime.fromtimestamp(clock.time() + 40, UTC)
    clock.advance(40)
    assert run(pool) == ["x"]
    pool.force_close()


def test_schedule_that_is_made_again_takes_the_place_of_what_is_stored(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    for expected in (1, 2, 3):
        pool = by_hand(storage, clock)
        schedule = pool.schedule(lambda tick: tick.isoformat(), every=60, name="minutely", times=3)
        assert len(pool.schedules()) == 1
        clock.advance(60)
        assert len(run(pool)) == 1
        assert schedule.runs == expected
        pool.force_close()
    pool = by_hand(storage, clock)
    assert pool.schedules() == []  # it has had its three
    pool.force_close()


def test_another_rhythm_begins_anew(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    pool.schedule("x", every=60, name="a")
    pool.force_close()
    clock.advance(100)
    pool = by_hand(storage, clock)
    schedule = pool.schedule("x", every=30, name="a")
    assert pool.schedules() == [schedule]
    assert schedule.next_run == datetime.fromtimestamp(clock.time() + 30, UTC)
    pool.force_close()


def test_schedule_by_cron_goes_on(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock(time=datetime(2024, 5, 1, 10, 30, tzinfo=UTC).timestamp())
    pool = by_hand(storage, clock)
    pool.schedule("x", cron="0 * * * *", tz="Europe/Berlin", name="hourly")
    pool.force_close()
    clock.advance(3 * 3600)
    pool = by_hand(storage, clock)
    clock.advance(60)
    assert run(pool) == ["x"]
    clock.advance(1800)
    assert run(pool) == ["x"]
    pool.force_close()


def test_cancelled_and_paused_schedules_stay_so(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    pool.schedule("x", every=60, name="cancelled").cancel()
    pool.schedule("y", every=60, name="paused").pause()
    pool.force_close()
    pool = by_hand(storage, clock)
    (schedule,) = pool.schedules()
    assert (schedule.name, schedule.paused) == ("paused", True)
    clock.advance(120)
    assert run(pool) == []
    schedule.resume()
    clock.advance(60)
    assert run(pool) == ["y"]
    pool.force_close()


def test_until_and_options_come_back(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    end = datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=130)
    pool.schedule({"a": 1}, every=60, name="a", until=end, tags={"t"})
    pool.force_close()
    pool = by_hand(storage, clock)
    clock.advance(60)
    attempt = pool.claim()
    assert attempt is not None
    assert (attempt.task.data, attempt.task.tags) == ({"a": 1}, {"t"})
    attempt.finish(None)
    clock.advance(60)
    assert run(pool) == [{"a": 1}]
    clock.advance(600)
    assert run(pool) == []
    assert pool.schedules() == []
    pool.force_close()


def test_schedule_without_a_name_ends_with_its_pool(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    pool.schedule("x", every=60)
    pool.force_close()
    pool = by_hand(storage, clock)
    assert pool.schedules() == []
    pool.force_close()


def test_what_can_not_be_stored_is_refused() -> None:
    with Pool([str], storage=MemoryStorage()) as pool:
        with pytest.raises(NotStorable, match="data"):
            pool.schedule({1}, every=60, name="a")
        with pytest.raises(InvalidValue, match="a zone with a name"):
            pool.schedule(1, cron="* * * * *", tz=datetime.now().astimezone().tzinfo, name="a")
        assert pool.schedules() == []
