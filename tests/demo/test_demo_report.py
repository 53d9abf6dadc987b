"""The closing report, from runs of a real pool whose workers follow a script."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from retrypool import Context, Pool, Recorder, RetryPolicy, Unrecoverable, WorkerSpec
from retrypool.demo.client import Run, ServerError
from retrypool.demo.report import describe, find_unaccounted


class Scripted:
    """Raises what the script says for an item, once for each time it is listed, then serves it."""

    def __init__(self, script: Mapping[str, list[Exception]]) -> None:
        self._script = script

    def run(self, ctx: Context, path: str) -> str:
        errors = self._script.get(path)
        if errors:
            raise errors.pop(0)
        return path


def finished_run(
    paths: Sequence[str],
    script: Mapping[str, list[Exception]] | None = None,
    *,
    workers: int = 1,
    attempts: int = 3,
) -> Run:
    specs = [WorkerSpec(Scripted(script or {}), name=f"token-{n}") for n in range(workers)]
    with Pool(specs, retry=RetryPolicy(attempts=attempts, delay=0)) as pool, Recorder(pool) as recorder:
        tasks = [pool.dispatch(path) for path in paths]
        pool.wait()
        return Run(tasks, pool.dead_tasks(), pool.stats(), pool.workers(), recorder)


@pytest.fixture(scope="module")
def run() -> Run:
    """One item is served at once, one at the second try, one is missing, one fails to the end."""
    return finished_run(
        ["/items/1", "/items/2", "/items/3", "/items/4"],
        {
            "/items/2": [PermissionError("401 token refused")],
            "/items/3": [Unrecoverable("404 no such page: /items/3")],
            "/items/4": [ServerError(500), ServerError(500), ConnectionResetError("line\nmore")],
        },
    )


def test_report_of_the_recorder_comes_first(run: Run) -> None:
    text = "\n".join(describe(run))
    assert text.startswith("tasks     4 dispatched = 2 succeeded + 2 dead + 0 cancelled\n")
    assert str(run.recorder.report()) in text
    assert "calls     7, 5 (71%) of them in vain; 3 retries, of which 0 changed worker" in text


def test_dead_tasks_are_listed_with_reason_and_history(run: Run) -> None:
    third, fourth = (run.tasks[2].id, run.tasks[3].id)
    lines = describe(run)
    lines = lines[lines.index("dead tasks: 2") :]
    assert [" ".join(without_duration(line).split()) for line in lines] == [
        "dead tasks: 2",
        f"task {third} /items/3 unrecoverable",
        "1 token-0 Unrecoverable: 404 no such page: /items/3",
        f"task {fourth} /items/4 attempts",
        "1 token-0 ServerError: 500 Internal Server Error",
        "2 token-0 ServerError: 500 Internal Server Error",
        "3 token-0 ConnectionResetError: line",
    ]


def without_duration(line: str) -> str:
    before, separator, after = line.partition(" ms  ")
    return f"{before.rpartition('  ')[0]}  {after}" if separator else line


def test_run_without_failures_has_no_dead_tasks() -> None:
    assert describe(finished_run(["/items/1"]))[-1] == "dead tasks: none"


def test_no_line_is_wider_than_a_hundred_columns() -> None:
    run = finished_run(["/items/1"], {"/items/1": [Unrecoverable("x" * 200)]})
    lines = describe(run)
    assert max(map(len, lines)) == 100
    assert lines[-1].endswith("x...")


def test_finished_run_is_accounted_for(run: Run) -> None:
    assert find_unaccounted(run) == []


TAMPERED: dict[str, tuple[Callable[[Run], Run], str]] = {
    "lost": (
        lambda run: replace(run, tasks=run.tasks[1:]),
        "3 tasks were dispatched, and the pool counted 4",
    ),
    "doubled": (
        lambda run: replace(run, tasks=[run.tasks[0], *run.tasks[0:1], *run.tasks[2:]]),
        "2 tasks have the id ",
    ),
    "miscounted": (
        lambda run: replace(run, stats=replace(run.stats, succeeded=1)),
        "2 tasks were succeeded, and the pool counted 1",
    ),
    "death not listed": (
        lambda run: replace(run, dead=run.dead[1:]),
        "ended dead and the pool's list of dead tasks lacks it",
    ),
    "death listed for another": (
        lambda run: replace(run, dead=[*run.dead, replace(run.dead[0], id=999)]),
        "task 999 is in the pool's list of dead tasks and did not end dead",
    ),
}


@pytest.mark.parametrize(("tamper", "complaint"), TAMPERED.values(), ids=TAMPERED)
def test_what_does_not_add_up_is_named(run: Run, tamper: Callable[[Run], Run], complaint: str) -> None:
    assert complaint in "\n".join(find_unaccounted(tamper(run)))


def test_task_that_has_not_ended_is_unaccounted_for(run: Run) -> None:
    pool = Pool([Scripted({})])
    pool.pause()
    waiting = pool.dispatch("/items/9")
    try:
        problems = find_unaccounted(replace(run, tasks=[*run.tasks, waiting]))
    finally:
        pool.force_close()
    assert f"task {waiting.id} (/items/9) has not ended: it is queued" in problems


def test_page_of_another_task_is_unaccounted_for() -> None:
    class Confused:
        def run(self, ctx: Context, path: str) -> str:
            return "/items/2"

    with Pool([Confused()]) as pool, Recorder(pool) as recorder:
        task = pool.dispatch("/items/1")
        pool.wait()
        run = Run([task], pool.dead_tasks(), pool.stats(), pool.workers(), recorder)
    assert find_unaccounted(run) == [f"task {task.id} (/items/1) got another task's page: /items/2"]
