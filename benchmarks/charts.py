"""One PNG per question: a bar per row, a whisker from the lowest to the highest round."""

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
