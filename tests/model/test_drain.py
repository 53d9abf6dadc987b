"""`Drain`: values from running tasks, whole or as they come, and never from an attempt that is over."""

from typing import Any

import pytest

from retrypool import Drain, InvalidType, InvalidValue, RetryPolicy, TaskState, fixed
from retrypool.testing import ManualPool

AT_ONCE = RetryPolicy(attempts=2, delay=fixed(0))


class Sender:
    """Sends what it is told to, and then fails in its first attempts."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    def run(self, ctx: Any, values: list[Any]) -> int:
        for value in values:
            ctx.send((ctx.attempt, value))
        if ctx.attempt <= self.failures:
            raise OSError("lost")
        return len(values)


def test_what_was_sent_is_there_as_soon_as_it_was_sent(stage: Any) -> None:
    gate = stage.gate()
    drain: Drain[str] = Drain()

    class Worker:
        def run(self, ctx: Any, data: str) -> None:
            assert ctx.send(data)
            gate.hold()

    task = stage.pool([Worker()]).dispatch("x", drain=drain)
    gate.wait_until_reached()
    assert drain.count() == 1
    assert drain.drain() == ["x"]
    assert drain.drain() == []
    assert task.state is TaskState.RUNNING


def test_values_of_a_failed_attempt_are_kept_by_a_drain_that_commits_at_once(stage: Any) -> None:
    drain: Drain[Any] = Drain()
    stage.pool([Sender(failures=1)], retry=AT_ONCE).dispatch("ab", drain=drain).result()
    assert drain.drain() == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_values_of_a_failed_attempt_are_dropped_by_a_drain_that_waits_for_success(stage: Any) -> None:
    drain: Drain[Any] = Drain(commit="success")
    task = stage.pool([Sender(failures=1)], retry=AT_ONCE).dispatch("ab", drain=drain)
    assert task.result() == 2
    assert drain.drain() == [(2, "a"), (2, "b")]
    assert [attempt.number for attempt in task.history] == [1, 2]


def test_values_are_withheld_until_the_task_succeeds() -> None:
    drain: Drain[str] = Drain(commit="success")
    pool = ManualPool([Sender()])
    task = pool.dispatch("x", drain=drain)
    attempt = pool.claim()
    assert attempt is not None
    attempt.context.send("x")
    assert drain.count() == 0
    attempt.finish(1)
    assert (task.state, drain.drain()) == (TaskState.SUCCEEDED, ["x"])


def test_values_are_there_before_anybody_can_know_of_the_success(stage: Any) -> None:
    counts = []
    drain: Drain[Any] = Drain(commit="success")
    pool = stage.pool([Sender()], on_success=lambda task: counts.append(drain.count()))
    for _ in range(100):
        pool.dispatch("abc", drain=drain).result()
        assert len(drain.drain()) == 3
    pool.close()
    assert len(counts) == 100


@pytest.mark.parametrize("commit", ["now", "success"])
def test_late_attempt_sends_nothing(commit: Any) -> None:
    drain: Drain[str] = Drain(commit=commit)
    pool = ManualPool([Sender()], timeout=1, retry=RetryPolicy(attempts=1))
    task = pool.dispatch("x", drain=drain)
    late = pool.claim()
    assert late is not None
    if commit == "success":
        late.context.send("withheld")
    pool.clock.advance(2)
    assert task.state is TaskState.DEAD
    assert not late.context.send("too late")
    late.finish(1)
    assert drain.drain() == []


def test_attempt_that_is_taken_over_while_it_succeeds_sends_nothing(stage: Any) -> None:
    """It sends, is taken over, and then returns: what it withheld is dropped with its result."""
    gate = stage.gate()
    drain: Drain[int] = Drain(commit="success")

    class Worker:
        def run(self, ctx: Any, data: int) -> int:
            ctx.send(data)
            gate.hold()
            return data

    pool = stage.pool([Worker()])
    task = pool.dispatch(1, drain=drain)
    gate.wait_until_reached()
    assert pool.cancel_task(task)
    gate.open()
    pool.close()
    assert drain.drain() == []


def test_iteration_gives_values_as_they_come_and_ends_with_the_pool(stage: Any) -> None:
    drain: Drain[Any] = Drain()
    pool = stage.pool([Sender() for _ in range(2)])
    reading = stage.start(list, drain)
    pool.dispatch_many(["ab", "cd", "ef"], drain=drain)
    pool.close()
    assert sorted(value for _, value in reading.result(stage.within)) == list("abcdef")


def test_iteration_ends_with_the_last_of_several_pools(stage: Any) -> None:
    drain: Drain[Any] = Drain()
    first, second = stage.pool([Sender()]), stage.pool([Sender()])
    first.dispatch("a", drain=drain)
    second.dispatch("b", drain=drain)
    first.close()
    read = {next(drain), next(drain)}
    reading = stage.start(list, drain)
    second.dispatch("c", drain=drain)
    second.close()
    assert read == {(1, "a"), (1, "b")}
    assert reading.result(stage.within) == [(1, "c")]


def test_iteration_ends_with_a_pool_that_is_closed_by_force(stage: Any) -> None:
    gate = stage.gate()
    drain: Drain[Any] = Drain()
    pool = stage.pool([gate.hold])
    pool.dispatch(1, drain=drain)
    reading = stage.start(list, drain)
    pool.force_close()
    assert reading.result(stage.within) == []
    gate.open()


def test_closed_drain_takes_nothing_and_ends_its_iteration(stage: Any) -> None:
    drain: Drain[int] = Drain()
    assert drain.send(1)
    reading = stage.start(list, drain)
    drain.close()
    assert reading.result(stage.within) == [1]
    assert not drain.send(2)
    assert drain.closed
    assert drain.drain() == []


def test_closed_drain_takes_nothing_from_a_success_either(stage: Any) -> None:
    drain: Drain[Any] = Drain(commit="success")
    drain.close()
    assert stage.pool([Sender()]).dispatch("ab", drain=drain).result() == 2
    assert drain.drain() == []


def test_each_value_is_read_once_however_many_read(stage: Any, switching_often: None) -> None:
    drain: Drain[Any] = Drain()
    pool = stage.pool([Sender() for _ in range(3)])
    reading = [stage.start(list, drain) for _ in range(3)]
    pool.dispatch_many([range(100)] * 50, drain=drain)
    pool.close()
    read = [value for future in reading for _, value in future.result(stage.within)]
    assert sorted(read) == sorted(list(range(100)) * 50)


def test_value_sent_while_the_reader_goes_to_wait_is_seen() -> None:
    """It is sent before the reader is known to wait, so nobody rings; the reader has to look again."""
    drain: Drain[str] = Drain()

    class Bells(set[Any]):
        def add(self, bell: Any) -> None:
            drain.send("x")
            super().add(bell)

    drain._bells = Bells()
    assert next(drain) == "x"


def test_map_and_group_take_a_drain(stage: Any) -> None:
    drain: Drain[Any] = Drain(commit="success")
    pool = stage.pool([Sender() for _ in range(2)])
    assert list(pool.map(["a", "bc"], drain=drain)) == [1, 2]
    with pool.group(drain=drain) as group:
        group.dispatch("d")
    assert sorted(value for _, value in drain.drain()) == list("abcd")


def test_sending_without_a_drain_says_what_is_missing(stage: Any) -> None:
    task = stage.pool([Sender()], retry=RetryPolicy(attempts=1)).dispatch("a")
    with pytest.raises(InvalidValue, match="drain"):
        task.result()


def test_what_makes_no_sense_is_refused_at_the_call(stage: Any) -> None:
    with pytest.raises(InvalidValue):
        Drain(commit="later")  # type: ignore[arg-type]
    with pytest.raises(InvalidType):
        stage.pool([Sender()]).dispatch("a", drain=[])
