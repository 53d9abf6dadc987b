"""Who waits for a task meets who ends it, each race forced."""

import threading
from concurrent.futures import ALL_COMPLETED, CancelledError, Future, as_completed, wait
from typing import Any

import pytest

from retrypool import RetryPolicy, Task
from retrypool.collect import map as map_module
from retrypool.model import task as task_module
from retrypool.model.completion import Completion, Reporter


def hold_after_the_end(monkeypatch: pytest.MonkeyPatch, ended: Any) -> None:
    """Hold whoever ends a task between the moment when it has ended and the telling of that."""
    announce = Completion.announce

    def announce_late(self: Completion, task: "Task[Any, Any]") -> None:
        ended.hold()
        announce(self, task)

    monkeypatch.setattr(Completion, "announce", announce_late)


def tasks_just_ended(stage: Any, monkeypatch: pytest.MonkeyPatch, how: str, count: int) -> "tuple[Any, Any]":
    """Return tasks that have ended in the way of `how`, and the gate behind which that is told."""
    running, ended = stage.gate(), stage.gate()

    def run(data: int) -> int:
        running.hold()
        if how == "dead":
            raise OSError(data)
        return data

    pool = stage.pool([run] * count, retry=RetryPolicy(attempts=1))
    tasks = pool.dispatch_many(range(count))
    stage.until(lambda: all(task.running() for task in tasks))
    if how == "cancelled":
        tasks = pool.dispatch_many(range(count))
    for task in tasks:
        task.add_done_callback(lambda _: None)  # so that there is somebody to tell
    hold_after_the_end(monkeypatch, ended)
    if how == "cancelled":
        for task in tasks:
            stage.start(task.cancel)
    else:
        running.open()
    stage.until(lambda: all(task.done() for task in tasks))
    ended.wait_until_reached()
    return tasks, ended


def told(task: "Task[Any, Any]") -> bool:
    """Return whether those who wait have been told, which happens under the task's condition."""
    with task._condition:
        return not task._completion.callbacks  # type: ignore[union-attr]


HOW = pytest.mark.parametrize("how", ["succeeded", "dead", "cancelled"])


@HOW
def test_result_is_there_as_soon_as_the_task_is_done(
    stage: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whoever comes between the end and the telling of it does not wait for that."""
    (task,), _ = tasks_just_ended(stage, monkeypatch, how, 1)
    assert task.state.value == how
    if how == "cancelled":
        with pytest.raises(CancelledError):
            task.result(timeout=0)
    else:
        assert isinstance(task.exception(timeout=0), OSError if how == "dead" else type(None))
    called: list[object] = []
    task.add_done_callback(called.append)
    assert called == [task]


@HOW
def test_wait_is_not_told_twice_of_a_task_that_has_just_ended(
    stage: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It has counted the task as done; being told of it once more must not count for another future."""
    (task,), telling = tasks_just_ended(stage, monkeypatch, how, 1)
    other: Future[Any] = Future()
    waiting = stage.start(lambda: wait([task, other], stage.within, ALL_COMPLETED))
    stage.until(lambda: other._waiters)  # type: ignore[attr-defined]
    telling.open()
    stage.until(lambda: told(task))
    other.set_result("y")
    assert waiting.result(stage.within) == ({task, other}, set())


@HOW
def test_as_completed_yields_a_task_that_has_just_ended_once(
    stage: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    tasks, telling = tasks_just_ended(stage, monkeypatch, how, 2)
    other: Future[Any] = Future()
    completed = as_completed([*tasks, other], stage.within)
    first = stage.start(next, completed)
    stage.until(lambda: other._waiters)  # type: ignore[attr-defined]
    telling.open()
    stage.until(lambda: all(told(task) for task in tasks))
    assert {first.result(stage.within), next(completed)} == set(tasks)
    other.set_result("y")
    assert list(completed) == [other]


def test_who_meets_a_task_just_before_it_ends_is_told(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has seen that the task has not ended, and says that it waits when that has been told."""
    meeting, running = stage.gate(), stage.gate()

    class SlowRendezvous(task_module._Completion):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__()
            meeting.hold()

    monkeypatch.setattr(task_module, "_Completion", SlowRendezvous)
    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    task = pool.dispatch("x")
    running.wait_until_reached()
    called: list[object] = []
    adding = stage.start(task.add_done_callback, called.append)
    meeting.wait_until_reached()
    running.open()
    stage.until(lambda: pool.stats().succeeded)
    stage.until(lambda: pool._engine.scheduler.fleet.parked)
    meeting.open()
    adding.result(stage.within)
    assert called == [task]
    pool.close(timeout=stage.within)


def test_callback_that_is_added_just_before_the_end_is_called_once(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task ends while the callback is entered; either the one who ends it calls it, or the other."""
    ended, running = stage.gate(), stage.gate()
    hold_after_the_end(monkeypatch, ended)
    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    task = pool.dispatch("x")
    running.wait_until_reached()
    called: list[object] = []
    task.add_done_callback(called.append)
    running.open()
    ended.wait_until_reached()
    task.add_done_callback(called.append)
    assert len(called) == 1
    ended.open()
    pool.close(timeout=stage.within)
    assert called == [task, task]


def test_task_that_ends_while_as_completed_registers_is_yielded(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker looked for somebody to tell before there was anybody."""
    running, registering = stage.gate(), stage.gate()

    class Install:
        def __enter__(self) -> None:
            registering.hold()

        def __exit__(self, *_: object) -> None: ...

    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    task = pool.dispatch("x")
    running.wait_until_reached()
    monkeypatch.setattr(task_module, "_install", Install())
    yielded = stage.start(list, pool.as_completed([task]))
    registering.wait_until_reached()
    running.open()
    stage.until(lambda: pool._engine.scheduler.fleet.parked)
    registering.open()
    assert yielded.result(stage.within) == [task]


def test_condition_of_a_task_that_has_ended_is_that_of_all_who_ask(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes it releases the same one, also if another has said in the meantime that it waits."""
    told: list[object] = []
    real = task_module._install

    class InstallSecond:
        def __enter__(self) -> None:
            monkeypatch.setattr(task_module, "_install", real)
            task._report_to(Reporter(told.append))
            real.acquire()

        def __exit__(self, *_: object) -> None:
            real.release()

    pool = stage.pool([lambda data: data])
    task = pool.dispatch("x")
    pool.wait(stage.within)
    monkeypatch.setattr(task_module, "_install", InstallSecond())
    with task._condition as taken:
        assert taken
        assert task._state == "FINISHED"
        assert task in told
        assert task._condition is task._condition
    assert wait([task], stage.within) == ({task}, set())


def test_task_that_is_told_of_twice_is_yielded_once(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody adds a callback while the end is being told: both tell of it."""
    ended, running = stage.gate(), stage.gate()
    announce = map_module._Inbox.announce

    def announce_late(self: Any, task: "Task[Any, Any]") -> None:
        if threading.current_thread() is not threading.main_thread():
            ended.hold()
        announce(self, task)

    monkeypatch.setattr(map_module._Inbox, "announce", announce_late)
    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    task, other = pool.dispatch("x"), pool.dispatch("y")
    running.wait_until_reached()
    yielded = stage.start(list, pool.as_completed([task, other]))
    stage.until(lambda: other._completion is not None and task._completion is not None)
    running.open()
    ended.wait_until_reached()
    called: list[object] = []
    task.add_done_callback(called.append)
    assert called == [task]
    ended.open()
    assert sorted(task.id for task in yielded.result(stage.within)) == [task.id, other.id]


def test_wait_for_what_had_ended_before_makes_nothing_for_each(stage: Any) -> None:
    """One completion serves all of them, also for those who take several of their conditions at once."""
    pool = stage.pool([str])
    tasks = pool.dispatch_many(range(100))
    pool.close(timeout=stage.within)
    assert wait(tasks, stage.within).done == set(tasks)
    assert len({id(task._completion) for task in tasks}) == 1
    assert set(as_completed(tasks, stage.within)) == set(tasks)


def test_second_who_waits_does_not_take_the_bell_of_the_first(stage: Any) -> None:
    """The first waits for a lock alone; with the second there is a completion, and the end tells both."""
    gate = stage.gate()
    pool = stage.pool([lambda data: (gate.hold(), data)[1]])
    task = pool.dispatch("x")
    first = stage.start(task.result, stage.within)
    stage.until(lambda: isinstance(task._completion, task_module.Bell))
    second = stage.start(task.result, stage.within)
    stage.until(lambda: isinstance(task._completion, task_module._Completion))
    called: list[object] = []
    task.add_done_callback(called.append)
    gate.open()
    assert (first.result(stage.within), second.result(stage.within)) == ("x", "x")
    stage.until(lambda: called == [task])


def test_task_that_ends_before_its_bell_is_hung_is_not_waited_for(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ended it looked for somebody to tell before the bell was there."""
    hanging, running = stage.gate(), stage.gate()

    class SlowBell(task_module.Bell):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__()
            hanging.hold()

    monkeypatch.setattr(task_module, "Bell", SlowBell)
    pool = stage.pool([lambda data: (running.hold(), data)[1]])
    task = pool.dispatch("x")
    running.wait_until_reached()
    waiting = stage.start(task.result, stage.within)
    hanging.wait_until_reached()
    running.open()
    stage.until(lambda: pool._engine.scheduler.fleet.parked)
    hanging.open()
    assert waiting.result(stage.within) == "x"


def test_wait_that_is_given_up_leaves_the_task_to_others(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([lambda data: (gate.hold(), data)[1]])
    task = pool.dispatch("x")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            task.result(timeout=0)
    gate.open()
    assert task.result(stage.within) == "x"
    assert set(as_completed([task], stage.within)) == {task}
