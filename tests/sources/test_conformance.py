"""What every source does, in one suite: the reference in memory, Redis and RabbitMQ."""

import signal
import threading
import time
from collections import Counter
from typing import Any

import pytest

from retrypool import (
    CancelToken,
    FailureAction,
    InvalidType,
    InvalidValue,
    NoWorkers,
    Pool,
    PoolClosed,
    RetryPolicy,
    TaskNotFound,
    Unrecoverable,
    WorkerSpec,
    WrongThread,
)
from retrypool.sources import Consumed, MemoryQueue
from retrypool.sources.base import Message

IDLE = 0.05
NOW = RetryPolicy(attempts=3, delay=0)


class Hands:
    """A worker that keeps what it is given, and does what the test wants with it."""

    def __init__(self, do: Any = None) -> None:
        self.seen: list[Any] = []
        self._do = do

    def run(self, ctx: Any, data: Any) -> Any:
        self.seen.append(data)
        return self._do(ctx, data) if self._do is not None else data


def consume(broker: Any, worker: Any, **options: Any) -> Consumed:
    with Pool([worker], retry=NOW) as pool:
        return pool.consume(broker.source(), **{"idle": IDLE, **options})


def test_what_is_sent_is_worked_off_once(broker: Any) -> None:
    source = broker.source()
    for number in range(3):
        source.send(number)
    ids = source.send_many(range(3, 100))
    assert len(set(ids)) == 97
    worker = Hands()
    done = consume(broker, worker)
    assert sorted(worker.seen) == list(range(100))
    assert done == Consumed(received=100, succeeded=100)
    assert source.size() == 0
    assert consume(broker, Hands()) == Consumed()


def test_data_comes_as_it_was_sent(broker: Any) -> None:
    data = [None, 0, 1.5, "", "naïve \u2603 \U0001f600", [1, [2]], {"a": {"b": None}}, True, "x" * 300_000]
    broker.source().send_many(data)
    worker = Hands()
    consume(broker, worker)
    assert sorted(map(repr, worker.seen)) == sorted(map(repr, data))


def test_options_travel(broker: Any) -> None:
    seen = []

    def look(task: Any) -> None:
        seen.append((task.name, task.priority, task.tags, dict(task.options), dict(task.metadata)))

    broker.source().send(
        "page",
        name="first",
        priority=7,
        tags={"b", "a"},
        options={"depth": 2},
        metadata={"from": "here"},
        timeout=5,
        cost=1,
    )
    with Pool([Hands()], on_success=look) as pool:
        pool.consume(broker.source(), idle=IDLE)
    assert seen == [("first", 7, frozenset({"a", "b"}), {"depth": 2}, {"from": "here"})]


def test_priority_holds_within_the_window(broker: Any, stage: Any) -> None:
    broker.source().send_many(["first"])
    gate = stage.gate()
    worker = Hands(lambda _ctx, data: data == "first" and gate.hold())
    pool = stage.pool([worker])
    consumption = stage.start(pool.consume, broker.source(), idle=IDLE)
    gate.wait_until_reached()
    broker.source().send("low", priority=-1)
    broker.source().send("high", priority=5)
    stage.until(lambda: pool.queue_size == 2)
    gate.open()
    consumption.result(stage.within)
    assert worker.seen == ["first", "high", "low"]


def test_nothing_comes_before_its_delay(broker: Any) -> None:
    sent = time.time()
    broker.source().send("later", delay=1.2)
    broker.source().send("now")
    came: dict[str, float] = {}
    cancel = CancelToken()

    def note(_ctx: Any, data: str) -> None:
        came[data] = time.time() - sent
        if data == "later":
            cancel.cancel()

    consume(broker, Hands(note), idle=None, cancel=cancel)
    assert list(came) == ["now", "later"]
    assert came["later"] >= 1.2


def test_retries_stay_in_the_pool(broker: Any) -> None:
    def fail_twice(ctx: Any, _data: Any) -> int:
        if ctx.attempt < 3:
            raise OSError("try again")
        return 1

    broker.source().send("x")
    assert consume(broker, Hands(fail_twice)) == Consumed(received=1, succeeded=1)


def test_dead_task_goes_to_the_dead_letters_with_its_history(broker: Any) -> None:
    source = broker.source()
    source.send({"page": 7}, name="seven", metadata={"a": 1})

    def fail(ctx: Any, _data: Any) -> None:
        raise ValueError(f"attempt {ctx.attempt}")

    with Pool([Hands(fail)], retry=NOW) as pool:
        assert pool.consume(source, idle=IDLE) == Consumed(received=1, dead=1)
        assert pool.dead_tasks() == []
    (letter,) = source.dead_letters()
    assert letter.data == {"page": 7}
    assert dict(letter.options) == {"name": "seven", "metadata": {"a": 1}}
    assert (letter.reason, letter.error, letter.deliveries) == ("attempts", "ValueError: attempt 3", 1)
    assert [each["error"] for each in letter.history] == [f"ValueError: attempt {n}" for n in (1, 2, 3)]
    assert {each["outcome"] for each in letter.history} == {"failed"}
    assert consume(broker, Hands()) == Consumed()
    assert source.dead_letters() == [letter]


def test_dead_letter_is_sent_again(broker: Any) -> None:
    source = broker.source()
    source.send_many(["good", "bad", "worse"], tags=["t"])

    def fail(_ctx: Any, data: Any) -> None:
        if data != "good":
            raise Unrecoverable("no")

    consume(broker, Hands(fail))
    letters = {letter.data: letter for letter in source.dead_letters()}
    assert set(letters) == {"bad", "worse"}
    assert letters["bad"].reason == "unrecoverable"
    source.resend(letters["bad"])
    with pytest.raises(TaskNotFound):
        source.resend(letters["bad"])
    worker = Hands()
    consume(broker, worker)
    assert worker.seen == ["bad"]
    assert [letter.data for letter in source.dead_letters()] == ["worse"]


def test_window_bounds_what_is_held(broker: Any, stage: Any) -> None:
    source = broker.source()
    source.send_many(range(10))
    gate = stage.gate()
    pool = stage.pool([Hands(lambda *_: gate.hold())])
    consumption = stage.start(pool.consume, source, window=3, idle=IDLE)
    gate.wait_until_reached()
    stage.until(lambda: source.size() == 7)
    other = Hands()
    assert consume(broker, other).succeeded == 7
    gate.open()
    assert consumption.result(stage.within).received == 3
    assert sorted(other.seen + list(range(10)))[:2] != [0, 0]


def test_cancel_lets_what_runs_end_and_gives_back_the_rest(broker: Any, stage: Any) -> None:
    source = broker.source()
    source.send_many(range(8))
    gate, cancel = stage.gate(), CancelToken()
    worker = Hands(lambda *_: gate.hold())
    pool = stage.pool([worker])
    consumption = stage.start(pool.consume, source, window=5, cancel=cancel)
    gate.wait_until_reached()
    cancel.cancel()
    stage.until(lambda: pool.queue_size == 0)
    gate.open()
    done = consumption.result(stage.within)
    assert done.succeeded == 1
    assert not pool.closed
    other = Hands()
    consume(broker, other)
    assert sorted(worker.seen + other.seen) == list(range(8))


def test_what_runs_too_long_after_the_cancel_is_given_back(broker: Any, stage: Any) -> None:
    source = broker.source()
    source.send("slow")
    gate, cancel = stage.gate(), CancelToken()
    pool = stage.pool([Hands(lambda *_: gate.hold())])
    consumption = stage.start(pool.consume, source, cancel=cancel, finish=0)
    gate.wait_until_reached()
    cancel.cancel()
    assert consumption.result(stage.within).released == 1
    gate.open()
    other = Hands()
    consume(broker, other)
    assert other.seen == ["slow"]


def test_closing_the_pool_ends_it(broker: Any, stage: Any) -> None:
    source = broker.source()
    pool = stage.pool([Hands()])
    consumption = stage.start(pool.consume, source)
    source.send("one")
    stage.until(lambda: pool.stats().succeeded)
    pool.close(stage.within)
    assert consumption.result(stage.within).succeeded == 1
    with pytest.raises(PoolClosed):
        pool.consume(source)


def test_closing_by_force_gives_everything_back(broker: Any, stage: Any) -> None:
    source = broker.source()
    source.send_many(range(5))
    gate = stage.gate()
    worker = Hands(lambda *_: gate.hold())
    pool = stage.pool([worker])
    consumption = stage.start(pool.consume, source)
    gate.wait_until_reached()
    pool.force_close()
    assert consumption.result(stage.within).succeeded == 0
    gate.open()
    other = Hands()
    consume(broker, other)
    assert sorted(other.seen) == list(range(5))


def test_ctrl_c_gives_everything_back(broker: Any) -> None:
    source = broker.source()
    source.send_many(range(5))

    def strike(ctx: Any, _data: Any) -> None:
        if len(first.seen) == 1:
            signal.raise_signal(signal.SIGINT)
        ctx.sleep(60)

    first = Hands(strike)
    with pytest.raises(KeyboardInterrupt), Pool([first]) as pool:
        pool.consume(source)
    other = Hands()
    consume(broker, other)
    assert sorted(other.seen) == list(range(5))


def test_several_heads_share_the_work(broker: Any, stage: Any) -> None:
    source = broker.source()
    source.send_many(range(300))
    seen: Counter[Any] = Counter()
    lock = threading.Lock()

    def count(data: Any) -> None:
        with lock:
            seen[data] += 1

    pools = [stage.pool([count] * 2) for _ in range(3)]
    heads = [stage.start(pool.consume, broker.source(), window=20, idle=0.5) for pool in pools]
    done = [head.result(stage.within) for head in heads]
    assert seen == Counter(range(300))
    assert sum(each.succeeded for each in done) == 300
    assert sum(each.redelivered for each in done) == 0


def test_task_may_send_more(broker: Any) -> None:
    """As a crawler does: it is not idle as long as something is held."""
    source = broker.source()

    def follow(_ctx: Any, number: int) -> None:
        if number:
            source.send(number - 1)

    source.send(20)
    worker = Hands(follow)
    consume(broker, worker)
    assert worker.seen == list(range(20, -1, -1))


def test_dropped_task_is_done_with(broker: Any) -> None:
    broker.source().send("x")
    with Pool(
        [Hands(lambda *_: 1 / 0)], on_failure=lambda *_: FailureAction.DROP, retry=RetryPolicy(attempts=1)
    ) as pool:
        assert pool.consume(broker.source(), idle=IDLE) == Consumed(received=1, succeeded=1)
    assert broker.source().dead_letters() == []


def test_cancelled_task_comes_again(broker: Any, stage: Any) -> None:
    broker.source().send("x")
    first = stage.gate()
    worker = Hands(lambda *_: first.hold() if len(worker.seen) == 1 else None)
    pool = stage.pool([WorkerSpec(worker, concurrency=2)])
    consumption = stage.start(pool.consume, broker.source(), idle=0.5)
    first.wait_until_reached()
    (task,) = pool.tasks()
    assert pool.cancel_task(task)
    stage.until(lambda: len(worker.seen) == 2)
    first.open()
    done = consumption.result(stage.within)
    assert (done.released, done.succeeded) == (1, 1)


def test_message_whose_heads_always_die_is_dead(broker: Any) -> None:
    source = broker.source(lease=0.1, max_deliveries=2)
    source.send("poison", name="p")

    class Nobody:
        def holds(self, uid: str) -> bool:
            return False

        def messages(self) -> list[Message]:
            return []

    for time_round in (1, 2):
        session = source.open(Nobody(), 5)
        found: list[Any] = []
        deadline = time.monotonic() + 20
        while not found:
            assert time.monotonic() < deadline
            session.wait(0) if broker.kind == "rabbitmq" else None
            found = list(session.fetch(5, 0.05))
        assert found[0].deliveries == time_round
        session.close()
    worker = Hands()
    with Pool([worker]) as pool:
        pool.consume(broker.source(lease=0.1, max_deliveries=2), idle=0.5)
    assert worker.seen == []
    deadline = time.monotonic() + 20
    while not (letters := source.dead_letters()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [(each.data, each.reason) for each in letters] == [("poison", "deliveries")]


def test_what_no_worker_can_take_goes_to_another_head(broker: Any) -> None:
    broker.source().send("heavy", require={"gpu"})
    with Pool([Hands()]) as pool:
        cancel = CancelToken()
        watch = threading.Thread(target=lambda: (time.sleep(0.5), cancel.cancel()))
        watch.start()
        done = pool.consume(broker.source(), cancel=cancel)
        watch.join()
    assert done.released >= 1
    assert done.succeeded == 0
    worker = Hands()
    with Pool([WorkerSpec(worker, tags={"gpu"})]) as pool:
        pool.consume(broker.source(), idle=IDLE)
    if broker.source().dead_letters() == []:
        assert worker.seen == ["heavy"]


def test_deadline_counts_from_the_sending(broker: Any) -> None:
    broker.source().send("old", deadline=0.01)
    time.sleep(0.02)
    assert consume(broker, Hands()).dead == 1
    (letter,) = broker.source().dead_letters()
    assert letter.reason == "deadline"


def test_task_that_fails_after_the_cancel_is_given_back_and_not_tried_again(broker: Any, stage: Any) -> None:
    broker.source().send("x")
    gate, cancel = stage.gate(), CancelToken()

    def fail(*_arguments: Any) -> None:
        gate.hold()
        raise OSError("try again in an hour")

    pool = stage.pool([Hands(fail)], retry=RetryPolicy(delay=3600, jitter=None))
    consumption = stage.start(pool.consume, broker.source(), cancel=cancel, finish=3600)
    gate.wait_until_reached()
    cancel.cancel()
    gate.open()
    assert consumption.result(stage.within).released == 1


def test_key_travels(broker: Any) -> None:
    seen = []
    broker.source().send("x", key="page-7")
    with Pool([Hands()], on_success=lambda task: seen.append(task.metadata.get("key"))) as pool:
        pool.consume(broker.source(), idle=IDLE)
    assert seen == ["page-7"]


def test_bounded_queue_is_waited_for(broker: Any) -> None:
    broker.source().send_many(range(20))
    worker = Hands()
    for on_full in ("block", "raise"):
        with Pool([worker], max_queue=2, on_full=on_full) as pool:
            pool.consume(broker.source(), idle=IDLE)
    assert sorted(worker.seen) == list(range(20))


def test_source_can_be_used_after_closing(broker: Any) -> None:
    source = broker.source()
    with source:
        source.send(1)
    source.send(2)
    assert source.size() == 2


@pytest.mark.parametrize(
    ("data", "options", "error", "names"),
    [
        (object(), {}, InvalidType, "data"),
        ({1, 2}, {}, InvalidType, "data"),
        (float("nan"), {}, InvalidValue, "data"),
        ("\ud800", {}, InvalidValue, "data"),
        ("x", {"retry": NOW}, InvalidType, "an option"),
        ("x", {"colour": "red"}, InvalidType, "an option"),
        ("x", {"priority": "high"}, InvalidType, "priority"),
        ("x", {"delay": -1}, InvalidValue, "delay"),
        ("x", {"delay": float("inf")}, InvalidValue, "delay"),
        ("x", {"timeout": 0}, InvalidValue, "timeout"),
        ("x", {"key": 7}, InvalidType, "key"),
        ("x", {"options": {"a": object()}}, InvalidType, "the options"),
        ("x", {"tags": "abc"}, InvalidType, "tags"),
        ("x", {"cost": len}, InvalidType, "cost"),
    ],
)
def test_what_can_not_travel_is_refused_where_it_is_sent(
    data: Any, options: Any, error: type[Exception], names: str
) -> None:
    """Before anything is sent: all sources check alike."""
    source = MemoryQueue()
    with pytest.raises(error, match=f"^{names} is"):
        source.send(data, **options)
    with pytest.raises(error):
        source.send_many(["good", data], **options)
    assert source.size() == 0


def test_wrong_calls(broker: Any, stage: Any) -> None:
    source = broker.source()
    pool = stage.pool([Hands(lambda _ctx, call: call())])
    for options in (
        {"window": 0},
        {"window": "many"},
        {"idle": -1},
        {"idle": float("nan")},
        {"cancel": "now"},
        {"finish": -1},
    ):
        with pytest.raises((InvalidType, InvalidValue)):
            pool.consume(source, **options)
    with pytest.raises(InvalidType, match="source"):
        pool.consume("redis://localhost")
    with pytest.raises(WrongThread):
        pool.dispatch(lambda: pool.consume(source)).result(stage.within)
    with pytest.raises(NoWorkers):
        Pool().consume(source)
    with pytest.raises(InvalidType):
        source.send_many("abc")
    with pytest.raises(InvalidType):
        source.resend("abc")
