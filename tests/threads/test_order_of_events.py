"""What happens to one task is told in the order in which it happens."""

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retrypool import PoolClosed, RetryPolicy, SQLiteStorage, TaskState
from retrypool.events import (
    AttemptEnded,
    AttemptStarted,
    TaskCancelled,
    TaskDead,
    TaskDispatched,
    TaskEvent,
    TaskRetrying,
    TaskSucceeded,
)
from retrypool.threads.observers import Observers

ONCE = RetryPolicy(attempts=1)
START, END = (TaskDispatched,), (TaskSucceeded, TaskDead, TaskCancelled)


class Ledger:
    """A listener that writes down what is told of each task."""

    def __init__(self, then: Callable[[Any], object] = lambda event: None) -> None:
        self.told: dict[int, list[type]] = defaultdict(list)
        self._then = then

    def on_event(self, event: Any) -> None:
        if isinstance(event, TaskEvent):
            self.told[event.task.id].append(type(event))
        self._then(event)


def is_true(told: list[type]) -> bool:
    """Whether a task was dispatched, tried and ended in an order that can be."""
    alive, running = False, False
    for kind in told:
        if kind is TaskDispatched:
            if alive:
                return False
            alive = True
        elif not alive:
            return False
        elif kind is AttemptStarted:
            if running:
                return False
            running = True
        elif kind is AttemptEnded:
            if not running:
                return False
            running = False
        elif kind in END:
            alive = False
        else:
            assert kind is TaskRetrying
            if running:
                return False
    return not alive


@pytest.mark.parametrize("max_queue", [None, 10])
def test_task_that_a_listener_closes_the_pool_on_has_an_end(stage: Any, max_queue: int | None) -> None:
    def close(event: object) -> None:
        if isinstance(event, TaskDispatched):
            pool.close(timeout=stage.within)

    ledger = Ledger(close)
    pool = stage.pool([str], listeners=[ledger], max_queue=max_queue)
    with pytest.raises(PoolClosed):
        pool.dispatch("x")
    assert list(ledger.told.values()) == [[TaskDispatched, TaskCancelled]]


def test_tasks_of_a_batch_that_a_listener_closes_the_pool_on_have_an_end(stage: Any, tmp_path: Path) -> None:
    ledger = Ledger(lambda event: isinstance(event, TaskDispatched) and pool.close(timeout=stage.within))
    pool = stage.pool([str], listeners=[ledger], storage=SQLiteStorage(tmp_path / "run.db"))
    with pytest.raises(PoolClosed):
        pool.dispatch_many([1, 2])
    assert list(ledger.told.values()) == [[TaskDispatched, TaskCancelled]] * 2


def test_adopted_task_that_a_listener_closes_the_pool_on_has_an_end(stage: Any) -> None:
    other = stage.pool([int], retry=ONCE)
    other.dispatch("x").exception(stage.within)
    ledger = Ledger(lambda event: isinstance(event, TaskDispatched) and pool.close(timeout=stage.within))
    pool = stage.pool([str], listeners=[ledger])
    with pytest.raises(PoolClosed):
        pool.adopt_dead_task(other.dead_tasks()[0])
    assert list(ledger.told.values()) == [[TaskDispatched, TaskCancelled]]


@pytest.mark.parametrize("way", ["plain", "careful", "batch", "requeued", "adopted"])
def test_task_that_a_listener_cancels_was_dispatched_before_for_all_listeners(
    stage: Any, tmp_path: Path, way: str
) -> None:
    def cancel(event: Any) -> None:
        if isinstance(event, TaskDispatched):
            event.task.cancel()

    first, second = Ledger(cancel), Ledger()
    storage = SQLiteStorage(tmp_path / "run.db") if way == "batch" else None
    pool = stage.pool([int], retry=ONCE, listeners=[first, second], storage=storage)
    if way in ("requeued", "adopted"):
        other = stage.pool([int], retry=ONCE)
        dies = other.dispatch("x")
        dies.exception(stage.within)
        pool._engine.scheduler.endings.dead[dies.id] = other.dead_tasks()[0]
        if way == "adopted":
            pool.adopt_dead_task(other.dead_tasks()[0])
        else:
            pool.requeue_dead_task(dies.id)
    elif way == "batch":
        pool.dispatch_many([1, 2])
    else:
        pool.dispatch(1, **({"delay": 0.001} if way == "careful" else {}))
    pool.close(timeout=stage.within)
    for told in (first.told, second.told):
        assert {tuple(each) for each in told.values()} == {(TaskDispatched, TaskCancelled)}
    assert pool._engine.observers._held == {}


def test_listener_that_a_ctrl_c_strikes_holds_up_no_event(stage: Any) -> None:
    def strike(event: Any) -> None:
        if isinstance(event, TaskDispatched):
            raise KeyboardInterrupt

    ledger = Ledger()
    pool = stage.pool([int], listeners=[ledger, strike])
    with pytest.raises(KeyboardInterrupt):
        pool.dispatch(1)
    assert list(ledger.told.values()) == [[TaskDispatched, TaskCancelled]]
    assert pool._engine.observers._held == {}


def test_listener_that_a_ctrl_c_strikes_keeps_what_came_meanwhile_from_nobody(stage: Any) -> None:
    def strike(event: Any) -> None:
        if isinstance(event, TaskDispatched):
            event.task.cancel()
        if isinstance(event, TaskCancelled):
            raise KeyboardInterrupt

    ledger = Ledger()
    pool = stage.pool([int], listeners=[strike, ledger])
    with pytest.raises(KeyboardInterrupt):
        pool.dispatch(1)
    assert list(ledger.told.values()) == [[TaskDispatched, TaskCancelled]]
    assert pool._engine.observers._held == {}


@pytest.mark.parametrize("options", [{}, {"delay": 0.001}, {"priority": 1}])
@pytest.mark.parametrize("max_queue", [None, 10])
def test_task_that_a_listener_cancels_as_it_is_dispatched_is_not_run(
    stage: Any, options: dict[str, Any], max_queue: int | None
) -> None:
    ran: list[object] = []
    ledger = Ledger(lambda event: isinstance(event, TaskDispatched) and event.task.cancel())
    pool = stage.pool([ran.append], listeners=[ledger], max_queue=max_queue)
    task = pool.dispatch("x", **options)
    assert task.state is TaskState.CANCELLED
    pool.close(timeout=stage.within)
    assert ran == []
    assert pool.queue_size == 0
    assert ledger.told[task.id] == [TaskDispatched, TaskCancelled]


def test_requeued_task_is_dispatched_after_it_was_dead(stage: Any) -> None:
    """The thread that has let it die is slow to tell, and another requeues it meanwhile."""
    slow = stage.gate()

    def fail_once(data: list[int]) -> int:
        if data:
            return data.pop()
        data.append(1)
        raise OSError

    first = Ledger(lambda event: isinstance(event, TaskDead) and slow.hold())
    second = Ledger()
    pool = stage.pool([fail_once], retry=ONCE, listeners=[first, second])
    task = pool.dispatch([])
    slow.wait_until_reached()
    again = pool.requeue_dead_task(task.id)
    slow.open()
    assert again.result(stage.within) == 1
    pool.close(timeout=stage.within)
    for ledger in (first, second):
        assert is_true(ledger.told[task.id]), ledger.told
    assert second.told[task.id].count(TaskDispatched) == 2


def test_task_that_a_listener_requeues_is_dead_for_all_listeners_before(stage: Any) -> None:
    def requeue(event: Any) -> None:
        if isinstance(event, TaskDead) and not requeued:
            requeued.append(pool.requeue_dead_task(event.task.id))

    requeued: list[Any] = []
    first, second = Ledger(requeue), Ledger()
    pool = stage.pool([int], retry=ONCE, listeners=[first, second])
    task = pool.dispatch("x")
    stage.until(lambda: requeued and requeued[0].done())
    pool.close(timeout=stage.within)
    assert is_true(first.told[task.id])
    assert is_true(second.told[task.id])


def test_attempt_whose_time_is_up_before_its_start_was_told_has_started(stage: Any) -> None:
    slow = stage.gate()
    held = threading.Event()

    def hold_first(event: object) -> None:
        if isinstance(event, AttemptStarted) and not held.is_set():
            held.set()
            slow.hold()

    first, second = Ledger(hold_first), Ledger()
    pool = stage.pool(
        [str] * 2, retry=RetryPolicy(attempts=2, delay=0), listeners=[first, second], timeout=0.01
    )
    task = pool.dispatch("x")
    slow.wait_until_reached()
    assert task.result(stage.within) == "x"
    slow.open()
    pool.close(timeout=stage.within)
    for ledger in (first, second):
        assert is_true(ledger.told[task.id]), ledger.told


def test_order_holds_while_everything_happens_at_once(stage: Any, switching_often: None) -> None:
    def run(number: int) -> int:
        if number % 3 == 0:
            raise OSError(number)
        return number

    def requeue(event: Any) -> None:
        if isinstance(event, TaskDead) and event.task.id % 2 == 0 and len(event.dead.history) < 6:
            pool.requeue_dead_task(event.task.id)

    ledger, other = Ledger(requeue), Ledger()
    pool = stage.pool(
        [run] * 4,
        retry=RetryPolicy(attempts=2, delay=0),
        listeners=[ledger, other],
        timeout=0.001,
        health=None,
    )
    tasks = [pool.dispatch(number) for number in range(600)]
    cancelling = stage.start(lambda: [pool.cancel_task(task) for task in tasks[::7]])
    cancelling.result(stage.within)
    pool.close(timeout=60)
    for told in (ledger.told, other.told):
        wrong = [[kind.__name__ for kind in each] for each in told.values() if not is_true(each)]
        assert wrong == [], ", ".join(wrong[0])
        assert len(told) == 600


class HookedQueue(list[Any]):
    """What waits behind an event, with something that happens as it is let go of or as another comes."""

    def __init__(self, held: object, **hooks: Callable[[], object]) -> None:
        super().__init__([held])
        self._hooks = hooks

    def __setitem__(self, place: Any, value: Any) -> None:
        self._fire("before")
        super().__setitem__(place, value)
        self._fire("after")

    def append(self, value: Any) -> None:
        super().append(value)
        self._fire("appended")

    def _fire(self, place: str) -> None:
        if hook := self._hooks.pop(place, None):
            hook()


@pytest.fixture
def two() -> tuple[Observers[Any, Any], list[Any], Any, list[Any]]:
    """Observers, what they have told, an event that is held, and others of the same task."""
    told: list[Any] = []
    observers = observers_of(told.append)
    task: Any = SimpleNamespace(id=7)
    start = AttemptStarted(1.0, task, 1, 0, "a")
    observers.hold(start)
    return observers, told, start, [TaskSucceeded(float(at), task) for at in range(2, 5)]


def observers_of(*listeners: Callable[[Any], object]) -> Observers[Any, Any]:
    return Observers(on_success=None, on_failure=None, on_retry=None, on_dead=None, listeners=listeners)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_event_that_comes_as_the_one_before_it_is_let_go_of_is_told_once(two: Any, moment: str) -> None:
    observers, told, start, (second, third, _) = two
    queue = HookedQueue(start, **{moment: lambda: observers.tell(second)})
    observers._held[7] = queue
    observers.tell(start)
    assert told == [start, second]
    assert observers._held == {}
    observers.tell(third)
    assert told == [start, second, third]


def test_event_that_has_just_come_as_the_one_before_it_is_let_go_of_is_told_once(
    stage: Any, two: Any
) -> None:
    """Both see the other. The one who came last has the lock, and takes the event back."""
    observers, told, start, (second, *_) = two
    let_go = threading.Event()
    telling: list[Any] = []

    def let_go_meanwhile() -> None:
        telling.append(stage.start(observers.tell, start))
        let_go.wait(stage.within)

    observers._held[7] = HookedQueue(start, after=let_go.set, appended=let_go_meanwhile)
    observers.tell(second)
    telling[0].result(stage.within)
    assert told == [start, second]
    assert observers._held == {}


def test_events_that_come_while_others_are_caught_up_with_keep_their_order(two: Any) -> None:
    _, _, start, (second, third, fourth) = two

    def come(event: Any) -> None:
        if event is start:
            observers.tell(second)
            observers.tell(third)
        elif event is third:
            observers.tell(fourth)

    told: list[Any] = []
    observers = observers_of(come, told.append)
    observers.hold(start)
    observers.tell(start)
    assert told == [start, second, third, fourth]
    assert observers._held == {}


def test_what_has_waited_for_an_event_that_is_not_told_after_all_is_told(two: Any) -> None:
    observers, told, start, (second, *_) = two
    observers.tell(second)
    assert told == []
    observers.release(start)
    assert told == [second]
    assert observers._held == {}
