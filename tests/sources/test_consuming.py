"""What `consume` makes of odd messages and odd moments, with a source in memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from retrypool import Pool, RetryPolicy, SourceError, SQLiteStorage
from retrypool.events import Event, TaskDispatched
from retrypool.sources import Consumed, MemoryQueue
from retrypool.sources.base import Disconnected, Session
from retrypool.sources.envelope import Outgoing


@pytest.mark.parametrize(
    "options",
    [
        {"deadline": "soon"},
        {"deadline": None, "sent": None},
        {"deadline": [1], "sent": 0},
        {"block_timeout": 1},
        {"retry": {"attempts": 3}},
        {"metadata": 7, "key": "a"},
        {"options": [1]},
        {"timeout": -1},
    ],
)
def test_options_that_another_program_has_sent_end_no_head(options: dict[str, Any]) -> None:
    source = MemoryQueue()
    source._deliver([Outgoing(b"1", json.dumps(options).encode(), 0.0)])
    source.send(2)
    seen: list[int] = []
    with Pool([seen.append]) as pool:
        done = pool.consume(source, idle=0)
    assert seen[-1:] == [2]
    assert done.received == 2
    assert done.succeeded + done.dead == 2
    assert source.size() == 0


def hooked(source: MemoryQueue, hook: Any) -> None:
    """Have `hook(session, holder)` called for each session that is opened."""
    open_session = source.open

    def open_hooked(holder: Any, window: int) -> Session:
        session = open_session(holder, window)
        hook(session, holder)
        return session

    source.open = open_hooked  # type: ignore[method-assign]


def test_message_that_is_lost_before_it_is_dispatched_is_left_alone() -> None:
    source, holders, seen = MemoryQueue(), [], []
    hooked(source, lambda _session, holder: holders.append(holder))
    source.send_many(["a", "b"])

    def lose_the_other(event: Event) -> None:
        if isinstance(event, TaskDispatched) and event.task.data == "a":
            (other,) = [message for message in holders[0].messages() if message.data == "b"]
            holders[0].lost(other)

    with Pool([seen.append], listeners=[lose_the_other]) as pool:
        done = pool.consume(source, idle=0)
    assert seen == ["a"]
    assert (done.succeeded, done.lost) == (1, 1)


def test_error_that_no_waiting_mends_ends_the_consumption_and_gives_all_back(stage: Any) -> None:
    """The keeper meets it, and the caller hears of it."""
    source = MemoryQueue()
    source.send_many(range(3))

    def break_it(session: Any, _holder: Any) -> None:
        def settle(_due: Any) -> None:
            raise SourceError("the queue", "is no queue any more")

        session.settle = settle

    hooked(source, break_it)
    with Pool([str]) as pool:
        with pytest.raises(SourceError, match="no queue any more"):
            pool.consume(source)
        assert pool.wait(stage.within)


def test_settlements_wait_for_the_connection() -> None:
    source, tries = MemoryQueue(), []
    source.send_many(range(3))

    def cut(session: Any, _holder: Any) -> None:
        settle = session.settle

        def settle_at_the_third_try(due: Any) -> None:
            tries.append(len(due))
            if len(tries) < 3:
                raise Disconnected("cut")
            settle(due)

        session.settle = settle_at_the_third_try

    hooked(source, cut)
    with Pool([str]) as pool:
        assert pool.consume(source, idle=0) == Consumed(received=3, succeeded=3, reconnects=1)


def test_message_with_a_key_is_worked_off_once_in_a_pool_with_a_storage(tmp_path: Path) -> None:
    """Also when it comes again to another pool on the same storage."""
    source, seen = MemoryQueue(), []
    for data in ("good", "good", "bad", "bad"):
        source.send(data, key=data)

    def work(data: str) -> None:
        seen.append(data)
        if data == "bad":
            raise ValueError(data)

    for received in (4, 1):
        with Pool(
            [work] * 2, storage=SQLiteStorage(tmp_path / "journal"), retry=RetryPolicy(attempts=1)
        ) as pool:
            done = pool.consume(source, idle=0)
        assert done.received == received == done.succeeded + done.dead
        source.send("good", key="good")
    assert sorted(seen) == ["bad", "good"]
    assert [letter.reason for letter in source.dead_letters()] == ["attempts", "attempts"]
