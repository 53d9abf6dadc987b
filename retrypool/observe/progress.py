"""Progress of a pool: a bar by tqdm or rich in a terminal or a notebook, else plain lines."""

from __future__ import annotations

import operator
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from retrypool.checks import count
from retrypool.observe.stats import Stats
from retrypool.observe.ticker import Ticker, per_second
from retrypool.observe.watched import Watched

__all__ = ["Progress", "follow", "follow_completed", "watch"]

R = TypeVar("R")

REDRAWN = 0.1
"""Seconds after which a bar is renewed."""

NEXT_LINE = 10.0
"""Seconds after which another plain line is written."""

RECENT = 30.0
"""The rate is that of so many seconds."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The figures that a display shows."""

    done: int
    total: int | None
    rate: float  # per second, of late
    elapsed: float
    running: int
    retries: int
    dead: int

    @property
    def left(self) -> float | None:
        """Seconds until all is done at the current rate."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0, self.total - self.done) / self.rate

    @property
    def rest(self) -> str:
        """What is shown beside the bar."""
        return f"running {self.running:,}, retries {self.retries:,}, dead {self.dead:,}"


class Display(Protocol):
    """Something that shows moments."""

    interval: float

    def show(self, moment: Moment) -> None: ...
    def close(self, moment: Moment) -> None: ...


class Tally:
    """Counts the tasks of one map that have ended, on whatever threads end them."""

    __slots__ = ("_lock", "ended")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.ended = 0

    def add(self, _task: object) -> None:
        """Count one more."""
        with self._lock:
            self.ended += 1


class Progress(AbstractContextManager["Progress"]):
    """Shows the progress of a pool, from when it is made until it is closed.

    `counts` says of the pool's stats how many tasks are done, and how many there are, if that is known.
    """

    def __init__(self, pool: Watched, counts: Callable[[Stats], tuple[int, int | None]]) -> None:
        self._pool = pool
        self._counts = counts
        self._before = pool.stats()
        self._began = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()
        self._display = _find_display(pool.name)
        self._ticker = Ticker(pool.name, self._display.interval, self._draw, self._finish)

    def _draw(self) -> None:
        self._display.show(self._look())

    def _finish(self) -> None:
        self._display.close(self._look())

    def _look(self) -> Moment:
        stats, now = self._pool.stats(), time.monotonic()
        done, total = self._counts(stats)
        recent = self._recent
        recent.append((now, done))
        while len(recent) > 2 and recent[0][0] < now - RECENT:
            recent.popleft()
        (since, before), elapsed = recent[0], now - self._began
        if since - self._began < RECENT:  # all of it is recent
            since, before = self._began, 0
        return Moment(
            done,
            total,
            rate=max(0, done - before) / (now - since) if now > since else 0.0,
            elapsed=elapsed,
            running=stats.running,
            retries=stats.retries - self._before.retries,
            dead=stats.died - self._before.died,
        )

    def close(self) -> None:
        """Show the final state, and stop."""
        self._ticker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def watch(pool: Watched) -> Progress:
    """Show the progress of a pool with all its tasks."""
    before = pool.stats().ended
    return Progress(pool, lambda stats: (stats.ended - before, stats.dispatched - before))


def follow(
    pool: Watched, start: Callable[..., Generator[R, None, None]], progress: bool | int, items: object
) -> Generator[R, None, None]:
    """Yield what `start(on_end=...)` yields, and show meanwhile how many of its tasks have ended.

    `progress` says how many tasks there will be, or else perhaps `items`. Raises `InvalidType` or
    `InvalidValue`, as `start` may, at once.
    """
    if isinstance(progress, bool):
        hint = operator.length_hint(items, -1)
        total = hint if hint >= 0 else None
    else:
        total = count("progress", progress)
    tally = Tally()
    return _follow(pool, start(on_end=tally.add), tally, total)


def _follow(
    pool: Watched, results: Generator[R, None, None], tally: Tally, total: int | None
) -> Generator[R, None, None]:
    with Progress(pool, lambda _stats: (tally.ended, total)):
        yield from results


def follow_completed(pool: Watched, tasks: Generator[R, None, None], total: int) -> Generator[R, None, None]:
    """Yield `tasks` as they end, and show meanwhile how many of them have come."""
    tally = Tally()
    with Progress(pool, lambda _stats: (tally.ended, total)):
        for task in tasks:
            tally.add(task)
            yield task


# -- displays ------------------------------------------------------------------------------------


def _find_display(name: str) -> Display:
    stream = sys.stderr
    if stream is not None and (_in_notebook() or stream.isatty()):
        for make in (_Bar, _RichBar):
            try:
                return make(name)
            except ImportError:
                continue
    return _Lines(name)


def _in_notebook() -> bool:
    # Asked of who is there already: to import it takes a second.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class _Bar:
    """A bar by tqdm."""

    interval = REDRAWN

    def __init__(self, name: str) -> None:
        from tqdm.auto import tqdm

        class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
            # It needs no thread that looks after bars which are not renewed: this one is.
            monitor_interval = 0

        self._bar: Any = Bar(total=None, desc=name, unit="task", mininterval=0, dynamic_ncols=True)

    def show(self, moment: Moment) -> None:
        bar = self._bar
        bar.total = moment.total
        bar.set_postfix_str(moment.rest, refresh=False)
        bar.update(moment.done - bar.n)
        bar.refresh()

    def close(self, moment: Moment) -> None:
        self.show(moment)
        self._bar.close()


class _RichBar:
    """A bar by rich."""

    interval = REDRAWN

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rest]}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._progress.add_task(name, total=None, rate="0", rest="")
        self._progress.start()

    def show(self, moment: Moment) -> None:
        self._progress.update(
            self._task,
            completed=moment.done,
            total=moment.total,
            rate=per_second(moment.rate),
            rest=moment.rest,
            refresh=True,
        )

    def close(self, moment: Moment) -> None:
        self.show(moment)
        self._progress.stop()


class _Lines:
    """A line from time to time, and one at the end: for log files."""

    interval = NEXT_LINE

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = False

    def show(self, moment: Moment) -> None:
        if not self._shown:  # nothing has been done yet
            self._shown = True
            return
        left = "" if moment.left is None else f", {_time(moment.left)} left"
        self._write(f"{_count(moment)}, {per_second(moment.rate)}/s{left}; {moment.rest}")

    def close(self, moment: Moment) -> None:
        average = moment.done / moment.elapsed if moment.elapsed > 0 else 0.0
        self._write(f"{_count(moment)} in {_time(moment.elapsed)}, {per_second(average)}/s; {moment.rest}")

    def _write(self, text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"{self._name}: {text}\n")
            sys.stderr.flush()


def _count(moment: Moment) -> str:
    return f"{moment.done:,}" if moment.total is None else f"{moment.done:,} of {moment.total:,}"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
