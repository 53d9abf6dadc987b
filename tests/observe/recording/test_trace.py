"""The trace is what Chrome's trace event format says, and has all that happened."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retrypool import InvalidType, InvalidValue, Recorder, RetryPolicy, Throttled
from retrypool.testing import ManualPool

from .acting import play, stage


@pytest.fixture
def recorder() -> Recorder:
    errors = iter([OSError("down"), None, Throttled(retry_after=3)])
    scripts: Any = {"red": lambda _: (1.0, next(errors, None)), "blue": lambda _: (2.0, None)}
    pool = stage(scripts, retry=RetryPolicy(delay=0), health=None)
    with Recorder(pool) as run:
        pool.dispatch_many(["a", "b", "c", "d"])
        play(pool, scripts)
    return run


def saved(recorder: Recorder, path: Path) -> list[dict[str, Any]]:
    recorder.save(path)
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return events


def test_every_event_has_what_its_phase_asks_for(recorder: Recorder, tmp_path: Path) -> None:
    needed = {
        "M": {"name", "pid", "tid", "args"},
        "X": {"name", "cat", "pid", "tid", "ts", "dur"},
        "C": {"name", "pid", "ts", "args"},
        "s": {"name", "cat", "id", "pid", "tid", "ts"},
        "f": {"name", "cat", "id", "pid", "tid", "ts", "bp"},
    }
    events = saved(recorder, tmp_path / "run.json")
    assert {event["ph"] for event in events} == set(needed)
    for event in events:
        assert needed[event["ph"]] <= event.keys()
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0


def test_attempts_are_slices_on_the_threads_of_their_workers(recorder: Recorder, tmp_path: Path) -> None:
    events = saved(recorder, tmp_path / "run.json")
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == "thread_name"
    }
    slices = [
        (names[event["pid"], event["tid"]], event["name"], event["cat"], event["ts"], event["dur"])
        for event in events
        if event["ph"] == "X" and event["pid"] == 1
    ]
    assert ("red", "a", "failed", 0.0, 1e6) in slices
    assert Counter(kind for _, _, kind, _, _ in slices) == {"succeeded": 4, "failed": 1, "throttled": 1}
    assert ("red", "cooling", "cooling") in {
        (names[2, event["tid"]], event["name"], event["cat"])
        for event in events
        if event["ph"] == "X" and event["pid"] == 2
    }


def test_slices_of_one_thread_do_not_overlap(recorder: Recorder, tmp_path: Path) -> None:
    threads: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in saved(recorder, tmp_path / "run.json"):
        if event["ph"] == "X":
            span = (event["ts"], event["ts"] + event["dur"])
            threads.setdefault((event["pid"], event["tid"]), []).append(span)
    for spans in threads.values():
        spans.sort()
        assert all(a[1] <= b[0] + 0.01 for a, b in itertools.pairwise(spans))


def test_arrows_lead_from_each_attempt_to_the_next(recorder: Recorder, tmp_path: Path) -> None:
    events = saved(recorder, tmp_path / "run.json")
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert len(starts) == 2
    assert all(starts[id]["ts"] <= ends[id]["ts"] for id in starts)


def test_what_runs_still_is_shown_up_to_now(tmp_path: Path) -> None:
    pool: ManualPool[Any, Any] = ManualPool([len])
    run = Recorder(pool).start()
    pool.dispatch("a")
    assert pool.claim() is not None
    pool.clock.advance(2)
    (event,) = [event for event in saved(run, tmp_path / "run.json") if event["ph"] == "X"]
    assert (event["cat"], event["dur"]) == ("running", 2e6)
    pool.force_close()


@pytest.mark.parametrize("name", ["run", "run.png", "run.json.gz", "html", ".html"])
def test_other_endings_are_refused_before_anything_is_written(
    recorder: Recorder, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidValue, match=r"a name that ends in \.html"):
        recorder.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, b"run.html"])
def test_what_is_no_path_is_refused(recorder: Recorder, path: Any) -> None:
    with pytest.raises(InvalidType, match="path"):
        recorder.save(path)


def test_folder_that_is_not_there_is_an_error_of_the_system(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        recorder.save(tmp_path / "nowhere" / "run.json")
