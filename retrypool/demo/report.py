"""What a finished run comes to: the report of its recorder, the dead tasks, and whether all adds up."""

from collections import Counter
from operator import attrgetter

from retrypool import DeadTask, Outcome, TaskState
from retrypool.demo.client import Run

__all__ = ["describe", "find_unaccounted"]

WIDTH = 100
_ATTEMPT_INDENT = " " * 6


def describe(run: Run) -> list[str]:
    """The closing report, line by line: at most 100 columns."""
    return [
        *str(run.recorder.report()).splitlines(),
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


def _error_text(error: BaseException | None) -> str:
    if error is None:
        return "no error"
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
