"""Each benchmark runs, with as little work as there can be. How long it takes is no matter here."""

import json
import math
from pathlib import Path

import pytest

from benchmarks import QUESTIONS
from benchmarks.__main__ import ask, asked, main

# The contests of one differ in a seed only. Clusters and brokers take their time, and stay till the end.
ENOUGH = {"fleet": 1, "remote": 0, "sources": 0}


def test_every_file_is_a_question_that_can_be_asked():
    folder = Path(ask(QUESTIONS[0]).__file__ or "").parent
    asking = {p.stem for p in folder.glob("*.py") if "\ndef contests(" in p.read_text(encoding="utf-8")}
    assert asking == set(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_its_first_line_is_a_question(name):
    assert asked(ask(name)).endswith("?")


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_row_that_can_run_here_returns_a_figure(name):
    """Calls each once. A harness that went round them would hide the traceback of one that fails."""
    for contest in ask(name).contests(scale=0.001)[: ENOUGH.get(name)]:
        for row in contest.rows:
            if row.missing() is None:
                assert math.isfinite(row.measure(row.size)), row.label


def test_a_run_can_be_saved_and_compared_with(tmp_path, capsys):
    saved = tmp_path / "run.json"
    few = ["retries", "--rounds", "1", "--scale", "0.001"]
    assert main([*few, "--json", str(saved)]) == 0
    assert json.loads(saved.read_text())["results"][0]["question"] == "retries"
    assert main([*few, "--beside", str(saved)]) == 0
    assert "Compared with the saved run" in capsys.readouterr().out


def test_a_curve_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["curve", "--rounds", "1", "--scale", "0.001", "--plot", str(tmp_path)]) == 0
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_an_unknown_question_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "no such question: speed; there are curve" in capsys.readouterr().err
