"""The pool: what users call. Each method checks what it is given and hands on to the part that does it."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterable
from functools import partial
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, Self, get_args, overload
from weakref import ref

from typing_extensions import TypeVar, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from datetime import datetime, tzinfo
    from types import TracebackType

    from rich.console import Console

    from retrypool.collect.view import PoolView
    from retrypool.observe.live import Live
    from retrypool.parts import *  # noqa: F403 - at run time: see _import_parts
    from retrypool.sources.base import Consumed, Source
    from retrypool.storage.base import Storage
    from retrypool.threads.signals import SignalDrain

    _Settled = tuple[TaskSettings, Callable[[Any], None] | None, int | None]
    """Settings; what lets tasks with these arrive without a lock, if they may; the fleet's version then."""

__all__ = ["Pool"]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)


class _Default:
    """Stands for a default whose module is imported with the first pool. Shown as what it stands for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


_HEALTH: Any = _Default("HealthPolicy()")
_WHOLE: Any = _Default("<the whole pool>")

_pool_number = itertools.count(1).__next__


class Pool(Generic[T, R]):
    """Workers that are not identical, and many tasks to push through them.

    `workers` are objects with `run(ctx, data)`, plain functions of the data, or `WorkerSpec` objects; each
    gets one thread. The pool's own options:

    - `retry`: the `RetryPolicy` of tasks that bring none; default: 3 attempts, exponential delay.
    - `timeout`, `time_limit`, `deadline`, `options`, `interrupt_on_timeout`, `copy_context`: the same,
      for tasks that do not say; see `dispatch`.
    - `cancel`: a `CancelToken`; once it is cancelled, the pool is closed by force.
    - `on_success(task)`, `on_failure(task, error)`, `on_retry(task, error, delay)`, `on_dead(dead)`,
      `listeners`: are told what happens, outside of all locks, on the thread that causes it. What they
      raise is logged. `on_failure` may return a `FailureAction`.
    - `blame`: whose fault an error is, where the worker does not say it with `Throttled`, `WorkerFault`
      or `Unrecoverable`: a mapping of error types, or a function of the error, to `"task"`, `"group"`,
      `"nobody"`, or one of these classes.
    - `health`: the `HealthPolicy`; None: no group is ever ejected.
    - `rate`: a `Rate` for all calls of the pool together; those of groups are said with their workers.
    - `retry_budget`: a `Budget`; retries beyond it are postponed. Default: no limit.
    - `hedge`: True, or a `Hedge`, to begin a task a second time elsewhere once it has run much longer than
      others did and a worker has nothing to do; the first result counts. Only for tasks that do no harm when
      they are run twice at once; otherwise no task ever is. Each task costs some microseconds more, as each
      has a record, and about 300 bytes for it. Default: no second attempts.
    - `affinity_wait`: how long a retry waits for a worker that has not tried it, while there is one
      that can't take it now, other than for being ill; default: 5 s.
    - `dead_limit`: how many dead tasks are kept, the oldest being dropped; default: all.
    - `history_limit`: of how many ended tasks `status` knows, the oldest being forgotten; default: 10,000.
    - `max_queue`: how many tasks may wait, delayed ones included; default: any number. A `dispatch` that
      finds the queue full waits for room (`on_full="block"`) or raises `QueueFull` (`on_full="raise"`);
      `block_timeout` says it for one task. Retries and requeued tasks take no notice. A worker, or a callback
      on a worker's thread, never waits unless it gives a `block_timeout`: it would wait for itself. Workers
      take tasks under the lock then, which costs some microseconds for each.
    - `keep_results`: whether tasks that have ended are kept, with their data and results, for `results()` and
      `task(id)`: all of them, or so many, the oldest being dropped; default: none. `keep_for`: for how long
      after their end; default: as long as the pool.
    - `storage`: where tasks are kept so that they outlive the process, such as `SQLiteStorage(path)`. What it
      holds goes on at once; a `dispatch` that has returned is not lost. Default: nowhere.
    - `show_data`: False to keep the data of tasks out of the log, of the notes on errors, and of pictures.
    - `wait_for_workers`: whether tasks are accepted while there is no worker; default: no.
    - `grace`: how long the thread of an attempt that is over may take to come back, before it counts as
      stuck; default: 5 s. A stuck worker that has a factory is replaced, as long as fewer than
      `max_abandoned` threads have been given up that way; default: 16.
    - `exit_timeout`: an open pool is drained when the interpreter exits; this is how long it waits there
      while an attempt runs and none ends; default: 5 s, None: for good.
    - `name`: shown in thread names, errors and the log. `clock`: see `retrypool.testing`.

    Use it in a `with` statement, or call `close`. Costs a thread for each worker, and one more from the
    first delay or timeout on. Raises `InvalidType` or `InvalidValue` for what makes no sense.

    >>> with Pool([len] * 2) as pool:
    ...     task = pool.dispatch("abc")
    >>> task.result()
    3
    """

    def __init__(
        self,
        workers: Iterable[AnyWorker[T, R] | WorkerSpec[T, R]] = (),
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        time_limit: Duration | None = None,
        deadline: Duration | None = None,
        interrupt_on_timeout: bool = False,
        copy_context: bool = False,
        cancel: CancelToken | None = None,
        options: Mapping[str, object] | None = None,
        on_success: Callable[[Task[T, R]], object] | None = None,
        on_failure: Callable[[Task[T, R], BaseException], FailureAction | None] | None = None,
        on_retry: Callable[[Task[T, R], BaseException, float], object] | None = None,
        on_dead: Callable[[DeadTask[T]], object] | None = None,
        listeners: Iterable[Listening] = (),
        blame: BlameOption = None,
        health: HealthPolicy | None = _HEALTH,
        rate: RateOption = None,
        retry_budget: Budget | None = None,
        hedge: HedgeOption = None,
        affinity_wait: Duration = 5.0,
        dead_limit: int | None = None,
        history_limit: int = 10_000,
        max_queue: int | None = None,
        on_full: Literal["block", "raise"] = "block",
        keep_results: bool | int = False,
        keep_for: Duration | None = None,
        show_data: bool = True,
        storage: Storage | None = None,
        wait_for_workers: bool = False,
        grace: Duration = 5.0,
        max_abandoned: int = 16,
        exit_timeout: Duration | None = 5.0,
        name: str | None = None,
        clock: Clock | None = None,
        **unknown: Never,
    ) -> None:
        if "Engine" not in globals():
            _import_parts()
        for option in unknown:
            raise unknown_option(option, Pool.__init__.__kwdefaults__ or ())
        given: dict[str, Any] = {
            "timeout": timeout,
            "time_limit": time_limit,
            "deadline": deadline,
            "interrupt_on_timeout": interrupt_on_timeout,
            "copy_context": copy_context,
        }
        if retry is not None:
            given["retry"] = retry
        if options is not None:
            given["options"] = options
        dead_limit = optional_count("dead_limit", dead_limit)
        max_abandoned = count("max_abandoned", max_abandoned)
        history_limit = min(count("history_limit", history_limit), sys.maxsize)  # no deque can be longer
        max_queue = optional_count("max_queue", max_queue, least=1)
        if on_full not in ("block", "raise"):
            raise InvalidValue("on_full", on_full, "'block' or 'raise'")
        flag("wait_for_workers", wait_for_workers)
        if cancel is not None and not isinstance(cancel, CancelToken):
            raise InvalidType("cancel", cancel, "a CancelToken")
        if health is _HEALTH:
            health = HealthPolicy()
        if health is not None and not isinstance(health, HealthPolicy):
            raise InvalidType("health", health, "a HealthPolicy, or None for no ejections")
        if retry_budget is not None and not isinstance(retry_budget, Budget):
            raise InvalidType("retry_budget", retry_budget, "a Budget")
        if name is not None and not isinstance(name, str):
            raise InvalidType("name", name, "a string")
        if clock is not None and not all(
            callable(getattr(clock, method, None)) for method in ("monotonic", "time", "acquire")
        ):
            raise InvalidType("clock", clock, "a clock, such as retrypool.testing.FakeClock()")
        time = SystemClock() if clock is None else clock
        self._settings = TaskSettings().having(given)
        specs = _specs(workers)
        _warn_of_shared(spec.worker for spec in specs)
        named = exact(name) or f"pool-{_pool_number()}"
        observers: Observers[T, R] = Observers(
            on_success=on_success,
            on_failure=on_failure,
            on_retry=on_retry,
            on_dead=on_dead,
            listeners=listeners,
        )
        scheduler = self._make_scheduler(
            affinity_wait=seconds("affinity_wait", affinity_wait),
            dead_limit=dead_limit,
            history_limit=history_limit,
            health=None if health is None else plain(HealthPolicy, health),
            pace=as_pace(rate),
            budget=None if retry_budget is None else plain(Budget, retry_budget),
        )
        hedging = None if (policy := as_hedge(hedge)) is None else Hedging(policy)
        judge, patience, kept = (
            as_judge(blame),
            seconds("grace", grace),
            Kept.make(keep_results, keep_for, time.monotonic),
        )
        exit_limit = optional_seconds("exit_timeout", exit_timeout)
        # Last of all that may refuse: it takes possession of a file.
        journal = None
        if storage is not None:
            from retrypool.threads.journal import open_journal

            journal = open_journal(storage, named, time, self._settings, scheduler)
        self._engine: Engine[T, R] = Engine(
            name=named,
            clock=time,
            observers=observers,
            scheduler=scheduler,
            judge=judge,
            wait_for_workers=wait_for_workers,
            grace=patience,
            max_queue=max_queue,
            patient=on_full == "block",
            kept=kept,
            threaded=self._threaded,
            careful=not self._settings.plain,
            journal=journal,
            hedging=hedging,
        )
        self._workers: Workers[T, R] = Workers(self._engine, max_abandoned=max_abandoned)
        self._lifecycle: Lifecycle[T, R] = Lifecycle(self._engine, self._workers, exit_limit)
        self._engine.shows_data = flag("show_data", show_data)
        self._lookup = Lookup(self._engine, self._workers)
        self._engine.listen(EventLog(self._engine, tasks=self._logs_tasks))
        # What a dispatch needs of the engine, within reach. None of it is ever replaced.
        self._next_id = self._engine.scheduler.backlog.next_seq
        self._settled: _Settled = self._settle(self._settings)
        # Written by any dispatcher, one atomic step at a time. An entry that is lost is computed again.
        self._known: dict[tuple[Any, ...], _Settled] = {}
        self._parked = self._engine.scheduler.fleet.parked
        self._monotonic = self._engine.monotonic
        if self._threaded:
            self._lifecycle.watch_over(self)
        try:
            self._workers.add(specs)
            if journal is not None:
                restore_all(self._engine, journal, self._engine.dead_tasks.requeue)
                restore_schedules(self._engine, journal)
        except BaseException:
            self.force_close()
            raise
        if cancel is not None:
            self._engine.bonds.bind("pool", cancel, partial(give_up, ref(self._lifecycle)))

    # Whether workers get threads; a pool that is stepped by hand has none.
    _threaded = True
    # Whether dead tasks are logged; not where futures are all that anybody looks at.
    _logs_tasks = True

    def _make_scheduler(self, **options: Any) -> Scheduler:
        """Return what decides for this pool; a pool under test has one whose queues can be watched."""
        return Scheduler(**options)

    # -- tasks in --------------------------------------------------------------------------------

    def dispatch(self, data: T, **options: Unpack[TaskOptions]) -> Task[T, R]:
        """Accept `data` as a task, and return it at once: the future of what `run` makes of it.

        Options, all of them optional. One that is not given is the pool's own:

        - `name`, `tags`, `metadata`: for people, callbacks and listeners.
        - `priority`: higher goes first; default 0.
        - `retry`: a `RetryPolicy`.
        - `timeout`: seconds for one attempt. `time_limit`: of running time, for all attempts.
          `deadline`: from now to the end, waiting included. What is used up makes a dead task.
        - `delay`: seconds before it may be claimed first. `at`: the same as an aware datetime; one that
          has passed means now. If the wall clock is set, that is noticed within a minute.
        - `options`: a mapping that the worker finds in `ctx.options`.
        - `interrupt_on_timeout`: raise `Interrupted` in a thread whose attempt ran out of time.
        - `require`: tags that the worker must have; `worker`: the only one that may take it, by id;
          `exclude`: workers by id, and groups by name, that may not. What no worker can meet is refused
          with `NoWorkers`, unless `wait_for_worker` is True.
        - `cost`: how many calls it counts as, where calls are paced: a number or a function of the data.
        - `copy_context`: let `run` see the context variables of this thread as they are now.
        - `cancel`: a `CancelToken` that cancels the task, also while it runs.
        - `drain`: a `Drain` for what `run` gives to `ctx.send`.
        - `keep_data`: False to let go of the data when the task ends: `task.data` is None then. A dead
          task has it still.
        - `hedge`: False for a task that must not run twice at once, in a pool with `hedge`.
        - `key`: by which the pool's storage knows the task. While it knows one of that key, that is what is
          returned: waiting, running, or ended, with its stored result.
        - `block_timeout`: seconds to wait for room in a bounded queue; default: as `on_full` says.

        In a pool with a storage, it returns when the task is stored. Raises `StorageError` if that fails,
        and `NotStorable` or `InvalidValue` for data and options that can't be stored.

        Raises `PoolClosed`, `NoWorkers`, `QueueFull`, and `InvalidType` or `InvalidValue` for an option
        that makes no sense; the task is not accepted then. A task that any worker may take at once takes no
        lock; options that can be hashed are checked once, and found again the next time.
        """
        engine = self._engine
        token = labels = None
        if not options:
            settings, arrive, _ = self._settled
        else:
            if "key" in options:
                key = checked_key("key", options.pop("key"))
                return engine.intake.dispatch(data, self._settling(options)[0], key=key)
            if "cancel" in options:
                token = checked_token("cancel", options.pop("cancel"))
            if not LABELS.isdisjoint(options):
                labels = take_labels(options)  # type: ignore[arg-type]
            settings, arrive, _ = self._settling(options) if options else self._settled
        if arrive is None or engine.guarded:
            if labels is not None:
                settings = settings.told(labels)
            if token is not None:
                settings, arrive = settings.having({"cancel": token}), None
            if arrive is not None and engine.announces:
                return engine.intake.announce(data, settings, arrive)
            if arrive is not None and (limit := engine.bound) is not None:
                admitted: Task[T, R] | None = limit.admit(data, settings, arrive)
                if admitted is not None:
                    return admitted
            return engine.intake.dispatch(data, settings, arrive=arrive)
        task: Task[T, R] = new_task(self._next_id(), data, settings, engine, self._monotonic())
        if labels is not None:
            task._labels = labels
        # Handshakes H1 and H2: append, then read `guarded` and `parked`.
        try:
            if token is not None:  # first: so no Ctrl-C leaves a task in the queue that does not follow
                engine.cancelling.obey(token, task)
                if task._withdrawn:
                    engine.cancelling.take_back(task)
                    return task
            arrive(task)
            if engine.guarded:
                engine.intake.look_again(task, told=token is not None)
            if self._parked and not engine.waking.searching:
                engine.waking.wake_one()
        except BaseException:  # a Ctrl-C; or a refusal, where it does no harm
            engine.cancelling.take_back(task)
            raise
        return task

    def _settling(self, options: Mapping[str, Any]) -> _Settled:
        """Return the settings for `options`, and the way in. Those that come again are found again."""
        # The types too: 1, 1.0 and True are equal, and not all of them are a priority.
        key: tuple[Any, ...]
        if len(options) == 1:  # nearly always, and this takes half the time
            ((name, value),) = options.items()
            key = (name, value, type(value))
        else:
            key = (*options, *options.values(), *map(type, options.values()))
        try:
            found = self._known.get(key)
        except TypeError:  # something in it can't be hashed
            key = tuple(frozenset(part) if isinstance(part, set) else part for part in key)
            try:
                found = self._known.get(key)
            except TypeError:
                found, key = None, ()
        if found is not None and found[2] in (None, self._engine.scheduler.fleet.version):
            return found
        found = self._settle(self._settings.having(options))
        # What belongs to one task alone will not come again, and must not be kept alive.
        if key and found[0].shareable:
            if len(self._known) >= 64:
                self._known.clear()
            self._known[key] = found
        return found

    def _settle(self, settings: TaskSettings) -> _Settled:
        # The version is read first: a worker that comes or goes meanwhile makes the answer an old one.
        version = self._engine.scheduler.fleet.version if settings.depends else None
        return settings, self._engine.intake.way_in(settings), version

    def dispatch_many(self, items: Iterable[T], **options: Unpack[TaskOptions]) -> list[Task[T, R]]:
        """Dispatch each of `items` with the same options, and return the tasks in the same order.

        Checks the options once. If the pool closes in between, it raises as `dispatch` does, and what
        was accepted until then runs.
        """
        if not isinstance(items, Iterable):
            raise InvalidType("items", items, "an iterable of data")
        settings = self._settings.having(options) if options else self._settings
        return self._engine.intake.dispatch_all(items, settings)

    def cancel_task(self, task: AnyTask, *, interrupt: bool = False) -> bool:
        """Cancel a task, also one that runs, given as such or by its id; return whether it is cancelled.

        Its worker is told through `ctx.cancelled`, and with `interrupt` its thread is interrupted. A
        task that ends at the same moment may win, and then the answer is False. So it is for a task of
        another pool. By its id, one that has ended is False too, and one that is not known raises
        `TaskNotFound`.
        """
        if isinstance(task, bool) or not isinstance(task, (int, Task, DeadTask, TaskStatus)):
            raise InvalidType("task", task, "what dispatch() returned, or its id")
        known = self._lookup.find_waiting_or_running(task)
        if known is None or known._owner is not self._engine:
            return False
        return self._engine.cancelling.cancel_task(known, "cancelled", interrupt=interrupt)

    # -- looking at it ---------------------------------------------------------------------------

    def tasks(self) -> list[Task[T, R]]:
        """Return the tasks that have not ended: those that run, then those that wait."""
        return self._engine.look(self._tasks)

    def _tasks(self) -> list[Task[T, R]]:
        scheduler = self._engine.scheduler
        running = [ctx._task for runner in self._workers for ctx in scheduler.running_at(runner.slot)]
        # An attempt that has just failed has let go of its task.
        running = list(dict.fromkeys(task for task in running if isinstance(task, Task)))  # one may run twice
        return running + list(scheduler.waiting())

    @property
    def queue_size(self) -> int:
        """How many tasks wait, for a worker or for their moment."""
        scheduler = self._engine.scheduler
        return self._engine.look(lambda: len(scheduler.backlog) + scheduler.delayed)

    @property
    def processing_count(self) -> int:
        """How many tasks run."""
        return self._engine.look(lambda: sum(len(runner.slot.running) for runner in self._workers))

    @property
    def dead_count(self) -> int:
        """How many dead tasks are kept."""
        return len(self._engine.scheduler.endings.dead)

    def stats(self) -> Stats:
        """Return counts of tasks and attempts. Costs a look at each worker."""
        return count_all(self._engine, self._workers)

    def status(self, task: AnyTask) -> TaskStatus:
        """Return where a task stands: one that has not ended, or one of the last `history_limit` that have.

        Takes a task or its id. Raises `TaskNotFound` for any other. Looks through all that waits, twice if
        it finds nothing, with the pool's lock held: some tens of milliseconds if that is 100,000 tasks.
        """
        return self._lookup.status(task)

    def explain(self, task: AnyTask = _WHOLE) -> str:
        """Return one sentence on why a task waits, for whom and until when; or what else it does.

        Takes a task or its id, and costs what `status` does. Without one: some sentences on what the whole
        pool does, and what holds it back: no free worker, rates, a pause, cool-downs and ejections,
        requirements that nobody meets, one slow worker. Times are local. Raises `TaskNotFound`.

        >>> from retrypool.testing import ManualPool
        >>> pool = ManualPool([len])
        >>> pool.pause()
        >>> pool.explain(pool.dispatch("abc"))
        'waits until the pool, which is paused, is resumed'
        >>> pool.explain()
        '1 task waits, no task runs. The pool is paused, until it is resumed.'
        """
        return self._lookup.explain(Whole.POOL if task is _WHOLE else task)

    def task(self, task_id: int) -> Task[T, R]:
        """Return the task of this id: one that has not ended, or one that is kept (`keep_results=`).

        For services, which hand out ids and are asked for results later. Raises `TaskNotFound`.
        """
        return self._lookup.find(task_id)

    @property
    def storage(self) -> Storage | None:
        """Where its tasks are kept; None: nowhere."""
        journal = self._engine.journal
        return None if journal is None else journal.storage

    @property
    def name(self) -> str:
        """What it is called in thread names, errors, logs and metrics."""
        return self._engine.name

    def live(self, *, interval: Duration = 0.5, console: Console | None = None) -> Live:
        """Return a context manager that shows a table of the workers, and renews it every `interval` seconds.

        Each worker with its state (and how long it cools or is ejected yet), what it runs and since when,
        calls, failures by kind, the latency of its last 500 attempts (median and 95th percentile), its
        calls per second of the last 30 s and what they are held to. By rich, on stdout unless `console` is
        another `rich.console.Console`. Listens to the attempts meanwhile. Needs the extra
        `retrypool[progress]`: raises `MissingExtra` without.
        """
        from retrypool.observe.live import Live

        return Live(self, interval, console)

    def add_listener(self, listener: Listening) -> None:
        """Tell `listener` of what happens from now on: an object with `on_event(event)`, or a function.

        One that says in `listens_to` which events it wants, a tuple of their types, gets only these, and
        the others cost nothing. Raises `InvalidType` for what is no listener.
        """
        self._engine.listen(listener)

    def remove_listener(self, listener: Listening) -> None:
        """Tell `listener` nothing more. One that is not there is no error."""
        self._engine.stop_listening(listener)

    # -- dead tasks ------------------------------------------------------------------------------

    def dead_tasks(self) -> list[DeadTask[T]]:
        """Return the dead tasks that are kept, the oldest first. A new list each time."""
        return self._engine.look(lambda: list(self._engine.scheduler.endings.dead.values()))

    def pull_dead_task(self, task: AnyTask) -> DeadTask[T]:
        """Take a dead task, given as such or by its id, out of the pool. Raises `TaskNotFound`."""
        return self._engine.dead_tasks.pull(id_of(task))

    def requeue_dead_task(self, task: AnyTask) -> Task[T, R]:
        """Give a dead task fresh attempts, and return it as a new task: same id, its history kept.

        The old task's future has told its error already, and stays as it is. Never waits for room in the
        queue. Raises `TaskNotFound`, and what `dispatch` raises of a pool that can take no task.
        """
        return self._engine.dead_tasks.requeue(id_of(task))

    def adopt_dead_task(self, dead: DeadTask[T]) -> Task[T, R]:
        """Give a dead task of another pool, or of another process, fresh attempts here; return its task.

        It has a new id, and its old history. What belonged to the other pool goes: the id of a worker, a
        token, a drain, a delay; in a pool with a storage, so does a policy that has no name there. Raises
        `InvalidType`, and what `dispatch` raises.

        >>> with Pool([int]) as one, Pool([str.upper]) as other:
        ...     _ = one.dispatch("abc").exception()
        ...     other.adopt_dead_task(one.dead_tasks()[0]).result()
        'ABC'
        """
        if not isinstance(dead, DeadTask):
            raise InvalidType("dead", dead, "a DeadTask, as dead_tasks() and pull_dead_task() return them")
        return self._engine.dead_tasks.adopt(dead)

    # -- many tasks ------------------------------------------------------------------------------

    @overload
    def map(
        self,
        iterable: Iterable[T],
        *,
        window: int | None = None,
        ordered: bool = True,
        timeout: Duration | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | int = False,
        key: Callable[[T], str] | None = None,
        chunk: int = 1,
        **options: Unpack[MapOptions],
    ) -> Generator[R, None, None]: ...
    @overload
    def map(
        self,
        iterable: Iterable[T],
        *,
        window: int | None = None,
        ordered: bool = True,
        timeout: Duration | None = None,
        return_exceptions: bool,
        progress: bool | int = False,
        key: Callable[[T], str] | None = None,
        chunk: int = 1,
        **options: Unpack[MapOptions],
    ) -> Generator[R | BaseException, None, None]: ...
    def map(
        self,
        iterable: Iterable[T],
        *,
        window: int | None = None,
        ordered: bool = True,
        timeout: Duration | None = None,
        return_exceptions: bool = False,
        progress: bool | int = False,
        key: Callable[[T], str] | None = None,
        chunk: int = 1,
        **options: Unpack[MapOptions],
    ) -> Generator[Any, None, None]:
        """Iterate over the results of running each item of `iterable`, which may be infinite.

        Lazy, like the built-in `map`: it begins when the first result is asked for. It pulls items on
        the thread that iterates, until there is a result to give or `window` items are in flight or
        wait to be consumed. So memory stays flat.

        - `window`: by default 32 for each worker, 128 at least; up to 16 times that while the workers would
          run out of items: in order, behind a first item that is late (for a delay or because it is slow),
          and where all that were pulled end before this thread has the first result. A number is kept to
          strictly. With `chunk`, 16 chunks for each worker, of 10,000 items together at the most, and not
          less than two for each; up to 10,000 items where all end before this thread has the first result.
        - `ordered`: in the order of the items, or else as they end.
        - `timeout`: seconds from this call after which waiting for a result raises `TimeoutError`. A
          limit for each attempt is the pool's `timeout`.
        - `return_exceptions`: yield the error of an item that failed for good, in its place. Otherwise
          it is raised there, and that ends the iteration.
        - `progress`: show on stderr how many have ended, the rate, the time left, and how many run, were
          tried again, and are dead: a bar by tqdm, else rich, in a terminal or a notebook; else a line every
          10 s. Where the iterable has no length, the number of its items in place of True gives it an end.
        - `key`: a function of the item that returns its key, in a pool with a storage. What has ended there
          is not run again, and its stored result is yielded: so the same script, started again, goes on where
          it stopped. Items of the same key are one task, whose result comes once for each.
        - `chunk`: how many items a worker takes at a time. For calls of some microseconds, where the
          hand-over costs more than the call. They share one context; an item that fails is tried again by
          itself, and is a task only then. In a pool where each item has to be one, they go one by one all the
          same: with listeners, callbacks on success, a storage, a bounded queue, or any limit of time.
        - Options as in `dispatch`, checked once. In a bounded queue, items wait for room.

        What the iterable raises, or the pool that is closed meanwhile, is raised after the results of
        the items before. When the iteration ends early, by an error, a `break`, `close()` or Ctrl-C,
        what is left is cancelled, running attempts too. Raises `PoolClosed`, `NoWorkers`, `WrongThread`
        in a worker of the pool, and `InvalidType` or `InvalidValue`.

        >>> from retrypool import Pool
        >>> with Pool([len] * 2) as pool:
        ...     list(pool.map(["a", "bcd", "ef"]))
        [1, 3, 2]
        """
        results = partial(
            map_items if chunk == 1 else partial(map_chunks, chunk=chunk),
            self._engine,
            self._settings.having(options),
            iterable,
            window=window,
            workers=len(list(self._workers)),
            ordered=ordered,
            timeout=timeout,
            return_exceptions=return_exceptions,
            key=key,
        )
        if progress is False:
            return results()
        from retrypool.observe.progress import follow

        return follow(self, results, progress, iterable)

    def as_completed(
        self, tasks: Iterable[Task[T, R]], timeout: Duration | None = None, *, progress: bool = False
    ) -> Generator[Task[T, R], None, None]:
        """Iterate over `tasks` as they end; those that have ended come first.

        Raises `TimeoutError` if they have not all ended `timeout` seconds after this call, and
        `InvalidType` for what is no task. `progress` shows how far it is, as `map` does.
        """
        known = list(tasks) if isinstance(tasks, Iterable) else tasks
        completed = as_completed(known, timeout)
        if not flag("progress", progress):
            return completed
        from retrypool.observe.progress import follow_completed

        return follow_completed(self, completed, len(known))

    def group(self, *, on_error: OnError = "collect", **options: Unpack[TaskOptions]) -> TaskGroup[T, R]:
        """Return a context manager whose `dispatch` makes tasks, and whose end waits for all of them.

        What it does about tasks that fail for good:

        - `"collect"`: waits for all, then raises their errors as one `ExceptionGroup`, in the order of
          dispatch.
        - `"cancel"`: as soon as one has failed, cancels the others, running ones too, and raises what
          has failed in the same way.
        - `"ignore"`: nothing. `group.results()` tells, as it does in all cases.

        Tasks that somebody has cancelled count as ended, not as failed, unless the pool was closed
        meanwhile and gave them up. An exception in the block, or a Ctrl-C while it waits at its end,
        cancels all tasks of the group and goes on as it is. Groups may stand inside of groups. `options`
        are those of `dispatch`, for all tasks of the group. Raises `PoolClosed`, `NoWorkers`,
        `InvalidType`, `InvalidValue`, and `WrongThread` in a worker of the pool, which would wait for
        itself.

        >>> from retrypool import Pool
        >>> with Pool([len] * 2) as pool:
        ...     with pool.group() as group:
        ...         tasks = group.dispatch_many(["a", "bcd"])
        ...     [result.value for result in group.results()]
        [1, 3]
        """
        if on_error not in get_args(OnError):
            raise InvalidValue("on_error", on_error, "'collect', 'cancel' or 'ignore'")
        settings = self._settings.having(options)
        self._engine.check_open("group()")
        return TaskGroup(self._engine, settings, on_error)

    def consume(
        self,
        source: Source,
        *,
        window: int | None = None,
        idle: Duration | None = None,
        cancel: CancelToken | None = None,
        finish: Duration = 30.0,
    ) -> Consumed:
        """Work off the messages of a broker's queue, a `retrypool.sources.Source`, with all who consume it.

        Returns what was done when `cancel` is cancelled, when nothing came for `idle` seconds and nothing is
        held, or when the pool is closed.

        - `window`: how many messages are held at the most, running ones included; default: 8 for each worker,
          32 at least.
        - `finish`: how many seconds tasks that run get to end once it is cancelled; default: 30 s.

        A message is acknowledged when its task has succeeded. A dead task's goes to the dead letters with its
        history, and the task leaves `dead_tasks()`. What is cancelled, or not begun when it stops, is given
        back. A message that is taken away by another head, because this one did not renew its hold in time,
        has its task cancelled; a result that comes too late is refused. A lost connection ends nothing:
        what is held is worked on, and told to the broker when it is back.

        Costs one more thread. Raises `SourceError`, `PoolClosed`, `NoWorkers`, `WrongThread` in a worker of
        the pool, and `InvalidType` or `InvalidValue`. On an error or a Ctrl-C, gives back all that is held.
        """
        self._engine.check_open("consume()")
        from retrypool.sources.consuming import consume

        return consume(self, source, window=window, idle=idle, cancel=cancel, finish=finish)

    def results(self) -> list[TaskResult[T, R]]:
        """Return what has come of every task that has ended, in order of dispatch; also after `close`.

        Only of a pool made with `keep_results`: it holds on to all of its tasks, data and results.
        Otherwise results go when the caller lets go of their tasks, and this raises `InvalidValue`. A
        task that was requeued is told of once, with what came of it last.
        """
        kept = self._engine.kept
        if kept is None:
            raise InvalidValue("keep_results", False, "True for results(): Pool(..., keep_results=True)")
        return [TaskResult.of(task) for task in kept.in_order() if task.done()]

    def errors(self) -> list[BaseException]:
        """Return the last error of each dead task that the pool keeps, in the order of dispatch."""
        with self._engine.lock:
            dead = sorted(self._engine.scheduler.endings.dead.items())
        return [task.error for _, task in dead if task.error is not None]

    def as_executor(self) -> PoolView:
        """Return a `concurrent.futures.Executor` that runs its calls on this pool.

        The data that the workers get are callables without arguments: a worker makes the call with
        `data()`, around which it may do what it is there for. Retries, timeouts and all else are the
        pool's. `shutdown` ends the executor: it waits for what was submitted through it, and leaves the
        pool open.

        >>> from retrypool import Pool
        >>> with Pool([lambda call: call()] * 2) as pool:
        ...     pool.as_executor().submit(pow, 2, 5).result()
        32
        """
        from retrypool.collect.view import PoolView

        return PoolView(self._engine, self._settings)

    # -- schedules -------------------------------------------------------------------------------

    def schedule(
        self,
        data: T | Callable[[datetime], T],
        *,
        every: Duration | None = None,
        cron: str | None = None,
        tz: tzinfo | str | None = None,
        start: datetime | Duration | None = None,
        until: datetime | Duration | None = None,
        times: int | None = None,
        jitter: Duration = 0,
        overlap: Overlap = "skip",
        **options: Unpack[TaskOptions],
    ) -> Schedule[T, R]:
        """Dispatch `data` over and over, `every` so many seconds, or at the times of a `cron` expression.

        A function is called with the time of the tick, an aware datetime, and returns the data. That
        happens on the pool's own timer thread, so it should be quick; what it raises is logged, and the
        tick is skipped.

        - `start`: the first tick, as an aware datetime or in seconds from now; default: one step from
          now. With `cron`, no tick comes before it.
        - `until`: no tick comes after it. `times`: how many tasks there will be.
        - `jitter`: each tick comes up to so many seconds late, at random; the ticks after it do not.
        - `overlap`: what becomes of a tick while the last task has not ended: `"skip"` or `"queue"`.
        - `tz`: the zone (or its name) that `cron` is read in, and that datetimes are told in; default:
          that of `start`, else UTC.
        - all options of `dispatch` but `at`, for each of the tasks; `name` is the schedule's, too.

        The ticks of `every` lie on a grid that does not drift and, once begun, takes no notice when the
        wall clock is set; `cron` follows the wall clock, and notices within a minute. Ticks that were
        missed while the pool was paused or the machine asleep become one. A schedule keeps no pool open:
        `close` ends it before anything else.

        In a pool with a storage, a schedule that has a name goes on in the next process. One of the same name
        takes its place there, and goes on with its count if it has the same rhythm.

        `cron` needs the extra `retrypool[cron]`: `MissingExtra` is raised without. Raises `PoolClosed`
        too, and `InvalidType` or `InvalidValue` for what makes no sense.
        """
        if "at" in options:
            raise InvalidValue("at", options["at"], "left out: say `start` for the first tick")
        return make_schedule(
            self._engine,
            self._settings.having(options),
            data,
            every=every,
            cron=cron,
            tz=tz,
            start=start,
            until=until,
            times=times,
            jitter=jitter,
            overlap=overlap,
        )

    def schedules(self) -> list[Schedule[T, R]]:
        """Return the schedules that are not over, paused ones included, in the order they were made."""
        with self._engine.lock:
            plans = list(self._engine.scheduler.schedules.plans)
        return [plan.owner for plan in plans]

    # -- workers ---------------------------------------------------------------------------------

    def add_worker(
        self,
        worker: AnyWorker[T, R] | WorkerSpec[T, R] | None = None,
        **options: Unpack[SpecOptions[T, R]],
    ) -> int:
        """Add a worker, start its thread, and return its id.

        The options are those of `WorkerSpec`, and stand in place of what a spec says. Raises
        `PoolClosed`, and `InvalidType` or `InvalidValue` for what is no worker or makes no sense.
        """
        spec = as_spec(worker, **options)
        if any(runner.worker is spec.worker for runner in self._workers):
            _warn_of_shared([spec.worker] * 2)
        return self._workers.add([spec])[0]

    def remove_worker(self, worker_id: int, timeout: Duration = 5.0, *, force: bool = False) -> None:
        """Let a worker leave, and wait for it.

        It takes nothing new, is asked through `ctx.stopping`, and its task may end within `timeout`
        seconds. After that the task is run elsewhere, at no charge; `ctx.cancelled` tells the code that
        still runs, with `force` it is interrupted, and its thread is left alone. Raises
        `WorkerNotFound`.
        """
        self._workers.remove(worker_id, min(seconds("timeout", timeout), TIMEOUT_MAX), force=force)

    def interrupt_worker(
        self, worker_id: int, *, task: Fate = "retry", then: Then = "keep", force: bool = False
    ) -> bool:
        """End what a worker runs, at once; return whether it ran anything.

        The task is run elsewhere at no charge (`"retry"`), ends cancelled (`"drop"`), or is dead
        (`"dead"`). The worker's thread is told through `ctx.cancelled`, and with `force` interrupted;
        until it comes back, the worker is occupied. Then it goes on (`"keep"`), is paused, restarted or
        removed. Raises `WorkerNotFound`, and `InvalidValue` for other words.
        """
        return self._workers.interrupt(worker_id, task, then, force=force)

    def restart_worker(self, worker_id: int) -> None:
        """Remake a worker once its current task is over: on_stop, its factory if it has one, on_start.

        One that is stuck and has a factory gets a new thread at once; one that could not be started is
        started again. Raises `WorkerNotFound`.
        """
        self._workers.restart(worker_id)

    def replace_worker(
        self,
        worker_id: int,
        worker: AnyWorker[T, R] | WorkerSpec[T, R] | None = None,
        **options: Unpack[SpecOptions[T, R]],
    ) -> None:
        """Put another resource in a worker's place, after what it runs: same id, name and group.

        What is known against its group is forgotten, and it is resumed if it was cordoned. One that is
        stuck, or could not be started, gets a new thread at once. Of a spec, `worker` and `factory`
        count. Raises `WorkerNotFound`, and what `add_worker` raises.
        """
        self._workers.supplant(worker_id, as_spec(worker, **options))

    def cordon_worker(self, worker_id: int, reason: str) -> None:
        """Give a worker nothing more for good, because its key was revoked, say; what it runs, it ends.

        Unlike a paused one, it counts as gone: no task waits for it. `workers()` shows the reason;
        `resume_worker` and `replace_worker` bring it back. Raises `WorkerNotFound`.
        """
        if not isinstance(reason, str):
            raise InvalidType("reason", reason, "a string")
        self._workers.cordon(worker_id, reason)

    def pause_worker(self, worker_id: int) -> None:
        """Give a worker nothing more until `resume_worker`; what it runs, it ends."""
        self._workers.pause(worker_id)

    def resume_worker(self, worker_id: int) -> None:
        """Give a worker tasks again that was paused or cordoned."""
        self._workers.resume(worker_id)

    def pause(self) -> None:
        """Give no worker anything until `resume`. Tasks are still accepted.

        Raises `PoolClosed`: a pool that closes runs what it has.
        """
        self._workers.pause_all()

    def resume(self) -> None:
        """Give the workers tasks again, but for those that were paused one by one."""
        self._workers.resume_all()

    def workers(self) -> list[WorkerInfo]:
        """Return what there is to tell of each worker now."""
        return self._workers.infos()

    # -- waiting and closing ---------------------------------------------------------------------

    def wait(self, timeout: Duration | None = None, *, progress: bool = False) -> bool:
        """Wait until no task waits or runs, `timeout` seconds at the most; return whether that is so.

        Also returns (False) when only tasks are left that no present worker can take. More
        tasks may be dispatched meanwhile, and are waited for. `progress` shows how far it is, as `map`
        does. Raises `WrongThread` in a worker.
        """
        limit = patience("timeout", timeout)
        if not flag("progress", progress):
            return self._lifecycle.wait(limit)
        from retrypool.observe.progress import watch

        with watch(self):
            return self._lifecycle.wait(limit)

    def wait_with(self, callback: Callable[[Stats], object], interval: Duration = 1.0) -> bool:
        """Wait as `wait` does, calling `callback(stats)` now, every `interval` seconds, and at the end.

        Stops waiting when it returns False, and when `wait` would. Returns whether no task waits or runs.
        """
        step = min(seconds("interval", interval, positive=True), TIMEOUT_MAX)
        if not callable(callback):
            raise InvalidType("callback", callback, "a function of the stats")
        while True:
            done = self._is_idle()
            if callback(self.stats()) is False or done:
                return done
            if not self._lifecycle.wait(step) and self._is_stranded():
                return False

    def _is_stranded(self) -> bool:
        return self._engine.look(self._engine.scheduler.is_stranded)

    def _is_idle(self) -> bool:
        return self._engine.look(self._engine.scheduler.idle)

    def close(self, timeout: Duration | None = None, *, delayed: Literal["run", "cancel"] = "run") -> None:
        """Take no more tasks, run what was accepted to its end, and join the threads.

        Schedules end first. Retries are run, and so are delayed tasks once their time has come; with
        `delayed="cancel"`, those of `dispatch(delay=)` and `dispatch(at=)` end cancelled. A pause of the
        whole pool is lifted; what no worker can ever take ends cancelled. With a `timeout`, in seconds,
        raises `CloseTimeout` when that has passed; the pool stays closed to new tasks, and `close` may be
        called again. May be called more than once and from several threads, but not from a worker's: that
        raises `WrongThread`.
        """
        limit = patience("timeout", timeout)
        if delayed not in ("run", "cancel"):
            raise InvalidValue("delayed", delayed, "'run' or 'cancel'")
        self._lifecycle.close(limit, cancel_delayed=delayed == "cancel")

    def force_close(self) -> Cancelled[T, R]:
        """Take no more tasks, cancel those that wait, and leave the rest alone.

        Running attempts are told through `ctx.cancelled` and their tasks end cancelled at once; the
        threads are daemons, and are not waited for. Returns the list of the tasks that waited; those that ran
        are its `running`.
        """
        return self._lifecycle.force_close()

    def drain_on_signals(
        self,
        signals: Iterable[int] | None = None,
        *,
        timeout: Duration | None = None,
        delayed: Literal["run", "cancel"] = "run",
    ) -> SignalDrain:
        """Close the pool when the process gets one of `signals`, by default SIGTERM; then pass the signal on.

        For services: on the first signal the pool takes no more tasks, and what was accepted runs to its
        end, as by `close(timeout, delayed=...)`; what has not ended in time is closed by force. A second
        signal does that at once. Then whoever handled the signal before does, or else `SystemExit` is
        raised in the main thread. Meanwhile that goes on: `closed` tells it. Returns what ends all this with
        `stop()`, or as a context manager. Has to be called by the main thread, and costs a thread. Raises
        `WrongThread`, `InvalidType` or `InvalidValue`.
        """
        import signal

        from retrypool.threads.signals import SignalDrain

        limit = patience("timeout", timeout)
        if delayed not in ("run", "cancel"):
            raise InvalidValue("delayed", delayed, "'run' or 'cancel'")
        return SignalDrain(
            self.name,
            partial(self.close, limit, delayed=delayed),
            self.force_close,
            (signal.SIGTERM,) if signals is None else signals,
        )

    @property
    def closed(self) -> bool:
        """Whether it takes no more tasks."""
        return self._engine.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.force_close()
            return
        try:
            self.close()
        except BaseException:
            # A Ctrl-C while it drains ends the script, not the tasks.
            self.force_close()
            raise

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed" if self.closed else "open"
        return (
            f"<Pool {self._engine.name} {state}: {stats.workers} workers, "
            f"{stats.running} running, {stats.waiting} waiting, {stats.dead} dead>"
        )


def _import_parts() -> None:
    """Import what a pool is made of, when the first one is made: see `retrypool.parts`."""
    from retrypool import parts  # not `from`: that asks the package for the name first

    globals().update({name: getattr(parts, name) for name in parts.__all__})


def _specs(workers: Iterable[Any]) -> list[WorkerSpec[Any, Any]]:
    """Return a spec for each of `workers`; one for all that follow each other and are the same object."""
    if isinstance(workers, (str, bytes)) or not isinstance(workers, Iterable):
        raise InvalidType("workers", workers, "a list of workers, such as [fetch] * 8")
    specs: list[WorkerSpec[Any, Any]] = []
    before: Any = None
    for worker in workers:
        specs.append(specs[-1] if specs and worker is before else as_spec(worker))
        before = worker
    return specs


def _warn_of_shared(workers: Iterable[object]) -> None:
    """Warn of an object with a state of its own that is given more than once: two threads would call it."""
    seen: set[int] = set()
    for worker in workers:
        if worker is not None and id(worker) in seen and is_stateful(worker):
            kind = type(worker).__name__
            warnings.warn(
                f"the same {kind} is given more than once: several threads will call one object. Make one "
                f"for each worker, [{kind}(...) for _ in range(n)], or say that it may be called by "
                f"several at once: WorkerSpec(worker, concurrency=n)",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        seen.add(id(worker))
