"""Giving way before blocking on a lock."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from retrypool.threads import spinning
from retrypool.threads.spinning import TURNS, spin_while_held


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The turns that were given up so far."""
    given: list[float] = []
    monkeypatch.setattr(spinning, "time", SimpleNamespace(sleep=given.append))
    return given


def test_free_lock_costs_no_turn_and_stays_free(stage: Any, turns: list[float]) -> None:
    lock = threading.Lock()
    stage.start(spin_while_held, lock).result(stage.within)
    assert turns == []
    assert not lock.locked()


def test_held_lock_is_left_to_who_holds_it_after_some_turns(stage: Any, turns: list[float]) -> None:
    with (lock := threading.Lock()):
        stage.start(spin_while_held, lock).result(stage.within)
        assert turns == [0] * TURNS
        assert lock.locked()


def test_turns_end_when_the_lock_is_free(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    lock.acquire()
    monkeypatch.setattr(spinning, "time", SimpleNamespace(sleep=lambda _: lock.release()))
    stage.start(spin_while_held, lock).result(stage.within)
    assert not lock.locked()


def test_main_thread_never_touches_it(turns: list[float]) -> None:
    """A Ctrl-C could strike between taking the lock and letting it go."""
    with (lock := threading.Lock()):
        spin_while_held(lock)
        assert turns == []
