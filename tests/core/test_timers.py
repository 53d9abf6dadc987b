"""Appointments are kept in order, once, and those of tasks that have ended do not pile up."""

import gc
from typing import Any
from weakref import ref

import pytest

from retrypool.core.scheduler import Scheduler
from retrypool.core.timers import Timers
from retrypool.model.task import Task
from retrypool.states import TaskState

from .parts import make_task


def task_in(state: TaskState) -> Task[Any, Any]:
    task = make_task(Scheduler())
    task._phase = state
    return task


def test_appointments_are_kept_by_moment_then_by_entry() -> None:
    timers, kept = Timers(), []
    for when, name in [(2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "d")]:
        timers.add(when, lambda subject, now: kept.append((subject, now)), name)
    assert timers.earliest() == 1.0
    timers.keep(2.0)
    assert kept == [("a", 2.0), ("b", 2.0), ("c", 2.0)]
    assert (timers.earliest(), len(timers)) == (3.0, 1)


def test_empty_timers_has_no_earliest() -> None:
    timers = Timers()
    timers.keep(1e9)
    assert timers.earliest() is None


def test_action_may_make_an_appointment_that_is_due_at_once() -> None:
    timers, kept = Timers(), []

    def again(subject: int, now: float) -> None:
        kept.append(subject)
        if subject < 3:
            timers.add(now, again, subject + 1)

    timers.add(1.0, again, 1)
    timers.keep(1.0)
    assert kept == [1, 2, 3]


def test_sweep_while_appointments_are_kept_keeps_none_twice() -> None:
    timers, kept = Timers(), []

    def busy(subject: int, now: float) -> None:
        kept.append(subject)
        for _ in range(2):
            timers.add(now + 1.0, lambda subject, now: None, None)

    for number in range(1024):
        timers.add(0.0, busy, number)
    timers.keep(0.0)
    timers.keep(0.0)
    assert kept == list(range(1024))


@pytest.mark.parametrize("weak", [True, False])
@pytest.mark.parametrize("ended", [TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED])
def test_appointments_of_ended_tasks_are_swept_out(weak: bool, ended: TaskState) -> None:
    timers = Timers()
    tasks = [task_in(ended) for _ in range(20)]
    for number in range(100_000):
        task = tasks[number % 20]
        timers.add(1.0, lambda subject, now: None, ref(task) if weak else task)
    assert len(timers) <= 1024


def test_appointments_of_living_tasks_survive_the_sweep() -> None:
    timers = Timers()
    alive, ended = task_in(TaskState.RETRYING), task_in(TaskState.DEAD)
    timers.add(5.0, lambda subject, now: None, alive)
    for _ in range(5_000):
        timers.add(1.0, print, ended)
    assert [entry[3] for entry in timers._heap.entries].count(alive) == 1


def test_weak_appointment_does_not_keep_a_task_alive() -> None:
    timers = Timers()
    task = task_in(TaskState.QUEUED)
    watcher = ref(task)
    timers.add(1.0, print, ref(task))
    del task
    gc.collect()
    assert watcher() is None
    for _ in range(2_000):
        timers.add(2.0, print, watcher)
    assert len(timers) <= 1024


def test_what_was_dropped_is_not_kept() -> None:
    timers, kept = Timers(), []

    def note(subject: int, now: float) -> None:
        kept.append((subject, now))

    entries = [timers.add(float(number), note, number) for number in range(6)]
    for number in (0, 3, 5):
        timers.drop(entries[number])
    assert timers.subjects(note) == [1, 2, 4]
    timers.keep(2.0)
    assert kept == [(1, 2.0), (2, 2.0)]
    timers.keep(9.0)
    assert kept[2:] == [(4, 9.0)]
    assert timers.earliest() is None


def test_what_was_dropped_is_swept_out() -> None:
    timers = Timers()
    for number in range(2_000):
        timers.drop(timers.add(9.0, lambda _, __: None, number))
    assert len(timers) < 1_100


def test_subjects_are_those_of_one_action_in_order() -> None:
    timers = Timers()

    def other(subject: object, now: float) -> None: ...

    timers.add(2.0, print, "b")
    timers.add(1.0, other, "x")
    timers.add(1.0, print, "a")
    assert timers.subjects(print) == ["a", "b"]
