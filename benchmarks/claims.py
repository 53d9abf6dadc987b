"""Does a claim cost more, the more tasks wait and the more groups have tried them?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from time import process_time
from typing import Any

from .harness import Contest, Row, scaled, within

BACKLOGS = (1_000, 100_000)
CLAIMS = 200
"""Claims at a time. Then as many tasks are put back, so that the backlog stays as long as it was."""
TIMES = 10
GROUPS = 200
TRIED_SETS = 1_000

Built = tuple[Any, list[Any]]


def scheduler_with(groups: int) -> Built:
    """A scheduler and one slot for each group, without threads."""
    from retrypool.core.scheduler import Scheduler
    from retrypool.model.slots import Slot

    scheduler = Scheduler(affinity_wait=1e9)
    slots = []
    for number in range(groups):
        slot = Slot(number, f"worker-{number}", scheduler.fleet.group(f"group-{number}", None))
        scheduler.add(slot)
        slot.idle = False
        slots.append(slot)
    return scheduler, slots


def fill(scheduler: Any, tried: list[frozenset[Any]], count: int) -> None:
    """Let so many tasks wait, which groups have tried by turns as `tried` says."""
    from retrypool.model.preparing import new_task
    from retrypool.model.settings import TaskSettings
    from retrypool.model.task import Record

    settings, owner = TaskSettings(), object()
    for number in range(count):
        task: Any = new_task(scheduler.backlog.next_seq(), None, settings, owner, 0.0)  # type: ignore[arg-type]
        task._record = record = Record(task.id)
        record.plain = False
        record.tried = tried[number % len(tried)]
        scheduler.assignment.enqueue(task, 0.0)


def all_tried(backlog: int) -> Built:
    """The one that claims has tried all of it, the other none."""
    scheduler, slots = scheduler_with(2)
    fill(scheduler, [slots[0].group.alone], backlog)
    return scheduler, slots[:1]


def many_sets(backlog: int) -> Built:
    """Many distinct sets of groups, none with the one that claims in it."""
    scheduler, slots = scheduler_with(64)
    fill(scheduler, sets_of([slot.group for slot in slots[1:]], TRIED_SETS), backlog)
    return scheduler, slots[:1]


def many_groups(backlog: int) -> Built:
    """Each task tried by one of many groups, which claim by turns."""
    scheduler, slots = scheduler_with(GROUPS)
    fill(scheduler, [slot.group.alone for slot in slots], backlog)
    return scheduler, slots


def many_of_both(backlog: int) -> Built:
    scheduler, slots = scheduler_with(GROUPS)
    fill(scheduler, sets_of([slot.group for slot in slots], TRIED_SETS), backlog)
    return scheduler, slots


def sets_of(groups: list[Any], count: int) -> list[frozenset[Any]]:
    pairs = itertools.combinations(groups, 2)
    return [frozenset(pair) for pair in itertools.islice(pairs, count)]


def claiming(build: Callable[[int], Built]) -> Callable[[int], float]:
    """CPU microseconds per claim; what is put back is put back outside the measurement."""

    def measure(backlog: int) -> float:
        scheduler, slots = build(backlog)
        claims = min(CLAIMS, max(1, backlog // 2))
        turns = list(itertools.islice(itertools.cycle(slots), claims))
        total = 0.0
        for _ in range(TIMES):
            taken = []
            start = process_time()
            for slot in turns:
                slot.idle = False
                taken.append(scheduler.claim(slot, 0.0))
            total += process_time() - start
            for task in taken:
                if task is not None:
                    task._slot = None
                    scheduler.assignment.enqueue(task, 0.0)
        return total / TIMES / claims * 1e6

    return measure


def contests(scale: float = 1) -> list[Contest]:
    short, long = (scaled(backlog, scale, least=10) for backlog in BACKLOGS)
    found = []
    for setting, build in (
        ("the group has tried all of it", all_tried),
        (f"{TRIED_SETS:,} distinct tried sets", many_sets),
        (f"{GROUPS} groups", many_groups),
        (f"{TRIED_SETS:,} distinct tried sets and {GROUPS} groups", many_of_both),
    ):
        labels = f"{short:,} waiting", f"{long:,} waiting"
        rows = [
            Row(label, claiming(build), backlog, "retrypool")
            for label, backlog in zip(labels, (short, long), strict=True)
        ]
        goals = (within(1.5, labels[0], row=labels[1]),)
        found.append(Contest(setting, "CPU µs/claim", rows, goals, labels[0], most_rounds=3))
    return found
