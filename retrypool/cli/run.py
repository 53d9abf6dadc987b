"""`run`: any function, or any workers, as a batch job that can be killed and started again."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import IO, Any, NamedTuple

from retrypool import Pool, Rate, RetryPolicy, RetryPoolError, Task, TaskState
from retrypool.cli.errors import DEAD, USAGE, CommandError
from retrypool.cli.items import Item, format_of, items_in, opened
from retrypool.cli.output import Output, line_of
from retrypool.cli.signals import Stop, stop_signals
from retrypool.cli.workers import workers_from

__all__ = ["add_run", "rate_from"]

GLANCE = 0.2
"""Seconds after which the main thread looks whether it was told to stop."""

MOST_AT_ONCE = 1000
"""Items and results that are seen to at a time."""


class _Ended(NamedTuple):
    key: str
    task: Task[Any, Any]


def add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    run = commands.add_parser(
        "run",
        help="run a function, or workers, on each line of a file",
        description=(
            "Run workers on each item of the input, and write a line of JSON for each to the output:"
            ' {"key": ..., "result": ...}, or {"key": ..., "error": ...} for a task that is dead. With'
            " --journal, the same command goes on where it stopped, whatever stopped it."
        ),
        epilog="Exit code: 0 all succeeded, 3 some tasks are dead, 2 it could not begin, 130 or 143 it was"
        " stopped by a signal and can be gone on with.",
    )
    run.add_argument(
        "workers",
        metavar="MODULE:WORKERS",
        help="a list of workers, a function that returns one, or with --workers a function of an item;"
        " the module by its name or as a file, such as pages.py:fetch",
    )
    run.add_argument("--input", default="-", metavar="FILE", help="items; - for standard input (default)")
    run.add_argument("--output", default="-", metavar="FILE", help="results; - for standard output (default)")
    run.add_argument("--journal", metavar="FILE", help="where tasks are kept, so that it can go on")
    run.add_argument(
        "--durability",
        choices=("process", "power"),
        default="process",
        help="what the journal outlives: the process, or a power cut too (default: process)",
    )
    run.add_argument(
        "--source", metavar="URL", help="take items from a broker: redis://host/0#queue, amqp://"
    )
    run.add_argument("--idle", type=_seconds, metavar="S", help="with --source: end when nothing comes for S")
    run.add_argument(
        "--format",
        choices=("jsonl", "csv", "lines"),
        help="of the input; default: by its name (.jsonl, .csv, else lines), jsonl for -",
    )
    run.add_argument("--key", metavar="FIELD", help="the field that tells items apart (default: line number)")
    run.add_argument("--workers", type=_positive, dest="number", metavar="N", help="so many of the function")
    run.add_argument("--attempts", type=_positive, metavar="N", help="tries for each item (default: 3)")
    run.add_argument("--timeout", type=_seconds, metavar="S", help="seconds for one attempt (default: none)")
    run.add_argument(
        "--rate", type=rate_from, metavar="R", help="calls in all: 10 a second, 100/min, 5000/h, 20/10s"
    )
    run.add_argument("--window", type=_positive, default=1000, metavar="N", help="items at a time (1000)")
    run.add_argument("--progress", action="store_true", help="tell on standard error how far it is")
    run.set_defaults(run=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    try:
        if arguments.source is not None:
            from retrypool.cli.consume import Consuming

            workers = workers_from(arguments.workers, arguments.number)
            return Consuming(arguments, partial(pool_of, arguments, workers)).run()
        return _Run(arguments).run()
    except (CommandError, RetryPoolError) as error:
        print(f"retrypool: {error}", file=sys.stderr)
        return USAGE


def pool_of(arguments: argparse.Namespace, workers: list[Any], **options: Any) -> Pool[Any, Any]:
    """Return the pool that the arguments ask for."""
    if arguments.attempts is not None:
        options["retry"] = RetryPolicy(attempts=arguments.attempts)
    return Pool(
        workers,
        timeout=arguments.timeout,
        rate=arguments.rate,
        interrupt_on_timeout=arguments.timeout is not None,
        name="run",
        **options,
    )


class _Run:
    """One run of the command. Workers, and the thread that reads, only put something into the inbox."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._inbox: queue.SimpleQueue[Item | _Ended | Exception | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(arguments.window)  # items that may be read and not yet written
        self._more = True  # items may come
        self._keys: set[str] = set()  # in flight
        self._lines: Counter[bool] = Counter()  # of the output, by whether they are results
        self._new = 0  # results of this run
        self._failed = 0
        self._skipped = 0
        self._progress = Progress(shown=arguments.progress)

    def run(self) -> int:
        arguments = self._arguments
        storage = None
        if arguments.journal is not None:
            from retrypool import SQLiteStorage

            storage = SQLiteStorage(arguments.journal, durability=arguments.durability)
        kind = format_of(arguments.input, arguments.format)
        workers = workers_from(arguments.workers, arguments.number)
        file = opened(arguments.input)
        reader = threading.Thread(
            target=self._read,
            args=(file, items_in(file, kind, arguments.key)),
            name="retrypool-input",
            daemon=True,
        )
        with ExitStack() as unread, stop_signals() as stop:
            unread.callback(file.close)
            pool = pool_of(arguments, workers, storage=storage)
            try:
                output = Output(arguments.output, go_on=storage is not None)
                self._lines.update(output.done.values())
                unread.pop_all()
                # Another thread reads: the input may be a pipe, and let wait for the next line.
                reader.start()
                self._go(pool, output, stop)
                output.close()
            except BaseException:
                pool.force_close()
                raise
            finally:
                self._more = False
                self._room.release()
        return self._over(stop)

    def _go(self, pool: Pool[Any, Any], output: Output, stop: Stop) -> None:
        """Take items as they come, and write what has ended, until all is done or it is told to stop."""
        while (self._more and not stop.told) or self._keys:
            news = self._news()
            if stop.told and pool.storage is not None:
                self._write_ended(pool, news, output)
                self._leave_the_rest(pool, output)
                return
            for item in news:
                if isinstance(item, Item) and not stop.told:
                    self._take(pool, item, output)
            self._write_ended(pool, news, output)
            self._progress.tell(self._new, self._failed, len(self._keys))
        pool.close()

    def _read(self, file: IO[str], items: Iterator[Item]) -> None:
        end: Exception | None = None
        try:
            with file:
                for item in items:
                    self._room.acquire()
                    if not self._more:
                        break
                    self._inbox.put(item)
        except Exception as error:  # noqa: BLE001 - raised by the main thread
            end = error
        self._inbox.put(end)

    def _news(self) -> list[Any]:
        """Return what has come: items, and tasks that have ended. Waits a moment for the first."""
        try:
            news = [self._inbox.get(timeout=GLANCE)]
        except queue.Empty:
            return []
        while len(news) < MOST_AT_ONCE and not self._inbox.empty():
            news.append(self._inbox.get())
        for one in news:
            if isinstance(one, Exception):
                raise one
            self._more = self._more and one is not None
        return news

    def _take(self, pool: Pool[Any, Any], item: Item, output: Output) -> None:
        key = item.key
        # One that is dead may have been requeued since: the journal knows.
        asked = pool.storage is not None and item.problem is None and output.done.get(key) is False
        if (key in output.done and not asked) or key in self._keys:
            self._skipped += 1
            self._room.release()
        elif item.problem is not None:
            line, ok = line_of(key, None, item.problem)
            output.write([line])
            self._count(output, key, ok=ok)
            self._room.release()
        else:
            task = pool.dispatch(item.data) if pool.storage is None else pool.dispatch(item.data, key=key)
            self._keys.add(key)
            task.add_done_callback(lambda _: self._inbox.put(_Ended(key, task)))

    def _write_ended(self, pool: Pool[Any, Any], news: list[Any], output: Output) -> None:
        """Write what has ended, once it has ended in the journal, too."""
        ended = [one for one in news if isinstance(one, _Ended)]
        if ended and pool.storage is not None:
            pool.storage.flush()
        lines = []
        for key, task in ended:
            self._room.release()
            if task.state is TaskState.CANCELLED:
                continue
            self._keys.discard(key)
            error = task.exception()
            if error is not None and output.done.get(key) is False:
                self._skipped += 1  # dead, as it is told already
                continue
            line, ok = line_of(key, None if error else task.result(), error)
            lines.append(line)
            self._count(output, key, ok=ok)
        output.write(lines)

    def _count(self, output: Output, key: str, *, ok: bool) -> None:
        before = output.done.get(key)
        if before is not None:  # it was dead, and was requeued
            self._lines[before] -= 1
        if output.goes_on:  # else nobody asks, and a pipe may have no end
            output.done[key] = ok
        self._lines[ok] += 1
        self._new += 1
        self._failed += not ok

    def _leave_the_rest(self, pool: Pool[Any, Any], output: Output) -> None:
        """Let running tasks end, and leave waiting ones in the journal."""
        pool.pause()
        while pool.processing_count or not self._inbox.empty():
            self._write_ended(pool, self._news(), output)
        pool.force_close()

    def _over(self, stop: Stop) -> int:
        dead = self._lines[False]
        parts = [f"{self._lines[True]:,} succeeded"]
        if dead:
            parts.append(f"{dead:,} dead")
        if self._skipped:
            parts.append(f"{self._skipped:,} were done before")
        self._progress.end()
        if stop.told:
            left = len(self._keys)
            how = "the rest was not read"
            if self._arguments.journal:
                how = "give the same command again to go on"
            print(f"retrypool: stopped: {', '.join(parts)}, {left:,} begun; {how}", file=sys.stderr)
            return 128 + stop.told
        if self._arguments.progress or dead:
            print(f"retrypool: {', '.join(parts)}", file=sys.stderr)
        return DEAD if dead else 0


class Progress:
    """A line on standard error: renewed in a terminal, else one every ten seconds."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._live = sys.stderr.isatty()
        self._every = 0.5 if self._live else 10.0
        self._began = self._last = time.monotonic()

    def tell(self, done: int, dead: int, begun: int) -> None:
        """Show the progress, unless that was done just now."""
        now = time.monotonic()
        if not self._shown or now - self._last < self._every:
            return
        self._last = now
        rate = done / max(now - self._began, 1e-9)
        text = f"{done:,} done, {dead:,} dead, {begun:,} begun, {rate:,.0f}/s"
        print(f"\r{text}\033[K" if self._live else text, end="" if self._live else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._shown and self._live:
            print(file=sys.stderr)


_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hour": 3600.0, "d": 86400.0}


def rate_from(text: str) -> Rate:
    """Return the rate that `10`, `10/s`, `100/min` or `20/10s` says."""
    count, _, period = text.partition("/")
    digits = period.rstrip("abcdefghijklmnopqrstuvwxyz")
    try:
        return Rate(float(count), per=float(digits or 1) * _UNITS[period[len(digits) :]])
    except (ValueError, KeyError, RetryPoolError):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: write 10, 10/s, 100/min or 20/10s") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number
