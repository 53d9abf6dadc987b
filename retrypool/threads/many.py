"""Tasks by the thousand: stored in batches as they are dispatched, and found again as a pool is reopened."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from retrypool.errors import RetryPoolError
from retrypool.events import TaskDispatched
from retrypool.model.preparing import new_task, prepare
from retrypool.model.task import Task
from retrypool.threads.interrupt import shielded
from retrypool.threads.works import Works

if TYPE_CHECKING:
    from retrypool.model.settings import TaskSettings
    from retrypool.threads.journal import Journal

__all__ = ["dispatch_batches", "restore_all"]

log = logging.getLogger("retrypool")

AT_ONCE = 2000
"""How many tasks go into the storage in one commit; the workers begin with them then."""


def dispatch_batches(
    works: Works, journal: Journal, items: Iterable[Any], settings: TaskSettings
) -> list[Task[Any, Any]]:
    """Accept many tasks, so many at a time: each batch is stored whole, and then the workers have it."""
    tasks: list[Task[Any, Any]] = []
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, AT_ONCE)):
        tasks += _dispatch_batch(works, journal, batch, settings)
    return tasks


@shielded
def _dispatch_batch(
    works: Works, journal: Journal, batch: list[Any], settings: TaskSettings
) -> list[Task[Any, Any]]:
    if refusal := works.refusal(settings):
        raise refusal
    scheduler, kept = works.scheduler, works.kept
    now, wall = works.clock.monotonic(), works.clock.time()
    next_id = scheduler.backlog.next_seq
    tasks: list[Task[Any, Any]] = [new_task(next_id(), data, settings, works, now) for data in batch]
    for task in tasks:
        prepare(task, True)
        if kept is not None:
            task._completion = kept.reporter(None)
    journal.accept_all(tasks, settings)
    told = works.observers.wants_dispatched
    for task in tasks if told else ():
        works.observers.dispatched(TaskDispatched(now, task))
    with works.step:
        refusal = works.refusal(settings)
        for task in tasks:
            if refusal is None:
                if kept is not None:
                    scheduler.dropped.append(kept.add(task))
                scheduler.submit(task, now, wall)
            elif told and not task.done():
                scheduler.cancel(task, str(refusal), now)  # so that what was told of has an end
    if refusal is not None:
        journal.take_back(tasks)
        raise refusal
    return tasks


@shielded
def restore_all(works: Works, journal: Journal, requeue: Callable[[int], object]) -> None:
    """Go on with what the storage holds; `requeue` what somebody who inspects it wants to be tried again."""
    from retrypool.threads.restoring import restore

    def grant(task_id: int) -> None:
        try:
            requeue(task_id)
        except RetryPoolError as error:  # it was requeued or pulled by others, or the pool is closing
            log.warning("%s does not requeue task %s: %s", works.name, task_id, error)

    def keep(task: Task[Any, Any]) -> None:
        task._completion = works.kept.reporter(None)
        works.scheduler.dropped.append(works.kept.add(task))

    journal.storage.on_wish = grant
    with works.step:
        number = restore(journal, works.scheduler, works, None if works.kept is None else keep)
    if number:
        log.info("%s goes on with %s tasks of %s", works.name, number, journal.storage.where)
