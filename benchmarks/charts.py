"""One PNG per question: a bar per row with a whisker over its rounds, or a curve over batches."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .harness import OURS, Outcome
from .report import number

MISSING = 'charts need matplotlib: python -m pip install "retrypool[bench]"'


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Draws the contests of one question below each other."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    shown = [outcome for outcome in outcomes if outcome.values]
    heights = [1.2 + 0.32 * len(outcome.values) for outcome in shown]
    figure, axes = plt.subplots(
        len(shown),
        figsize=(9, sum(heights) + 0.8),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    figure.suptitle(title, wrap=True)
    for outcome, axis in zip(shown, axes.flat, strict=True):
        _draw_contest(outcome, axis)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curve(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Draws contests that differ in their batch alone as a line for each row, over the batch."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 5.5), layout="constrained")
    figure.suptitle(title)
    colours = iter(("tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:olive"))
    rows = {row.label: row for outcome in outcomes for row in outcome.contest.rows}
    for label, row in rows.items():
        shown = [outcome for outcome in outcomes if label in outcome.values]
        sizes = [r.size for outcome in shown for r in outcome.contest.rows if r.label == label]
        values = [outcome.values[label] for outcome in shown]
        if label.startswith(OURS):
            style: dict[str, Any] = {"color": "tab:blue", "linewidth": 3}
        elif row.floor:
            style = {"color": "tab:grey", "linewidth": 1.2, "linestyle": ":"}
        else:
            style = {"color": next(colours), "linewidth": 1.2}
        (line,) = axis.plot(sizes, [median(each) for each in values], marker="o", label=label, **style)
        low, high = [min(each) for each in values], [max(each) for each in values]
        axis.fill_between(sizes, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("tasks in a batch")
    axis.set_ylabel(outcomes[0].contest.unit)
    axis.grid(which="both", alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_contest(outcome: Outcome, axis: Any) -> None:
    labels = list(outcome.values)
    floors = {row.label for row in outcome.contest.rows if row.floor}
    medians = [median(outcome.values[label]) for label in labels]
    below = [m - min(outcome.values[label]) for m, label in zip(medians, labels, strict=True)]
    above = [max(outcome.values[label]) - m for m, label in zip(medians, labels, strict=True)]
    colours = [
        "tab:grey" if label in floors else "tab:blue" if label.startswith(OURS) else "tab:orange"
        for label in labels
    ]
    bars = axis.barh(labels, medians, xerr=(below, above), color=colours, ecolor="black", capsize=2)
    axis.bar_label(bars, labels=[number(m) for m in medians], padding=6)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_title(outcome.contest.setting, loc="left", fontsize="medium")
    axis.set_xlabel(outcome.contest.unit)
    axis.spines[["top", "right"]].set_visible(False)
