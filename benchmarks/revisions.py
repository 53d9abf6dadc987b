"""Two revisions of retrypool, measured in alternating rounds by the same benchmarks.

Each has a process of its own, which waits while the other one is measured. Only our own rows are run: a
peer is the same in both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

from .cost import Cost
from .harness import OURS

ROOT = Path(__file__).resolve().parents[1]
LEAST = 0.03
"""A change below this is none, however small the spread."""


class UnknownRevision(Exception):
    """There is no such revision."""


def export(revision: str, folder: Path) -> None:
    """Put the package of `revision` into `folder`; the one in the work tree if that is empty."""
    if revision:
        command = ["git", "archive", revision, "retrypool"]
        packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if packed.returncode:
            raise UnknownRevision(packed.stderr.decode(errors="replace").strip())
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
    else:
        (folder / "retrypool").symlink_to(ROOT / "retrypool", target_is_directory=True)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)


class Measurer:
    """A process that measures one row at a time with one revision."""

    def __init__(self, revision: str, stack: ExitStack, scale: float) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="revision-")))
        export(revision, folder)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.measure", str(scale)],
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._end)

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ask(self, *question: object) -> Any:
        """Return what the process answers. Raises `RuntimeError` if it can't."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline() or '{"error": "the process has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]


class Change:
    """What became of one row: each figure of `then` beside the one of `now` of the same round."""

    def __init__(self, setting: str, unit: str) -> None:
        self.setting = setting
        self.unit = unit
        self.then: list[float] = []
        self.now: list[float] = []
        self.cpu: list[float] = []  # now over then
        self.why = ""  # it could not be measured

    def add(self, then: Cost, now: Cost) -> Self:
        self.then.append(then)
        self.now.append(now)
        if then.cpu and now.cpu:
            self.cpu.append(now.cpu / then.cpu)
        return self

    @property
    def ratios(self) -> list[float]:
        return [now / then for then, now in zip(self.then, self.now, strict=True) if then]

    @property
    def spread(self) -> float:
        """How far apart the middle half of the ratios lies."""
        ratios = self.ratios
        if len(ratios) < 2:
            return 0.0
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        return high - low

    @property
    def verdict(self) -> str:
        """Slower or faster, if by more than the spread of the ratios."""
        if not self.ratios:
            return ""
        change = median(self.ratios) - 1
        if abs(change) <= max(self.spread, LEAST):
            return ""
        return "SLOWER" if change > 0 else "faster"


_LINE = "  {:<58} {:>9} {:>9} {:>7} {:>7} {:>7}  {}"


def compare(revision: str, questions: Sequence[str], rounds: int, scale: float) -> Iterator[str]:
    """Measure `revision` and the work tree; tell of each row, and at the end what became slower."""
    slower = []
    yield _LINE.format("", revision[:9], "now", "ratio", "spread", "CPU", "")
    with ExitStack() as stack:
        pair = [Measurer(revision, stack, scale), Measurer("", stack, scale)]
        for question in questions:
            for number, (setting, unit, labels) in enumerate(pair[1].ask(question)):
                for label in labels:
                    name = f"{question}: {setting}" + ("" if label == OURS else f", {label}")
                    change = _measure(pair, (question, number, label), Change(name, unit), rounds)
                    yield _show(change)
                    if change.verdict == "SLOWER":
                        slower.append(change)
    yield ""
    yield (
        f"Slower than {revision} by more than its spread:"
        if slower
        else "Nothing is slower by more than its spread."
    )
    for change in slower:
        cpu = f", in CPU time {median(change.cpu):.2f}" if change.cpu else ""
        yield f"  {change.setting}: {median(change.ratios):.2f} times (spread {change.spread:.2f}{cpu})"


def _measure(pair: list[Measurer], row: tuple[str, int, str], change: Change, rounds: int) -> Change:
    try:
        for each in pair:
            each.ask(*row, True)
        for turn in range(rounds):
            costs = {}
            for each in pair if turn % 2 else pair[::-1]:
                costs[each] = Cost(*each.ask(*row, False))
            change.add(costs[pair[0]], costs[pair[1]])
    except RuntimeError as error:
        change.why = str(error)
    return change


def _show(change: Change) -> str:
    if change.why:
        return f"  {change.setting}: {change.why}"
    return _LINE.format(
        f"{change.setting} [{change.unit}]",
        f"{median(change.then):.3g}",
        f"{median(change.now):.3g}",
        f"{median(change.ratios):.2f}" if change.ratios else "",
        f"{change.spread:.2f}",
        f"{median(change.cpu):.2f}" if change.cpu else "",
        change.verdict,
    ).rstrip()
