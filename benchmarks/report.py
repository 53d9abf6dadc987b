"""What a reader sees: the table, the losses, the saved run, the comparison with one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .harness import OURS, Outcome

Facts = dict[str, Any]
Saved = dict[tuple[str, str, str], dict[str, Any]]

_TABLE = "    {:<40} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9}   {}"
_COMPARISON = "    {:<40} {:>9} {:>9} {:>7} {:>7} {:>7}   {}"


def show_header(facts: Facts, rounds: int, scale: float) -> Iterator[str]:
    yield "{python}, {system}, {cores} cores, revision {revision}, load {load}, {date}".format(**facts)
    yield f"rounds: {rounds}, scale: {scale:g}, clock: {facts['clock']}"
    yield "costs are medians, lower is better"
    yield "CPU: of the process, in the same unit; switches: of threads, per item"
    yield "ratio: median over the rounds of this row ÷ the row with 1.00"
    yield "goal: the median over the rounds (lowest to highest), judged by the median"


def show_question(name: str, asked: str) -> Iterator[str]:
    yield f"\n{name}: {asked}"
    yield _TABLE.format("", "median", "low", "high", "ratio", "CPU", "switches", "goal")


def show(outcome: Outcome) -> Iterator[str]:
    """One section of the table: a line per row, its goals beside it."""
    contest = outcome.contest
    yield f"  {contest.setting} [{contest.unit}]"
    for row in contest.rows:
        if why := outcome.absent.get(row.label):
            yield f"    {row.label}: {'' if why.startswith('failed') else 'skipped, '}{why}"
            continue
        values = outcome.values[row.label]
        ratio = outcome.ratio(row.label)
        costs = outcome.costs(row.label)
        goals = [str(v) for v in outcome.verdicts if v.goal.against == row.label]
        yield _TABLE.format(
            row.label,
            *(number(value) for value in (median(values), min(values), max(values))),
            "" if ratio is None else f"{ratio:.2f}",
            "" if costs is None else number(costs.cpu),
            "" if costs is None else number(costs.switches),
            "; ".join(goals),
        ).rstrip()
    if outcome.note:
        yield f"    {outcome.note}"


_GOALS = "  {:<62} {:>8} {:>16} {:>7} {:>7}  {}"


def show_goals(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Every goal in one line: the figure and its range, and the same figure in CPU time."""
    yield "\nAll goals:"
    yield _GOALS.format("", "figure", "range", "goal", "CPU", "")
    for outcome in outcomes:
        for v in outcome.verdicts:
            goal = v.goal
            own, other = outcome.costs(goal.row), outcome.costs(goal.against)
            cpu = ""
            if own and other and own.cpu and other.cpu and goal.kind != "absolute":
                cpu = number(other.cpu / own.cpu if goal.kind == "faster" else own.cpu / other.cpu)
            ours = "" if goal.row == OURS else f", {goal.row}"
            against = "" if goal.against == goal.row else f" | {goal.against}"
            yield _GOALS.format(
                f"{outcome.contest.setting}{ours}{against}",
                number(v.figure),
                f"{number(v.low)} to {number(v.high)}",
                f"{goal.sign} {goal.limit:g}",
                cpu,
                "" if v.met else "MISSED",
            ).rstrip()


def show_losses(outcomes: Iterable[Outcome]) -> Iterator[str]:
    lost = [line for outcome in outcomes for line in outcome.losses()]
    yield "\nWhere retrypool loses:"
    yield from (f"  {line}" for line in lost or ["nowhere in this run"])


def number(value: float) -> str:
    """Three significant digits or all the whole ones."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def as_json(facts: Facts, rounds: int, scale: float, outcomes: Iterable[Outcome]) -> str:
    results = [
        {
            "question": outcome.question,
            "setting": outcome.contest.setting,
            "unit": outcome.contest.unit,
            "note": outcome.note,
            "rows": {
                label: {"values": values, "median": median(values), "ratio": outcome.ratio(label)}
                for label, values in outcome.values.items()
            },
            "absent": outcome.absent,
            "goals": [
                {
                    "row": verdict.goal.row,
                    "against": verdict.goal.against,
                    "kind": verdict.goal.kind,
                    "limit": verdict.goal.limit,
                    "figure": verdict.figure,
                    "low": verdict.low,
                    "high": verdict.high,
                    "met": verdict.met,
                }
                for verdict in outcome.verdicts
            ],
        }
        for outcome in outcomes
    ]
    document = {"header": facts, "rounds": rounds, "scale": scale, "results": results}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def load(path: Path) -> tuple[Facts, Saved]:
    """The header and the rows of a saved run."""
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = {
        (result["question"], result["setting"], label): row
        for result in document["results"]
        for label, row in result["rows"].items()
    }
    facts = {**document["header"], "scale": document["scale"]}
    return facts, rows


def show_comparison(
    facts: Facts, scale: float, saved_facts: Facts, saved: Saved, outcomes: Iterable[Outcome]
) -> Iterator[str]:
    """Medians and ratios then and now. Ratios hold across machines better than medians do."""
    yield "\nCompared with the saved run: {python}, revision {revision}, {date}".format(**saved_facts)
    for fact, now in {**facts, "scale": scale}.items():
        if fact in {"python", "system", "cores", "scale", "clock"} and saved_facts.get(fact) != now:
            yield f"  not the same {fact}: {saved_facts.get(fact)} then, {now} now"
    yield _COMPARISON.format("", "then", "now", "change", "ratio", "now", "")
    for outcome in outcomes:
        contest = outcome.contest
        lines = []
        for label, values in outcome.values.items():
            then = saved.get((outcome.question, contest.setting, label))
            if then is None:
                continue
            ratio = outcome.ratio(label)
            lines.append(
                _COMPARISON.format(
                    label,
                    number(then["median"]),
                    number(median(values)),
                    f"{median(values) / then['median'] - 1:+.0%}" if then["median"] else "",
                    "" if then["ratio"] is None else f"{then['ratio']:.2f}",
                    "" if ratio is None else f"{ratio:.2f}",
                    _apart(then["values"], values),
                ).rstrip()
            )
        if lines:
            yield f"  {outcome.question}: {contest.setting} [{contest.unit}]"
            yield from lines


def _apart(then: list[float], now: list[float]) -> str:
    """Says so if no round of one run overlaps with any of the other."""
    if min(now) > max(then):
        return "dearer"
    return "cheaper" if max(now) < min(then) else ""
