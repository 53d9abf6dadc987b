"""What a call leaves behind that a Ctrl-C has struck. Striking at each bytecode is for the lab."""

import dis
from contextlib import suppress
from itertools import pairwise
from types import FunctionType
from typing import Any

import pytest

from retrypool import CancelToken
from retrypool.collect import chunks, view
from retrypool.collect.map import _as_they_end, as_they_come, in_order
from retrypool.testing import ManualPool

MAPS: list[dict[str, Any]] = [{}, {"ordered": False}, {"priority": 2}, {"deadline": 60}]


def strike(*_: object) -> None:
    raise KeyboardInterrupt


def held(pool: Any) -> tuple[int, int, int]:
    """How many tasks wait, are in the queue, and are counted as tombstones there."""
    backlog = pool._engine.scheduler.backlog
    return pool.queue_size, len(backlog.injector) + backlog.filed, backlog.tombstones


@pytest.mark.parametrize("options", MAPS)
def test_map_gives_up_the_task_that_it_was_struck_over(
    stage: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """It has come in, and `map` has not noted it yet."""
    pool = stage.pool([lambda data: data])
    pool.pause()
    way_in = pool._engine.intake.way_in

    def struck_way_in(settings: Any) -> Any:
        arrive = way_in(settings)
        return lambda task: (arrive(task), strike())

    monkeypatch.setattr(pool._engine.intake, "way_in", struck_way_in)
    with pytest.raises(KeyboardInterrupt):
        list(pool.map(range(3), **options))
    assert pool.tasks() == []
    waits, queued, tombstones = held(pool)
    assert waits == 0
    assert queued == tombstones


@pytest.mark.parametrize("place", ["before", "after"])
def test_task_whose_cancellation_is_struck_is_cancelled(
    stage: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Who waits for the last task to end, or for this one, is told."""
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    running, task = pool.dispatch("first"), pool.dispatch("second")
    gate.wait_until_reached()
    told: list[Any] = []
    task.add_done_callback(told.append)
    pool.pause()
    gate.open()
    running.result(stage.within)
    engine = pool._engine
    cancel_plain = engine.cancelling._cancel_plain

    def struck(*arguments: Any) -> None:
        if place == "after":
            assert cancel_plain(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.cancelling, "_cancel_plain", struck)
    waiting = stage.start(pool.wait)
    stage.until(lambda: engine.waiters)
    with pytest.raises(KeyboardInterrupt):
        task.cancel()
    assert not engine.lock._is_owned()
    assert task.cancelled()
    assert told == [task]
    assert waiting.result(stage.within) is True
    assert pool.stats().cancelled == 1
    assert held(pool) == (0, 0, 0)
    pool.close(timeout=stage.within)


def test_who_waits_for_a_task_is_told_though_a_strike_comes_before_that(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = stage.pool([len])
    pool.pause()
    first, task, *others = pool.dispatch_many(range(20))
    told: list[Any] = []
    task.add_done_callback(told.append)
    assert first.cancel()  # with a look whether anything is to be swept out
    monkeypatch.setattr(pool._engine.cancelling, "_announce", strike)
    with pytest.raises(KeyboardInterrupt):
        task.cancel()
    assert told == [task]
    assert pool.queue_size == len(others)
    pool.close(timeout=stage.within)


def test_task_cancelled_in_the_midst_of_a_cancellation_is_cancelled_after_it(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a finalizer that the garbage collector calls there."""
    pool = stage.pool([len])
    pool.pause()
    first, second = pool.dispatch("x"), pool.dispatch("y")
    cancelling = pool._engine.cancelling
    cancel_plain = cancelling._cancel_plain

    def collect(*arguments: Any) -> Any:
        monkeypatch.setattr(cancelling, "_cancel_plain", cancel_plain)
        assert second.cancel() is False
        return cancel_plain(*arguments)

    monkeypatch.setattr(cancelling, "_cancel_plain", collect)
    assert first.cancel()
    stage.until(second.cancelled)  # by this thread after the step, or by the watchdog if that is quicker
    assert pool.stats().cancelled == 2
    pool.close(timeout=stage.within)


def test_strike_as_a_cancellation_has_just_taken_the_lock_leaves_it_free() -> None:
    """From Python 3.14 on, `with lock` is struck between the two."""

    class Lock:
        def __init__(self, lock: Any) -> None:
            self.lock = lock

        def __enter__(self) -> None:
            self.lock.acquire()
            engine.lock = self.lock
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None:
            self.lock.release()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.lock, name)

    pool = ManualPool([len])
    engine: Any = pool._engine
    task = pool.dispatch("abc")
    engine.lock = Lock(engine.lock)
    with pytest.raises(KeyboardInterrupt):
        task.cancel()
    assert not engine.steps.in_step
    assert task.cancelled()
    pool.close()


def test_task_that_was_struck_before_it_came_in_is_no_tombstone(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ManualPool([len])
    token = CancelToken()
    obey = pool._engine.cancelling.obey
    monkeypatch.setattr(pool._engine.cancelling, "obey", lambda *arguments: (obey(*arguments), strike()))
    with suppress(KeyboardInterrupt):
        pool.dispatch("abc", cancel=token)
    assert held(pool) == (0, 0, 0)
    assert not token._callbacks
    pool.close()


def test_task_of_a_token_that_is_cancelled_already_never_comes_in() -> None:
    pool = ManualPool([len])
    token = CancelToken()
    token.cancel("enough")
    task = pool.dispatch("abc", cancel=token)
    assert task.cancelled()
    assert held(pool) == (0, 0, 0)
    pool.close()


@pytest.mark.skipif(
    not hasattr(dis, "_parse_exception_table"), reason="this Python does not tell what a `try` covers"
)
@pytest.mark.parametrize(
    "function",
    [in_order, as_they_come, _as_they_end, chunks._in_order, chunks._as_they_come, view._results],
    ids=lambda function: f"{function.__module__.rpartition('.')[2]}.{function.__name__}",
)
def test_no_jump_of_a_loop_passes_by_the_handler_around_it(function: FunctionType) -> None:
    """CPython looks for signals at jumps back, and from 3.12 on makes two of one that is conditional."""
    covered = dis._parse_exception_table(function.__code__)  # type: ignore[attr-defined]

    def handlers(offset: int) -> list[int]:
        return [entry.target for entry in covered if entry.start <= offset < entry.end]

    code = list(dis.get_instructions(function))
    bare = [
        second
        for first, second in pairwise(code)
        if (first.opname[:8], second.opname) == ("POP_JUMP", "JUMP_BACKWARD")
        and handlers(first.offset) != handlers(second.offset)
    ]
    assert not bare
