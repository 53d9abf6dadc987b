"""What a report says of runs that are played in virtual time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from retrypool import HealthPolicy, Outcome, Rate, Recorder, RetryPolicy, Throttled, Unrecoverable, WorkerSpec
from retrypool.observe.recording.data import Recording
from retrypool.observe.recording.facts import Facts
from retrypool.observe.recording.report import Report, report_of
from retrypool.observe.recording.spans import Span
from retrypool.testing import ManualPool

from .acting import Script, play, stage, takes

AT_ONCE = RetryPolicy(attempts=3, delay=0)


def recorded(scripts: dict[str, Script], items: Any, **options: Any) -> tuple[Report, Recording]:
    pool = stage(scripts, **{"retry": AT_ONCE} | options)
    with Recorder(pool) as run:
        pool.dispatch_many(items)
        play(pool, scripts)
    return run.report(), run.recording()


def advice(report: Report, word: str) -> str:
    (text,) = [text for text in report.advice if word in text]
    return text


def test_slow_worker_is_named_with_its_share_of_the_makespan() -> None:
    """Three tokens take 1 s, one 20 s; the last of its calls goes on when the others have nothing to do."""
    scripts = {f"token-{name}": takes(20.0 if name == "d" else 1.0) for name in "abcd"}
    report, _ = recorded(scripts, range(66))
    assert report.makespan == pytest.approx(40.0)
    # The others take from 0 to 21 s for 64 tasks in all but those two of token-d.
    text = advice(report, "token-d")
    assert text.startswith("token-d is 20 × slower than the others: for 4")
    assert "% of the makespan nobody else had anything to do. Without it the run could take 22 s." in text
    assert report.optimum is not None
    assert 20 < report.optimum < 23
    assert report.advice[0] == text


def test_slow_worker_that_holds_nobody_up_is_not_blamed() -> None:
    scripts = {"token-a": takes(1.0), "token-b": takes(1.0), "token-c": takes(5.0)}
    report, _ = recorded(scripts, range(220))
    assert advice(report, "token-c").endswith("calls, and held nobody up.")


def test_equal_workers_are_not_called_slow() -> None:
    report, recording = recorded({"a": takes(1.0), "b": takes(1.2), "c": takes(2.0)}, range(60))
    assert Facts.of(recording).slow_workers() == []
    assert not [text for text in report.advice if "slower" in text]


def test_optimum_is_the_makespan_of_equal_workers_that_do_not_fail() -> None:
    report, _ = recorded({"a": takes(1.0), "b": takes(1.0)}, range(20))
    assert report.makespan == report.optimum == pytest.approx(10.0)
    assert report.utilisation == pytest.approx(1.0)
    assert (report.queued, report.ran) == (pytest.approx(4.5), pytest.approx(1.0))


def test_optimum_waits_for_the_last_task_to_come() -> None:
    scripts = {"a": takes(1.0), "b": takes(1.0)}
    pool = stage(scripts)
    with Recorder(pool) as run:
        pool.dispatch("first")
        pool.dispatch("last", delay=50)
        play(pool, scripts)
    assert run.report().optimum == pytest.approx(50.0)


def test_optimum_keeps_to_the_rates() -> None:
    pool: ManualPool[Any, Any] = ManualPool([WorkerSpec(len, name="a", rate=Rate(2, per=1, burst=1))])
    scripts = {"a": takes(0.01)}
    with Recorder(pool) as run:
        pool.dispatch_many("x" * 21)
        play(pool, scripts)
    report = run.report()
    assert report.makespan == pytest.approx(10.0, abs=0.1)
    assert report.optimum == pytest.approx(10.0, abs=0.6)
    assert "was used as much as its rate of 2 per second allows" in advice(report, "rate")


def test_revoked_token_is_named_with_its_error_and_its_ejections() -> None:
    scripts = {
        "token-a": takes(1.0),
        "token-b": takes(0.1, lambda: PermissionError("401 token refused")),
        "token-c": takes(1.0),
    }
    report, _ = recorded(scripts, range(100), health=HealthPolicy())
    text = advice(report, "token-b")
    assert " calls (PermissionError: 401 token refused)." in text
    assert "It was ejected" in text
    assert text.endswith("Check it, or leave it out.")
    assert {span.who for span in report.ejections} == {"token-b"}


def test_worker_is_not_blamed_for_tasks_that_fail_everywhere() -> None:
    failing = takes(1.0, lambda: ValueError("bad item"))
    report, _ = recorded({"a": failing, "b": failing}, range(10))
    assert report.optimum is None
    assert not [text for text in report.advice if text.startswith(("a ", "b "))]
    assert advice(report, "dead").startswith("10 tasks are dead: 10 × attempts (ValueError: bad item).")


def test_refusals_are_told_with_the_rate_that_would_have_spared_them() -> None:
    calls = iter(range(10**6))

    def script(_: object) -> tuple[float, BaseException | None]:
        return 0.1, Throttled(retry_after=9) if next(calls) % 11 == 10 else None

    report, _ = recorded({"token-a": script}, range(30))
    text = advice(report, "told to slow down")
    assert text.startswith("token-a was told to slow down 2 times and rested 18 s: 85% of the makespan.")
    assert "It got 1.4" in text
    assert len(report.cool_downs) == 2


def test_timeouts_are_told_with_what_they_cost() -> None:
    hang = iter([True] * 3)
    scripts: dict[str, Script] = {"a": lambda _: (60.0 if next(hang, False) else 1.0, None)}
    report, _ = recorded(scripts, range(20), timeout=30)
    text = advice(report, "ran out of time")
    assert text.startswith("3 calls ran out of time, after 30 s on average: ")
    assert text.endswith("95% of what succeeds does so within 1.0 s: a shorter timeout costs less.")


def test_one_long_task_at_the_end_is_named() -> None:
    scripts: dict[str, Script] = {name: lambda item: (50.0 if item == 39 else 1.0, None) for name in "abc"}
    report, _ = recorded(scripts, range(40))
    text = advice(report, "the usual")
    assert text.startswith("Task 40 (39) ran for 50 s, 50 × the usual, and for 7")
    assert text.endswith("Dispatch the longest tasks first, or with a higher priority.")
    assert [(task.task_id, task.seconds) for task in report.slowest[:1]] == [(40, pytest.approx(50.0))]


def test_delays_in_which_nothing_ran_are_told() -> None:
    fails = iter([OSError("down")])
    scripts: dict[str, Script] = {"a": lambda _: (1.0, next(fails, None))}
    report, _ = recorded(scripts, ["x"], retry=RetryPolicy(delay=8, jitter=None))
    assert advice(report, "nothing ran").startswith("For 80% of the makespan nothing ran")


def test_busy_workers_call_for_more_and_idle_ones_for_fewer() -> None:
    report, _ = recorded({"a": takes(1.0), "b": takes(1.0)}, range(40))
    assert "more workers would make it quicker" in advice(report, "busy")
    scripts = {name: takes(1.0) for name in "abcd"}
    pool = stage(scripts)
    with Recorder(pool) as run:
        for n in range(60):
            pool.dispatch(n, delay=2 * n)
        play(pool, scripts)
    assert "of 4 threads would have done" in advice(run.report(), "idle")


def test_outages_are_told() -> None:
    _, recording = recorded({"a": takes(1.0)}, range(10))
    with_outage = replace(recording, spans=[Span(2.0, 7.0, "outage", "", "ConnectionError: down")])
    assert advice(report_of(with_outage), "Everything") == (
        "Everything failed, from 2.0 s after the start, for 5.0 s (ConnectionError: down): "
        "50% of the makespan. The pool held what it had, and asked now and then."
    )
    assert len(report_of(with_outage).outages) == 1


def test_attempt_that_does_not_end_is_named_while_it_runs() -> None:
    scripts = {"a": takes(1.0)}
    pool = stage(scripts)
    run = Recorder(pool).start()
    pool.dispatch_many(range(9))
    play(pool, scripts)
    pool.dispatch("hangs")
    assert pool.claim() is not None
    pool.clock.advance(60)
    assert run.report().advice[0] == (
        "Task 10 (hangs) has been running on a for 60 s; 95% of what succeeds does so within 1.0 s. "
        "A timeout would end it."
    )
    run.stop()
    pool.force_close()


def test_workers_that_did_not_come_back_or_were_cordoned_are_told_of_once() -> None:
    _, recording = recorded({"a": takes(1.0), "b": takes(1.0)}, range(10))
    first, second = (worker.id for worker in recording.workers)
    spans = [
        Span(1.0, 2.0, "stuck", first),
        Span(3.0, 4.0, "stuck", first),
        Span(2.0, 5.0, "cordoned", second, "revoked"),
    ]
    report = report_of(replace(recording, spans=spans, span_counts={("stuck", first): 2}))
    assert "a did not come back in time from an attempt that was over, 2 times." in report.advice
    assert "b was given nothing more (revoked)." in report.advice


def test_text_has_a_summary_a_table_and_the_slowest_tasks() -> None:
    fails = iter([OSError("down")])
    report, _ = recorded({"token-a": lambda _: (1.0, next(fails, None)), "token-b": takes(1.0)}, range(10))
    assert str(report).splitlines() == [
        "tasks     10 dispatched = 10 succeeded + 0 dead + 0 cancelled",
        "makespan  6.0 s, 1.2 × the optimum for these workers, 5.0 s",
        "workers   2, running 92% of their time",
        "calls     11, 1 (9%) of them in vain; 1 retries, of which 1 changed worker",
        "waiting   2.2 s in the queue, before 1.0 s of running: the means of all calls",
        "",
        "- The workers were busy 92% of their time, and tasks waited 2.2 s for one that runs 1.0 s: more",
        "  workers would make it quicker.",
        "",
        "worker   calls  ok  failed  median    p95   busy  resting",
        "-------  -----  --  ------  ------  -----  -----  -------",
        "token-a      6   5       1   1.0 s  1.0 s  6.0 s        -",
        "token-b      5   5       -   1.0 s  1.0 s  5.0 s        -",
        "",
        "slowest tasks",
        "    2.0 s  task 1 (0), 2 attempts, last on token-b",
        "    1.0 s  task 2 (1), last on token-b",
        "    1.0 s  task 3 (2), last on token-a",
        "    1.0 s  task 4 (3), last on token-a",
        "    1.0 s  task 5 (4), last on token-b",
    ]


def test_text_stays_within_a_hundred_columns() -> None:
    scripts = {f"{'long-name' * 5}-{n}": takes(1.0, lambda: KeyError("x" * 300)) for n in range(40)}
    report, _ = recorded(scripts, ["y" * 300] * 50)
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 100
    assert "and 10 more" in lines


def test_kinds_that_have_no_room_in_the_table_share_a_column() -> None:
    _, recording = recorded({"token-a": takes(1.0), "token-b": takes(1.0)}, range(4))
    worker = recording.workers[0]
    worker.name = "a name that takes room, all of it"
    for number, outcome in enumerate(Outcome, 1):
        worker.tally.outcomes[outcome.value] = 10_000 * number
    lines = str(report_of(recording)).splitlines()
    (head,) = [line for line in lines if line.startswith("worker  ")]
    assert "other" in head.split()
    assert max(map(len, lines)) <= 100


def test_bundled_attempts_are_mentioned() -> None:
    scripts = {"a": takes(0.001)}
    pool = stage(scripts)
    with Recorder(pool, attempts=100) as run:
        pool.dispatch_many(range(300))
        play(pool, scripts)
    report = run.report()
    assert report.calls == 300
    assert str(report).endswith("are bundled in the picture; counts are exact.")


def test_sentences_are_the_weightiest_first_and_not_many() -> None:
    def shaky(outcome: Callable[[], BaseException]) -> Script:
        return takes(0.5, outcome)

    scripts = {f"bad-{n}": shaky(lambda: PermissionError("401")) for n in range(20)} | {
        f"good-{n}": takes(1.0) for n in range(3)
    }
    report, _ = recorded(scripts, range(60), health=None)
    assert len(report.advice) <= 10


def test_unrecoverable_tasks_count_as_done() -> None:
    """Nothing else could have become of them, so they are part of the optimum."""
    report, _ = recorded(
        {"a": takes(1.0), "b": lambda d: (1.0, Unrecoverable("404") if d == 9 else None)}, range(10)
    )
    assert report.dead in (0, 1)
    assert report.optimum == pytest.approx(5.0)


def test_group_that_was_ejected_and_is_well_otherwise_is_told_of() -> None:
    _, recording = recorded({"a": takes(1.0), "b": takes(1.0)}, range(40))
    ill = replace(
        recording,
        spans=[Span(3.0, 5.0, "ejected", "b"), Span(9.0, 12.0, "ejected", "b")],
        span_counts={("ejected", "b"): 2},
    )
    text = advice(report_of(ill), "ejected")
    assert text.startswith("b was ejected 2 times, first 3.0 s after the start, for 5.0 s together.")
    assert text.endswith("In all it failed 0 of 20 calls.")
