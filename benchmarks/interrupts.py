"""Does an interrupt ever strike outside the user's code, and what does an interrupted attempt cost?

`python -m benchmarks.interrupts` makes 20,000 of them and prints what it has counted.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

from .harness import Contest, Row, at_most, scaled

ATTEMPTS = 20_000
WORKERS = 4
BATCH = 500
TIMEOUTS = (0.0005, 0.001, 0.002)
PATIENCE = 120.0
"""Seconds that a batch may take before its tasks count as lost."""


@dataclass
class Counts:
    """What a storm has done, and what must not have happened in it."""

    attempts: int = 0
    interrupted: int = 0
    """Attempts that were ended from outside."""
    tasks: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    """Interrupts that struck a finalizer, where CPython drops them. They are raised again after `grace`."""
    seconds: float = 0.0
    # What must be 0:
    exceptions: int = 0
    threads_lost: int = 0
    late_results: int = 0
    tasks_lost: int = 0
    final_states: int = 0
    """Tasks that ended other than once."""

    @property
    def faults(self) -> dict[str, int]:
        found = {
            "exceptions outside the user's code": self.exceptions,
            "threads lost": self.threads_lost,
            "late results accepted": self.late_results,
            "tasks that never ended": self.tasks_lost,
            "tasks that ended other than once": self.final_states,
        }
        return {what: count for what, count in found.items() if count}

    def __str__(self) -> str:
        spread = ", ".join(f"{count:,} {state}" for state, count in sorted(self.tasks.items()))
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items()))
        return "\n".join(
            (
                f"{self.attempts:,} attempts in {self.seconds:.1f} s, {self.interrupted:,} interrupted",
                f"tasks: {spread}",
                f"interrupted while they did: {kinds}",
                f"{self.dropped} dropped in a finalizer, and raised again",
                f"{self.exceptions} exceptions outside the user's code",
                f"{self.threads_lost} threads lost",
                f"{self.late_results} late results accepted",
                f"{self.tasks_lost} tasks that never ended",
                f"{self.final_states} tasks that ended other than once",
            )
        )


class Storm:
    """Attempts that are all interrupted, while their code does what it likes about it."""

    def __init__(self, attempts: int, *, seed: int = 1, workers: int = WORKERS) -> None:
        self.attempts = attempts
        self.chance = random.Random(seed)
        self.workers = workers
        self.counts = Counts()
        self.ends: Counter[int] = Counter()
        self.done: list[int] = []
        self.late: set[tuple[int, int]] = set()
        self.lock = threading.Lock()
        self.own: list[Any] = []
        self.pool: Any = None

    # -- what the user's code does ---------------------------------------------------------------

    def spin(self, ctx: Any) -> None:
        while True:
            pass

    def spin_in_a_lock(self, ctx: Any) -> None:
        with self.lock:
            self.spin_until_late(ctx)
        self.spin(ctx)

    def spin_until_late(self, ctx: Any) -> None:
        while not ctx.cancelled:
            pass

    def return_in_time(self, ctx: Any) -> None:
        """Return at the very moment at which the time is up, a little early or a little late."""
        until = ctx.deadline + self.chance.uniform(-2e-5, 2e-5)
        while time.monotonic() < until:
            pass

    def return_when_told(self, ctx: Any) -> None:
        self.spin_until_late(ctx)

    def swallow_exceptions(self, ctx: Any) -> None:
        while True:
            try:
                self.spin_until_late(ctx)
            except Exception:  # noqa: BLE001 - that is the point
                continue
            self.spin(ctx)

    def swallow_everything(self, ctx: Any) -> None:
        try:
            self.spin(ctx)
        except BaseException:  # noqa: BLE001 - that is the point
            pass

    def raise_something_else(self, ctx: Any) -> None:
        try:
            self.spin(ctx)
        finally:
            raise ValueError("raised in place of the interrupt")

    def sleep(self, ctx: Any) -> None:
        ctx.sleep(60)

    def use_the_pool(self, ctx: Any) -> None:
        """Change the pool that it runs in all the time: nothing may strike in the middle of that."""
        while True:
            self.own.append(task := self.pool.dispatch(None, priority=1, delay=60))
            task.cancel()

    KINDS = (
        spin,
        spin_in_a_lock,
        return_in_time,
        return_in_time,
        return_in_time,
        return_when_told,
        swallow_exceptions,
        swallow_everything,
        raise_something_else,
        sleep,
        use_the_pool,
    )

    def run(self, ctx: Any, do: Any) -> tuple[int, int]:
        mine = ctx.task_id, ctx.attempt
        if do is not None:
            do(self, ctx)
        if ctx.cancelled:
            self.late.add(mine)
        return mine

    # -- what is made of it ----------------------------------------------------------------------

    def blow(self) -> Counts:
        """Make the attempts, and count."""
        from retrypool import Pool, RetryPolicy, WorkerSpec, events

        counts = self.counts
        gc.collect()
        started = time.monotonic()
        hearing = _Hearing(counts)

        def hear(event: Any) -> None:
            if isinstance(event, (events.TaskSucceeded, events.TaskDead, events.TaskCancelled)):
                self.ends[event.task.id] += 1

        # Half of the workers are made anew after each interruption.
        workers = [
            WorkerSpec(factory=lambda: _Worker(self)) if n % 2 else _Worker(self) for n in range(self.workers)
        ]
        before = set(threading.enumerate())
        switching = sys.getswitchinterval()
        sys.setswitchinterval(1e-4)
        try:
            with hearing:
                pool: Any = Pool(
                    workers,
                    retry=RetryPolicy(attempts=3, delay=0),
                    health=None,  # that nearly everything fails is what is wanted here
                    interrupt_on_timeout=True,
                    grace=1,
                    listeners=[hear],
                )
                self.pool = pool
                while counts.interrupted < self.attempts and not counts.tasks_lost:
                    self._batch(pool)
                self._roll_call(pool)
                for task in self.own:
                    task.cancel()
                pool.force_close()
                self._join(before)
                # Whoever waits for a task may know of its end a little before a listener does.
                counts.final_states = sum(self.ends[task_id] != 1 for task_id in self.done)
        finally:
            sys.setswitchinterval(switching)
        counts.seconds = time.monotonic() - started
        return counts

    def _join(self, before: set[threading.Thread]) -> None:
        """Wait for the threads to leave, as they do when they have been told."""
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
            self.counts.threads_lost += thread.is_alive()

    def _batch(self, pool: Any) -> None:
        counts, chance = self.counts, self.chance
        kinds = [chance.choice(self.KINDS) for _ in range(min(BATCH, self.attempts))]
        tasks = [pool.dispatch(kind, timeout=chance.choice(TIMEOUTS)) for kind in kinds]
        meddling = threading.Thread(target=self._meddle, args=(pool, tasks, chance.random()))
        meddling.start()
        done, not_done = wait(tasks, timeout=PATIENCE)
        meddling.join()
        counts.tasks_lost += len(not_done)
        for kind, task in zip(kinds, tasks, strict=True):
            if task not in done:
                continue
            history = task.history
            ended = [a.outcome.value for a in history if a.outcome.value != "succeeded"]
            over = sum(outcome in ("timed_out", "withdrawn", "cancelled") for outcome in ended)
            counts.attempts += len(history)
            counts.interrupted += over
            counts.kinds[kind.__name__] += over
            counts.tasks[task.state.value] += 1
            self.done.append(task.id)
            if task.state.value == "succeeded":
                result = task.result()
                counts.late_results += result != (task.id, history[-1].number)
                counts.late_results += len(history) - len(ended) != 1
            self.late.difference_update([(task.id, a.number) for a in history])

    def _meddle(self, pool: Any, tasks: list[Any], seed: float) -> None:
        """Interrupt workers and cancel tasks by hand, at the worst of times."""
        chance = random.Random(seed)
        for task in tasks[::25]:
            for worker in pool.workers():
                pool.interrupt_worker(worker.id, task="retry", force=True)
                pool.interrupt_worker(worker.id, force=True)
            if chance.random() < 0.5:
                pool.cancel_task(task, interrupt=True)
            time.sleep(chance.choice((0.0, 0.001)))

    def _roll_call(self, pool: Any) -> None:
        """Have all workers meet: a thread that was lost does not come."""
        meeting = threading.Barrier(self.workers + 1)
        pool.dispatch_many([lambda _storm, _ctx: meeting.wait(PATIENCE)] * self.workers, timeout=None)
        try:
            meeting.wait(PATIENCE)
        except threading.BrokenBarrierError:
            self.counts.threads_lost += self.workers - meeting.n_waiting


class _Worker:
    def __init__(self, storm: Storm) -> None:
        self.run = storm.run


class _Hearing(logging.Handler):
    """Counts what is logged or raised where nobody catches it."""

    def __init__(self, counts: Counts) -> None:
        super().__init__(logging.ERROR)  # dead tasks are warned of
        self.counts = counts
        self.log = logging.getLogger("retrypool")

    def emit(self, record: logging.LogRecord) -> None:
        if "has not come back" in record.msg:  # a slow machine, or an interrupt that was dropped
            return
        self.counts.exceptions += 1
        print(self.format(record), file=sys.stderr)

    def _raised(self, what: Any) -> None:
        if (
            what.exc_type.__name__ == "Interrupted"
        ):  # nobody's exception: CPython has dropped it in a finalizer
            self.counts.dropped += 1
            return
        self.counts.exceptions += 1
        print(repr(what), file=sys.stderr)

    def __enter__(self) -> None:
        self._hooks = threading.excepthook, sys.unraisablehook
        threading.excepthook = sys.unraisablehook = self._raised
        self.log.addHandler(self)

    def __exit__(self, *_error: object) -> None:
        threading.excepthook, sys.unraisablehook = self._hooks
        self.log.removeHandler(self)


_last: list[Counts] = []


def faults(size: int) -> float:
    _last.append(Storm(size).blow())
    return float(sum(_last[-1].faults.values()))


def contests(scale: float = 1) -> list[Contest]:
    size = scaled(ATTEMPTS, scale)
    return [
        Contest(
            f"{size:,} attempts, {WORKERS} workers",
            "faults",
            [Row("retrypool", faults, size, "retrypool")],
            (at_most(0),),
            most_rounds=1,
            note=lambda: str(_last[-1]),
        )
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interrupts", description=__doc__)
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help=f"to interrupt ({ATTEMPTS:,})")
    parser.add_argument("--seed", type=int, default=1, help="of what they do (1)")
    options = parser.parse_args()
    counts = Storm(options.attempts, seed=options.seed).blow()
    print(f"Python {sys.version.split()[0]}\n{counts}")
    return 1 if counts.faults else 0


if __name__ == "__main__":
    sys.exit(main())
