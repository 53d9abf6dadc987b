"""Workers that leave at once wake each other, and none is left behind by one that is held up."""

import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from retrypool import Drain
from retrypool.events import PoolStopped
from retrypool.model.slots import Group, Slot
from retrypool.threads import leaving as module
from retrypool.threads.leaving import Leaving


def slots_that(wake: Callable[[int], object], count: int) -> list[Slot]:
    slots = [Slot(number, f"worker-{number}", Group("all")) for number in range(count)]
    for slot in slots:
        slot.wake = partial(wake, slot.id)  # type: ignore[assignment]
    return slots


def test_each_worker_that_leaves_wakes_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who closes the pool wakes the first one alone, however long that takes."""
    monkeypatch.setattr(module, "AN_INSTANT", 600)
    leaving, woken = Leaving(), []

    def leave(number: int) -> None:
        woken.append(number)
        leaving.wake_next()

    leaving.wake_all(slots_that(leave, 5))
    assert woken == [0, 1, 2, 3, 4]


def test_workers_that_are_held_up_hold_up_no_others() -> None:
    leaving, woken = Leaving(), []

    def leave(number: int) -> None:
        woken.append(number)
        if number not in (0, 3, 4):
            leaving.wake_next()

    leaving.wake_all(slots_that(leave, 7))
    assert woken == [0, 1, 2, 3, 4, 5, 6]


def test_who_leaves_without_others_keeps_those_who_come_later_from_nothing() -> None:
    """It finds nobody to wake, and says so to whoever waits next: that is no end of theirs."""
    leaving, woken = Leaving(), []
    leaving.wake_next()
    leaving.wake_all(slots_that(woken.append, 4))
    assert woken == [0, 1, 2, 3]


def test_worker_that_leaves_by_itself_meanwhile_breaks_no_chain() -> None:
    """It is woken when it has gone: the next was woken as it went."""
    leaving, woken = Leaving(), []

    def leave(number: int) -> None:
        woken.append(number)
        if number == 1:
            leaving.wake_next()  # for number 2, which leaves by itself, and wakes 2
        if number != 2:
            leaving.wake_next()

    leaving.wake_all(slots_that(leave, 6))
    assert sorted(woken) == [0, 1, 2, 3, 4, 5]


def test_ctrl_c_in_the_middle_of_closing_by_force_waits_for_its_end(stage: Any) -> None:
    told: list[type] = []
    drain = Drain[int]()
    pool = stage.pool([abs] * 2, listeners=[lambda event: told.append(type(event))])
    pool.dispatch(1, drain=drain).result(stage.within)
    engine = pool._engine
    stage.until(lambda: len(engine.parked) == 2)
    wake_all = engine.leaving.wake_all

    def struck_wake_all(slots: Any) -> None:
        engine.leaving.wake_all = wake_all
        signal.raise_signal(signal.SIGINT)
        wake_all(slots)

    engine.leaving.wake_all = struck_wake_all
    with pytest.raises(KeyboardInterrupt):
        pool.force_close()
    assert list(drain) == []
    assert told[-1] is PoolStopped
