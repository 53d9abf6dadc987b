"""Levels and counts over time, whatever the length of the run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrypool.observe.recording.series import FIRST_WIDTH, Series

MOMENTS = st.floats(0, 100, allow_nan=False)


def test_span_counts_in_part_where_it_begins_and_ends_within_a_bucket() -> None:
    series = Series(10.0, levels=["queue"])
    series.add_span("queue", 10.0 + 0.5 * FIRST_WIDTH, 10.0 + 2.25 * FIRST_WIDTH)
    assert series.values("queue") == pytest.approx([0.5, 1.0, 0.25])


def test_what_lies_before_the_origin_is_left_out() -> None:
    series = Series(10.0, levels=["queue"])
    series.add_span("queue", 3.0, 9.0)
    series.add_span("queue", 3.0, 10.0 + FIRST_WIDTH)
    assert series.values("queue") == pytest.approx([1.0, 0.0])


def test_points_are_counted_where_they_are() -> None:
    series = Series(0.0, counts=["done"])
    for moment in (0.0, 0.1 * FIRST_WIDTH, 2.5 * FIRST_WIDTH):
        series.add_point("done", moment)
    assert series.values("done") == [2.0, 0.0, 1.0]


@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=40))
def test_long_run_keeps_every_span_and_point_in_few_buckets(spans: list[tuple[float, float]]) -> None:
    """However often neighbours have become one: the area under a level, and the sum of a count."""
    series = Series(0.0, levels=["queue"], counts=["done"], limit=16)
    for a, b in spans:
        series.add_span("queue", min(a, b), max(a, b))
        series.add_point("done", max(a, b))
    assert len(series.values("queue")) <= 16
    area = sum(series.values("queue")) * series.width
    assert area == pytest.approx(sum(abs(a - b) for a, b in spans), abs=1e-6)
    assert sum(series.values("done")) == pytest.approx(len(spans))


def test_copy_does_not_follow() -> None:
    series = Series(0.0, counts=["done"])
    copy = series.copy()
    series.add_point("done", 0.0)
    assert copy.values("done") == []
