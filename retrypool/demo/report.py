"""What a finished run comes to: who was called how often, what failed, and whether all adds up."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter

from retrypool import Attempt, DeadTask, Outcome, TaskState
from retrypool.demo.client import Run, failure_kind

__all__ = ["describe", "find_unaccounted"]

WIDTH = 100
_ATTEMPT_INDENT = " " * 6


def describe(run: Run) -> list[str]:
    """The closing report, line by line: at most 100 columns, ASCII."""
    return [
        *_worker_table(run),
        "",
        *_totals(run),
        "",
        f"dead tasks: {len(run.dead) or 'none'}",
        *(line for dead in sorted(run.dead, key=attrgetter("id")) for line in _dead_lines(run, dead)),
    ]


def find_unaccounted(run: Run) -> list[str]:
    """What contradicts that each task ended once, with its own page. Nothing: all add up."""
    problems = []
    for task in run.tasks:
        who = f"task {task.id} ({task.data})"
        won = sum(attempt.outcome is Outcome.SUCCEEDED for attempt in task.history)
        if not task.state.ended:
            problems.append(f"{who} has not ended: it is {task.state.value}")
        elif task.state is TaskState.SUCCEEDED and task.result() != task.data:
            problems.append(f"{who} got another task's page: {task.result()}")
        elif won != (task.state is TaskState.SUCCEEDED):
            problems.append(f"{who} is {task.state.value} and was fetched {won} times")

    ids = Counter(task.id for task in run.tasks)
    problems += [f"{n} tasks have the id {id}" for id, n in ids.items() if n > 1]
    states = Counter(task.state for task in run.tasks)
    stats = run.stats
    for what, counted, said in [
        ("dispatched", len(run.tasks), stats.dispatched),
        ("succeeded", states[TaskState.SUCCEEDED], stats.succeeded),
        ("dead", states[TaskState.DEAD], stats.died),
        ("cancelled", states[TaskState.CANCELLED], stats.cancelled),
    ]:
        if counted != said:
            problems.append(f"{counted} tasks were {what}, and the pool counted {said}")

    ended_dead = Counter(task.id for task in run.tasks if task.state is TaskState.DEAD)
    listed_dead = Counter(dead.id for dead in run.dead)
    for text, ids_off in [
        ("ended dead and the pool's list of dead tasks lacks it", ended_dead - listed_dead),
        ("is in the pool's list of dead tasks and did not end dead", listed_dead - ended_dead),
    ]:
        problems += [f"task {id} {text}" for id in sorted(ids_off)]
    return problems


def _worker_table(run: Run) -> list[str]:
    names = _worker_names(run)
    succeeded: Counter[int] = Counter()
    failed: dict[int, Counter[str]] = {id: Counter() for id in names}
    for attempt in _attempts(run):
        if attempt.outcome is Outcome.SUCCEEDED:
            succeeded[attempt.worker_id] += 1
        else:
            kind = attempt.outcome.value if attempt.error is None else failure_kind(attempt.error)
            failed[attempt.worker_id][kind] += 1

    everything = sum(failed.values(), Counter[str]())
    kinds = sorted(everything)

    def row(name: str, good: int, bad: Counter[str]) -> list[str]:
        counts = [good + bad.total(), good, bad.total(), *(bad[kind] for kind in kinds)]
        return [name, *(str(count or "-") for count in counts)]

    return _table(
        ["worker", "calls", "succeeded", "failed", *kinds],
        [row(name, succeeded[id], failed[id]) for id, name in names.items()],
        row("all", succeeded.total(), everything),
    )


def _totals(run: Run) -> list[str]:
    pairs = [pair for task in run.tasks for pair in pairwise(task.history)]
    changed = sum(before.worker_id != after.worker_id for before, after in pairs)
    stats = run.stats
    ended = f"{stats.succeeded} succeeded + {stats.died} dead + {stats.cancelled} cancelled"
    return [
        f"tasks     {stats.dispatched} dispatched = {ended}",
        f"retries   {len(pairs)}, of which {changed} changed worker",
        f"makespan  {run.makespan:.2f} s",
    ]


def _dead_lines(run: Run, dead: DeadTask[str]) -> list[str]:
    names = _worker_names(run)
    width = max(map(len, names.values()), default=0)
    lines = [f"  task {dead.id}  {dead.data}  {dead.reason.value}"]
    for attempt in dead.history:
        name = names.get(attempt.worker_id, str(attempt.worker_id))
        line = (
            f"{_ATTEMPT_INDENT}{attempt.number}  {name:<{width}}  {attempt.duration * 1000:4.0f} ms"
            f"  {_error_text(attempt.error)}"
        )
        lines.append(line if len(line) <= WIDTH else line[: WIDTH - 3] + "...")
    return lines


def _worker_names(run: Run) -> dict[int, str]:
    """The workers' names by id, in the order in which they joined."""
    return {worker.id: worker.name for worker in run.workers}


def _attempts(run: Run) -> Iterable[Attempt]:
    return (attempt for task in run.tasks for attempt in task.history)


def _error_text(error: BaseException | None) -> str:
    if error is None:
        return "no error"
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str]) -> list[str]:
    """The first column to the left, all others to the right, rules around the rows."""
    widths = [max(map(len, column)) for column in zip(head, *rows, total, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)])

    rule = "  ".join("-" * width for width in widths)
    return [line(head), rule, *map(line, rows), rule, line(total)]
