"""A pool with a storage: what it accepts is not lost, and another pool goes on with it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from retrypool import (
    CancelToken,
    Context,
    DeadReason,
    Drain,
    InvalidType,
    InvalidValue,
    MemoryStorage,
    NotStorable,
    Outcome,
    Pool,
    Rate,
    RetryPolicy,
    SQLiteStorage,
    Storage,
    StorageError,
    StoredError,
    TaskLost,
    TaskState,
    Throttled,
    WorkerSpec,
    current_context,
)
from retrypool.testing import FakeClock, ManualPool

from .conftest import BackEnd

THREE = RetryPolicy(attempts=3, delay=0)


class Gate:
    """A worker that says what it runs, and waits until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.opened = threading.Event()
        self.seen: list[Any] = []

    def __call__(self, data: Any) -> Any:
        self.seen.append(data)
        self.began.release()
        self.opened.wait(20)
        return data


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def double(data: int) -> int:
    return 2 * data


def fail(data: object) -> object:
    raise OSError(5, f"no answer for {data}")


# -- accepted ------------------------------------------------------------------------------------------


def test_dispatch_that_returned_is_stored(back_end: BackEnd, gate: Gate) -> None:
    storage = back_end.make()
    pool = Pool([gate], storage=storage)
    pool.dispatch("runs")
    gate.began.acquire()
    pool.dispatch({"a": [1, None, 2.5]})
    pool.dispatch_many(["x", "y"])
    left = back_end.after_crash(storage) if back_end.kind != "memory" else storage
    assert [task.data for task in left.tasks()] == ['"runs"', '{"a":[1,null,2.5]}', '"x"', '"y"']
    gate.opened.set()
    pool.close()


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ({"a": [1, {2}]}, {}, NotStorable, r"data\['a'\]\[1\] is \{2\}"),
        (len, {}, NotStorable, "data is <built-in function len>"),
        (1, {"cancel": CancelToken()}, InvalidValue, "a CancelToken can't be stored"),
        (1, {"drain": Drain()}, InvalidValue, "a Drain can't be stored"),
        (1, {"copy_context": True}, InvalidValue, "context variables can't be stored"),
        (1, {"cost": float}, InvalidValue, "a function can't be stored"),
        (1, {"retry": RetryPolicy(attempts=7)}, InvalidValue, "name it with policies="),
        (1, {"metadata": {"a": len}}, NotStorable, r"metadata\['a'\] is"),
        (1, {"options": {"a": (1,)}}, NotStorable, r"options\['a'\] is"),
        (1, {"key": 1}, InvalidType, "key is 1"),
        (1, {"key": ""}, InvalidValue, "not empty"),
        (1, {"key": "a\ud800"}, InvalidValue, "characters that can be written"),
    ],
)
def test_what_can_not_be_stored_is_refused_at_the_call(
    back_end: BackEnd, data: Any, options: Any, error: type[Exception], message: str
) -> None:
    with Pool([double], storage=(storage := back_end.make())) as pool:
        with pytest.raises(error, match=message):
            pool.dispatch(data, **options)
        assert storage.counts().accepted == 0
        assert pool.dispatch(4).result() == 8  # and the pool goes on


def test_batch_with_one_that_can_not_be_stored_is_refused_whole(back_end: BackEnd) -> None:
    with Pool([double], storage=(storage := back_end.make())) as pool:
        with pytest.raises(NotStorable):
            pool.dispatch_many([1, 2, {3}])
        assert storage.counts().accepted == 0


def test_executor_of_a_pool_with_a_storage_refuses_calls() -> None:
    with (
        Pool([lambda call: call()], storage=MemoryStorage()) as pool,
        pytest.raises(NotStorable, match="data"),
    ):
        pool.as_executor().submit(pow, 2, 3)


def test_pool_that_refuses_stores_nothing(back_end: BackEnd) -> None:
    storage = back_end.make()
    pool = Pool[Any, Any](storage=storage)
    with pytest.raises(Exception, match="has no workers"):
        pool.dispatch(1)
    assert storage.counts().accepted == 0
    pool.close()


def test_full_disk_raises_at_the_dispatch_and_is_not_for_ever(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "run.db")
    with Pool([double], storage=storage) as pool:
        db = storage._open()._db
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        with pytest.raises(StorageError, match="full"):
            pool.dispatch("x" * 100_000, key="big")
        db.execute("PRAGMA max_page_count = 1000000")
        assert pool.dispatch("x" * 100_000, key="big").result() == "x" * 200_000
        assert storage.counts().accepted == 1


def test_what_is_no_storage() -> None:
    with pytest.raises(InvalidType, match=r"SQLiteStorage\('run.db'\)"):
        Pool([double], storage="run.db")  # type: ignore[arg-type]


def test_storage_serves_one_pool_at_a_time(back_end: BackEnd) -> None:
    storage = back_end.make()
    with (
        Pool([double], storage=storage, name="first"),
        pytest.raises(StorageError, match="belongs to first"),
    ):
        Pool([double], storage=storage)
    Pool([double], storage=storage).close()


def test_pool_that_could_not_be_made_gives_its_storage_free(back_end: BackEnd) -> None:
    storage = back_end.make(policies={"odd": 1})
    with pytest.raises(InvalidType, match="policies"):
        Pool([double], storage=storage)
    storage = back_end.make()
    with pytest.raises(InvalidValue, match="rate"):
        Pool(
            [WorkerSpec(double, group="a", rate=Rate(1)), WorkerSpec(double, group="a", rate=Rate(2))],
            storage=storage,
        )
    Pool([double], storage=storage).close()


def test_pool_without_a_storage_imports_nothing_of_it() -> None:
    source = "from retrypool import Pool; Pool([len]).close(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", source], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "retrypool.pool" in modules
    parts = {"sqlite3", "retrypool.storage.base", "retrypool.threads.journal", "retrypool.threads.keys"}
    assert not modules & parts


# -- keys ----------------------------------------------------------------------------------------------


def test_key_of_a_task_that_has_not_ended_returns_it(back_end: BackEnd, gate: Gate) -> None:
    with Pool([gate], storage=back_end.make()) as pool:
        task = pool.dispatch("a", key="k")
        gate.began.acquire()
        assert pool.dispatch("b", key="k") is task
        other = pool.dispatch("c", key="other")
        assert pool.dispatch("d", key="other") is other
        gate.opened.set()
    assert gate.seen == ["a", "c"]


def test_key_of_a_task_that_has_ended_answers_with_its_result(back_end: BackEnd) -> None:
    storage = back_end.make()
    with Pool([double], storage=storage) as pool:
        assert pool.dispatch(1, key="k").result() == 2
        assert pool.dispatch(5, key="k").result() == 2
    with Pool([fail], storage=storage) as pool:
        task = pool.dispatch(7, key="k")
        assert (task.state, task.result(), task.data, task.attempts, task.history) == (
            TaskState.SUCCEEDED,
            2,
            7,
            1,
            [],
        )
        assert task.cancel() is False
        assert pool.dispatch_many([]) == []


def test_key_of_a_dead_task_answers_with_its_error_until_it_is_requeued(back_end: BackEnd) -> None:
    storage = back_end.make()
    with Pool([fail], storage=storage, retry=THREE) as pool:
        assert isinstance(pool.dispatch(1, key="k").exception(), OSError)
    with Pool([double], storage=storage) as pool:
        task = pool.dispatch(1, key="k")
        assert task.state is TaskState.DEAD
        with pytest.raises(OSError, match="no answer for 1"):
            task.result()
        again = pool.requeue_dead_task(task.id)
        assert again.result() == 2
        assert pool.dispatch(1, key="k").result() == 2
    with Pool([fail], storage=storage) as pool:
        assert pool.dispatch(1, key="k").result() == 2


def test_key_of_a_cancelled_task_is_free_again(back_end: BackEnd, gate: Gate) -> None:
    with Pool([gate], storage=back_end.make()) as pool:
        pool.dispatch("first")
        gate.began.acquire()
        assert pool.dispatch("a", key="k").cancel()
        task = pool.dispatch("b", key="k")
        gate.opened.set()
        assert task.result() == "b"


def test_threads_that_dispatch_one_key_get_one_task(back_end: BackEnd) -> None:
    with Pool([double] * 2, storage=(storage := back_end.make())) as pool:
        tasks: list[Any] = []
        start = threading.Barrier(8)

        def go() -> None:
            start.wait()
            tasks.extend(pool.dispatch(n, key=f"key {n}") for n in range(20))

        threads = [threading.Thread(target=go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tasks) == 160
        assert len({task.id for task in tasks}) == 20
        assert sorted({task.result() for task in tasks}) == [2 * n for n in range(20)]
        pool.wait()
        storage.flush()
        assert storage.counts().accepted == storage.counts().succeeded == 20


@pytest.mark.parametrize("ordered", [True, False])
def test_map_goes_on_where_it_stopped(back_end: BackEnd, ordered: bool) -> None:
    storage, seen = back_end.make(), []

    def note(data: int) -> int:
        seen.append(data)
        return 2 * data

    with Pool([note] * 2, storage=storage) as pool:
        results = pool.map(range(1000), key=str, window=10, ordered=ordered)
        for _ in range(100):
            next(results)
        results.close()
    with Pool([note] * 2, storage=storage) as pool:
        everything = list(pool.map(range(1000), key=str, ordered=ordered))
    assert sorted(everything) == [2 * n for n in range(1000)]
    if ordered:
        assert everything == sorted(everything)
    assert 1000 <= len(seen) <= 1010  # what was in flight when it stopped is run again
    with Pool([fail], storage=storage) as pool:
        assert sorted(pool.map(range(1000), key=str, ordered=ordered)) == [2 * n for n in range(1000)]


def test_items_of_one_key_are_one_task(back_end: BackEnd) -> None:
    with Pool([double], storage=(storage := back_end.make())) as pool:
        assert list(pool.map([1, 2, 1, 2], key=str)) == [2, 4, 2, 4]
        assert sorted(pool.map([5, 6, 5, 6], key=str, ordered=False)) == [10, 10, 12, 12]
        storage.flush()
        assert storage.counts().accepted == 4


@pytest.mark.parametrize("ordered", [True, False])
def test_items_of_one_key_have_a_result_each_and_keep_to_the_window(back_end: BackEnd, ordered: bool) -> None:
    go_on = threading.Event()
    pulled: list[str] = []

    def items() -> Iterator[str]:
        for item in "aabaabab":
            pulled.append(item)
            yield item
            if len(pulled) == 4:
                go_on.set()

    def wait(item: str) -> str:
        assert go_on.wait(10)
        return item

    with Pool([wait], storage=back_end.make()) as pool:
        results = pool.map(items(), key=str, ordered=ordered, window=5)
        first = next(results)
        assert len(pulled) <= 6
        assert sorted([first, *results]) == sorted("aabaabab")


def test_many_ended_keys_leave_the_memory(back_end: BackEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrypool.threads.keys.ENDED_KEYS", 10)
    with Pool([double], storage=back_end.make()) as pool:
        assert len(list(pool.map(range(100), key=str))) == 100
        journal = pool._engine.journal
        assert journal is not None
        assert len(journal.keys._by_key) <= 20
        assert pool.dispatch(999, key="0").result() == 0


def test_result_that_can_not_be_stored_is_told_when_it_is_asked_for(
    back_end: BackEnd, caplog: pytest.LogCaptureFixture
) -> None:
    storage = back_end.make()
    with Pool([lambda data: {data}], storage=storage) as pool:
        assert pool.dispatch(1, key="k").result() == {1}
        assert pool.dispatch(2).result() == {2}  # nobody can ask for this one
    assert [r.message for r in caplog.records if "is not stored" in r.message] != []
    with Pool([double], storage=storage) as pool, pytest.raises(StorageError, match="result was not stored"):
        pool.dispatch(1, key="k").result()


def test_key_without_a_storage() -> None:
    with Pool([double]) as pool:
        with pytest.raises(InvalidValue, match="a pool with a storage"):
            pool.dispatch(1, key="k")
        with pytest.raises(InvalidValue, match="a pool with a storage"):
            list(pool.map([1], key=str))


def test_key_where_it_makes_no_sense() -> None:
    with Pool([double], storage=MemoryStorage()) as pool:
        with pytest.raises(InvalidValue, match="key"):
            pool.dispatch_many([1, 2], key="k")
        with pytest.raises(InvalidValue, match="key"):
            pool.schedule(1, every=1, key="k")
        with pytest.raises(InvalidType, match="a function of the item"):
            pool.map([1], key="k")  # type: ignore[arg-type]
        with pytest.raises(InvalidType, match="a string"):
            list(pool.map([1], key=lambda item: item))  # type: ignore[arg-type, return-value]


def test_keys_in_a_group(back_end: BackEnd) -> None:
    with Pool([double], storage=back_end.make()) as pool, pool.group() as group:
        first, second = group.dispatch(1, key="k"), group.dispatch(1, key="k")
    assert first.id == second.id


# -- another pool goes on --------------------------------------------------------------------------------


def by_hand(storage: Storage, clock: FakeClock, names: str = "abc", **options: Any) -> ManualPool[Any, Any]:
    workers = [WorkerSpec(double, group=name) for name in names]
    return ManualPool(workers, storage=storage, clock=clock, **options)


def test_waiting_tasks_go_on_in_their_order(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    pool.dispatch_many([1, 2, 3])
    pool.dispatch(4, priority=1)
    pool.force_close()
    pool = by_hand(storage, clock)
    assert [attempt.task.data for attempt in iter(pool.claim, None)] == [4, 1, 2]
    assert pool.dispatch(5).id > 4
    pool.force_close()


def test_results_tell_of_restored_tasks_too(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    pool.dispatch_many([1, 2])
    pool.force_close()
    with Pool([double], storage=storage, keep_results=True) as threaded:
        threaded.wait()
        assert [(result.data, result.value) for result in threaded.results()] == [(1, 2), (2, 4)]


def test_options_come_back(back_end: BackEnd) -> None:
    policies = {"patient": RetryPolicy(attempts=9)}
    storage, clock = back_end.make(policies=policies), FakeClock()
    given: dict[str, Any] = {
        "name": "page",
        "priority": 3,
        "retry": RetryPolicy(attempts=9),
        "timeout": 5.0,
        "time_limit": timedelta(seconds=50),
        "deadline": 500,
        "interrupt_on_timeout": True,
        "exclude": {"b", 0},
        "cost": 2.5,
        "keep_data": False,
        "options": {"a": [1]},
        "tags": {"x", "y"},
        "metadata": {"m": None},
    }
    pool = by_hand(storage, clock)
    before = pool.dispatch(1, **given)._settings
    pool.force_close()
    pool = by_hand(storage, clock)
    (task,) = pool.tasks()
    after = task._settings
    for option in (*given, "retry"):
        assert getattr(after, option) == getattr(before, option), option
    assert after.retry is policies["patient"]
    pool.force_close()


def test_delays_dates_and_deadlines_go_by_the_wall_clock(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock)
    start = datetime.fromtimestamp(clock.time(), UTC)
    pool.dispatch("delayed", delay=100)
    pool.dispatch("dated", at=start + timedelta(seconds=200))
    pool.dispatch("late", deadline=50, delay=30)
    pool.dispatch("later", deadline=1000, delay=300)
    pool.force_close()
    clock.advance(60)  # the process is down
    pool = by_hand(storage, clock)
    assert {task.data: task.state for task in pool.tasks()} == dict.fromkeys(
        ("delayed", "dated", "later"), TaskState.SCHEDULED
    )
    (dead,) = pool.dead_tasks()
    assert (dead.data, dead.reason) == ("late", DeadReason.DEADLINE)
    clock.advance(41)
    attempt = pool.claim()
    assert attempt is not None
    assert attempt.task.data == "delayed"
    attempt.finish(None)
    clock.advance(100)
    assert pool.claim() is not None
    clock.advance(800)
    assert [dead.data for dead in pool.dead_tasks()] == ["late", "later"]
    pool.force_close()


def failing_once(pool: ManualPool[Any, Any], error: BaseException) -> str:
    attempt = pool.claim()
    assert attempt is not None
    group = attempt.context.group
    attempt.fail(error)
    return group


def test_retrying_task_keeps_its_attempts_and_who_has_tried_it(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock, retry=RetryPolicy(attempts=4, delay=0))
    pool.dispatch(1)
    tried = {failing_once(pool, OSError("first")), failing_once(pool, ValueError("second"))}
    pool.force_close()
    pool = by_hand(storage, clock, retry=RetryPolicy(attempts=4, delay=0))
    (task,) = pool.tasks()
    assert [str(error) for error in task.errors] == ["first", "second"]
    assert [type(error) for error in task.errors] == [OSError, ValueError]
    assert {attempt.group for attempt in task.history} == tried
    assert [attempt.number for attempt in task.history] == [1, 2]
    attempt = pool.claim()
    assert attempt is not None
    assert attempt.context.attempt == 3
    assert attempt.context.group not in tried
    attempt.fail(OSError("third"))
    attempt = pool.claim()  # all have tried it: a new round
    assert attempt is not None
    attempt.fail(OSError("fourth"))
    (dead,) = pool.dead_tasks()
    assert (dead.reason, dead.attempts, [a.number for a in dead.history]) == (
        DeadReason.ATTEMPTS,
        4,
        [1, 2, 3, 4],
    )
    pool.force_close()


def test_who_has_tried_it_is_known_by_name_also_to_workers_that_come_later(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock, names="ab", retry=RetryPolicy(attempts=4, delay=0))
    pool.dispatch(1)
    tried = failing_once(pool, OSError("first"))
    pool.force_close()
    pool = by_hand(storage, clock, names="", wait_for_workers=True)
    pool.add_worker(double, group=tried)
    pool.add_worker(double, group="other")
    attempt = pool.claim()
    assert attempt is not None
    assert attempt.context.group == "other"
    pool.force_close()


def test_delay_of_a_retry_goes_on(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock, retry=RetryPolicy(delay=100, max_delay=None))
    pool.dispatch(1)
    failing_once(pool, OSError("x"))
    pool.force_close()
    clock.advance(50)
    pool = by_hand(storage, clock, retry=RetryPolicy(delay=100, max_delay=None))
    assert pool.claim() is None
    assert pool.tasks()[0].state is TaskState.RETRYING
    clock.advance(51)
    assert pool.claim() is not None
    pool.force_close()


def test_attempts_that_were_not_charged_stay_so(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock, names="a", retry=RetryPolicy(attempts=2, delay=0))
    task = pool.dispatch(1)
    failing_once(pool, Throttled(retry_after=10))
    clock.advance(11)
    failing_once(pool, OSError("x"))
    pool.force_close()
    pool = by_hand(storage, clock, names="a", retry=RetryPolicy(attempts=2, delay=0))
    (task,) = pool.tasks()
    record = task._record
    assert record is not None
    assert (record.entries, record.charged, record.uncharged) == (2, 1, 1)
    assert [attempt.outcome for attempt in task.history] == [Outcome.THROTTLED, Outcome.FAILED]
    pool.force_close()


def test_cool_down_of_a_named_group_goes_on(back_end: BackEnd) -> None:
    storage, clock = back_end.make(), FakeClock()
    pool = by_hand(storage, clock, names="ab")
    pool.dispatch(1)
    cooled = failing_once(pool, Throttled(retry_after=100))
    pool.force_close()
    clock.advance(50)
    pool = by_hand(storage, clock, names="ab")
    pool.dispatch(2)
    first, second = pool.claim(), pool.claim()
    assert first is not None
    assert second is None
    assert first.context.group != cooled
    clock.advance(51)
    second = pool.claim()
    assert second is not None
    assert second.context.group == cooled
    second.finish(None)
    pool.force_close()
    pool = by_hand(storage, clock, names="ab")  # it has recovered, and that is known, too
    assert list(storage.groups()) == []
    pool.force_close()


def test_dead_tasks_come_back_with_their_history(back_end: BackEnd) -> None:
    storage = back_end.make()
    with Pool([fail], storage=storage, retry=THREE) as pool:
        task = pool.dispatch({"a": 1}, tags={"t"}, name="n", key="k")
        pool.wait()
    with Pool([double], storage=storage) as pool:
        (dead,) = pool.dead_tasks()
        assert (dead.id, dead.name, dead.data, dead.reason) == (
            task.id,
            "n",
            {"a": 1},
            DeadReason.ATTEMPTS,
        )
        assert (dead.tags, dead.attempts) == ({"t"}, 3)
        assert [(type(e), str(e)) for e in dead.errors] == [(type(e), str(e)) for e in task.errors]
        assert pool.pull_dead_task(dead.id).data == {"a": 1}
    with Pool([double], storage=storage) as pool:
        assert pool.dead_tasks() == []


def test_requeued_task_is_waiting_again(back_end: BackEnd, gate: Gate) -> None:
    storage = back_end.make()
    with Pool([fail], storage=storage, retry=THREE) as pool:
        task = pool.dispatch(1)
        pool.wait()
    pool = Pool([gate], storage=storage)
    again = pool.requeue_dead_task(task.id)
    assert again.id == task.id
    gate.began.acquire()
    pool.force_close()
    gate.opened.set()
    with Pool([double], storage=storage) as pool:
        assert pool.dead_tasks() == []
        pool.wait()
    assert storage_counts(back_end, storage) == (1, 0, 0)


def storage_counts(back_end: BackEnd, storage: Storage) -> tuple[int, int, int]:
    storage.open("looking")
    counts = storage.counts()
    storage.close()
    return counts.succeeded, counts.waiting, counts.dead


def test_dead_limit_holds_for_the_storage_too(back_end: BackEnd) -> None:
    storage = back_end.make()
    with Pool([fail], storage=storage, retry=RetryPolicy(attempts=1), dead_limit=2) as pool:
        for number in range(5):
            pool.dispatch(number).exception()
    with Pool([double], storage=storage) as pool:
        assert [dead.data for dead in pool.dead_tasks()] == [3, 4]


# -- ends ------------------------------------------------------------------------------------------------


def test_closing_by_force_leaves_what_waits(back_end: BackEnd, gate: Gate) -> None:
    storage = back_end.make()
    with pytest.raises(ZeroDivisionError), Pool([gate], storage=storage) as pool:
        tasks = pool.dispatch_many([1, 2, 3])
        gate.began.acquire()
        raise ZeroDivisionError
    assert [task.state for task in tasks] == [TaskState.CANCELLED] * 3
    gate.opened.set()
    with Pool([double], storage=storage) as pool:
        pool.wait()
    assert storage_counts(back_end, storage) == (3, 0, 0)


def test_cancelled_task_does_not_come_back(back_end: BackEnd, gate: Gate) -> None:
    storage = back_end.make()
    pool = Pool([gate], storage=storage)
    pool.dispatch(1)
    gate.began.acquire()
    assert pool.dispatch(2).cancel()
    pool.force_close()
    gate.opened.set()
    with Pool([double], storage=storage) as pool:
        pool.wait()
    assert storage_counts(back_end, storage) == (1, 0, 0)


def test_task_taken_from_its_worker_keeps_its_attempt(back_end: BackEnd, gate: Gate) -> None:
    storage = back_end.make()
    pool = Pool([gate], storage=storage)
    task = pool.dispatch(1)
    gate.began.acquire()
    pool.pause()
    pool.interrupt_worker(0, then="pause")
    pool.force_close()
    gate.opened.set()
    storage.open("looking")
    (stored,) = storage.tasks()
    storage.close()
    assert (stored.id, stored.entries, stored.charged, len(stored.history)) == (task.id, 1, 0, 1)


# -- processes that die ------------------------------------------------------------------------------------


def test_task_that_ran_at_three_deaths_is_dead(back_end: BackEnd, gate: Gate) -> None:
    if back_end.kind == "memory":
        pytest.skip("two pools would share it")
    storage = back_end.make()
    pools = []
    for losses in range(3):
        pool = Pool([gate], storage=storage)
        pools.append(pool)
        if not losses:
            pool.dispatch("bad")
        gate.began.acquire()
        left = back_end.after_crash(storage)
        left.close()
        assert isinstance(left, SQLiteStorage)
        storage = back_end.make(left.path)
    with Pool([double], storage=storage) as pool:
        (dead,) = pool.dead_tasks()
        assert (dead.data, dead.reason) == ("bad", DeadReason.LOST)
        assert isinstance(dead.error, TaskLost)
        assert dead.error.losses == 3
        assert pool.dispatch(2).result() == 4
    gate.opened.set()
    for pool in pools:
        pool.close()


def test_recorded_start_is_stored_before_the_run(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "run.db", record_starts=True)
    seen: list[Any] = []

    def look(data: Any) -> None:
        seen.extend(storage._open().read("SELECT id, started FROM task"))

    with Pool([look], storage=storage, retry=THREE) as pool:
        task = pool.dispatch(1)
    assert seen == [(task.id, 1)]


def test_start_that_can_not_be_recorded_waits(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "run.db", record_starts=True)
    tried = threading.Event()
    with Pool([double], storage=storage) as pool:
        write = storage.write
        failures = [StorageError("run.db", "full")]

        def failing(records: Any) -> None:
            if type(records[0]).__name__ == "Started" and failures:
                tried.set()
                raise failures.pop()
            write(records)

        storage.write = failing  # type: ignore[method-assign]
        assert pool.dispatch(1).result() == 2
        assert tried.is_set()


def test_idempotency_key_is_the_same_in_all_attempts(back_end: BackEnd) -> None:
    keys: list[str] = []

    def note(data: object) -> None:
        keys.append(current_context().idempotency_key)
        if len(keys) < 3:
            raise OSError("again")

    storage = back_end.make()
    with Pool([note], storage=storage, retry=RetryPolicy(attempts=2, delay=0)) as pool:
        task = pool.dispatch(1)
        pool.wait()
        pool.dispatch(2)
    with Pool([note], storage=storage) as pool:
        pool.requeue_dead_task(task.id)
    assert keys[0] == keys[1] == keys[3]
    assert keys[2] != keys[0]


def test_idempotency_key_without_a_storage() -> None:
    def key(ctx: Context, data: object) -> str:
        return ctx.idempotency_key

    class Keys:
        run = staticmethod(key)

    with Pool([Keys()]) as one, Pool([Keys()]) as two:
        keys = [pool.dispatch(1).result() for pool in (one, one, two)]
    assert len(set(keys)) == 3


# -- what can't be read ------------------------------------------------------------------------------------


def test_policy_that_has_no_name_any_more(back_end: BackEnd) -> None:
    storage, clock = back_end.make(policies={"odd": RetryPolicy(attempts=9)}), FakeClock()
    pool = by_hand(storage, clock)
    pool.dispatch(1, retry=RetryPolicy(attempts=9))
    pool.dispatch(2)
    pool.force_close()
    storage.policies.clear()
    pool = by_hand(storage, clock)
    (dead,) = pool.dead_tasks()
    assert dead.reason is DeadReason.UNRECOVERABLE
    assert "policy 'odd'" in str(dead.error)
    assert [task.data for task in pool.tasks()] == [2]
    pool.force_close()
    storage.policies["odd"] = RetryPolicy(attempts=9)
    pool = by_hand(storage, clock)
    assert pool.dead_tasks()[0].data == 1
    pool.force_close()


def test_errors_of_other_types_come_back_in_words(back_end: BackEnd) -> None:
    class Odd(Exception):
        pass

    def odd(data: object) -> None:
        raise Odd("text")

    storage = back_end.make()
    with Pool([odd], storage=storage, retry=RetryPolicy(attempts=1)) as pool:
        pool.dispatch(1)
    with Pool([double], storage=storage) as pool:
        (dead,) = pool.dead_tasks()
        assert isinstance(dead.error, StoredError)
        assert str(dead.error).endswith("Odd: text")


def test_pickle_holds_what_json_does_not(back_end: BackEnd) -> None:
    storage, clock = back_end.make(codec="pickle"), FakeClock()
    pool = by_hand(storage, clock)
    pool.dispatch({(1, 2): {3}}, metadata={"when": datetime(2020, 1, 1, tzinfo=UTC)})
    pool.force_close()
    pool = by_hand(storage, clock)
    (task,) = pool.tasks()
    assert task.data == {(1, 2): {3}}
    assert task.metadata == {"when": datetime(2020, 1, 1, tzinfo=UTC)}
    pool.force_close()
