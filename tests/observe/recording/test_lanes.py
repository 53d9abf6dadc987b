"""What is kept of attempts and of rests when there are too many."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrypool.observe.recording.lanes import Bar, Lanes
from retrypool.observe.recording.spans import Spans
from retrypool.observe.recording.tally import KINDS, Durations, Tally


def bar(start: float, end: float, outcome: str = "succeeded", error: str = "") -> Bar:
    return Bar(start, end, outcome, 1, 7, "page", error)


def test_attempts_stay_as_they_are_while_there_is_room() -> None:
    lanes = Lanes(10)
    lanes.open(1, "token", "group")
    for second in range(10):
        lanes.add(1, bar(second, second + 0.5))
    (lane,) = lanes
    assert [(each.start, each.end) for each in lane.bars] == [(n, n + 0.5) for n in range(10)]
    assert lanes.grain == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.floats(0.001, 5), st.sampled_from(["succeeded", "failed"])),
        min_size=1,
        max_size=400,
    )
)
def test_bundles_keep_counts_and_order_and_running_time(attempts: list[tuple[float, float, str]]) -> None:
    lanes = Lanes(20)
    lanes.open(1, "token", "group")
    now, busy = 100.0, 0.0
    for pause, length, outcome in attempts:
        now += pause
        lanes.add(1, bar(now, now + length, outcome))
        now += length
        busy += length
    (lane,) = lanes
    assert len(lane.bars) <= 20
    assert sum(each.calls for each in lane.bars) == len(attempts)
    assert sum(each.seconds for each in lane.bars) == pytest.approx(busy)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(lane.bars, lane.bars[1:], strict=False))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 0.5), st.floats(0.001, 5)), max_size=400))
def test_lanes_share_the_room(attempts: list[tuple[int, float, float]]) -> None:
    lanes, now = Lanes(60), [0.0] * 6
    for worker_id in range(6):
        lanes.open(worker_id, f"token-{worker_id}", "group")
    for worker_id, pause, length in attempts:
        start = now[worker_id] + pause
        now[worker_id] = start + length
        lanes.add(worker_id, bar(start, start + length))
    assert sum(len(lane.bars) for lane in lanes) <= 60
    assert sum(each.calls for lane in lanes for each in lane.bars) == len(attempts)


def test_long_attempts_survive_among_short_ones() -> None:
    lanes = Lanes(100)
    lanes.open(1, "token", "group")
    now = 0.0
    for number in range(1000):
        length = 5.0 if number == 500 else 0.001
        lanes.add(1, bar(now, now + length))
        now += length + 0.001
    (lane,) = lanes
    (long,) = [each for each in lane.bars if not each.outcomes and each.end - each.start >= 5.0]
    assert long.task_id == 7
    assert 0 < lanes.grain < 5.0


def test_bundle_tells_outcomes_and_the_last_error() -> None:
    lanes = Lanes(100)
    lanes.open(1, "token", "group")
    for number in range(150):
        failed = number % 3 == 0
        lanes.add(1, bar(number, number + 0.1, "failed" if failed else "succeeded", f"e{number}" * failed))
    bundle = next(lanes_ for lanes_ in next(iter(lanes)).bars if lanes_.outcomes)
    assert bundle.outcome == "succeeded"
    assert dict(bundle.outcomes).keys() == {"failed", "succeeded"}
    assert bundle.error.startswith("e")


def test_attempts_of_several_threads_of_one_worker_get_lanes_of_their_own() -> None:
    lanes = Lanes(100)
    lanes.open(1, "token", "group")
    for start, end in [(0, 1), (0, 2), (1, 3), (2, 4), (0.5, 5)]:
        lanes.add(1, bar(start, end))
    assert [[(each.start, each.end) for each in lane.bars] for lane in lanes] == [
        [(0, 1), (1, 3)],
        [(0, 2), (2, 4)],
        [(0.5, 5)],
    ]


def test_workers_beyond_the_limit_are_only_counted() -> None:
    lanes = Lanes(100, lane_limit=2)
    for worker_id in range(4):
        lanes.open(worker_id, f"token-{worker_id}", "group")
        lanes.add(worker_id, bar(0, 1))
    assert len(list(lanes)) == 2
    assert lanes.left_out == 2


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=300
    )
)
def test_spans_stay_few_and_in_order(steps: list[tuple[str, float, float]]) -> None:
    spans, now = Spans(limit=20), 0.0
    for who, pause, length in steps:
        now += pause
        spans.begin("cooling", who, now, now + length)
    kept = spans.until(now + 2)
    assert len(kept) <= 20
    assert sum(span.times for span in kept) == len(steps)
    assert sum(spans.counts.values()) == len(steps)
    for who in "abcdefgh":
        own = [span for span in kept if span.who == who]
        assert all(a.end < b.start for a, b in itertools.pairwise(own))


def test_owners_of_spans_are_bounded_too() -> None:
    spans = Spans(limit=20)
    for number in range(1000):
        spans.begin("paused", number, float(number))
    assert len(spans.until(2000.0)) <= 20


def test_span_ends_when_that_is_told_and_not_later() -> None:
    spans = Spans()
    spans.begin("paused", 1, 5.0)
    spans.begin("cooling", "g", 5.0, 9.0)
    assert [span.end for span in spans.until(7.0)] == [7.0, 7.0]
    spans.finish("paused", 1, 6.0)
    spans.finish("cooling", "g", 10.0)
    assert {span.kind: span.end for span in spans.until(20.0)} == {"paused": 6.0, "cooling": 9.0}
    spans.finish("ejected", "nobody", 10.0)


@given(st.lists(st.floats(1e-6, 1e4), min_size=1))
def test_quantiles_are_right_within_nine_percent(lengths: list[float]) -> None:
    durations = Durations()
    for length in lengths:
        durations.add(length)
    for share in (0.5, 0.95, 1.0):
        exact = sorted(lengths)[max(0, -int(-share * len(lengths) // 1) - 1)]
        assert durations.quantile(share) == pytest.approx(exact, rel=0.09)
    assert durations.mean == pytest.approx(sum(lengths) / len(lengths))


def test_no_durations_have_no_quantile() -> None:
    assert Durations().quantile(0.5) == Durations().mean == 0.0


def test_errors_with_a_text_of_their_own_each_do_not_pile_up() -> None:
    tally = Tally()
    for number in range(10 * KINDS):
        tally.add("failed", 1.0, ("KeyError", f"no item {number}"))
        tally.add("failed", 1.0, (f"Error{number}", "made up"))
    assert len(tally.errors) <= 2 * KINDS + 1
    assert tally.errors.total() == tally.in_vain == 20 * KINDS
