"""What can go wrong with a fleet, as models for `simulate`, and what a pool must make of it.

A good call takes about 10 ms, a bad one fails at once; all tasks are dispatched at the beginning, with the
default options unless said.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from retrypool import RetryPolicy
from retrypool.testing import Simulation, WorkerModel

GOOD = (0.009, 0.011)
AT_ONCE = 0.0001


class Down(ConnectionError):
    """The network, or what is behind it."""


class Bad(ValueError):
    """The item is wrong."""


Fleet = Callable[[], list[WorkerModel]]


@dataclass(frozen=True)
class Scenario:
    """A fleet, its tasks, and the bounds of what may come of them."""

    workers: Fleet
    tasks: int
    optimum: float  # seconds
    times: float = 1.1  # the makespan may be so many times the optimum
    over: float = 0.0  # and so many seconds over that
    waste: int | None = None  # calls that fail
    first: int | None = None  # calls that fail on the first worker
    dead: int = 0
    ejections: int | None = None
    hedged: float | None = None  # the share of all calls that are second attempts
    options: dict[str, Any] = field(default_factory=dict)

    def faults(self, run: Simulation) -> list[str]:
        """Return what is worse than the goal."""
        first = next(iter(run.failures.values()))
        found = {
            f"took {run.makespan:.2f} s": run.makespan > self.times * self.optimum + self.over,
            f"{run.dead} dead": run.dead != self.dead,
            f"{run.waste} calls in vain": self.waste is not None and run.waste > self.waste,
            f"{first} calls to the first": self.first is not None and first > self.first,
            f"{run.hedged} second attempts": self.hedged is not None and run.hedged > self.hedged * run.calls,
            f"{run.ejections} ejections": self.ejections is not None and run.ejections > self.ejections,
        }
        return [what for what, is_so in found.items() if is_so]


def good(count: int, **options: Any) -> list[WorkerModel]:
    return [WorkerModel(**{"latency": GOOD, **options}) for _ in range(count)]


def refusing(*spans: tuple[float, float]) -> WorkerModel:
    return WorkerModel(latency=GOOD, outages=spans or [(0.0, 1e9)], error=PermissionError)


def data_fails(bad: Callable[[int], bool], latency: float | tuple[float, float]) -> WorkerModel:
    """A worker that fails some items, wherever they go."""

    def behave(data: int, _now: float, chance: random.Random) -> tuple[float, BaseException | None]:
        takes = chance.uniform(*latency) if isinstance(latency, tuple) else latency
        return (takes, None) if not bad(data) else (AT_ONCE if takes > 0.006 else takes, Bad("wrong item"))

    return WorkerModel(behave=behave)


def hiccups(workers: int) -> list[WorkerModel]:
    """Each task fails as often as there are workers, whoever takes it."""
    tries: Counter[int] = Counter()

    def behave(data: int, _now: float, _chance: random.Random) -> tuple[float, BaseException | None]:
        tries[data] += 1
        return 0.00001, None if tries[data] > workers else Down("hiccup")

    return [WorkerModel(behave=behave) for _ in range(workers)]


def now_and_then_slow(chance: random.Random) -> float:
    """Heavy-tailed: one call in fifty takes as long as fifty others."""
    return chance.uniform(*GOOD) * (50 if chance.random() < 0.02 else 1)


def log_normal(chance: random.Random) -> float:
    return 0.01 * chance.lognormvariate(0.0, 1.0)


def stable(attempts: int, **options: Any) -> dict[str, Any]:
    return {"retry": RetryPolicy(attempts=attempts, **options)}


def scenarios(scale: float = 1.0) -> dict[str, Scenario]:
    """Return them all, by name. With a smaller scale there are fewer tasks, and as much trouble."""
    n = round(2000 * scale)
    down = 1.0 * scale  # when the trouble begins
    last = 0.0 if scale == 1 else 0.12  # one delay, at the end of a run that is as short as that

    def seconds(workers: float, latency: float = 0.01) -> float:
        return n * latency / workers

    return {
        "one worker of 6 refuses every call": Scenario(
            lambda: [refusing(), *good(5)], n, seconds(5), first=30
        ),
        "two of 6": Scenario(lambda: [refusing(), refusing(), *good(4)], n, seconds(4), waste=60),
        "five of 10": Scenario(
            lambda: [*(refusing() for _ in range(5)), *good(5)], n, seconds(5), 1.15, waste=100
        ),
        "10 of 40": Scenario(
            lambda: [*(refusing() for _ in range(10)), *good(30)], n, seconds(30), 1.2, waste=100
        ),
        "back end of 40 workers down for 3 s": Scenario(
            lambda: good(40, outages=[(0.05, 3.05)], error=Down), n, seconds(40) + 3, 1.0, 1.5, waste=400
        ),
        "revoked midway": Scenario(
            lambda: [refusing((down, 1e9)), *good(5)], n, (n - 100 * down) * 0.01 / 5, first=40
        ),
        "back end down for 3 s": Scenario(
            lambda: good(5, outages=[(down, down + 3)], error=Down), n, seconds(5) + 3, 1.0, 1.5, waste=150
        ),
        "up and down by the second": Scenario(
            lambda: [refusing(*((2 * k + down, 2 * k + down + 1) for k in range(50))), *good(4)],
            n,
            seconds(5),
            1.35,
            first=60,
        ),
        "one fails 90% at random": Scenario(
            lambda: [*good(1, latency=0.005, failure_rate=0.9), *good(4, latency=0.005)],
            n,
            seconds(4.1, 0.005),
            1.3,
            first=80,
        ),
        "30% fail at random": Scenario(
            lambda: good(5, latency=0.005, failure_rate=0.3, error=Down),
            n,
            seconds(5, 0.005) / 0.7,
            1.3,
            2.5 * last,
            ejections=0,
            options=stable(20),
        ),
        "5% of the tasks fail everywhere": Scenario(
            lambda: [data_fails(lambda item: item % 20 == 0, 0.005) for _ in range(5)],
            n,
            seconds(5, 0.005) * 1.2,
            1.25,
            last,
            dead=n // 20,
            ejections=0,
            options=stable(5),
        ),
        "the last 50 fail everywhere": Scenario(
            lambda: [data_fails(lambda item: item >= n - 50, GOOD) for _ in range(5)],
            n,
            (n - 50) * 0.01 / 5,
            1.1,
            5.0,
            dead=50,
        ),
        "long tasks, 25% by chance": Scenario(
            lambda: good(5, latency=0.4, failure_rate=0.25, error=Down), 60, 6.4, 1.4, options=stable(12)
        ),
        "one worker alone, 30% by chance": Scenario(
            lambda: good(1, latency=0.002, failure_rate=0.3, error=Down),
            300,
            0.86,
            1.3,
            options=stable(20, delay=0),
        ),
        "everything fails from the first call on": Scenario(
            lambda: good(5, outages=[(0, 1e9)], error=Bad), 200, 4.0, 1.0, dead=200
        ),
        "a shared hiccup": Scenario(
            lambda: hiccups(4), n, n * 5 * 0.00001 / 4, 2.0, 0.05, options=stable(9, delay=0)
        ),
        "one worker of 6 takes 2 s, with second attempts": Scenario(
            lambda: [WorkerModel(latency=2.0), *good(5)],
            500,
            1.0,
            1.3,
            hedged=0.05,
            ejections=0,
            options={"hedge": True},
        ),
        "one call in 50 takes as long as 50, with second attempts": Scenario(
            lambda: good(5, latency=now_and_then_slow),
            n,
            seconds(5) * 1.98,
            1.45,  # the work itself differs by that much
            hedged=0.05,
            ejections=0,
            options={"hedge": True},
        ),
        "a healthy fleet with a heavy tail, with second attempts": Scenario(
            lambda: good(5, latency=log_normal),
            n,
            seconds(5) * 1.65,
            1.2,
            hedged=0.05,
            ejections=0,
            options={"hedge": True},
        ),
        "a blip of 2 s": Scenario(lambda: good(5, outages=[(0.03, 2.03)], error=Down), 100, 2.2, 1.0, 1.5),
    }
