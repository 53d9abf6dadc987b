"""Where does somebody who comes from ThreadPoolExecutor gain, and where do they lose?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, as_completed, wait
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from multiprocessing.pool import ThreadPool
from time import sleep
from typing import Any

from .cost import Cost, Meter, medians, middle
from .growth import Gate
from .harness import Contest, Measure, Row, faster, measured, scaled, within
from .opening import EXECUTOR, WORKERS, executor_of, nothing, pool_of

TASKS = 20_000
MANY = 100_000
ONE_THREAD = "ThreadPoolExecutor, one thread"
TAGGED = frozenset({"eu", "fast"})

Submit = Callable[..., Any]
Work = Callable[[Submit, int], object]


def tagged_pool(**options: Any) -> Any:
    from retrypool import Pool, WorkerSpec

    return Pool([WorkerSpec(nothing, tags=TAGGED) for _ in range(WORKERS)], **options)


# -- doing ----------------------------------------------------------------------------------------


def ours(work: Work, open_pool: Callable[[], Any] = pool_of, times: int = 1) -> Measure:
    def measure(size: int) -> float:
        with open_pool() as pool:
            return spells(pool.dispatch, work, size, times)

    return measure


def theirs(work: Work, threads: int = WORKERS, times: int = 1) -> Measure:
    def measure(size: int) -> float:
        with executor_of(threads) as executor:

            def submit(item: object, **_: object) -> Future[bool]:
                return executor.submit(nothing, item)

            return spells(submit, work, size, times)

    return measure


def spells(submit: Submit, work: Work, size: int, times: int) -> Cost:
    def once() -> Cost:
        with Meter() as meter:
            work(submit, size)
        return meter.per(size)

    work(submit, min(size, 10 * WORKERS))
    return middle(once, times)


def all_results(tasks: Iterable[Any]) -> None:
    for task in tasks:
        task.result()


def plainly(submit: Submit, size: int) -> None:
    all_results([submit(n) for n in range(size)])


def with_option(option: str, value: Callable[[int], object]) -> Work:
    def work(submit: Submit, size: int) -> None:
        all_results([submit(n, **{option: value(n)}) for n in range(size)])

    return work


def with_token(submit: Submit, size: int) -> None:
    from retrypool import CancelToken

    all_results([submit(n, cancel=CancelToken()) for n in range(size)])


def with_priorities(submit: Submit, size: int) -> None:
    all_results([submit(0, priority=priority) for priority in islice(cycle(range(10)), size)])


def result_at_once(submit: Submit, size: int) -> None:
    for n in range(size):
        submit(n).result()


def window_of_two(submit: Submit, size: int) -> None:
    last = submit(0)
    for n in range(1, size):
        following = submit(n)
        last.result()
        last = following
    last.result()


def burst_after_idle(submit: Submit, size: int) -> Cost:
    """Microseconds from a burst's dispatch to its last result, all workers asleep before it."""
    costs = []
    for _ in range(200 if size > 1 else 400):
        sleep(0.0005)
        with Meter() as meter:
            plainly(submit, size)
        costs.append(meter.per(1))
    return medians(costs)


def bursts(open_pool: Callable[[], Any], attribute: str) -> Measure:
    def measure(size: int) -> float:
        with open_pool() as pool:
            if attribute == "dispatch":
                return burst_after_idle(pool.dispatch, size)
            return burst_after_idle(lambda item: pool.submit(nothing, item), size)

    return measure


# -- contests of one row each ---------------------------------------------------------------------


def versus(
    setting: str,
    work: Work,
    goal: float,
    size: int,
    *,
    open_pool: Callable[[], Any] = pool_of,
    threads: int = WORKERS,
    times: int = 1,
    peer: Measure | None = None,
    label: str = EXECUTOR,
) -> Contest:
    rows = [
        Row("retrypool", ours(work, open_pool, times), size, "retrypool"),
        Row(label, peer or theirs(work, threads, times), size),
    ]
    return Contest(setting, "µs/task", rows, (faster(label, goal),))


def limited(threads: int, limit: int) -> Measure:
    """`ThreadPoolExecutor` behind the semaphore that one writes for it."""

    def measure(size: int) -> float:
        room = threading.Semaphore(limit)

        def done(_: object) -> None:
            room.release()

        with executor_of(threads) as executor:

            def submit(item: object) -> Future[bool]:
                room.acquire()
                future = executor.submit(nothing, item)
                future.add_done_callback(done)
                return future

            return spells(submit, plainly, size, 1)

    return measure


def after_many_priorities() -> Any:
    pool = pool_of()
    for priority in range(20, -20, -1):  # those above 0 first: they are the ones that are looked at before it
        pool.dispatch(0, priority=priority).result()
    return pool


def behind_gate(end: Callable[[Any, list[Any]], object], open_pool: Callable[[Gate], Any]) -> Measure:
    """Microseconds per task to be rid of what waits."""

    def measure(size: int) -> float:
        gate = Gate(WORKERS)
        with ExitStack() as stack:
            pool = stack.enter_context(open_pool(gate))
            stack.callback(gate.open)
            submit = pool.dispatch if hasattr(pool, "dispatch") else lambda item: pool.submit(gate, item)
            gate.close(submit)
            tasks = [submit(0) for _ in range(size)]
            with Meter() as meter:
                end(pool, tasks)
            assert all(task.cancelled() for task in tasks)
            return meter.per(size)

    return measure


def cancel_each(_: object, tasks: list[Any]) -> None:
    for task in tasks:
        task.cancel()


def force_close(pool: Any, _: object) -> None:
    pool.force_close()


def shut_down(executor: Any, _: object) -> None:
    executor.shutdown(wait=False, cancel_futures=True)


def collecting(
    collect: Callable[[Any, Sequence[Any]], Iterable[object]], open_pool: Callable[[], Any]
) -> Measure:
    """Microseconds per task to dispatch all and to come by each as it ends."""

    def measure(size: int) -> float:
        with open_pool() as pool:
            submit = pool.dispatch if hasattr(pool, "dispatch") else lambda item: pool.submit(nothing, item)
            with Meter() as meter:
                count = sum(1 for _ in collect(pool, [submit(n) for n in range(size)]))
            assert count == size
            return meter.per(size)

    return measure


def mapped(open_pool: Callable[[], Any], method: str, **options: Any) -> Measure:
    def measure(size: int) -> float:
        with open_pool() as pool:
            arguments = (range(size),) if hasattr(pool, "dispatch") else (nothing, range(size))

            def once() -> Cost:
                with Meter() as meter:
                    count = sum(getattr(pool, method)(*arguments, **options))
                assert count == size
                return meter.per(size)

            return middle(once)

    return measure


def contests(scale: float = 1) -> list[Contest]:
    size, many = scaled(TASKS, scale), scaled(MANY, scale)
    half, few = scaled(50_000, scale), scaled(1_000, scale)
    found = []
    for count in (1, 4):
        rows: dict[str, Measure] = {
            "retrypool": bursts(pool_of, "dispatch"),
            EXECUTOR: bursts(lambda: executor_of(WORKERS), "submit"),
            ONE_THREAD: bursts(lambda: executor_of(1), "submit"),
        }
        found.append(
            measured(
                f"burst of {count} after idle", "µs", count, rows, faster(EXECUTOR, 1), faster(ONE_THREAD, 1)
            )
        )
    found += [
        versus("result() at once", result_at_once, 1, few, times=3),
        versus("window of 2", window_of_two, 1, few, times=3),
        versus("name= differs per task", with_option("name", str), 2, size),
        versus("metadata= differs per task", with_option("metadata", lambda n: {"n": n}), 2, size),
        versus(
            "require= frozenset", with_option("require", lambda _: TAGGED), 1.5, size, open_pool=tagged_pool
        ),
        versus(
            "require= set", with_option("require", lambda _: {"eu", "fast"}), 1.5, size, open_pool=tagged_pool
        ),
        versus("deadline= per task", with_option("deadline", lambda _: 60), 1.5, size),
        versus("a listener", plainly, 1.5, size, open_pool=lambda: pool_of(listeners=[nothing])),
        versus("cancel= token per task", with_token, 1, size),
        versus("ten priorities", with_priorities, 3.5, size),
        versus("plain, after 40 priorities", plainly, 6, size, open_pool=after_many_priorities),
    ]
    for workers in (4, 64):
        found.append(
            versus(
                f"max_queue=100, {workers} workers",
                plainly,
                1.2,
                size,
                open_pool=partial(pool_of, workers, max_queue=100),
                peer=limited(workers, 100 + workers),
                label="ThreadPoolExecutor + semaphore",
            )
        )

    def gated(gate: Gate) -> Any:
        return pool_of(WORKERS, gate)

    def gated_executor(_: Gate) -> Any:
        return executor_of(WORKERS)

    found += [
        measured(
            f"cancel {many:,}, each",
            "µs/task",
            many,
            {
                "retrypool": behind_gate(cancel_each, gated),
                EXECUTOR: behind_gate(cancel_each, gated_executor),
            },
            faster(EXECUTOR, 1),
        ),
        measured(
            f"force_close with {many:,}",
            "µs/task",
            many,
            {"retrypool": behind_gate(force_close, gated), EXECUTOR: behind_gate(shut_down, gated_executor)},
            faster(EXECUTOR, 1),
        ),
        measured(
            f"as_completed over {half:,}",
            "µs/task",
            half,
            {
                "retrypool": collecting(lambda pool, tasks: pool.as_completed(tasks), pool_of),
                EXECUTOR: collecting(lambda _, tasks: as_completed(tasks), lambda: executor_of(WORKERS)),
            },
            faster(EXECUTOR, 3),
        ),
        measured(
            f"wait over {half:,}",
            "µs/task",
            half,
            {
                "retrypool": collecting(lambda _, tasks: wait(tasks).done, pool_of),
                EXECUTOR: collecting(lambda _, tasks: wait(tasks).done, lambda: executor_of(WORKERS)),
            },
            faster(EXECUTOR, 3),
        ),
    ]
    return [*found, *maps(size, half)]


def maps(size: int, half: int) -> list[Contest]:
    def peer() -> Any:
        return ThreadPool(WORKERS)

    chunk = 100
    return [
        measured(
            "map",
            "µs/item",
            size,
            {
                "retrypool": mapped(pool_of, "map"),
                "ThreadPoolExecutor.map": mapped(lambda: executor_of(WORKERS), "map"),
                "ThreadPool.imap": mapped(peer, "imap"),
                "retrypool, ordered=False": mapped(pool_of, "map", ordered=False),
            },
            faster("ThreadPoolExecutor.map", 4),
            faster("ThreadPool.imap", 1),
            within(1, "retrypool", row="retrypool, ordered=False"),
        ),
        measured(
            f"map, chunks of {chunk}",
            "µs/item",
            half,
            {
                "retrypool": mapped(pool_of, "map", chunk=chunk),
                "ThreadPool.map": mapped(peer, "map", chunksize=chunk),
                "ThreadPool.imap, chunks": mapped(peer, "imap", chunksize=chunk),
            },
            faster("ThreadPool.map", 0.7),
        ),
    ]
