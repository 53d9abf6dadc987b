"""Appointments are kept in order, once, and those of tasks that have ended do not pile up."""

import gc
from typing import Any
from weakref import ref

import pytest

from retrypool.core.agenda import Agenda
from retrypool.core.scheduler import Scheduler
from retrypool.task import Task, TaskState

from .parts import make_task


def task_in(state: TaskState) -> Task[Any, Any]:
    task = make_task(Scheduler())
    task._phase = state
    return task


def test_appointments_are_kept_by_moment_then_by_entry() -> None:
    agenda, kept = Agenda(), []
    for when, name in [(2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "d")]:
        agenda.add(when, lambda subject, now: kept.append((subject, now)), name)
    assert agenda.earliest() == 1.0
    agenda.keep(2.0)
    assert kept == [("a", 2.0), ("b", 2.0), ("c", 2.0)]
    assert (agenda.earliest(), len(agenda)) == (3.0, 1)


def test_empty_agenda_has_no_earliest() -> None:
    agenda = Agenda()
    agenda.keep(1e9)
    assert agenda.earliest() is None


def test_action_may_make_an_appointment_that_is_due_at_once() -> None:
    agenda, kept = Agenda(), []

    def again(subject: int, now: float) -> None:
        kept.append(subject)
        if subject < 3:
            agenda.add(now, again, subject + 1)

    agenda.add(1.0, again, 1)
    agenda.keep(1.0)
    assert kept == [1, 2, 3]


def test_sweep_while_appointments_are_kept_keeps_none_twice() -> None:
    agenda, kept = Agenda(), []

    def busy(subject: int, now: float) -> None:
        kept.append(subject)
        for _ in range(2):
            agenda.add(now + 1.0, lambda subject, now: None, None)

    for number in range(1024):
        agenda.add(0.0, busy, number)
    agenda.keep(0.0)
    agenda.keep(0.0)
    assert kept == list(range(1024))


@pytest.mark.parametrize("weak", [True, False])
@pytest.mark.parametrize("ended", [TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED])
def test_appointments_of_ended_tasks_are_swept_out(weak: bool, ended: TaskState) -> None:
    agenda = Agenda()
    tasks = [task_in(ended) for _ in range(20)]
    for number in range(100_000):
        task = tasks[number % 20]
        agenda.add(1.0, lambda subject, now: None, ref(task) if weak else task)
    assert len(agenda) <= 1024


def test_appointments_of_living_tasks_survive_the_sweep() -> None:
    agenda = Agenda()
    alive, ended = task_in(TaskState.RETRYING), task_in(TaskState.DEAD)
    agenda.add(5.0, lambda subject, now: None, alive)
    for _ in range(5_000):
        agenda.add(1.0, print, ended)
    assert [entry[3] for entry in agenda._timed.entries].count(alive) == 1


def test_weak_appointment_does_not_keep_a_task_alive() -> None:
    agenda = Agenda()
    task = task_in(TaskState.QUEUED)
    watcher = ref(task)
    agenda.add(1.0, print, ref(task))
    del task
    gc.collect()
    assert watcher() is None
    for _ in range(2_000):
        agenda.add(2.0, print, watcher)
    assert len(agenda) <= 1024


def test_subjects_are_those_of_one_action_in_order() -> None:
    agenda = Agenda()

    def other(subject: object, now: float) -> None: ...

    agenda.add(2.0, print, "b")
    agenda.add(1.0, other, "x")
    agenda.add(1.0, print, "a")
    assert agenda.subjects(print) == ["a", "b"]
