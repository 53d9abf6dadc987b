"""How long does a fleet with something wrong in it take, in real time, and how much does it call in vain?

The scenarios of tests/scenarios.py with real threads, at the default settings, beside what people build
from ThreadPoolExecutor and tenacity: as many attempts, each on a worker taken at random. The figure is the
makespan as a multiple of the optimum; the note tells the calls that failed and the tasks that died.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from .harness import Contest, Row, at_most, scaled, within

TASKS = 2000

Behave = Callable[[int, int, float, random.Random], None]
"""What worker `n` does with an item, so many seconds after the start. Raises, or sleeps and returns."""


@dataclass
class Scenario:
    """A fleet, and what came of the last run of each contender."""

    name: str
    workers: int
    tasks: int
    optimum: float
    times: float  # the optimum, for us
    behave: Behave
    attempts: int = 3
    hedge: bool = False
    delay: float | None = None  # the default, if None
    notes: dict[str, str] = field(default_factory=dict)


class Worker:
    """One member of the fleet, on one thread at a time."""

    def __init__(self, scenario: Scenario, number: int, began: float) -> None:
        self.number, self.calls, self.failed = number, 0, 0
        self._behave, self._began = scenario.behave, began
        self._chance = random.Random(number)
        self._lock = threading.Lock()

    def run(self, _ctx: Any, item: int) -> None:
        with self._lock:
            self.calls += 1
            try:
                self._behave(self.number, item, time.perf_counter() - self._began, self._chance)
            except Exception:
                self.failed += 1
                raise


def with_retrypool(scenario: Scenario) -> tuple[list[Worker], int, float]:
    from retrypool import Pool, RetryPolicy

    delay = {} if scenario.delay is None else {"delay": scenario.delay}
    retry = RetryPolicy(attempts=scenario.attempts, **delay)
    began = time.perf_counter()
    workers = [Worker(scenario, n, began) for n in range(scenario.workers)]
    with Pool(workers, retry=retry, hedge=scenario.hedge) as pool:
        pool.dispatch_many(range(scenario.tasks))
        pool.wait()
        ended = time.perf_counter()
    return workers, len(pool.dead_tasks()), ended


def without_hedge(scenario: Scenario) -> tuple[list[Worker], int, float]:
    return with_retrypool(replace(scenario, hedge=False))


def with_tenacity(scenario: Scenario) -> tuple[list[Worker], int, float]:
    from tenacity import RetryError, retry, stop_after_attempt, wait_random_exponential

    workers = [Worker(scenario, n, time.perf_counter()) for n in range(scenario.workers)]
    chance = random.Random(1)

    @retry(stop=stop_after_attempt(scenario.attempts), wait=wait_random_exponential(multiplier=0.1, max=30))
    def call(item: int) -> None:
        chance.choice(workers).run(None, item)

    dead = 0
    with ThreadPoolExecutor(scenario.workers) as executor:
        for future in [executor.submit(call, item) for item in range(scenario.tasks)]:
            try:
                future.result()
            except RetryError:
                dead += 1
    return workers, dead, time.perf_counter()


def measured(
    label: str, contend: Callable[[Scenario], tuple[list[Worker], int, float]], scenario: Scenario
) -> Callable[[int], float]:
    """Return what runs a contender once and gives its makespan over the optimum."""

    def measure(_size: int) -> float:
        start = time.perf_counter()
        workers, dead, ended = contend(scenario)
        took = ended - start  # until the last task has ended, whoever is still at something nobody waits for
        failed = [worker.failed for worker in workers]
        scenario.notes[label] = f"{label}: {sum(failed)} calls in vain {failed}, {dead} dead"
        return took / scenario.optimum

    return measure


def good() -> None:
    time.sleep(0.01)


def scenarios(scale: float) -> list[Scenario]:
    """Return all of them; with a smaller scale there are fewer tasks, and less time of trouble."""
    n = scaled(TASKS, scale, least=20)
    unit = n / TASKS  # seconds, where it is 1 at full scale
    long, slow = 0.4 * min(scale, 1.0), 2 * unit

    def refuses(bad: int) -> Behave:
        def behave(number: int, _item: int, _since: float, _chance: random.Random) -> None:
            if number < bad:
                raise PermissionError("revoked")
            good()

        return behave

    def revoked(number: int, _item: int, since: float, _chance: random.Random) -> None:
        if number == 0 and since > unit:
            raise PermissionError("revoked")
        good()

    def down(_number: int, _item: int, since: float, _chance: random.Random) -> None:
        if unit < since < 4 * unit:
            raise ConnectionError("down")
        good()

    def flaps(number: int, _item: int, since: float, _chance: random.Random) -> None:
        if number == 0 and int(since / unit) % 2:
            raise PermissionError("down")
        good()

    def chance(share: float, only: int | None, seconds: float) -> Behave:
        def behave(number: int, _item: int, _since: float, chance: random.Random) -> None:
            time.sleep(seconds)
            if (only is None or number == only) and chance.random() < share:
                raise ConnectionError("by chance")

        return behave

    def poison(_number: int, item: int, _since: float, _chance: random.Random) -> None:
        time.sleep(0.005)
        if item % 20 == 0:
            raise ValueError("wrong item")

    def bad_tail(_number: int, item: int, _since: float, _chance: random.Random) -> None:
        if item >= n - n // 40:
            raise ValueError("wrong item")
        good()

    def blip(_number: int, _item: int, since: float, _chance: random.Random) -> None:
        if 0.03 < since < 2.03:
            raise ConnectionError("down")
        good()

    def bug(_number: int, _item: int, _since: float, _chance: random.Random) -> None:
        raise TypeError("a bug in run")

    def straggles(number: int, _item: int, _since: float, _chance: random.Random) -> None:
        time.sleep(slow if number == 0 else 0.01)

    return [
        Scenario("one of 6 refuses every call", 6, n, n * 0.002, 1.1, refuses(1)),
        Scenario("two of 6 refuse every call", 6, n, n * 0.0025, 1.1, refuses(2)),
        Scenario("a key revoked midway", 6, n, n * 0.002 - unit / 5, 1.1, revoked),
        Scenario(
            "back end down for three times as long as it worked", 5, n, n * 0.002 + 3 * unit, 1.25, down
        ),
        Scenario("one is up and down by turns", 5, n, n * 0.0022, 1.2, flaps),
        Scenario("one fails 90% at random", 5, n, n * 0.005 / 4.1, 1.3, chance(0.9, 0, 0.005)),
        Scenario("30% fail at random", 5, n, n * 0.001 / 0.7, 1.3, chance(0.3, None, 0.005), attempts=20),
        Scenario("5% of the tasks fail everywhere", 5, n, n * 0.0012, 1.25, poison, attempts=5),
        Scenario("the last items fail everywhere", 5, n, n * 0.00195, 2.5, bad_tail),
        Scenario(
            "60 long tasks, 25% fail at random", 5, 60, 80 * long / 5, 1.4, chance(0.25, None, long), 12
        ),
        Scenario(
            "one worker alone, 30% fail at random",
            1,
            n // 4,
            n / 4 * 0.005 / 0.7,
            1.3,
            chance(0.3, None, 0.005),
            20,
            delay=0,
        ),
        # Nothing is as quick as no call at all: beside four seconds, which it may take.
        Scenario("everything fails from the first call on", 5, n // 10, 4.0, 1.0, bug),
        Scenario("a blip of 2 s after the first successes", 5, 100, 2.2, 1.7, blip),
        Scenario("one of 6 takes 2 s, hedge=True", 6, n // 4, slow / 2, 1.3, straggles, hedge=True),
    ]


def hiccup(*, health: bool) -> Callable[[int], float]:
    """Return what measures four identical workers without a delay, where each task fails four times."""
    from retrypool import HealthPolicy, Pool, RetryPolicy

    def measure(tasks: int) -> float:
        tries = [0] * tasks

        class Same:
            def run(self, _ctx: Any, item: int) -> None:
                tries[item] += 1  # one attempt at a time is at an item
                if tries[item] <= 4:
                    raise ConnectionError("hiccup")

        policy = HealthPolicy() if health else None
        start = time.perf_counter()
        with Pool([Same() for _ in range(4)], retry=RetryPolicy(attempts=9, delay=0), health=policy) as pool:
            pool.dispatch_many(range(tasks))
        return (time.perf_counter() - start) / tasks * 1e6

    return measure


def contests(scale: float) -> list[Contest]:
    """One contest for each scenario."""
    tasks = scaled(TASKS, scale, least=20)
    made = [
        Contest(
            "a shared hiccup: every task fails four times",
            "µs/task",
            [
                Row("retrypool", hiccup(health=True), tasks),
                Row("retrypool, health=None", hiccup(health=False), tasks),
            ],
            (within(2.0, "retrypool, health=None"),),
        )
    ]
    for scenario in scenarios(scale):
        peer = Row(
            "ThreadPoolExecutor + tenacity",
            measured("tenacity", with_tenacity, scenario),
            scenario.tasks,
            "tenacity",
        )
        if scenario.hedge:  # whoever takes a worker at random would wait for the slow one all the time
            peer = Row(
                "retrypool, hedge=None", measured("hedge=None", without_hedge, scenario), scenario.tasks
            )
        rows = [Row("retrypool", measured("retrypool", with_retrypool, scenario), scenario.tasks), peer]
        made.append(
            Contest(
                scenario.name,
                "x optimum",
                rows,
                (at_most(scenario.times),),
                most_rounds=1,
                note=lambda scenario=scenario: "; ".join(scenario.notes.values()),
            )
        )
    return made
