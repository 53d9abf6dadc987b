"""The next tick, on a grid and by cron."""

import sys
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool import InvalidType, InvalidValue, MissingExtra
from retrypool.policy.recurrence import Cron, Grid

BERLIN = ZoneInfo("Europe/Berlin")
YEAR = 365 * 24 * 3600


def test_a_year_of_minutes_has_no_drift() -> None:
    """Each tick is the one that whole numbers give, to the last of 525,600."""
    grid = Grid(first=12345.678, step=60.0)
    tick = grid.first
    for number in range(1, YEAR // 60 + 1):
        tick = grid.after(tick)
        assert grid.number(tick) == number
    assert tick == 12345.678 + YEAR


@given(
    st.floats(-1e6, 2e9),
    st.floats(0.001, 1e6),
    st.floats(-1e6, 2e9),
)
def test_grid_ticks_enclose_every_moment(first: float, step: float, moment: float) -> None:
    grid = Grid(first, step)
    after, latest = grid.after(moment), grid.latest(moment)
    assert after > moment
    if latest is None:
        assert moment < first
        assert after == first
    else:
        assert latest <= moment
        # One step apart, as exactly as floats of that size can be.
        gap = Fraction(after) - Fraction(latest)
        assert abs(float(gap) - step) <= 4e-6


@given(st.floats(0, 1e9), st.floats(0.001, 1e6), st.integers(0, 10**6))
def test_a_tick_is_followed_by_the_next_one_never_by_itself(first: float, step: float, number: int) -> None:
    grid = Grid(first, step)
    tick = grid.first + number * step
    assert grid.number(grid.after(tick)) - grid.number(tick) in {0, 1}  # 0: two that floats can't tell apart
    assert grid.after(tick) > tick


def ticks(cron: Cron, moment: datetime, count: int) -> list[str]:
    found = []
    at = moment.timestamp()
    for _ in range(count):
        tick = cron.after(at)
        assert tick is not None
        assert tick > at
        at = tick
        found.append(datetime.fromtimestamp(at, cron.tz).isoformat())
    return found


def test_cron_is_read_in_its_zone() -> None:
    noon = Cron("0 12 * * *", ZoneInfo("America/New_York"))
    tick = noon.after(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
    assert tick == datetime(2026, 7, 1, 16, tzinfo=UTC).timestamp()


def test_what_was_set_for_the_hour_that_is_left_out_runs_right_after_it() -> None:
    evening = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert ticks(Cron("30 2 * * *", BERLIN), evening, 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_what_was_set_for_a_time_that_comes_twice_runs_once() -> None:
    evening = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert ticks(Cron("30 2 * * *", BERLIN), evening, 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_in_the_second_pass_a_tick_of_the_first_is_not_the_next() -> None:
    second_pass = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=BERLIN)
    assert ticks(Cron("30 2 * * *", BERLIN), second_pass, 1) == ["2026-10-26T02:30:00+01:00"]


def test_every_half_hour_goes_on_through_both_changes() -> None:
    spring = ticks(Cron("*/30 * * * *", BERLIN), datetime(2026, 3, 29, 1, 10, tzinfo=BERLIN), 3)
    assert spring == ["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"]
    autumn = ticks(Cron("*/30 * * * *", BERLIN), datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN), 4)
    assert autumn == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */3 * * *", "0,30 2 * * 0", "*/20 * * * * *"]),
    st.integers(
        int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())
    ),
    st.sampled_from([BERLIN, UTC, ZoneInfo("Australia/Lord_Howe")]),
)
def test_cron_ticks_enclose_every_moment(expression: str, moment: int, zone: ZoneInfo) -> None:
    cron = Cron(expression, zone)
    after, latest = cron.after(moment), cron.latest(moment)
    assert after is not None
    assert latest is not None
    assert latest <= moment < after


def test_cron_that_never_comes_has_no_tick() -> None:
    assert Cron("0 0 1 1 *").after(datetime(9999, 6, 1, tzinfo=UTC).timestamp()) is None


@pytest.mark.parametrize("expression", ["", "* *", "x * * * *", "60 * * * *", "0 0 30 2 *", "@daily"])
def test_wrong_expression_is_refused_at_once(expression: str) -> None:
    with pytest.raises(InvalidValue, match="cron is"):
        Cron(expression)


def test_expression_must_be_a_string() -> None:
    with pytest.raises(InvalidType, match="cron is"):
        Cron(5)  # type: ignore[arg-type]


def test_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(MissingExtra, match=r'pip install "retrypool\[cron\]"') as caught:
        Cron("* * * * *")
    assert isinstance(caught.value, ImportError)


def test_a_grid_of_days_takes_no_notice_of_clock_changes() -> None:
    """A step of a day is a day, whatever clocks do: it is cron that knows of days."""
    grid = Grid(datetime(2026, 3, 28, 12, tzinfo=BERLIN).timestamp(), timedelta(days=1).total_seconds())
    assert datetime.fromtimestamp(grid.after(grid.first), BERLIN).hour == 13
