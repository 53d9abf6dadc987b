"""One process of a comparison: measures the rows that it is asked for. See `revisions`."""

from __future__ import annotations

import gc
import importlib
import json
import sys
from typing import Any

from .cost import Cost
from .harness import OURS, Contest


def main() -> None:
    scale = float(sys.argv[1])
    # What the rows print must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    contests: dict[str, list[Contest]] = {}
    for line in sys.stdin:
        question, *rest = json.loads(line)
        try:
            if question not in contests:
                contests[question] = importlib.import_module(f"benchmarks.{question}").contests(scale)
            value = answer(contests[question], *rest)
        except Exception as error:  # noqa: BLE001 - an older revision may lack what the row needs
            print(json.dumps({"error": repr(error)[:200]}), file=answers, flush=True)
        else:
            print(json.dumps({"value": value}), file=answers, flush=True)


def answer(contests: list[Contest], number: int | None = None, label: str = "", warm: bool = False) -> Any:
    """What there is to measure; or the cost, the CPU time and the switches of one round of a row."""
    if number is None:
        return [
            (contest.setting, contest.unit, [row.label for row in contest.rows if row.label.startswith(OURS)])
            for contest in contests
        ]
    row = next(row for row in contests[number].rows if row.label == label)
    gc.collect()
    cost = row.measure(max(1, row.size // 10) if warm else row.size)
    return (cost, cost.cpu, cost.switches) if isinstance(cost, Cost) else (cost, 0.0, 0.0)


if __name__ == "__main__":
    main()
