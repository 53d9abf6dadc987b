"""Runs all benchmarks, or the named ones, and says where retrypool wins and where it loses."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from . import QUESTIONS, charts, report, revisions
from .harness import Outcome, header, run

SHARED = ("curve", "regimes", "threads", "retries")
"""What two revisions are compared in, unless somebody asks for more."""


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="question", help=", ".join(QUESTIONS))
    parser.add_argument("--rounds", type=int, default=7, help="per row, in turn (7)")
    parser.add_argument("--scale", type=float, default=1, help="of every number of tasks (1)")
    parser.add_argument(
        "--cpu", action="store_true", help="read costs per task from the CPU time, for busy machines"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the run")
    parser.add_argument("--beside", type=Path, metavar="FILE", help="show it beside a saved run")
    parser.add_argument(
        "--compare", metavar="REV", help="only measure ourselves: this revision and the work tree, by turns"
    )
    parser.add_argument("--plot", type=Path, metavar="DIR", help="one PNG per question")
    parsed = parser.parse_args(given)
    if unknown := [name for name in parsed.questions if name not in QUESTIONS]:
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    if parsed.rounds < 1 or parsed.scale <= 0:
        parser.error("--rounds must be at least 1, --scale more than 0")
    if parsed.plot and not charts.available():
        parser.error(charts.MISSING)
    return parsed


def ask(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name}")


def asked(question: ModuleType) -> str:
    """The first line of the file."""
    return (question.__doc__ or "").partition("\n")[0]


def say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    if options.compare:
        try:
            questions = options.questions or SHARED
            say(revisions.compare(options.compare, questions, options.rounds, options.scale))
        except revisions.UnknownRevision as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    facts = header() | {"clock": "CPU time" if options.cpu else "wall time"}
    saved = report.load(options.beside) if options.beside else None
    say(report.show_header(facts, options.rounds, options.scale))
    outcomes: list[Outcome] = []
    for name in options.questions or QUESTIONS:
        question = ask(name)
        say(report.show_question(name, asked(question)))
        answers = []
        for contest in question.contests(options.scale):
            outcome = run(name, contest, options.rounds, cpu=options.cpu)
            answers.append(outcome)
            say(report.show(outcome))
        if options.plot:
            options.plot.mkdir(parents=True, exist_ok=True)
            draw = charts.draw_curve if name == "curve" else charts.draw
            draw(answers, asked(question), options.plot / f"{name}.png")
        outcomes += answers
    say(report.show_goals(outcomes))
    say(report.show_losses(outcomes))
    if saved:
        say(report.show_comparison(facts, options.scale, *saved, outcomes))
    if options.json:
        saved_text = report.as_json(facts, options.rounds, options.scale, outcomes)
        options.json.write_text(saved_text, encoding="utf-8")
    return 1 if any("failed" in why for o in outcomes for why in o.absent.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
