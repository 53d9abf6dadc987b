"""Nothing of the user's is called, compared, hashed, shown or destroyed while a lock of ours is held."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from retrypool import (
    Budget,
    CancelToken,
    Drain,
    HealthPolicy,
    InvalidType,
    Pool,
    PoolClosed,
    Rate,
    RetryPolicy,
    TaskNotFound,
    Throttled,
    WorkerFault,
    WorkerNotFound,
    WorkerSpec,
)
from retrypool.testing import ManualPool


class Warden:
    """Notes who was called while the calling thread held the lock of a pool."""

    def __init__(self) -> None:
        self.pools: list[Pool[Any, Any]] = []
        self.caught: set[str] = set()
        self.seen: set[str] = set()

    def look(self, what: str) -> None:
        self.seen.add(what)
        if any(pool._engine.lock._is_owned() for pool in self.pools):  # type: ignore[attr-defined]
            self.caught.add(what)


WARDEN = Warden()


@pytest.fixture
def warden() -> Iterator[Warden]:
    WARDEN.__init__()  # type: ignore[misc]
    yield WARDEN
    WARDEN.pools.clear()
    assert WARDEN.caught == set()


def watched(base: type, *methods: str) -> type:
    """Return a class derived from `base` whose methods tell the warden, and do what those of `base` do."""

    def tell(name: str) -> Callable[..., Any]:
        def method(self: Any, *arguments: Any) -> Any:
            WARDEN.look(f"{base.__name__}.{name}")
            inherited = getattr(base, name, None)
            return None if inherited is None else inherited(self, *arguments)

        return method

    return type(f"Watched{base.__name__}", (base,), {name: tell(name) for name in methods})


SEEN = (
    "__eq__",
    "__hash__",
    "__str__",
    "__repr__",
    "__del__",
    "__lt__",
    "__gt__",
    "__le__",
    "__ge__",
    "__bool__",
)
Text: Any = watched(str, *(name for name in SEEN if name != "__bool__"))
Number: Any = watched(int, *SEEN)
Real: Any = watched(float, *SEEN)
Data: Any = watched(object, "__eq__", "__hash__", "__str__", "__repr__", "__del__")
Trouble: Any = watched(OSError, "__eq__", "__hash__", "__str__", "__repr__", "__del__")
Slow: Any = watched(Throttled, "__eq__", "__hash__", "__str__", "__repr__", "__del__")
Ill: Any = watched(WorkerFault, "__eq__", "__hash__", "__str__", "__repr__", "__del__")
Sender: Any = watched(Drain, "__eq__", "__hash__", "__repr__", "__del__")
Limit: Any = watched(Rate, "__eq__", "__hash__", "__repr__", "__getattribute__")
Health: Any = watched(HealthPolicy, "__eq__", "__hash__", "__repr__", "__getattribute__")
Purse: Any = watched(Budget, "__eq__", "__hash__", "__repr__", "__getattribute__")
Policy: Any = watched(RetryPolicy, "__eq__", "__hash__", "__repr__", "__getattribute__")


class Worker:
    """Fails now and then, in every way, and hears everything."""

    def __init__(self) -> None:
        self.calls = 0

    def run(self, ctx: Any, data: Any) -> Any:
        self.calls += 1
        ctx.send(Data()) if ctx._task._settings.drain is not None else None
        match self.calls % 7:
            case 0:
                raise Trouble("down")
            case 1:
                raise Slow("slow", retry_after=Real(0.0))
            case 2:
                raise Ill(Trouble("ill"))
            case 3:
                ctx.settle(Number(1))
        return Data()

    def __del__(self) -> None:
        WARDEN.look("Worker.__del__")


def listen(event: object) -> None:
    WARDEN.look("listener")


def callback(*_: object) -> None:
    WARDEN.look("callback")


def act(_task: Any, _error: Any) -> Any:
    WARDEN.look("on_failure")
    return None


def options() -> dict[str, Any]:
    return {
        "name": Text("name"),
        "priority": Number(1),
        "tags": {Text("tag")},
        "metadata": MappingProxyType({Text("key"): Data()}),
        "options": MappingProxyType({Text("key"): Data()}),
    }


def build(warden: Warden, **more: Any) -> Pool[Any, Any]:
    pool: Pool[Any, Any] = Pool(
        [
            WorkerSpec(
                factory=Worker, name=Text("one"), group=Text("group"), tags={Text("tag")}, concurrency=2
            ),
            WorkerSpec(Worker(), rate=Limit(1e6)),
        ],
        retry=Policy(attempts=4, delay=Real(0.0)),
        on_success=callback,
        on_failure=act,
        on_retry=callback,
        on_dead=callback,
        listeners=[listen],
        health=Health(),
        rate=Limit(1e6),
        retry_budget=Purse(per_second=1e6),
        options=MappingProxyType({Text("key"): Data()}),
        name=Text("pool"),
        **more,
    )
    warden.pools.append(pool)
    return pool


@pytest.mark.parametrize(
    "more", [{}, {"max_queue": 50}, {"keep_results": True}, {"dead_limit": 1, "history_limit": 1}]
)
def test_nothing_of_the_users_runs_under_the_lock(
    warden: Warden, no_garbage: None, more: dict[str, Any]
) -> None:
    """But for what the garbage collector calls: see below."""
    pool = build(warden, **more)
    token, drain = CancelToken(), Sender()
    for round_ in range(30):
        tasks = [
            pool.dispatch(Data(), **options()),
            pool.dispatch(Data(), keep_data=False, require={Text("tag")}, drain=drain),
            pool.dispatch(Data(), exclude={Number(1), Text("worker-1")}, cost=lambda data: Real(1.0)),
            pool.dispatch(
                Data(), worker=Number(0), deadline=Real(50), delay=Real(0.001), cancel=token.after(50)
            ),
            pool.dispatch(Data(), timeout=Real(0.5), time_limit=Real(50), interrupt_on_timeout=True),
            pool.dispatch(Data(), delay=timedelta(hours=1), keep_data=False),
            pool.dispatch(Data(), at=datetime.now(UTC) + timedelta(hours=1), keep_data=False),
        ]
        tasks[0].add_done_callback(callback)
        for task in (tasks[round_ % 5], *tasks[5:]):
            pool.cancel_task(task)
        del tasks, task
        for id_ in (Number(round_ * 3), Text("x"), Data()):
            with suppress(TaskNotFound):
                pool.status(id_)
            with suppress(TaskNotFound):
                pool.pull_dead_task(id_)
            with suppress(TaskNotFound):
                pool.requeue_dead_task(id_)
            with suppress(WorkerNotFound):
                pool.pause_worker(id_)
            with suppress(WorkerNotFound, InvalidType):
                pool.resume_worker(id_)
        for dead in pool.dead_tasks()[:1]:
            pool.requeue_dead_task(Number(dead.id))
        with suppress(WorkerNotFound):
            pool.resume_worker(Number(0))
            pool.resume_worker(Number(1))
        pool.stats(), pool.workers(), pool.tasks(), pool.queue_size, repr(pool)
        if round_ % 10 == 9:
            pool.interrupt_worker(Number(0), task="retry", then="restart")
            pool.wait(timeout=0.01)
    pool.force_close() if more.get("max_queue") else pool.close(timeout=20, delayed="cancel")
    del pool
    gc.collect()
    if not more:
        assert {"object.__del__", "OSError.__del__", "listener", "callback", "on_failure"} <= warden.seen


class Cries:
    """Data that looks at its pool when it goes."""

    pool: Pool[Any, Any]

    def __init__(self, gone: list[int]) -> None:
        self.gone = gone

    def __del__(self) -> None:
        self.gone.append(self.pool.queue_size)


@pytest.mark.parametrize("way", ["cancelled", "cancelled, delayed", "dead limit", "pulled", "force_close"])
def test_data_may_look_at_its_pool_when_it_goes(way: str) -> None:
    def fail(data: object) -> None:
        raise OSError

    pool = ManualPool([fail], retry=RetryPolicy(attempts=1), dead_limit=0 if way == "dead limit" else None)
    Cries.pool, gone = pool, []
    task = pool.dispatch(Cries(gone), keep_data=False, delay=1 if "delayed" in way else 0)
    if "cancelled" in way:
        task.cancel()
    elif way == "force_close":
        pool.force_close()
    else:
        pool.claim().fail(OSError())
        if way == "pulled":
            pool.pull_dead_task(task.id)
    del task
    pool.clock.advance(2)
    gc.collect()
    assert gone
    pool.force_close()


# -- let go of at once ---------------------------------------------------------------------------


class Big:
    pass


@pytest.mark.parametrize(
    "options", [{}, {"delay": 3600}, {"priority": 5}, {"require": {"tag"}}, {"deadline": 60}]
)
@pytest.mark.parametrize("by", ["task", "pool", "token", "force"])
def test_cancelled_task_that_waited_is_let_go_of_at_once(
    no_garbage: None, options: dict[str, Any], by: str
) -> None:
    pool = ManualPool([WorkerSpec(len, tags={"tag"})])
    pool.pause()
    token = CancelToken()
    data = Big()
    known = weakref.ref(data)
    task = pool.dispatch(data, **options, cancel=token)
    if by == "task":
        assert task.cancel()
    elif by == "pool":
        assert pool.cancel_task(task)
    elif by == "token":
        token.cancel()
    else:
        pool.force_close()
    del data, task
    assert known() is None
    pool.force_close()


@pytest.mark.parametrize("options", [{}, {"priority": 5}, {"require": {"tag"}}, {"delay": 3600}])
def test_tombstones_are_few_among_the_living(options: dict[str, Any]) -> None:
    pool = ManualPool([WorkerSpec(len, tags={"tag"})])
    pool.pause()
    living = [pool.dispatch(number, **options) for number in range(1000)]
    for _ in range(10):
        for task in [pool.dispatch("x", **options) for _ in range(1000)]:
            assert task.cancel()
        scheduler = pool._engine.scheduler
        held = len(scheduler.backlog.injector) + scheduler.backlog.filed + len(scheduler.timers)
        assert held <= len(living) * 1.1
    assert pool.queue_size == len(living)
    if "delay" not in options:
        pool.resume()
        assert [attempt.task.data for attempt in iter(lambda: claimed(pool), None)] == list(range(1000))
    pool.force_close()


def claimed(pool: Any) -> Any:
    attempt = pool.claim()
    if attempt is not None:
        attempt.finish(None)
    return attempt


def test_bounded_queue_holds_no_more_than_its_bound() -> None:
    pool = ManualPool([len], max_queue=10)
    pool.pause()
    for _ in range(2000):
        pool.dispatch("x").cancel()
    assert len(pool._engine.scheduler.backlog.injector) <= 10
    pool.force_close()


def test_order_is_kept_while_tombstones_are_swept_out(stage: Any, switching_often: None) -> None:
    taken: list[int] = []
    pool = stage.pool([taken.append])
    first = pool.dispatch(-1)
    first.result(stage.within)
    pool.pause()
    tasks = [pool.dispatch(number) for number in range(3000)]
    cancelling = stage.start(lambda: [task.cancel() for task in tasks[1::2]])
    pool.resume()
    cancelling.result(stage.within)
    pool.close(timeout=stage.within)
    assert all(task.done() for task in tasks)
    even = [number for number in taken[1:] if number % 2 == 0]
    assert even == list(range(0, 3000, 2))


# -- in the middle of a step ---------------------------------------------------------------------


class Finalizer:
    """Does something when the garbage collector finds it."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.do = do
        self.me = self

    def __del__(self) -> None:
        self.do()


CHANGES: dict[str, Callable[[Any, Any], object]] = {
    "queue_size": lambda pool, task: pool.queue_size,
    "stats": lambda pool, task: pool.stats(),
    "dispatch": lambda pool, task: pool.dispatch("late"),
    "dispatch with a delay": lambda pool, task: pool.dispatch("late", delay=0.001),
    "cancel": lambda pool, task: task.cancel(),
    "cancel_task": lambda pool, task: pool.cancel_task(task),
    "force_close": lambda pool, task: pool.force_close(),
    "add_worker": lambda pool, task: pool.add_worker(len),
    "pause": lambda pool, task: pool.pause(),
    "close": lambda pool, task: pool.close(),
    "wait": lambda pool, task: pool.wait(),
    "map": lambda pool, task: list(pool.map(["x"])),
    "status": lambda pool, task: pool.status(task.id),
    "result": lambda pool, task: task.result(0),
    "schedule": lambda pool, task: pool.schedule("late", every=3600),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("max_queue", [None, 100])
def test_collector_may_call_anything_in_the_middle_of_a_step(
    stage: Any, monkeypatch: pytest.MonkeyPatch, change: str, max_queue: int | None
) -> None:
    """It runs when it likes, also in a thread that has the lock; no call hangs, and none breaks the pool."""
    pool = stage.pool([lambda data: data], max_queue=max_queue)
    task = pool.dispatch("x", delay=3600)
    scheduler, done = pool._engine.scheduler, threading.Event()
    next_wakeup = scheduler.next_wakeup

    def collect() -> Any:
        monkeypatch.setattr(scheduler, "next_wakeup", next_wakeup)
        Finalizer(lambda: (done.set(), CHANGES[change](pool, task)))
        gc.collect()
        return next_wakeup()

    monkeypatch.setattr(scheduler, "next_wakeup", collect)
    with suppress(PoolClosed):  # a worker was quicker, and its collector has closed the pool
        pool.dispatch("y", delay=0.001)
    assert done.wait(stage.within)
    if change == "force_close":
        stage.until(lambda: pool.closed)
    else:
        pool.resume()
        assert pool.dispatch("z").result(stage.within) == "z"
        pool.close(timeout=stage.within, delayed="cancel")
    if "cancel" in change:
        stage.until(task.cancelled)
    stage.until(pool._engine.scheduler.idle)  # a pool that was closed by force waits for nobody
