"""A listener gets every event, in the order in which things happen."""

from typing import Any

import pytest

from retrypool import RetryPolicy, TaskState
from retrypool.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    PoolClosing,
    TaskCancelled,
    TaskDead,
    TaskDispatched,
    TaskEvent,
    TaskRetrying,
    TaskSucceeded,
    WorkerAdded,
    WorkerEvent,
    WorkerFailed,
    WorkerPaused,
    WorkerRemoved,
    WorkerResumed,
)
from retrypool.task import Outcome


class Recorder:
    """A listener that is an object."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, task: object) -> list[Any]:
        return [event for event in self.events if isinstance(event, TaskEvent) and event.task is task]

    def of_workers(self) -> list[Any]:
        return [event for event in self.events if isinstance(event, WorkerEvent)]


def kinds(events: list[Any]) -> list[type]:
    return [type(event) for event in events]


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


def fails_once() -> Any:
    errors = [OSError("once")]

    def run(data: object) -> object:
        if errors:
            raise errors.pop()
        return data

    return run


@pytest.mark.parametrize("delay", [0, 0.001])
def test_events_of_a_task_that_succeeds_at_the_second_attempt(
    stage: Any, heard: Recorder, delay: float
) -> None:
    pool = stage.pool([fails_once()], retry=RetryPolicy(delay=delay), listeners=[heard])
    task = pool.dispatch("x")
    pool.close(timeout=stage.within)
    events = heard.of(task)
    assert kinds(events) == [
        TaskDispatched,
        AttemptStarted,
        AttemptEnded,
        TaskRetrying,
        AttemptStarted,
        AttemptEnded,
        TaskSucceeded,
    ]
    assert [event.number for event in events if isinstance(event, AttemptStarted)] == [1, 2]
    ended = [event.attempt for event in events if isinstance(event, AttemptEnded)]
    assert ended == task.history
    assert [attempt.outcome for attempt in ended] == [Outcome.FAILED, Outcome.SUCCEEDED]
    assert (events[3].error, events[3].delay) == (task.errors[0], delay)
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_events_of_a_task_that_dies(stage: Any, heard: Recorder) -> None:
    pool = stage.pool([int], retry=RetryPolicy(attempts=1), listeners=[heard])
    task = pool.dispatch("x")
    pool.close(timeout=stage.within)
    assert kinds(heard.of(task)) == [TaskDispatched, AttemptStarted, AttemptEnded, TaskDead]
    assert [heard.of(task)[-1].dead] == pool.dead_tasks()


def test_events_of_a_task_that_is_cancelled(stage: Any, heard: Recorder) -> None:
    pool = stage.pool([int], listeners=[heard])
    pool.pause()
    task = pool.dispatch("x")
    task.cancel()
    pool.close(timeout=stage.within)
    assert kinds(heard.of(task)) == [TaskDispatched, TaskCancelled]


def test_events_of_a_task_that_is_requeued_begin_with_its_dispatch(stage: Any, heard: Recorder) -> None:
    pool = stage.pool([fails_once()], retry=RetryPolicy(attempts=1), listeners=[heard])
    dead = pool.dispatch("x")
    assert pool.wait(stage.within)
    task = pool.requeue_dead_task(dead.id)
    pool.close(timeout=stage.within)
    assert kinds(heard.of(task)) == [TaskDispatched, AttemptStarted, AttemptEnded, TaskSucceeded]


def test_events_of_workers(stage: Any, heard: Recorder) -> None:
    class Broken:
        def on_start(self) -> None:
            raise OSError("no such device")

        def run(self, ctx: Any, data: object) -> None: ...

    pool = stage.pool([int], listeners=[heard])
    pool.pause_worker(0)
    pool.resume_worker(0)
    broken = pool.add_worker(Broken(), name="broken")
    stage.until(lambda: WorkerFailed in kinds(heard.events))
    pool.remove_worker(0)
    pool.close(timeout=stage.within)
    of_first = [event for event in heard.of_workers() if event.worker_id == 0]
    assert kinds(of_first) == [WorkerAdded, WorkerPaused, WorkerResumed, WorkerRemoved]
    of_broken = [event for event in heard.of_workers() if event.worker_id == broken]
    assert kinds(of_broken) == [WorkerAdded, WorkerFailed]
    assert {(event.name, event.group) for event in of_broken} == {("broken", "broken")}
    assert str(of_broken[-1].error) == "no such device"


def test_closing_is_told_once(stage: Any, heard: Recorder) -> None:
    pool = stage.pool([int], listeners=[heard])
    pool.close(timeout=stage.within)
    pool.close(timeout=stage.within)
    pool.force_close()
    assert kinds(heard.events).count(PoolClosing) == 1


def test_listener_may_be_a_function_and_there_may_be_several(stage: Any, heard: Recorder) -> None:
    other: list[Event] = []
    pool = stage.pool([int], listeners=[heard, other.append])
    pool.dispatch("1")
    pool.close(timeout=stage.within)
    assert other == heard.events != []


def test_listener_may_dispatch(stage: Any) -> None:
    more: list[Any] = []

    def listen(event: Event) -> None:
        if isinstance(event, TaskSucceeded) and event.task.data == "1":
            more.append(pool.dispatch("2"))

    pool = stage.pool([int], listeners=[listen])
    pool.dispatch("1")
    assert pool.wait(stage.within)
    assert [task.result() for task in more] == [2]
    pool.close(timeout=stage.within)


def test_task_has_ended_when_that_is_told(stage: Any) -> None:
    states: list[TaskState] = []

    def listen(event: Event) -> None:
        if isinstance(event, TaskSucceeded | TaskDead | TaskCancelled):
            states.append(event.task.state)

    pool = stage.pool([int], retry=RetryPolicy(attempts=1), listeners=[listen])
    pool.dispatch("1")
    pool.dispatch("x")
    assert pool.wait(stage.within)
    pool.pause()
    pool.dispatch("2").cancel()
    pool.close(timeout=stage.within)
    assert states == [TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED]
