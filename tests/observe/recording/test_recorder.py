"""What a recorder takes note of, and what it does not hold on to."""

import gc
import threading
import weakref
from typing import Any

import pytest

from retrypool import (
    InvalidType,
    InvalidValue,
    Pool,
    Recorder,
    RetryPolicy,
    Throttled,
    Unrecoverable,
    WorkerSpec,
)
from retrypool.observe.recording import book
from retrypool.observe.recording.data import Recording
from retrypool.testing import ManualPool

from .acting import play, takes
from .acting import stage as played

AT_ONCE = RetryPolicy(attempts=3, delay=0)


def bars(recording: Recording) -> dict[str, list[tuple[float, float, str]]]:
    return {lane.name: [(bar.start, bar.end, bar.outcome) for bar in lane.bars] for lane in recording.lanes}


def test_attempts_stand_in_the_lanes_of_their_workers() -> None:
    errors = iter([OSError("down"), None])
    scripts: Any = {"red": lambda _: (1.0, next(errors)), "blue": takes(3.0)}
    pool = played(scripts, retry=AT_ONCE, health=None)
    with Recorder(pool) as run:
        pool.dispatch_many(["a", "b"])
        play(pool, scripts)
    recording = run.recording()
    assert bars(recording) == {
        "red": [(0.0, 1.0, "failed")],
        "blue": [(0.0, 3.0, "succeeded"), (3.0, 6.0, "succeeded")],
    }
    assert (recording.begin, recording.end) == (0.0, 6.0)
    assert recording.lanes[0].bars[0].error == "OSError: down"
    assert [bar.label for lane in recording.lanes for bar in lane.bars] == ["a", "b", "a"]
    assert recording.counts.succeeded == 2
    assert (recording.counts.retries, recording.counts.changes) == (1, 1)


def test_waiting_is_told_apart_from_delay() -> None:
    errors = iter([OSError("down"), None, None])
    scripts: Any = {"red": lambda _: (1.0, next(errors))}
    pool = played(scripts, retry=RetryPolicy(delay=5, jitter=None), health=None)
    with Recorder(pool) as run:
        pool.dispatch_many(["a", "b"])
        play(pool, scripts)
    counts = run.recording().counts
    assert counts.delayed == pytest.approx(5.0)  # of "a", from 1 to 6
    assert counts.queued == pytest.approx(1.0)  # of "b", from 0 to 1
    series = run.recording().series
    assert sum(series.values("delayed")) * series.width == pytest.approx(5.0)
    assert sum(series.values("queued")) * series.width == pytest.approx(1.0)
    assert sum(series.values("running")) * series.width == pytest.approx(3.0)


def test_delay_before_the_first_attempt_is_no_waiting() -> None:
    scripts: Any = {"red": takes(1.0)}
    pool = played(scripts)
    with Recorder(pool) as run:
        pool.dispatch("a", delay=100)
        play(pool, scripts)
    recording = run.recording()
    assert recording.counts.queued == pytest.approx(0.0)
    assert (recording.begin, recording.length) == pytest.approx((100.0, 1.0))


def test_cool_downs_and_pauses_are_spans() -> None:
    refused = iter([Throttled(retry_after=4), None])
    scripts: Any = {"red": lambda _: (1.0, next(refused))}
    pool = played(scripts)
    with Recorder(pool) as run:
        pool.dispatch("a")
        play(pool, scripts)
        (worker,) = pool.workers()
        pool.pause_worker(worker.id)
        pool.clock.advance(2)
        pool.resume_worker(worker.id)
        pool.dispatch("b")
        refused = iter([None])
        play(pool, scripts)
    spans = {span.kind: (span.who, span.start, span.end) for span in run.recording().spans}
    assert spans == {"cooling": ("red", 1.0, 5.0), "paused": (worker.id, 6.0, 8.0)}


def test_outage_is_a_span_of_all_groups_with_what_showed_it() -> None:
    def down(_: object) -> tuple[float, BaseException | None]:
        now = pool.clock.monotonic()
        return 0.1, ConnectionError("network is unreachable") if 2 <= now < 5 else None

    scripts: Any = {"red": down, "blue": down, "green": down}
    pool = played(scripts, retry=AT_ONCE)
    with Recorder(pool) as run:
        pool.dispatch_many(range(150))
        play(pool, scripts)
    assert run.report().dead == 0
    (outage,) = run.report().outages
    assert outage.who == ""
    assert outage.why == "ConnectionError: network is unreachable"
    assert 2 <= outage.start < 3
    assert 5 <= outage.end < 7
    assert run.report().advice[0].startswith("Everything failed, from 2.")


def test_suspicion_ends_with_an_ejection_or_an_acquittal() -> None:
    scripts: Any = {"red": takes(0.1), "ill": takes(0.1, lambda: PermissionError("401"))}
    pool = played(scripts, retry=AT_ONCE)
    with Recorder(pool) as run:
        pool.dispatch_many(range(60))
        play(pool, scripts)
    spans = [span for span in run.recording().spans if span.who == "ill"]
    first = next(span for span in spans if span.kind == "ejected")
    suspicions = [span for span in spans if span.kind == "suspect"]
    assert suspicions
    assert all(span.end <= first.start for span in suspicions if span.start < first.start)


def test_dead_and_cancelled_tasks_are_counted_with_their_reasons() -> None:
    scripts: Any = {"red": takes(1.0, lambda: Unrecoverable("no such page"))}
    pool = played(scripts)
    with Recorder(pool) as run:
        pool.dispatch("a")
        waiting = pool.dispatch("b")
        attempt = pool.claim()
        assert attempt is not None
        waiting.cancel()
        pool.clock.advance(1)
        attempt.fail(Unrecoverable("no such page"))
    counts = run.recording().counts
    assert (counts.succeeded, counts.dead, counts.cancelled, counts.ended) == (0, 1, 1, 2)
    assert counts.reasons == {("unrecoverable", "Unrecoverable: no such page"): 1}


def test_recording_can_be_looked_at_while_it_goes_on() -> None:
    pool: ManualPool[Any, Any] = ManualPool([WorkerSpec(len, name="red")])
    run = Recorder(pool).start()
    pool.dispatch_many(["a", "bc", "def"])
    first = pool.claim()
    assert first is not None
    pool.clock.advance(2)
    first.finish(1)
    second = pool.claim()
    assert second is not None
    pool.clock.advance(3)
    recording = run.recording()
    assert (recording.begin, recording.end) == (0.0, 5.0)
    assert [(one.start, one.label) for one in recording.running] == [(2.0, "bc")]
    assert recording.waiting == 1
    report = run.report()
    assert (report.dispatched, report.succeeded, report.running, report.waiting) == (3, 1, 1, 1)
    assert "still running" not in str(report)
    assert "1 running + 1 waiting" in str(report)
    second.finish(2)
    run.stop()
    pool.clock.advance(100)
    assert run.recording().end == 5.0
    pool.force_close()


def test_nothing_is_recorded_after_the_end() -> None:
    pool: ManualPool[Any, Any] = ManualPool([len])
    with Recorder(pool) as run:
        pool.dispatch("a")
        attempt = pool.claim()
        assert attempt is not None
        attempt.finish(1)
    pool.dispatch("b")
    attempt = pool.claim()
    assert attempt is not None
    attempt.finish(1)
    assert run.report().succeeded == 1
    assert not pool._engine.observers.wants_ended


def test_leaving_the_block_waits_for_the_pool(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold] * 2)

    def record() -> int:
        with Recorder(pool) as run:
            pool.dispatch_many(range(4))
        return run.report().succeeded

    left = stage.start(record)
    gate.wait_until_reached(2)
    assert not left.done()
    gate.open()
    assert left.result(stage.within) == 4


def test_exception_in_the_block_comes_through_at_once(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    with pytest.raises(KeyError), Recorder(pool) as run:
        pool.dispatch("a")
        gate.wait_until_reached()
        raise KeyError
    assert [one.label for one in run.recording().running] == ["a"]


def test_stop_within_the_block_ends_the_waiting_too(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    with Recorder(pool) as run:
        pool.dispatch("a")
        gate.wait_until_reached()
        run.stop()
    assert run.report().running == 1


def test_every_attempt_of_many_threads_is_counted(stage: Any) -> None:
    pool = stage.pool([WorkerSpec(abs, name=f"w{n}", concurrency=2) for n in range(4)], health=None)
    with Recorder(pool, attempts=500) as run:
        pool.dispatch_many(range(5000))
    recording = run.recording()
    assert recording.total.succeeded == recording.counts.succeeded == 5000
    assert sum(bar.calls for lane in recording.lanes for bar in lane.bars) == 5000
    assert sum(len(lane.bars) for lane in recording.lanes) <= 500
    assert [worker.threads for worker in recording.workers] == [2] * 4
    assert sum(recording.series.values("succeeded")) == pytest.approx(5000)


def test_recorder_joins_a_pool_that_is_at_work(stage: Any) -> None:
    gate = stage.gate()
    pool = stage.pool([gate.hold])
    pool.dispatch_many("ab")
    gate.wait_until_reached()
    run = Recorder(pool).start()
    gate.open()
    pool.wait(stage.within)
    run.stop()
    recording = run.recording()
    assert recording.counts.succeeded == 2
    assert all(bar.start <= bar.end for lane in recording.lanes for bar in lane.bars)
    assert recording.length >= 0


def test_report_while_workers_tell_loses_nothing(stage: Any) -> None:
    pool = stage.pool([abs] * 4)
    done = threading.Event()

    def look(run: Recorder) -> int:
        looks = 0
        while not done.is_set():
            str(run.report())
            looks += 1
        return looks

    with Recorder(pool) as run:
        looking = stage.start(look, run)
        for _ in range(20):
            pool.dispatch_many(range(100))
            pool.wait(stage.within)
        done.set()
        assert looking.result(stage.within)
    assert run.report().succeeded == 2000


class Big(Exception):
    """Something that can be watched, and raised."""


def test_neither_data_nor_results_nor_errors_are_kept_alive(no_garbage: None) -> None:
    seen: list[weakref.ref[Any]] = []

    def work(data: Big) -> Big:
        result = Big()
        seen.extend([weakref.ref(data), weakref.ref(result)])
        if len(seen) > 2:
            error = Big("failed")
            seen.append(weakref.ref(error))
            raise error
        return result

    with Pool([work], retry=RetryPolicy(attempts=1), dead_limit=0) as pool:
        with Recorder(pool) as run:
            pool.dispatch(Big())
            pool.wait()
            pool.dispatch(Big())
        pool.wait()
    gc.collect()  # what the pool itself leaves to the collector is not what is asked here
    assert [ref() for ref in seen] == [None] * 5
    assert run.report().calls == 2


class NoWords:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def test_labels_come_from_names_data_or_a_function() -> None:
    def labels(**options: Any) -> list[str]:
        pool: ManualPool[Any, Any] = ManualPool([len])
        with Recorder(pool, **options) as run:
            pool.dispatch("https://example.com/" + "x" * 200)
            pool.dispatch({"page": 3})
            pool.dispatch(b"", name="first\nsecond")
            pool.dispatch(NoWords())
            while attempt := pool.claim():
                attempt.finish(0)
        return [bar.label for lane in run.recording().lanes for bar in lane.bars]

    *_, last = labels()
    assert last.startswith("<NoWords instance at ")
    assert labels()[:3] == ["https://example.com/" + "x" * 57 + "...", "{'page': 3}", "first"]
    assert (
        labels(label=lambda task: "\x1b[31mred\ud800\u00a0and\tso on\nand on") == ["?[31mred? and so on"] * 4
    )
    assert labels(label=lambda task: task.id * 0) == ["0"] * 4
    assert labels(label=lambda task: 1 / 0) == ["label raised ZeroDivisionError"] * 4


def test_workers_that_come_and_go_have_their_time() -> None:
    pool: ManualPool[Any, Any] = ManualPool([WorkerSpec(len, name="first")])
    with Recorder(pool) as run:
        pool.dispatch("a")
        attempt = pool.claim()
        assert attempt is not None
        pool.clock.advance(1)
        second = pool.add_worker(len, name="second")
        pool.clock.advance(1)
        attempt.finish(1)
        pool.dispatch("b")
        attempt = pool.claim(second)
        assert attempt is not None
        pool.clock.advance(1)
        attempt.finish(1)
    workers = {worker.name: worker for worker in run.recording().workers}
    assert workers["second"].added == 1.0
    assert list(bars(run.recording())) == ["first", "second"]


def test_worker_that_cannot_start_is_in_the_report(stage: Any) -> None:
    class Broken:
        def on_start(self) -> None:
            raise OSError("no such device")

        def run(self, ctx: object, data: object) -> object:
            return data

    pool = stage.pool([abs])
    run = Recorder(pool).start()
    pool.add_worker(Broken(), name="device-1")
    pool.dispatch(1)
    pool.close()
    run.stop()
    report = run.report()
    assert [(worker.name, worker.error) for worker in report.workers if worker.error] == [
        ("device-1", "OSError: no such device")
    ]
    assert "device-1 could not be started: OSError: no such device." in report.advice


def test_workers_beyond_the_limit_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "WORKERS", 3)
    scripts: Any = {f"w{n}": takes(1.0) for n in range(5)}
    pool = played(scripts)
    with Recorder(pool) as run:
        pool.dispatch_many(range(10))
        play(pool, scripts)
    report = run.report()
    assert {worker.name: worker.calls for worker in report.workers} == {
        "w0": 2,
        "w1": 2,
        "w2": 2,
        "others": 4,
    }
    assert report.succeeded == 10
    assert report.note == "4 attempts are counted and not shown: there are too many workers."


def test_recorder_is_used_once() -> None:
    pool: ManualPool[Any, Any] = ManualPool([len])
    run = Recorder(pool)
    assert repr(run) == f"<Recorder of {pool.name}: not started>"
    with pytest.raises(InvalidValue, match="started: with Recorder"):
        run.report()
    with run:
        assert "recording" in repr(run)
    assert "stopped" in repr(run)
    with pytest.raises(InvalidValue, match="not used before"):
        run.start()


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((3,), {}, InvalidType),
        ((None,), {}, InvalidType),
        ((), {"attempts": 99}, InvalidValue),
        ((), {"attempts": True}, InvalidType),
        ((), {"attempts": 1e5}, InvalidType),
        ((), {"label": "name"}, InvalidType),
    ],
)
def test_bad_input_is_refused_at_once(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    pool: ManualPool[Any, Any] = ManualPool([len])
    with pytest.raises(error):
        Recorder(*(arguments or (pool,)), **options)


def test_empty_run_has_a_report() -> None:
    pool: ManualPool[Any, Any] = ManualPool([len])
    with Recorder(pool) as run:
        pass
    report = run.report()
    assert (report.makespan, report.optimum, report.calls, report.advice) == (0.0, None, 0, ())
    assert str(report).startswith("tasks     0 dispatched")
