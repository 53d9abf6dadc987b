"""A bounded queue whose workers take without the lock, in any order of what they and dispatchers do.

Of the threads of a test one runs at a time. They may change places at each operation on what they share: the
queue, those who wait, the flag, the lock. So an order that fails is found again.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from retrypool.core.queue import InjectorQueue
from retrypool.core.scheduler import Scheduler
from retrypool.testing import ManualPool
from retrypool.testing.manual import ManualAttempt
from retrypool.threads import queue_limit
from retrypool.threads.queue_limit import QueueLimit, WayOut

from ..conftest import WITHIN

here = threading.local()


class Actor:
    """A thread that goes on for as many operations as it is let, and no further."""

    def __init__(self, script: Callable[[], object]) -> None:
        self.blocked: Callable[[], bool] = lambda: False
        self.sleeps = self.struck = False
        self.done = False
        self.error: BaseException | None = None
        self._script = script
        self._left = 0
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        here.actor = self
        try:
            self._script()
        except BaseException as error:  # noqa: BLE001 - raised again by the test
            self.error = error
        self.done = True
        self._back.release()

    def let(self, operations: int) -> None:
        """Let it go on. Called by the test."""
        if not self.done and not self.blocked():
            self._left = operations
            self._go.release()
            assert self._back.acquire(timeout=WITHIN), "it blocks where nobody sees it"
            if self.error is not None:
                raise self.error

    def pass_by(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.wait_until(lambda: True)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        self.blocked = lambda: not ready()
        self._back.release()
        self._go.acquire()
        self.blocked = lambda: False

    def join(self) -> None:
        self._thread.join(WITHIN)


def pass_by() -> None:
    """An operation on what is shared comes next."""
    actor = getattr(here, "actor", None)
    if actor is not None:
        actor.pass_by()


class Line(deque[Any]):
    def append(self, task: Any) -> None:
        pass_by()
        super().append(task)

    def popleft(self) -> Any:
        pass_by()
        return super().popleft()

    def __len__(self) -> int:
        pass_by()
        return super().__len__()


class Waiting(dict[Any, None]):
    def __setitem__(self, bell: Any, value: None) -> None:
        pass_by()
        super().__setitem__(bell, value)

    def pop(self, bell: Any, default: Any = None) -> Any:
        pass_by()
        return super().pop(bell, default)

    def __iter__(self) -> Iterator[Any]:
        pass_by()
        return super().__iter__()

    def __len__(self) -> int:
        pass_by()
        return super().__len__()


class Limit(QueueLimit):
    @property
    def called(self) -> bool:  # type: ignore[override]
        pass_by()
        return self._called

    @called.setter
    def called(self, value: bool) -> None:
        pass_by()
        self._called = value


class Lock:
    """The pool's lock, reentrant."""

    def __init__(self) -> None:
        self.owners: list[int] = []

    def acquire(self, blocking: bool = True) -> bool:
        pass_by()
        if self.owners and not self._is_owned():
            if not blocking:
                return False
            here.actor.wait_until(lambda: not self.owners)
        self.owners.append(threading.get_ident())
        return True

    def release(self) -> None:
        self.owners.pop()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self.owners[-1:] == [threading.get_ident()]


class Struck(BaseException):
    """Ends a wait, as a Ctrl-C does."""


class Bell:
    def __init__(self) -> None:
        self.rung = False

    def wait(self, _timeout: float, _look_up: object) -> bool:
        actor = here.actor
        actor.sleeps, actor.struck = True, False
        actor.wait_until(lambda: self.rung or actor.struck)
        actor.sleeps = False
        if actor.struck:
            raise Struck
        self.rung = False
        return True

    def ring(self) -> None:
        pass_by()
        self.rung = True


class Bounded(ManualPool[Any, Any]):
    def _make_scheduler(self, **options: Any) -> Scheduler:
        return Scheduler(injector=InjectorQueue(Line), **options)


class Play:
    """Dispatchers, workers and one who cancels, at one bounded pool."""

    def __init__(
        self, limit: int, dispatched: list[int], taken: list[int], cancelled: Iterable[int] = ()
    ) -> None:
        self.limit = limit
        self.pool = pool = Bounded([str] * max(1, len(taken)), max_queue=limit, history_limit=0)
        self.engine: Any = pool._engine
        self.lock = self.engine.lock = Lock()
        room = self.engine.queue_limit
        room._called, room.waiting, room.__class__ = False, Waiting(), Limit
        self.tasks: list[Any] = []
        slots = list(self.engine.scheduler.fleet)
        self.dispatchers = [Actor(lambda n=n: self.dispatch(n)) for n in dispatched]  # type: ignore[misc]
        self.others = [
            Actor(lambda n=n, slot=slot: self.work(slot, n)) for n, slot in zip(taken, slots, strict=False)
        ]  # type: ignore[misc]
        self.others.append(Actor(lambda: self.cancel(cancelled)))

    def dispatch(self, number: int) -> None:
        for _ in range(number):
            with suppress(Struck):
                self.tasks.append(self.pool.dispatch("x", block_timeout=3600))

    def work(self, slot: Any, number: int) -> None:
        """The steps of a worker's loop."""
        out = WayOut(self.engine, slot)
        slot.direct = True
        for _ in range(number):
            slot.idle = False
            task = None
            try:
                task = out.popleft()
            except IndexError:
                task = self.engine.waking.claim(slot)
            else:
                pass_by()
                task._slot = slot
                pass_by()
                if task._withdrawn:
                    task = self.engine.waking.claim(slot, task)
            if task is not None:
                ManualAttempt(self.pool, slot, task).finish("done")
        slot.idle = True

    def cancel(self, which: Iterable[int]) -> None:
        for number in which:
            pass_by()
            if self.tasks:
                self.tasks[number % len(self.tasks)].cancel()

    def living(self) -> int:
        """How many tasks wait."""
        tasks = [*self.engine.injector]
        tasks += [
            entry[2] for each in self.engine.scheduler.backlog.subqueues.values() for entry in each.tasks
        ]
        return sum(not task._withdrawn for task in tasks)

    def let(self, actor: Actor, operations: int = 1000) -> None:
        actor.let(operations)
        assert self.living() <= self.limit

    def settle(self) -> None:
        """Let all go on until nobody can."""
        actors = [*self.dispatchers, *self.others]
        while ready := [actor for actor in actors if not (actor.done or actor.blocked())]:
            for actor in ready:
                self.let(actor)
        if any(not actor.done for actor in actors):
            assert self.living() == self.limit, "somebody sleeps while there is room"

    def end(self) -> None:
        self.settle()
        while attempt := self.pool.claim():
            attempt.finish("done")
            self.settle()
        assert self.engine.queue_limit.taken == 0
        assert all(task.done() for task in self.tasks)
        for actor in (*self.dispatchers, *self.others):
            assert actor.done
            actor.join()
        self.pool.close()


@pytest.fixture(autouse=True)
def bells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_limit, "Bell", Bell)


SOME = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@given(
    limit=st.integers(1, 3),
    dispatched=SOME,
    taken=SOME,
    cancelled=st.lists(st.integers(0, 9), max_size=4),
    turns=st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13, 21, 99])),
        min_size=40,
        max_size=80,
    ),
)
@settings(max_examples=300)
def test_bound_holds_and_nobody_waits_while_there_is_room(
    limit: int, dispatched: list[int], taken: list[int], cancelled: list[int], turns: list[tuple[int, int]]
) -> None:
    play = Play(limit, dispatched, taken, cancelled)
    actors = [*play.dispatchers, *play.others]
    for number, operations in turns:
        actor = actors[number % len(actors)]
        actor.struck = actor.struck or (operations == 0 and actor.sleeps)
        play.let(actor, operations)
    play.end()


@pytest.mark.parametrize("operations", range(40))
def test_dispatcher_that_begins_to_wait_as_a_place_comes_free_has_it(operations: int) -> None:
    """The worker takes the one task that waits after each operation of the dispatcher that finds no room."""
    play = Play(1, [2], [1])
    (dispatcher,), (worker, _) = play.dispatchers, play.others
    while not play.tasks:
        play.let(dispatcher, 1)
    play.let(dispatcher, operations + 1)
    play.let(worker)
    play.settle()
    assert dispatcher.done
    play.end()


@pytest.mark.parametrize("operations", range(1, 30))
@pytest.mark.parametrize("who", ["the worker", "the worker, which then goes on", "the dispatcher"])
def test_second_of_two_dispatchers_is_called_for_the_second_place(who: str, operations: int) -> None:
    """However far the first worker is with calling the first one, or that one with hearing it."""
    play = Play(2, [2, 1, 1], [1, 1])
    _, first, second = play.dispatchers
    worker, other, _ = play.others
    for dispatcher in play.dispatchers:
        play.let(dispatcher)
    assert first.sleeps
    assert second.sleeps
    if who == "the dispatcher":
        play.let(worker)
        play.let(first, operations)
    else:
        play.let(worker, operations)
        play.let(first)
        if who != "the worker":
            play.let(worker)
    play.let(other)
    play.settle()
    assert first.done
    assert second.done
    play.end()


@pytest.mark.parametrize("more", range(1, 6))
@pytest.mark.parametrize("operations", range(1, 12))
def test_call_for_a_dispatcher_that_has_left_keeps_no_other_from_its_place(
    operations: int, more: int
) -> None:
    """A worker is about to call one, finds it gone, and is slow to take that back.

    Meanwhile another dispatcher waits, and another worker leaves the calling to the slow one.
    """
    play = Play(2, [2, 1, 2], [1, 1])
    filler, leaver, second = play.dispatchers
    worker, other, _ = play.others
    play.let(filler)
    play.let(leaver)
    play.let(worker, operations)
    leaver.struck = leaver.sleeps
    play.let(leaver)
    play.let(worker, more)
    play.let(second)
    play.let(other)
    play.settle()
    assert second.done
    play.end()


@pytest.mark.parametrize("operations", range(1, 8))
def test_cancelled_task_in_the_hand_of_a_worker_makes_no_room_twice(operations: int) -> None:
    """It is out of the queue, and still among those that are discounted."""
    play = Play(1, [2], [1], [0])
    (dispatcher,), (worker, canceller) = play.dispatchers, play.others
    while not play.tasks:
        play.let(dispatcher, 1)
    play.let(worker, operations)
    play.let(canceller)
    play.let(dispatcher)
    play.end()
