"""Two revisions beside each other: the arithmetic, and a run of the whole with as little work as there is."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.cost import Cost
from benchmarks.revisions import Change


def change(then: list[float], now: list[float]) -> Change:
    made = Change("a setting", "µs")
    for pair in zip(then, now, strict=True):
        made.add(*(Cost(figure, figure, 0) for figure in pair))
    return made


def test_slower_is_what_changed_by_more_than_the_spread_of_its_ratios():
    assert change([10, 20, 10, 10], [12, 24, 12, 12]).verdict == "SLOWER"
    assert change([10, 20, 10, 10], [8, 16, 8, 8]).verdict == "faster"


def test_a_change_within_its_spread_is_none():
    assert change([10, 10, 10, 10], [9, 14, 8, 13]).verdict == ""


def test_a_small_change_is_none_however_steady():
    assert change([100, 100], [102, 102]).verdict == ""


in_a_checkout = pytest.mark.skipif(
    not (Path(__file__).resolve().parents[2] / ".git").exists()
    or subprocess.run(["git", "--version"], capture_output=True, check=False).returncode != 0,
    reason="no git checkout to take a revision from",
)


@in_a_checkout
def test_a_revision_is_measured_beside_the_work_tree(capsys):
    few = ["retries", "--rounds", "2", "--scale", "0.001"]
    assert main([*few, "--compare", "HEAD"]) == 0
    printed = capsys.readouterr().out
    assert "retries: all fail once, 4 workers [µs/task]" in printed
    assert "lower" in printed.splitlines()[-1] or "than HEAD" in printed


@in_a_checkout
def test_an_unknown_revision_is_an_error(capsys):
    assert main(["retries", "--compare", "no-such-revision"]) == 2
    assert "no-such-revision" in capsys.readouterr().err
