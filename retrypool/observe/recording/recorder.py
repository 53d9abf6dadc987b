"""Records a run of a pool, in bounded memory, for a report and a picture of it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from retrypool.errors import InvalidType, InvalidValue
from retrypool.events import (
    AttemptEnded,
    Event,
    GroupCooling,
    GroupEjected,
    GroupOpened,
    GroupSuspected,
    OutageBegan,
    OutageEnded,
    TaskCancelled,
    TaskDead,
    TaskRetrying,
    WorkerAdded,
    WorkerCordoned,
    WorkerFailed,
    WorkerPaused,
    WorkerRemoved,
    WorkerReplaced,
    WorkerResumed,
    WorkerStuck,
)
from retrypool.model.task import Task
from retrypool.observe.recording.book import Book
from retrypool.observe.recording.data import Recording, RunningAttempt, SlowTask
from retrypool.observe.recording.lanes import Bar
from retrypool.observe.recording.texts import error_of, first_line, label_of
from retrypool.observe.watched import Watched
from retrypool.states import Outcome
from retrypool.threads.engine import Engine

if TYPE_CHECKING:
    from retrypool.observe.recording.report import Report

__all__ = ["Recorder"]

#: How many entries may wait to be entered.
INBOX = 256


class Recordable(Watched, Protocol):
    """A pool."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no task waits or runs; return whether that is so."""
        ...


Entry = tuple[Callable[..., None], tuple[Any, ...]]


class Recorder:
    """Records what a pool does, for a report in plain sentences and a picture.

    Leaving the `with` block waits until the pool has nothing left to do, as leaving the pool's own does,
    unless an exception comes through; `stop()` ends the recording at once. Both ways of use:

    >>> from retrypool import Pool
    >>> with Pool([len] * 2) as pool, Recorder(pool) as run:
    ...     tasks = pool.dispatch_many(["a", "bcd"])
    >>> run.report().succeeded
    2

    `report()` and `save()` may be called at any time, from any thread, also while it records.

    Memory is bounded however long the run is. Counts are exact. Of `attempts` attempts (default: 100,000,
    about 300 bytes each) everything is kept; when there are more, the shortest of those that follow each
    other on a worker are bundled, so that long ones stay as they are, and a picture of the whole run looks
    the same. Neither data nor results nor errors of tasks are kept alive, only texts of them.

    - `label`: a function of a task that returns the text by which it is shown; default: its name, or the
      beginning of what its data looks like. Give one if the data must not be seen in what is saved.

    Costs about five microseconds for each attempt while it records. Raises `InvalidType` or `InvalidValue`.
    """

    listens_to = (
        AttemptEnded,
        TaskRetrying,
        TaskDead,
        TaskCancelled,
        GroupCooling,
        GroupEjected,
        GroupOpened,
        GroupSuspected,
        OutageBegan,
        OutageEnded,
        WorkerAdded,
        WorkerRemoved,
        WorkerFailed,
        WorkerPaused,
        WorkerResumed,
        WorkerCordoned,
        WorkerStuck,
        WorkerReplaced,
    )

    # _inbox is appended to by whoever has something to tell; all else is under _lock. Who tells never waits
    # for it, but one of them in INBOX enters what has come in.
    def __init__(
        self,
        pool: Recordable,
        *,
        attempts: int = 100_000,
        label: Callable[[Task[Any, Any]], str] | None = None,
    ) -> None:
        engine = getattr(pool, "_engine", None)
        if not isinstance(engine, Engine):
            raise InvalidType("pool", pool, "a Pool")
        if isinstance(attempts, bool) or not isinstance(attempts, int):
            raise InvalidType("attempts", attempts, "a whole number, 100 or more")
        if attempts < 100:
            raise InvalidValue("attempts", attempts, "a whole number, 100 or more")
        if label is not None and not callable(label):
            raise InvalidType("label", label, "a function of a task")
        self._pool = pool
        self._engine: Engine[Any, Any] = engine
        self._limit = attempts
        self._label = label_of if label is None else _guarded(label)
        self._inbox: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._book: Book | None = None
        self._wall = 0.0
        self._final: Recording | None = None  # once it has stopped

    # -- recording -------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to record. Raises `InvalidValue` if that was done before: a run has a recorder of its own."""
        now = self._engine.monotonic()
        with self._lock:
            if self._book is not None or self._final is not None:
                raise InvalidValue("the recorder", self, "one that was not used before")
            self._book = Book(now, self._limit)
            self._wall = self._engine.clock.time() - now
        self._pool.add_listener(self)
        for (worker_id, name, group), threads in self._look_at_workers().items():
            self._inbox.append((self._book.add_worker, (worker_id, name, group, threads, now)))
        return self

    def stop(self) -> None:
        """End the recording. What runs still is shown as running."""
        self._pool.remove_listener(self)
        final = self._look()
        with self._lock:
            self._final = self._final or final
            self._book = None
            self._inbox.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None and self._final is None:
                self._pool.wait()
        finally:
            self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._final is not None else "not started" if self._book is None else "recording"
        return f"<Recorder of {self._engine.name}: {state}>"

    # -- telling ---------------------------------------------------------------------------------

    def report(self) -> Report:
        """Return the report of the run: `print` it, or read its fields.

        While it records, that costs a look at each task that waits, with the pool's lock held.
        """
        from retrypool.observe.recording.report import report_of

        return report_of(self.recording())

    def save(self, path: str | PathLike[str]) -> None:
        """Write a picture of the run: a page for a browser (`.html`), or a trace for Perfetto (`.json`).

        The page is one file that needs nothing else, and no network. Raises `InvalidValue` for another
        ending, and `OSError` for a file that can't be written.
        """
        from retrypool.observe.recording.saving import save

        save(path, self.recording)

    def recording(self) -> Recording:
        """Return what is known so far, as a value."""
        return self._final or self._look()

    def _look(self) -> Recording:
        waiting, running = self._look_at_tasks()
        with self._lock:
            if self._final is not None:
                return self._final
            book = self._book
            if book is None:
                raise InvalidValue("the recorder", self, "started: with Recorder(pool) as run: ...")
            self._enter()
            return book.recording(
                pool=self._engine.name,
                now=self._engine.monotonic(),
                wall=self._wall,
                waiting=waiting,
                running=running,
                rates=self._look_at_rates(),
            )

    def _look_at_workers(self) -> Counter[tuple[int, str, str]]:
        """Return who is there, and with how many threads. A look at a copy: they come and go."""
        return Counter((slot.id, slot.name, slot.group.name) for slot in tuple(self._engine.scheduler.fleet))

    def _look_at_tasks(self) -> tuple[list[float], list[RunningAttempt]]:
        """Return since when tasks wait, and which ones run."""
        engine = self._engine
        scheduler = engine.scheduler
        waiting, delayed, found = engine.look(
            lambda: (
                [_ready(task, self._wall) for task in scheduler.backlog],
                [_ready(task, self._wall) for task in scheduler.timers.tasks() if not task.done()],
                [(slot.id, ctx) for slot in scheduler.fleet for ctx in scheduler.running_at(slot)],
            )
        )
        running = [
            RunningAttempt(worker_id, ctx._started, ctx.attempt, ctx.task_id, self._label(ctx._task))
            for worker_id, ctx in found
            if isinstance(ctx._task, Task)
        ]
        return [*waiting, *delayed], running

    def _look_at_rates(self) -> dict[str, float]:
        """Return the calls per second of groups that are paced, and of the whole pool under ""."""
        fleet = self._engine.scheduler.fleet
        paces = {name: group.pace for name, group in tuple(fleet.groups.items())} | {"": fleet.pace}
        return {name: pace.per_second for name, pace in paces.items() if pace and pace.per_second}

    # -- listening -------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Record an event."""
        book = self._book
        if book is None:
            return
        match event:
            case AttemptEnded():
                self._inbox.append(self._attempt_entry(book, event))
            case TaskRetrying(delay=delay) if delay > 0:
                self._inbox.append((book.retrying, (event.task.id, event.at + delay)))
            case TaskDead(dead=dead):
                error = None if dead.error is None else error_of(dead.error)
                last = dead.history[-1].worker_id if dead.history else 0
                label = self._label(event.task)
                slow = SlowTask(dead.duration, dead.id, label, dead.attempts, last)
                ready = _ready(event.task, self._wall)
                self._inbox.append((book.task_dead, (slow, dead.reason, error, ready, event.at)))
            case TaskCancelled():
                ready = _ready(event.task, self._wall)
                self._inbox.append((book.task_cancelled, (event.task.id, ready, event.at)))
            case _:
                self._inbox.extend(self._other_entries(book, event))
        if len(self._inbox) >= INBOX and self._lock.acquire(blocking=False):
            try:
                self._enter()
            finally:
                self._lock.release()

    def _attempt_entry(self, book: Book, event: AttemptEnded) -> Entry:
        task, attempt = event.task, event.attempt
        record = task._record
        succeeded = attempt.outcome is Outcome.SUCCEEDED
        ready, moved, cost = _released(task, self._wall), False, 1.0
        in_all = attempt.ended - attempt.started if succeeded else None
        if record is not None:
            cost = record.cost
            # Its attempts before this one: a success is not among those of its record.
            before = len(record.history) - (not succeeded)
            if before > 0:
                previous = record.history[before - 1]
                ready = max(ready, previous.ended)
                moved = previous.worker_id != attempt.worker_id
                in_all = task.duration if succeeded else None
        error = None if attempt.error is None else error_of(attempt.error)
        bar = Bar(
            attempt.started,
            attempt.ended,
            attempt.outcome.value,
            attempt.number,
            task.id,
            self._label(task),
            "" if error is None else ": ".join(filter(None, error)),
        )
        return book.attempt, (attempt.worker_id, bar, error, ready, moved, cost, in_all)

    def _other_entries(self, book: Book, event: Event) -> list[Entry]:
        begin, finish, at = book.spans.begin, book.spans.finish, event.at
        match event:
            case GroupCooling(group=group, until=until):
                return [(begin, ("cooling", group, at, until))]
            case GroupSuspected(group=group):
                return [(begin, ("suspect", group, at))]
            case GroupEjected(group=group, until=until):
                return [(finish, ("suspect", group, at)), (begin, ("ejected", group, at, until))]
            case GroupOpened(group=group):
                return [(finish, (kind, group, at)) for kind in ("suspect", "cooling", "ejected")]
            case OutageBegan(until=until, error=error):
                why = ": ".join(filter(None, error_of(error)))
                return [(begin, ("outage", "", at, until, why))]
            case OutageEnded():
                return [(finish, ("outage", "", at))]
            case WorkerAdded():
                threads = self._look_at_workers().get((event.worker_id, event.name, event.group), 1)
                return [(book.add_worker, (event.worker_id, event.name, event.group, threads, at))]
            case WorkerRemoved():
                return [(book.remove_worker, (event.worker_id, at))]
            case WorkerFailed(error=error):
                text = ": ".join(filter(None, error_of(error)))
                return [(book.remove_worker, (event.worker_id, at, text))]
            case WorkerPaused():
                return [(begin, ("paused", event.worker_id, at))]
            case WorkerResumed():
                return [
                    (finish, ("paused", event.worker_id, at)),
                    (finish, ("cordoned", event.worker_id, at)),
                ]
            case WorkerCordoned(reason=reason):
                return [(begin, ("cordoned", event.worker_id, at, float("inf"), reason))]
            case WorkerStuck():
                return [(book.stuck, (event.worker_id, True, at))]
            case WorkerReplaced():
                return [(book.stuck, (event.worker_id, False, at))]
        return []

    def _enter(self) -> None:
        """Enter what has come in. Under the lock."""
        inbox = self._inbox
        for _ in range(len(inbox)):
            enter, arguments = inbox.popleft()
            enter(*arguments)


def _released(task: Task[Any, Any], wall: float) -> float:
    """Return the first moment in which a task may have been taken. `wall`: of the wall clock at 0."""
    settings = task._settings
    at = task._dispatched if settings.at is None else settings.at - wall
    return max(at, task._dispatched + settings.delay)


def _ready(task: Task[Any, Any], wall: float) -> float:
    """Return since when a task waits for an attempt."""
    record = task._record
    ready = _released(task, wall)
    return ready if record is None or not record.history else max(ready, record.history[-1].ended)


def _guarded(label: Callable[[Task[Any, Any]], object]) -> Callable[[Task[Any, Any]], str]:
    def call(task: Task[Any, Any]) -> str:
        try:
            return first_line(str(label(task)), 80)
        except Exception as error:  # noqa: BLE001 - a label is not worth a listener's life
            return f"label raised {type(error).__name__}"

    return call
