"""A recording in Chrome's trace event format, which Perfetto opens.

Two processes: the workers, with a thread for each of theirs, and the groups, with one for each that was given
nothing for a while. The arrows lead from an attempt of a task to the next one. Times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC
from itertools import pairwise

from retrypool.checks import date
from retrypool.observe.recording.data import Recording
from retrypool.observe.recording.lanes import Bar
from retrypool.observe.recording.report import note_of

__all__ = ["trace"]

WORKERS, GROUPS = 1, 2

# Names of colours that the viewers which heed them know.
_COLOURS = {
    "succeeded": "good",
    "failed": "terrible",
    "timed_out": "bad",
    "throttled": "yellow",
    "worker_fault": "black",
}

Event = dict[str, object]


def trace(recording: Recording) -> str:
    """Return the trace, as JSON."""
    events = [*_names(recording), *_attempts(recording), *_rests(recording), *_counters(recording)]
    about = {
        "pool": recording.pool,
        "began": date(recording.wall, UTC).isoformat(),
        "note": note_of(recording),
    }
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})


def _names(recording: Recording) -> Iterator[Event]:
    yield _name("process_name", WORKERS, 0, f"{recording.pool}: workers")
    for thread, lane in enumerate(recording.lanes, 1):
        name = lane.name if lane.row == 0 else f"{lane.name} ({lane.row + 1})"
        yield _name("thread_name", WORKERS, thread, name)
        yield {
            "ph": "M",
            "name": "thread_sort_index",
            "pid": WORKERS,
            "tid": thread,
            "args": {"sort_index": thread},
        }
    owners = _owners(recording)
    if owners:
        yield _name("process_name", GROUPS, 0, f"{recording.pool}: given nothing")
    for thread, owner in enumerate(owners, 1):
        name = recording.name_of(owner) if isinstance(owner, int) else owner or "all groups"
        yield _name("thread_name", GROUPS, thread, name)


def _name(what: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _owners(recording: Recording) -> list[str | int]:
    return list(dict.fromkeys(span.who for span in recording.spans))


def _attempts(recording: Recording) -> Iterator[Event]:
    for thread, lane in enumerate(recording.lanes, 1):
        for bar in lane.bars:
            yield _slice(
                _title(bar),
                bar.outcome,
                WORKERS,
                thread,
                _at(recording, bar.start),
                bar.end - bar.start,
                _args(bar),
            ) | ({"cname": _COLOURS[bar.outcome]} if bar.outcome in _COLOURS else {})
    yield from _arrows(recording)
    threads = {lane.worker_id: thread for thread, lane in reversed(list(enumerate(recording.lanes, 1)))}
    for attempt in recording.running:
        start = max(attempt.start, recording.begin)
        args = {"task": attempt.task_id, "attempt": attempt.number, "outcome": "still running"}
        if attempt.worker_id in threads:
            thread = threads[attempt.worker_id]
            length = recording.end - start
            yield _slice(
                attempt.label or f"task {attempt.task_id}",
                "running",
                WORKERS,
                thread,
                _at(recording, start),
                length,
                args,
            )


def _title(bar: Bar) -> str:
    return f"{bar.calls} attempts" if bar.outcomes else bar.label or f"task {bar.task_id}"


def _args(bar: Bar) -> Event:
    args: Event = {"outcome": bar.outcome}
    if bar.outcomes:
        args = dict(bar.outcomes)
    else:
        args |= {"task": bar.task_id, "attempt": bar.number}
    return args | ({"error": bar.error} if bar.error else {})


def _arrows(recording: Recording) -> Iterator[Event]:
    """Yield an arrow for each two attempts of a task that follow each other."""
    tasks: dict[int, list[tuple[float, float, int]]] = {}
    for thread, lane in enumerate(recording.lanes, 1):
        for bar in lane.bars:
            if not bar.outcomes and (bar.number > 1 or bar.outcome != "succeeded"):
                tasks.setdefault(bar.task_id, []).append((bar.start, bar.end, thread))
    number = 0
    for attempts in tasks.values():
        attempts.sort()
        for before, after in pairwise(attempts):
            number += 1
            arrow: Event = {"cat": "retry", "name": "retry", "id": number, "pid": WORKERS}
            # From within the one attempt to the beginning of the other.
            leaves = _at(recording, (before[0] + before[1]) / 2)
            yield arrow | {"ph": "s", "tid": before[2], "ts": leaves}
            yield arrow | {"ph": "f", "bp": "e", "tid": after[2], "ts": _at(recording, after[0])}


def _rests(recording: Recording) -> Iterator[Event]:
    threads = {owner: thread for thread, owner in enumerate(_owners(recording), 1)}
    for span in recording.spans:
        args: Event = {"why": span.why} if span.why else {}
        start = max(span.start, recording.begin)
        if span.end > start:
            at = _at(recording, start)
            yield _slice(span.kind, span.kind, GROUPS, threads[span.who], at, span.end - start, args)


def _slice(
    name: str, category: str, process: int, thread: int, at: float, length: float, args: Event
) -> Event:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": process,
        "tid": thread,
        "ts": at,
        "dur": round(length * 1e6, 3),
        "args": args,
    }


def _counters(recording: Recording) -> Iterator[Event]:
    series = recording.series
    for title, names, scale in (
        ("tasks waiting", ("queued", "delayed"), 1.0),
        ("calls per second", ("succeeded", "in_vain"), 1 / series.width),
    ):
        columns = [series.values(name) for name in names]
        before: tuple[float, ...] | None = None
        for index, values in enumerate(zip(*columns, strict=True)):
            at = series.origin + index * series.width
            if at + series.width < recording.begin or values == before:
                continue  # a counter keeps its value until the next one
            before = values
            args = {name: round(value * scale, 3) for name, value in zip(names, values, strict=True)}
            at = max(_at(recording, at), 0.0)
            yield {"ph": "C", "name": title, "pid": WORKERS, "tid": 0, "ts": at, "args": args}


def _at(recording: Recording, moment: float) -> float:
    return round((moment - recording.begin) * 1e6, 3)
