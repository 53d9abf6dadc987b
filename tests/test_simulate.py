"""The simulator: the same scheduler in virtual time."""

import pytest

from retrypool import InvalidType, Rate, RetryPolicy, RetryPoolError, Throttled
from retrypool.testing import WorkerModel, simulate


def test_run_is_repeated_with_the_same_seed_and_not_with_another() -> None:
    def run(seed: int) -> object:
        fleet = [WorkerModel(latency=(0.01, 0.02), failure_rate=0.3) for _ in range(3)]
        trace = simulate(fleet, 50, seed=seed, retry=RetryPolicy(attempts=20)).trace
        return [(call.started, call.worker, call.data) for call in trace]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_trace_has_every_call_and_the_counts_are_those_of_the_trace() -> None:
    fleet = [WorkerModel(latency=0.01, failure_rate=0.3) for _ in range(3)]
    run = simulate(fleet, "abcdefgh", retry=RetryPolicy(attempts=20))
    assert len(run.trace) == run.calls == 8 + run.waste
    assert {call.data for call in run.trace} == set("abcdefgh")
    assert sum(run.failures.values()) == sum(call.error is not None for call in run.trace)
    assert run.makespan == max(call.ended for call in run.trace)
    assert (run.succeeded, run.dead) == (8, 0)


def test_latency_may_be_a_number_a_span_or_a_function() -> None:
    assert simulate([WorkerModel(latency=2.0)], 3).makespan == 6.0
    assert simulate([WorkerModel(latency=lambda chance: 1.0)], 3).makespan == 3.0
    assert 3.0 <= simulate([WorkerModel(latency=(1.0, 2.0))], 3).makespan <= 6.0


def test_quota_refuses_what_is_beyond_it() -> None:
    run = simulate([WorkerModel(latency=0.01, quota=Rate(10)) for _ in range(2)], 20)
    assert run.succeeded == 20
    assert run.waste > 0
    assert all(isinstance(call.error, Throttled) for call in run.trace if call.error is not None)


def test_workers_that_are_the_same_model_share_a_group() -> None:
    same = WorkerModel(latency=1.0)
    assert simulate([same] * 4, 8).makespan == 2.0


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InvalidType, match="WorkerModel"):
        simulate([len], 3)  # type: ignore[list-item]


def test_simulation_that_stands_still_says_so() -> None:
    with pytest.raises(RetryPoolError, match="stands still"):
        simulate([], 1, wait_for_workers=True)
