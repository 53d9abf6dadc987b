"""A run in words and figures."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrypool.observe.recording.advice import advice, percent
from retrypool.observe.recording.data import Recording, SlowTask, WorkerSeen
from retrypool.observe.recording.facts import Facts, rest_of
from retrypool.observe.recording.spans import Span
from retrypool.observe.recording.texts import duration, first_line
from retrypool.states import Outcome

__all__ = ["Report", "WorkerReport", "report_of"]

WIDTH = 100
TABLE_AT_MOST = 30  # workers; the object has all of them
SLOW_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one worker did. Times are seconds."""

    id: int
    name: str
    group: str
    threads: int
    calls: int
    succeeded: int
    in_vain: int
    outcomes: Mapping[str, int]  # calls by how they ended
    busy: float  # running time of all its calls
    resting: float  # during which it was given nothing: cooling, ejected, paused, cordoned
    median: float  # of its calls that succeeded; within 9%, as is the next
    p95: float
    error: str  # why it could not be started


@dataclass(frozen=True, slots=True)
class Report:
    """A run, for people (`print` it) and for programs (its fields). Times are seconds.

    `optimum` is the makespan of a run without a call in vain, its tasks shared out in proportion to the
    speeds of the workers, within their rates, and not before the last task was dispatched; None if nothing
    has succeeded. `advice` says in sentences what cost the most.
    """

    pool: str
    makespan: float
    optimum: float | None
    utilisation: float  # the share of their time in which the workers ran something
    succeeded: int  # tasks
    dead: int
    cancelled: int
    running: int
    waiting: int
    calls: int
    in_vain: int  # calls that did not succeed
    retries: int
    changes: int  # retries on another worker
    queued: float  # in the queue, mean of all calls
    delayed: float  # waiting out delays before retries, mean of all calls
    ran: float  # mean of all calls
    workers: Sequence[WorkerReport]
    ejections: Sequence[Span]  # `who`: a group; `start` and `end` on the pool's clock
    cool_downs: Sequence[Span]
    outages: Sequence[Span]
    slowest: Sequence[SlowTask]  # the slowest first
    advice: Sequence[str]
    note: str  # what is not known one by one

    @property
    def dispatched(self) -> int:
        """How many tasks there were."""
        return self.succeeded + self.dead + self.cancelled + self.running + self.waiting

    def __str__(self) -> str:
        blocks = [self._summary()]
        if self.advice:
            blocks.append([line for text in self.advice for line in _bullet(text)])
        if self.workers:
            blocks.append(self._table())
        if self.slowest:
            blocks.append(self._slow_tasks())
        if self.note:
            blocks.append(textwrap.wrap(self.note, WIDTH))
        return "\n\n".join("\n".join(block) for block in blocks)

    def _summary(self) -> list[str]:
        parts = [f"{self.succeeded} succeeded", f"{self.dead} dead", f"{self.cancelled} cancelled"]
        if self.running or self.waiting:
            parts += [f"{self.running} running", f"{self.waiting} waiting"]
        makespan = duration(self.makespan)
        if self.optimum:
            times = self.makespan / self.optimum
            makespan += f", {times:.1f} × the optimum for these workers, {duration(self.optimum)}"
        calls = f"{self.calls}"
        if self.in_vain:
            calls += f", {self.in_vain} ({percent(self.in_vain / self.calls)}) of them in vain"
        if self.retries:
            calls += f"; {self.retries} retries, of which {self.changes} changed worker"
        waits = f"{duration(self.queued)} in the queue"
        if self.delayed:
            waits += f" + {duration(self.delayed)} of delay"
        return [
            f"tasks     {self.dispatched} dispatched = {' + '.join(parts)}",
            f"makespan  {makespan}",
            f"workers   {len(self.workers)}, running {percent(self.utilisation)} of their time",
            f"calls     {calls}",
            f"waiting   {waits}, before {duration(self.ran)} of running: the means of all calls",
        ]

    def _table(self) -> list[str]:
        shown = self.workers[:TABLE_AT_MOST]
        seen = Counter[str]()
        for worker in self.workers:
            seen.update(worker.outcomes)
        kinds = [outcome.value for outcome in Outcome if seen[outcome.value]]
        rest: list[str] = []
        while True:
            table = _lined_up([_head(kinds, rest), *(_row(worker, kinds, rest) for worker in shown)])
            told = [kind for kind in kinds if kind != Outcome.SUCCEEDED.value]
            if len(table[0]) <= WIDTH or not told:
                break
            # The rarest go into one column.
            rest.append(min(told, key=seen.__getitem__))
            kinds.remove(rest[-1])
        if more := len(self.workers) - len(shown):
            table.append(f"and {more} more")
        return table

    def _slow_tasks(self) -> list[str]:
        names = {worker.id: worker.name for worker in self.workers}
        lines = ["slowest tasks"]
        for task in self.slowest[:SLOW_AT_MOST]:
            who = first_line(names.get(task.worker_id, "nobody"), 20)
            attempts = "" if task.attempts == 1 else f", {task.attempts} attempts"
            label = first_line(task.label, 36)
            lines.append(
                f"  {duration(task.seconds):>7}  task {task.task_id} ({label}){attempts}, last on {who}"
            )
        return lines


def report_of(recording: Recording) -> Report:
    """Return the report of a recording."""
    facts, total, counts = Facts.of(recording), recording.total, recording.counts
    starts = max(counts.starts, 1)

    def spans(kind: str) -> tuple[Span, ...]:
        return tuple(span for span in recording.spans if span.kind == kind)

    return Report(
        pool=recording.pool,
        makespan=recording.length,
        optimum=facts.optimum,
        utilisation=facts.utilisation,
        succeeded=counts.succeeded,
        dead=counts.dead,
        cancelled=counts.cancelled,
        running=len(recording.running),
        waiting=recording.waiting,
        calls=total.calls,
        in_vain=total.in_vain,
        retries=counts.retries,
        changes=counts.changes,
        queued=counts.queued / starts,
        delayed=counts.delayed / starts,
        ran=total.busy / max(total.calls, 1),
        workers=tuple(_worker_report(recording, worker) for worker in recording.workers),
        ejections=spans("ejected"),
        cool_downs=spans("cooling"),
        outages=spans("outage"),
        slowest=tuple(recording.slowest),
        advice=tuple(advice(facts)),
        note=note_of(recording),
    )


def note_of(recording: Recording) -> str:
    """Return a note on the attempts that a recording has not kept one by one; "" if there are none."""
    parts = []
    if recording.grain:
        parts.append(
            f"Attempts shorter than {duration(recording.grain)} are bundled in the picture; counts are exact."
        )
    if recording.left_out:
        parts.append(f"{recording.left_out} attempts are counted and not shown: there are too many workers.")
    return " ".join(parts)


def _worker_report(recording: Recording, worker: WorkerSeen) -> WorkerReport:
    tally = worker.tally
    return WorkerReport(
        id=worker.id,
        name=worker.name,
        group=worker.group,
        threads=worker.threads,
        calls=tally.calls,
        succeeded=tally.succeeded,
        in_vain=tally.in_vain,
        outcomes=dict(tally.outcomes),
        busy=tally.busy,
        resting=rest_of(recording, worker),
        median=tally.useful.quantile(0.5),
        p95=tally.useful.quantile(0.95),
        error=worker.error,
    )


def _head(kinds: Sequence[str], rest: Sequence[str]) -> list[str]:
    names = ["ok" if kind == Outcome.SUCCEEDED.value else kind.replace("_", " ") for kind in kinds]
    return ["worker", "calls", *names, *(["other"] if rest else []), "median", "p95", "busy", "resting"]


def _row(worker: WorkerReport, kinds: Sequence[str], rest: Sequence[str]) -> list[str]:
    counts = [worker.calls, *(worker.outcomes.get(kind, 0) for kind in kinds)]
    if rest:
        counts.append(sum(worker.outcomes.get(kind, 0) for kind in rest))
    usual = [worker.median, worker.p95] if worker.succeeded else [0.0, 0.0]
    lengths = [*usual, worker.busy, worker.resting]
    return [
        first_line(worker.name, 24),
        *(str(count or "-") for count in counts),
        *(duration(length) if length else "-" for length in lengths),
    ]


def _lined_up(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table with a rule below its head; the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *others = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return [head, "  ".join("-" * width for width in widths), *others]


def _bullet(text: str) -> list[str]:
    # A number is not parted from its unit.
    bound = re.sub(r"(\d) (ms|s|min|h|days|×|%)(?!\w)", "\\1\u00a0\\2", text)
    lines = textwrap.wrap(bound, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]
