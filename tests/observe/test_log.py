"""What a pool writes to the log: nothing fails in silence, and nothing floods it."""

import functools
import logging
import pickle
import subprocess
import sys
from typing import Any

import pytest

from retrypool import (
    HealthPolicy,
    InvalidType,
    Pool,
    PoolExecutor,
    Recorder,
    RetryPolicy,
    Throttled,
    Unrecoverable,
    WorkerFault,
    WorkerSpec,
    fixed,
)
from retrypool.events import OutageBegan, OutageEnded
from retrypool.model.describe import shortened
from retrypool.observe.log import EventLog
from retrypool.testing import ManualPool

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="retrypool")
    return caplog


def records(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", None) == event]


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no")


# -- dead tasks ----------------------------------------------------------------------------------


def test_dead_task_is_warned_of_with_all_that_tells_why(logged: pytest.LogCaptureFixture) -> None:
    def run(data: str) -> int:
        raise OSError("host\nis down")

    workers = [WorkerSpec(run, name="token-a"), WorkerSpec(run, name="token-b", group="token-b")]
    pool = ManualPool(workers, name="api", retry=RetryPolicy(attempts=2, delay=fixed(0)))
    task = pool.dispatch("https://example.com/1", name="page")
    pool.claim(0).run()
    pool.claim(1).run()
    (record,) = records(logged, "task_dead")
    line = run.__code__.co_firstlineno + 1
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"api: task {task.id} 'page' (data 'https://example.com/1') is dead (attempts) after "
        f"2 attempts on token-a, token-b: OSError: host is down (test_log.py:{line})"
    )
    assert (record.pool, record.task_id, record.task_name) == ("api", task.id, "page")
    assert (record.reason, record.attempts, record.groups) == ("attempts", 2, ["token-a", "token-b"])
    assert record.error_type == "OSError"


def test_script_whose_tasks_all_die_says_so_without_any_set_up() -> None:
    source = "from retrypool import Pool\nwith Pool([int], name='p') as pool: pool.dispatch('x')"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert "p: task 1 (data 'x') is dead (attempts) after 3 attempts on worker-0: ValueError" in done.stderr
    assert "p: it ends with 1 dead task: 1 of ValueError. dead_tasks() has it" in done.stderr


def test_flood_of_dead_tasks_is_told_of_in_part_and_counted(logged: pytest.LogCaptureFixture) -> None:
    pool = ManualPool([int], retry=ONCE, name="p", health=None)
    for _ in range(1000):
        pool.dispatch("x")
        pool.claim().run()
    assert len(records(logged, "task_dead")) == 10
    pool.clock.advance(10)
    pool.dispatch("x")
    pool.claim().run()
    told = records(logged, "task_dead")
    assert len(told) == 11
    assert told[-1].left_out == 990
    assert told[-1].getMessage().endswith("990 more are not told of one by one")
    pool.close()
    (end,) = records(logged, "pool_stopped")
    assert end.getMessage() == "p: it ends with 1001 dead tasks: 1001 of ValueError. dead_tasks() has them"
    assert end.dead == 1001


def test_end_with_dead_tasks_is_told_once(logged: pytest.LogCaptureFixture) -> None:
    pool = Pool([int, int], retry=ONCE, dead_limit=2, name="p")
    for data in "xyz":
        pool.dispatch(data)
    pool.close()
    pool.close()
    pool.force_close()
    (end,) = records(logged, "pool_stopped")
    assert "p: it ends with 3 dead tasks" in end.getMessage()
    assert "1 were dropped" in end.getMessage()


def test_pool_without_dead_tasks_writes_nothing(logged: pytest.LogCaptureFixture) -> None:
    with Pool([len, len]) as pool:
        assert list(pool.map(["a"] * 100)) == [1] * 100
        assert not pool._engine.guarded
    dead = ManualPool([int], retry=ONCE)
    task = dead.dispatch("x")
    dead.claim().run()
    dead.pull_dead_task(task.id)
    logged.clear()
    dead.close()
    assert logged.records == []


def test_data_that_cannot_be_shown_stops_nothing(logged: pytest.LogCaptureFixture) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def run(data: object) -> None:
        raise Silent

    pool = ManualPool([run], retry=ONCE)
    task = pool.dispatch(BadRepr())
    pool.claim().run()
    (record,) = records(logged, "task_dead")
    assert "BadRepr" in record.getMessage()
    assert "Silent" in record.getMessage()
    assert isinstance(task.exception(), Silent)


class Rude:
    """Ends the program when it is shown."""

    def __repr__(self) -> str:
        raise SystemExit


class RudeError(Exception):
    """So does this one, and when it is asked for its notes."""

    def __str__(self) -> str:
        raise SystemExit

    def __getattribute__(self, name: str) -> Any:
        if name == "__notes__":
            raise SystemExit
        return super().__getattribute__(name)


def test_nothing_that_is_shown_ends_a_worker(logged: pytest.LogCaptureFixture, stage: Any) -> None:
    def run(data: object) -> object:
        if isinstance(data, Rude):
            raise RudeError
        return data

    pool = stage.pool([run], retry=ONCE)
    task = pool.dispatch(Rude())
    assert isinstance(task.exception(stage.within), RudeError)
    assert pool.dispatch("x").result(stage.within) == "x"
    pool.close(timeout=stage.within)
    assert len(records(logged, "task_dead")) == 1


def test_handler_that_raises_ends_no_worker_and_no_close(stage: Any) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no room on the disk")

    handler = Broken()
    logging.getLogger("retrypool").addHandler(handler)
    try:
        pool = stage.pool([int], retry=ONCE)
        assert isinstance(pool.dispatch("x").exception(stage.within), ValueError)
        assert pool.dispatch("1").result(stage.within) == 1
        pool.close(timeout=stage.within)
    finally:
        logging.getLogger("retrypool").removeHandler(handler)


def test_executor_leaves_errors_to_its_futures(logged: pytest.LogCaptureFixture) -> None:
    with PoolExecutor(1) as executor:
        assert executor.submit(int, "x").exception() is not None
    assert logged.records == []


# -- the rest ------------------------------------------------------------------------------------


def test_retries_and_cool_downs_are_told_of_to_those_who_debug(logged: pytest.LogCaptureFixture) -> None:
    errors = [Throttled("slow", retry_after=5), OSError("down")]

    def run(data: str) -> str:
        if errors:
            raise errors.pop()
        return data

    pool = ManualPool([run], retry=RetryPolicy(delay=fixed(2), jitter=None), name="p")
    task = pool.dispatch("x")
    pool.claim().run()
    pool.clock.advance(2)
    pool.claim().run()
    first, _ = records(logged, "task_retrying")
    assert first.levelno == logging.DEBUG
    assert f"p: task {task.id} (data 'x') failed on worker-0, attempt 1: OSError: down" in first.getMessage()
    assert first.getMessage().endswith("; tried again in 2 s")
    (cooling,) = records(logged, "group_cooling")
    assert cooling.levelno == logging.DEBUG
    assert cooling.getMessage() == "p: worker-0 cools down for 5 s"


def test_ejection_is_warned_of_and_its_end_told(logged: pytest.LogCaptureFixture) -> None:
    faults = [WorkerFault("broken")] * 5

    def run(data: str) -> str:
        if faults:
            raise faults.pop()
        return data

    health = HealthPolicy(ejection=30)
    pool = ManualPool([run, len], name="p", health=health, retry=ONCE)
    for _ in range(5):
        pool.dispatch("x")
        pool.claim(0).run()
    (ejected,) = records(logged, "group_ejected")
    assert ejected.levelno == logging.WARNING
    assert "p: worker-0 is ejected for 30 s" in ejected.getMessage()
    assert (ejected.group, ejected.seconds) == ("worker-0", 30)
    pool.clock.advance(30)
    pool.dispatch("x")
    pool.claim(0).run()
    (opened,) = records(logged, "group_opened")
    assert opened.levelno == logging.INFO
    pool.force_close()


def test_outage_is_warned_of_and_its_end_told(logged: pytest.LogCaptureFixture) -> None:
    down = False

    def run(data: int) -> int:
        if down:
            raise ConnectionError("no route to host")
        return data

    pool = ManualPool([functools.partial(run) for _ in range(3)], name="p", retry=RetryPolicy(attempts=9))
    for number in range(30):
        pool.dispatch(number)
    for _ in range(6):
        pool.claim().run()
    down = True
    while not records(logged, "outage_began"):
        pool.claim().run()
    (began,) = records(logged, "outage_began")
    assert began.levelno == logging.WARNING
    assert "all groups fail (ConnectionError: no route to host" in began.getMessage()
    assert "the pool holds until " in pool.explain()
    down = False
    while not records(logged, "outage_ended"):
        attempt = pool.claim()
        attempt.run() if attempt is not None else pool.clock.advance(0.1)
    (ended,) = records(logged, "outage_ended")
    assert ended.levelno == logging.INFO
    assert ended.recovered
    assert records(logged, "task_dead") == []
    pool.force_close()


def test_outages_that_follow_each_other_are_told_of_once(logged: pytest.LogCaptureFixture) -> None:
    """Where many tasks fail, one may be over and the next begun within a millisecond."""
    pool = ManualPool([len], name="p")
    told = EventLog(pool._engine)
    for at in (0.0, 0.01, 0.02, 30.0):
        told.on_event(OutageBegan(at, at + 300, ConnectionError("down")))
        told.on_event(OutageEnded(at + 0.005, 0.005, recovered=True))
    assert [record.left_out for record in records(logged, "outage_began")] == [0, 2]
    assert len(records(logged, "outage_ended")) == 2
    pool.force_close()


def test_outage_that_follows_another_at_once_is_told_of_if_it_lasts(logged: pytest.LogCaptureFixture) -> None:
    pool = ManualPool([len], name="p")
    told = EventLog(pool._engine)
    start = pool.clock.monotonic()
    for at, lasts in ((start, 0.1), (start + 0.2, 0.1), (start + 0.5, 20.0)):
        pool.clock.advance(at - pool.clock.monotonic())
        told.on_event(OutageBegan(at, at + 300, ConnectionError("down")))
        pool.clock.advance(lasts / 2)
        assert len(records(logged, "outage_began")) == (1 if lasts < 1 else 2)
        pool.clock.advance(lasts / 2)
        told.on_event(OutageEnded(at + lasts, lasts, recovered=True))
    assert [record.seconds for record in records(logged, "outage_ended")] == [0.1, 20.0]
    pool.clock.advance(1)
    assert len(records(logged, "outage_began")) == 2
    pool.force_close()


def test_outage_that_ends_as_it_is_about_to_be_told_of_has_not_begun_after_its_end(
    logged: pytest.LogCaptureFixture,
) -> None:
    """So it is with errors that do not speak of the network: it is doubted after just that time."""
    pool = ManualPool([len], name="p")
    engine = pool._engine

    def end(began: float, now: float) -> None:
        engine.scheduler.report(OutageEnded(now, now - began, recovered=False))

    for _ in range(2):
        at = pool.clock.monotonic()
        engine.scheduler.timers.add(at + 1, end, at)
        engine.observers.tell(OutageBegan(at, at + 1, ValueError("no network")))
        pool.clock.advance(2)
    told = [record.event for record in logged.records if "outage" in getattr(record, "event", "")]
    assert told == ["outage_began", "outage_ended", "outage_ended"]
    pool.force_close()


def test_worker_that_is_given_nothing_more_is_warned_of(logged: pytest.LogCaptureFixture) -> None:
    pool = ManualPool([len], name="p")
    pool.cordon_worker(0, "its key was revoked")
    (record,) = records(logged, "worker_cordoned")
    assert record.getMessage() == "p: worker-0 is given nothing more: its key was revoked"
    assert (record.worker, record.worker_id, record.reason) == ("worker-0", 0, "its key was revoked")
    pool.force_close()


def test_worker_that_cannot_start_is_told_of_until_it_has(
    logged: pytest.LogCaptureFixture, stage: Any
) -> None:
    errors = [OSError("no device"), OSError("no device yet")]

    def make() -> Any:
        if errors:
            raise errors.pop(0)
        return len

    pool = stage.pool([WorkerSpec(factory=make, name="browser")], name="p", wait_for_workers=True)
    stage.until(lambda: records(logged, "worker_started"))
    first, second = records(logged, "worker_failed")
    assert (first.pool, first.worker, first.worker_id) == ("p", "browser", 0)
    assert first.exc_info[0] is OSError
    assert second.levelno == logging.WARNING
    assert second.getMessage() == "browser could not be started again: OSError: no device yet"
    assert records(logged, "worker_started")[0].levelno == logging.INFO
    pool.close(timeout=stage.within)


# -- notes ---------------------------------------------------------------------------------------


def notes(error: BaseException | None) -> list[str]:
    return list(getattr(error, "__notes__", []))


def test_error_carries_a_note_of_its_task() -> None:
    pool = ManualPool([WorkerSpec(int, name="token-b")], retry=RetryPolicy(attempts=2, delay=fixed(0)))
    task = pool.dispatch("x", name="page")
    pool.claim().run()
    assert notes(task.errors[0]) == []
    pool.claim().run()
    assert notes(task.exception()) == [
        f"retrypool: task {task.id} 'page' (data 'x'), attempt 2 of 2 on token-b"
    ]
    assert pickle.loads(pickle.dumps(task.exception())).__notes__ == task.exception().__notes__


def test_data_is_kept_out_of_everything_on_request(logged: pytest.LogCaptureFixture) -> None:
    def run(data: str) -> None:
        raise OSError("down")

    pool = ManualPool([run], show_data=False, retry=RetryPolicy(attempts=2, delay=fixed(0)), name="p")
    with Recorder(pool) as recording:
        task = pool.dispatch("secret", name="page")
        pool.claim().run()
        pool.claim().run()
    other = pool.dispatch("secret", deadline=1)
    pool.clock.advance(1)
    assert notes(task.exception()) == [f"retrypool: task {task.id} 'page', attempt 2 of 2 on worker-0"]
    assert notes(other.exception()) == [f"retrypool: task {other.id}, never tried"]
    assert "p: task 1 'page' is dead" in logged.text
    assert "secret" not in logged.text
    assert "secret" not in str(recording.report())
    with pytest.raises(InvalidType, match="show_data"):
        Pool([len], show_data=1)


def test_note_of_an_error_that_is_raised_again_and_again_tells_of_the_last_time() -> None:
    error = OSError("always the same")
    error.add_note("the user's own")

    def run(data: str) -> None:
        raise error

    pool = ManualPool([run], retry=ONCE, health=None)
    for data in "abc":
        pool.dispatch(data)
        pool.claim().run()
    assert len(notes(error)) == 2
    assert notes(error)[0] == "the user's own"
    assert "(data 'c')" in notes(error)[1]


def test_error_of_a_deadline_says_that_the_task_was_never_tried() -> None:
    pool = ManualPool([len])
    task = pool.dispatch("x", deadline=1)
    pool.clock.advance(1)
    assert notes(task.exception()) == [f"retrypool: task {task.id} (data 'x'), never tried"]


def test_error_that_takes_no_notes_is_left_as_it_is() -> None:
    class Sealed(Unrecoverable):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    def run(data: str) -> None:
        raise Sealed

    pool = ManualPool([run])
    task = pool.dispatch("x")
    pool.claim().run()
    assert isinstance(task.exception(), Sealed)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("x", "'x'"),
        ("line\nbreak", r"'line\nbreak'"),
        (BadRepr(), None),
        (["a" * 500] * 50, None),
        (dict.fromkeys(range(100), "v" * 200), None),
        (b"\0" * 10_000_000, None),
    ],
)
def test_data_is_shown_on_one_short_line(data: object, text: str | None) -> None:
    shown = shortened(data)
    assert text is None or shown == text
    assert len(shown) <= 121
    assert "\n" not in shown
