"""Appointments on two clocks, one of which somebody may set."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from retrypool.core.timers import Timers


class Subject:
    past = False


def kept(timers: Timers, now: float, wall: float | None = None) -> list[tuple[Any, float]]:
    done.clear()
    timers.keep(now, wall)
    return list(done)


done: list[tuple[Any, float]] = []


def note(subject: Any, now: float) -> None:
    done.append((subject, now))


def test_a_date_is_looked_at_once_a_minute_and_on_time() -> None:
    timers = Timers()
    timers.add_date(1130.0, note, "a", now=0.0, wall=1000.0)
    looks = []
    now = 0.0
    while (at := timers.earliest()) is not None:
        now = at
        looks.append(now)
        kept(timers, now, 1000.0 + now)
    assert looks == [60.0, 120.0, 130.0]
    assert done == [("a", 130.0)]


def test_a_clock_that_is_set_is_noticed_within_a_minute() -> None:
    timers = Timers()
    timers.add_date(5000.0, note, "a", now=0.0, wall=1000.0)
    assert timers.earliest() == 60.0
    assert kept(timers, 60.0, 6000.0) == [("a", 60.0)]
    timers.add_date(7000.0, note, "b", now=60.0, wall=6990.0)
    assert timers.earliest() == 70.0
    assert kept(timers, 70.0, 3000.0) == []  # it was put back meanwhile
    assert timers.earliest() == 130.0


def test_times_take_no_notice_of_the_wall_clock() -> None:
    timers = Timers()
    timers.add(10.0, note, "a")
    assert kept(timers, 9.0, 1e12) == []
    assert kept(timers, 10.0, -1e12) == [("a", 10.0)]


def test_nothing_dated_means_no_looks() -> None:
    timers = Timers()
    timers.add(500.0, note, "a")
    kept(timers, 1.0, 1000.0)
    assert timers.earliest() == 500.0


def test_what_is_not_wanted_any_more_is_swept_out() -> None:
    timers = Timers()
    for n in range(10_000):
        subject = Subject()
        subject.past = True
        timers.add(1e9 + n, note, subject)
        timers.add_date(1e9 + n, note, subject, now=0.0, wall=0.0)
    assert len(timers) < 5000


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=30), st.integers(-100, 100))
def test_everything_is_kept_once_and_at_most_a_minute_late(
    appointments: list[tuple[bool, int]], offset: int
) -> None:
    timers = Timers()
    for number, (dated, at) in enumerate(appointments):
        if dated:
            timers.add_date(float(at + offset), note, number, now=0.0, wall=float(offset))
        else:
            timers.add(float(at), note, number)
    when = {}
    while (now := timers.earliest()) is not None:
        for subject, at in kept(timers, now, now + offset):
            assert subject not in when
            when[subject] = at
    assert when == {number: float(at) for number, (_, at) in enumerate(appointments)}
