"""A listener gets every event, in the order in which things happen."""

import pickle
import signal
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from retrypool import InvalidType, Pool, RetryPolicy, TaskState, events
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
from retrypool.states import Outcome


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


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (events.task_dispatched, TaskDispatched),
        (events.attempt_started, AttemptStarted),
        (events.attempt_ended, AttemptEnded),
        (events.task_succeeded, TaskSucceeded),
    ],
)
def test_event_that_is_made_quickly_is_like_one_that_the_class_makes(make: Any, kind: Any) -> None:
    values = [f"value {number}" for number, _ in enumerate(fields(kind))]
    event = make(*values)
    assert type(event) is kind
    assert event == kind(*values)
    assert repr(event) == repr(kind(*values))
    assert hash(event) == hash(kind(*values))
    assert replace(event, at=2.0) == kind(2.0, *values[1:])
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(FrozenInstanceError):
        event.at = 1.0


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


class DeathsOnly:
    """A listener that wants to know of dead tasks only."""

    listens_to = (TaskDead,)

    def __init__(self) -> None:
        self.told: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.told.append(event)


def test_listener_gets_only_what_it_listens_to(stage: Any, heard: Recorder) -> None:
    deaths = DeathsOnly()
    pool = stage.pool([int], retry=RetryPolicy(attempts=1), listeners=[deaths, heard])
    pool.dispatch("1")
    pool.dispatch("x")
    pool.close(timeout=stage.within)
    assert kinds(deaths.told) == [TaskDead]
    assert {TaskDispatched, AttemptStarted, AttemptEnded, TaskSucceeded, TaskDead} < set(kinds(heard.events))


def test_base_of_events_stands_for_all_that_are_derived_from_it(stage: Any) -> None:
    told: list[Event] = []

    def listen(event: Event) -> None:
        told.append(event)

    listen.listens_to = WorkerEvent  # type: ignore[attr-defined]
    pool = stage.pool([int], listeners=[listen])
    pool.dispatch("1")
    pool.close(timeout=stage.within)
    assert kinds(told) == [WorkerAdded, WorkerRemoved]


def test_uninterested_listener_leaves_the_lock_free_way_open(stage: Any) -> None:
    """Nothing of a success is made for a listener that does not want it."""
    pool = stage.pool([int], listeners=[DeathsOnly()])
    observers = pool._engine.observers
    assert not pool._engine.guarded
    assert not observers.talkative
    assert not observers.wants_started
    pool.close(timeout=stage.within)


@pytest.mark.parametrize("kinds", [(TaskDead, int), int, "TaskDead", [TaskDead, "TaskDead"]])
def test_listens_to_must_name_events(kinds: Any) -> None:
    listener = DeathsOnly()
    listener.listens_to = kinds
    with pytest.raises(InvalidType, match="listens_to"):
        Pool([int], listeners=[listener])


def test_listener_comes_and_goes_while_the_pool_runs(stage: Any, heard: Recorder) -> None:
    pool = stage.pool([int])
    pool.dispatch("1").result(stage.within)
    pool.add_listener(heard)
    task = pool.dispatch("2")
    assert pool.wait(stage.within)
    pool.remove_listener(heard)
    pool.remove_listener(heard)
    assert not pool._engine.guarded
    pool.dispatch("3")
    pool.close(timeout=stage.within)
    assert kinds(heard.events) == [TaskDispatched, AttemptStarted, AttemptEnded, TaskSucceeded]
    assert heard.of(task) == heard.events


def test_method_of_a_listener_can_be_taken_out_again(stage: Any, heard: Recorder) -> None:
    """Each look at a method makes another object of it."""
    pool = stage.pool([int], listeners=[heard.on_event])
    told = len(heard.events)
    pool.remove_listener(heard.on_event)
    pool.close(timeout=stage.within)
    assert len(heard.events) == told


def test_what_is_no_listener_is_refused_while_the_pool_runs(stage: Any) -> None:
    pool = stage.pool([int])
    with pytest.raises(InvalidType, match="listener"):
        pool.add_listener(3)
    pool.close(timeout=stage.within)


def test_task_whose_listener_is_struck_by_a_ctrl_c_is_told_of_as_cancelled(heard: Recorder) -> None:
    """It was told of, so it has an end; and what is dispatched afterwards is run."""
    strikes = [True]

    def strike(event: Event) -> None:
        if isinstance(event, TaskDispatched) and strikes:
            strikes.pop()
            signal.raise_signal(signal.SIGINT)

    with Pool([str], listeners=[heard, strike]) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.dispatch(1)
        assert pool.dispatch(2).result(timeout=30) == "2"
        told = [event for event in heard.events if isinstance(event, TaskEvent) and event.task.data == 1]
        assert kinds(told) == [TaskDispatched, TaskCancelled]
        assert pool.queue_size == 0
