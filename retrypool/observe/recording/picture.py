"""A recording as one page for a browser, which needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from math import floor

from retrypool.checks import date
from retrypool.observe.recording.advice import percent
from retrypool.observe.recording.data import Recording
from retrypool.observe.recording.lanes import Lane
from retrypool.observe.recording.report import Report, report_of
from retrypool.observe.recording.spans import Span
from retrypool.observe.recording.texts import duration
from retrypool.states import Outcome

__all__ = ["page"]

Json = Mapping[str, "Json"] | Sequence["Json"] | str | float | None


def page(recording: Recording) -> str:
    """Return the page, as HTML."""
    report = report_of(recording)
    data = json.dumps(_data(recording, report), ensure_ascii=False, separators=(",", ":"))
    parts = {
        "title": escape(_title(recording)),
        "report": escape(str(report)),
        "css": _part("css"),
        "js": _part("js"),
        # Nothing in it can end the element that it stands in.
        "data": data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    }
    before, *rest = _part("html").split("{{")
    # In one pass: what is put in is not looked at again, whatever it holds.
    return before + "".join(parts[name] + text for name, text in (each.split("}}", 1) for each in rest))


def _part(ending: str) -> str:
    return files("retrypool.observe.recording").joinpath(f"picture.{ending}").read_text(encoding="utf-8")


def _title(recording: Recording) -> str:
    return f"A run of {recording.pool}: {duration(recording.length)}"


def _when(recording: Recording) -> datetime:
    return date(recording.wall).astimezone()


def _data(recording: Recording, report: Report) -> Json:
    lanes = _in_order(recording)
    rows = {id(lane): row for row, lane in enumerate(lanes)}
    return {
        "title": _title(recording),
        "subtitle": f"{_when(recording):%Y-%m-%d %H:%M:%S %Z} · {len(recording.workers)} workers, "
        f"{report.dispatched:,} tasks, {report.calls:,} calls",
        "length": recording.length,
        "tiles": _tiles(report),
        "advice": list(report.advice),
        "note": report.note,
        "workers": _worker_table(report),
        "slowest": _slow_table(recording, report),
        "outcomes": _outcomes(recording),
        "lanes": [_lane(recording, lane) for lane in lanes],
        "spans": [_span(recording, span, lanes) for span in recording.spans if span.end >= recording.begin],
        "series": _series(recording),
        "running": [
            {
                "lane": rows[id(lane)],
                "start": max(attempt.start - recording.begin, 0.0),
                "task": attempt.task_id,
                "label": attempt.label,
            }
            for attempt in recording.running
            for lane in [_lane_of(lanes, attempt.worker_id, attempt.start)]
            if lane is not None
        ],
        **_columns(recording, lanes),
    }


def _in_order(recording: Recording) -> list[Lane]:
    """Return the lanes, those of one group together."""
    order = {
        group: number for number, group in enumerate(dict.fromkeys(each.group for each in recording.workers))
    }
    return sorted(recording.lanes, key=lambda lane: order.get(lane.group, len(order)))


def _lane_of(lanes: Sequence[Lane], worker_id: int, start: float) -> Lane | None:
    """Return the lane in which an attempt that runs still is to be drawn."""
    own = [lane for lane in lanes if lane.worker_id == worker_id]
    free = [lane for lane in own if not lane.bars or lane.bars[-1].end <= start]
    return next(iter(free or own), None)


def _outcomes(recording: Recording) -> list[str]:
    """Return the outcomes that there were, in the order of their numbers in the columns."""
    seen = recording.total.outcomes
    return [outcome.value for outcome in Outcome if seen[outcome.value]]


def _lane(recording: Recording, lane: Lane) -> Json:
    worker = next((each for each in recording.workers if each.id == lane.worker_id), None)
    gone: list[list[float]] = []
    if worker is not None and worker.added > recording.begin:
        gone.append([0.0, worker.added - recording.begin])
    if worker is not None and worker.removed is not None and worker.removed < recording.end:
        gone.append([worker.removed - recording.begin, recording.length])
    return {
        "name": lane.name,
        "group": lane.group,
        "first": lane.row == 0,
        "bars": len(lane.bars),
        "gone": gone,
    }


def _span(recording: Recording, span: Span, lanes: Sequence[Lane]) -> Json:
    own: list[float] = [row for row, lane in enumerate(lanes) if span.who in (lane.group, lane.worker_id)]
    return {
        "kind": span.kind,
        "lanes": None if span.who == "" else own,
        "start": max(span.start - recording.begin, 0.0),
        "end": span.end - recording.begin,
        "why": span.why,
    }


def _series(recording: Recording) -> Json:
    series = recording.series
    skipped = floor((recording.begin - series.origin) / series.width)
    data: dict[str, Json] = {
        "width": series.width,
        "offset": series.origin + skipped * series.width - recording.begin,
    }
    for name in ("queued", "delayed", "running", "succeeded", "in_vain"):
        data[name] = [round(value, 3) for value in series.values(name)[skipped:]]
    return data


def _columns(recording: Recording, lanes: Sequence[Lane]) -> dict[str, Json]:
    """Return all bars as columns, lane by lane: microseconds since the bar before, numbers of texts."""
    numbers = {outcome: number for number, outcome in enumerate(_outcomes(recording))}
    labels: dict[str, int] = {}
    errors: dict[str, int] = {"": 0}
    columns: dict[str, list[float]] = {
        name: [] for name in ("start", "length", "outcome", "number", "task", "label", "error")
    }
    add = {name: column.append for name, column in columns.items()}
    bundles: dict[str, Json] = {}
    for lane in lanes:
        before = 0
        for bar in lane.bars:
            start = round((bar.start - recording.begin) * 1e6)
            if bar.outcomes:
                counts = [[numbers[each], count] for each, count in bar.outcomes]
                share = min(bar.busy / (bar.end - bar.start), 1.0) if bar.end > bar.start else 1.0
                bundles[str(len(columns["start"]))] = {"counts": counts, "share": round(share, 3)}
            add["start"](start - before)
            add["length"](round((bar.end - recording.begin) * 1e6) - start)
            add["outcome"](numbers[bar.outcome])
            add["number"](bar.number)
            add["task"](bar.task_id)
            add["label"](labels.setdefault(bar.label, len(labels)))
            add["error"](errors.setdefault(bar.error, len(errors)))
            before = start
    return {"columns": {**columns, "bundles": bundles}, "labels": list(labels), "errors": list(errors)}


def _tiles(report: Report) -> list[Json]:
    def tile(label: str, value: str, note: str, share: float | None = None, bad: bool = False) -> Json:
        return {"label": label, "value": value, "note": note, "share": share, "bad": bad}

    optimum = "nothing has succeeded" if report.optimum is None else f"optimum {duration(report.optimum)}"
    ended = [f"{report.dead} dead"]
    ended += [f"{report.cancelled} cancelled"] if report.cancelled else []
    ended += [f"{report.running + report.waiting} to do"] if report.running + report.waiting else []
    in_vain = report.in_vain / report.calls if report.calls else 0.0
    share = report.optimum / report.makespan if report.optimum and report.makespan else None
    tasks = report.succeeded / report.dispatched if report.dispatched else None
    return [
        tile("makespan", duration(report.makespan), optimum, share),
        tile("workers running", percent(report.utilisation), "of their time", report.utilisation),
        tile("tasks succeeded", f"{report.succeeded:,}", ", ".join(ended), tasks),
        tile("calls in vain", percent(in_vain), f"{report.in_vain:,} of {report.calls:,}", in_vain, bad=True),
        tile("retries", f"{report.retries:,}", f"{report.changes:,} on another worker"),
        tile("in the queue", duration(report.queued), f"on average, then {duration(report.ran)} of running"),
    ]


def _worker_table(report: Report) -> Json:
    kinds = [
        outcome.value
        for outcome in Outcome
        if any(worker.outcomes.get(outcome.value) for worker in report.workers)
    ]
    head = ["worker", "group", "calls", *(kind.replace("_", " ") for kind in kinds)]
    head += ["median", "95%", "running", "given nothing"]
    rows = [
        [
            worker.name,
            worker.group,
            str(worker.calls),
            *(str(worker.outcomes.get(kind, 0) or "–") for kind in kinds),
            *(duration(length) if worker.succeeded else "–" for length in (worker.median, worker.p95)),
            *(duration(length) if length else "–" for length in (worker.busy, worker.resting)),
        ]
        for worker in report.workers
    ]
    return {"head": head, "rows": rows, "text": [0, 1]}


def _slow_table(recording: Recording, report: Report) -> Json:
    rows = [
        [
            f"task {task.task_id}",
            task.label,
            duration(task.seconds),
            str(task.attempts),
            recording.name_of(task.worker_id) if task.attempts else "–",
        ]
        for task in report.slowest
    ]
    return {"head": ["task", "what", "running", "attempts", "last on"], "rows": rows, "text": [0, 1]}
