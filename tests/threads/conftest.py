"""Hooks into the places where threads can get in each other's way."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retrypool import Pool
from retrypool.clock import SystemClock
from retrypool.core.queue import InjectorQueue
from retrypool.core.scheduler import Scheduler

from .scripts import Ended, Script


class Hooks:
    """Functions that are called once, the next time that a pool's thread comes by.

    The pools that `stage` makes come by here: they are given queues and a clock that do.
    """

    def __init__(self) -> None:
        self._armed: dict[str, Callable[[], object]] = {}
        self.clock = HookedClock(self.fire)

    def arm(self, place: str, function: Callable[[], object]) -> None:
        """Have `function()` called at `place`.

        - "appended": a task has just been appended to the injector;
        - "taken": a worker has just taken a task from the injector;
        - "nobody parked": somebody wanted to wake a parked worker, and there was none any more;
        - "parking": a worker is about to be parked: without the lock, if it helps itself;
        - "parked": a worker has just been parked;
        - "looked through": somebody has looked at all that are parked, and has taken none;
        - "asleep": a parked worker has looked for the last time, and goes to sleep.
        """
        assert place in {
            "appended",
            "taken",
            "nobody parked",
            "parking",
            "parked",
            "looked through",
            "asleep",
        }
        self._armed[place] = function

    def fire(self, place: str) -> None:
        function = self._armed.pop(place, None)
        if function is not None:
            function()

    def hold_before_start(self, gate: Any) -> None:
        """Hold the next worker that takes a task without asking, before it is seen to run it.

        Between the two it looks at the clock.
        """
        self.arm("taken", lambda: self.clock.call_next(threading.get_ident(), gate.hold))


class HookedClock(SystemClock):
    """The system's clock; a thread that looks at it next can be made to do something first."""

    def __init__(self, fire: Callable[[str], None]) -> None:
        self._fire = fire
        self._detours: dict[int | None, Callable[[], object]] = {}

    def call_next(self, thread: int | None, function: Callable[[], object]) -> None:
        """Have `function()` called when the thread of this ident looks at the clock next."""
        self._detours[thread] = function

    def monotonic(self) -> float:  # type: ignore[override]
        detour = self._detours.pop(threading.get_ident(), None) if self._detours else None
        if detour is not None:
            detour()
        return time.monotonic()

    def acquire(self, lock: threading.Lock, timeout: float | None = None) -> bool:
        self._fire("asleep")
        return super().acquire(lock, timeout)


@pytest.fixture
def hooks(stage: Any) -> Hooks:
    """Pools that `stage` makes from now on come by these hooks."""
    it = Hooks()

    class Line(deque[Any]):
        def append(self, task: Any) -> None:
            super().append(task)
            it.fire("appended")

        def popleft(self) -> Any:
            task = super().popleft()
            it.fire("taken")
            return task

    class Parked(dict[Any, None]):
        def __reversed__(self) -> Iterator[Any]:
            raise AssertionError("CPython may crash if others change the dict meanwhile")

        def copy(self) -> dict[Any, None]:
            slots = super().copy()
            if not slots:
                it.fire("nobody parked")
            return slots

        def __setitem__(self, slot: Any, value: None) -> None:
            it.fire("parking")
            super().__setitem__(slot, value)
            it.fire("parked")

        def __iter__(self) -> Iterator[Any]:
            slots = list(super().__iter__())
            it.fire("looked through")
            return iter(slots)

    class Hooked(Pool[Any, Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"clock": it.clock, **options})

        def _make_scheduler(self, **options: Any) -> Scheduler:
            return Scheduler(injector=InjectorQueue(Line), parked=Parked(), **options)

    stage.kind = Hooked
    return it


@pytest.fixture
def run() -> Iterator[Callable[[str], Script]]:
    scripts: list[Script] = []

    def start(source: str) -> Script:
        scripts.append(Script(source))
        return scripts[-1]

    yield start
    for script in scripts:
        script.clear()


@pytest.fixture
def run_all(run: Any) -> Callable[[dict[str, str]], dict[str, Ended]]:
    """Run scripts side by side, and return how each has ended."""

    def run_them(sources: dict[str, str]) -> dict[str, Ended]:
        scripts = {name: run(source) for name, source in sources.items()}
        return {name: script.end() for name, script in scripts.items()}

    return run_them
