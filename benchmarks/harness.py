"""Rows, contests, goals and rounds: what all benchmarks share.

A *row* is one contender and returns the cost of one round; lower is better. A *contest* puts rows
that do the same work side by side. A *goal* is judged on figures taken round by round, so that a
slow spell of the machine hits both sides of a ratio.
"""

from __future__ import annotations

import gc
import importlib.util
import operator
import os
import pkgutil
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from .cost import Cost, medians

Measure = Callable[[int], float]
Kind = Literal["faster", "within", "later", "absolute"]

OURS = "retrypool"


@dataclass(frozen=True)
class Row:
    """A contender. `measure(size)` runs one round on `size` items and returns what it cost."""

    label: str
    measure: Measure
    size: int
    needs: str | None = None
    """Without this the row is skipped: a `module`, or a `module:attribute`."""
    floor: bool = False
    """A bound to compare with, not a peer that one could use instead."""

    def missing(self) -> str | None:
        """Why this row can't run here, or None."""
        if self.needs is None:
            return None
        module, _, attribute = self.needs.partition(":")
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
        try:
            pkgutil.resolve_name(f"{module}:{attribute}")
        except AttributeError:
            return f"{module} has no {attribute}"
        return None


_FIGURES: dict[Kind, Callable[[float, float], float]] = {
    "faster": lambda ours, theirs: theirs / ours,
    "within": lambda ours, theirs: ours / theirs,
    "later": lambda ours, theirs: ours - theirs,
    "absolute": lambda ours, theirs: ours,
}


@dataclass(frozen=True)
class Goal:
    """What `row` has to reach: a factor, a share or a distance to another row, or a figure."""

    kind: Kind
    limit: float
    against: str
    row: str = OURS

    @property
    def sign(self) -> str:
        return "≥" if self.kind == "faster" else "≤"

    def judge(self, values: dict[str, list[float]]) -> Verdict | None:
        """The figure over all rounds, or None where one of the two rows did not run."""
        ours, theirs = values.get(self.row), values.get(self.against)
        if not ours or not theirs:
            return None
        figures = [_FIGURES[self.kind](*pair) for pair in zip(ours, theirs, strict=True)]
        holds = operator.ge if self.kind == "faster" else operator.le
        figure = median(figures)
        return Verdict(self, figure, min(figures), max(figures), holds(figure, self.limit))


@dataclass(frozen=True)
class Verdict:
    """A goal, the median and the range of its figure, and whether the median meets it."""

    goal: Goal
    figure: float
    low: float
    high: float
    met: bool

    def __str__(self) -> str:
        goal = self.goal
        subject = "" if goal.row == OURS else f"{goal.row}: "
        verdict = "met" if self.met else "MISSED"
        spread = f"{self.low:.3g} to {self.high:.3g}"
        return f"{subject}{self.figure:.3g} ({spread}), goal {goal.sign} {goal.limit:g}: {verdict}"


def faster(than: str, factor: float, row: str = OURS) -> Goal:
    """`than` costs at least `factor` times as much."""
    return Goal("faster", factor, than, row)


def within(share: float, of: str, row: str = OURS) -> Goal:
    """The cost is at most `share` times that of `of`."""
    return Goal("within", share, of, row)


def at_most_later(by: float, than: str, row: str = OURS) -> Goal:
    """The cost is at most that of `than` plus `by`, in the unit of the contest."""
    return Goal("later", by, than, row)


def at_most(limit: float, row: str = OURS) -> Goal:
    """The cost itself is at most `limit`."""
    return Goal("absolute", limit, row, row)


@dataclass(frozen=True)
class Contest:
    """Rows that do the same work in one setting. Ratios are taken to the row named `reference`."""

    setting: str
    unit: str
    rows: list[Row]
    goals: tuple[Goal, ...] = ()
    reference: str = OURS
    most_rounds: int | None = None
    """For rows that are slow, or exact at the first time."""
    note: Callable[[], str] | None = None
    """A line to print below the rows."""


def measured(
    setting: str, unit: str, size: int, rows: dict[str, Measure], *goals: Goal, most_rounds: int | None = None
) -> Contest:
    """A contest of measures by the labels of their rows; those with `retrypool` in the label are ours."""
    made = [
        Row(label, measure, size, "retrypool" if "retrypool" in label else None)
        for label, measure in rows.items()
    ]
    return Contest(setting, unit, made, goals, most_rounds=most_rounds)


@dataclass(frozen=True)
class Outcome:
    """What came of a contest: every value of every round, and why rows are absent."""

    question: str
    contest: Contest
    values: dict[str, list[float]]
    absent: dict[str, str]
    note: str = ""

    @property
    def verdicts(self) -> list[Verdict]:
        judged = (goal.judge(self.values) for goal in self.contest.goals)
        return [verdict for verdict in judged if verdict is not None]

    def ratio(self, label: str) -> float | None:
        """Median over the rounds of this row's cost over the reference's cost."""
        reference = self.values.get(self.contest.reference)
        if not reference or not all(reference):
            return None
        return median(a / b for a, b in zip(self.values[label], reference, strict=True))

    def costs(self, label: str) -> Cost | None:
        """The medians of wall time, CPU time and switches, where a row tells of all of them."""
        costs = [value for value in self.values.get(label, ()) if isinstance(value, Cost)]
        return medians(costs) if costs else None

    def losses(self) -> list[str]:
        """Goals missed, peers that cost less than we do, and where we did not run at all."""
        where = f"{self.question}, {self.contest.setting}"
        if OURS in self.absent:
            return [f"{where}: {OURS} did not run: {self.absent[OURS]}"]
        lost = [f"{where}: {v.goal.against}: {v}" for v in self.verdicts if not v.met]
        for row in self.contest.rows:
            ratio = self.ratio(row.label) if row.label in self.values else None
            peer = not row.floor and not row.label.startswith(OURS)
            if self.contest.reference == OURS and peer and ratio is not None and ratio < 1:
                lost.append(f"{where}: {row.label} costs {ratio:.2f} of {OURS}")
        return lost


def run(question: str, contest: Contest, rounds: int, *, cpu: bool = False) -> Outcome:
    """Warms every row up, then takes rounds in turn; each round starts one row further on.

    With `cpu`, a cost is the CPU time where there is one: other work on the machine disturbs it less.
    """
    absent = {row.label: why for row in contest.rows if (why := row.missing())}
    rows = [row for row in contest.rows if row.label not in absent]
    values: dict[str, list[float]] = {row.label: [] for row in rows}

    def take(row: Row, size: int) -> float | None:
        gc.collect()
        try:
            cost = row.measure(size)
            return Cost(cost.cpu, cost.cpu, cost.switches) if cpu and isinstance(cost, Cost) else cost
        # A peer that breaks must not cost the others their figures.
        except Exception as error:  # noqa: BLE001
            absent[row.label] = f"failed: {error!r}"
            values.pop(row.label)
            return None

    for row in rows:
        take(row, max(1, row.size // 10))
    for turn in range(min(rounds, contest.most_rounds or rounds)):
        start = turn % len(rows) if rows else 0
        for row in rows[start:] + rows[:start]:
            if row.label in values:
                cost = take(row, row.size)
                if cost is not None:
                    values[row.label].append(cost)
    return Outcome(question, contest, values, absent, contest.note() if contest.note else "")


def scaled(size: int, scale: float, least: int = 1) -> int:
    """`size` times `scale`, and never under `least`."""
    return max(least, round(size * scale))


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def header() -> dict[str, str | int]:
    """The facts without which a figure means nothing."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "revision": _revision(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()) if _has_load else "unknown",
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


_has_load = hasattr(os, "getloadavg")


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
