"""Dead tasks, statuses and settings leave the process, and another pool takes them."""

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from retrypool import (
    CancelToken,
    DeadReason,
    DeadTask,
    Drain,
    InvalidType,
    MemoryStorage,
    Pool,
    RetryPolicy,
    StoredError,
    exponential,
)

ONCE = RetryPolicy(attempts=2, delay=0)


class Odd(Exception):
    """Pickles, and does not come back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one}, {two}")


def fail(data: object) -> object:
    raise OSError(5, "down") if data != "odd" else Odd(1, 2)


def dead_of(data: Any, **options: Any) -> DeadTask[Any]:
    with Pool([fail] * 2, retry=ONCE) as pool:
        pool.dispatch(data, **options).exception()
        (dead,) = pool.dead_tasks()
    return dead


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.fixture(params=[False, True], ids=["", "storage"])
def other(request: pytest.FixtureRequest) -> Iterator[Pool[Any, Any]]:
    with Pool([str], storage=MemoryStorage() if request.param else None) as pool:
        yield pool


def test_dead_task_comes_through_a_pickle() -> None:
    dead = dead_of({"a": 1}, name="n", tags={"t"}, metadata={"m": 1}, options={"o": [1]}, timeout=5)
    again = through_pickle(dead)
    assert (again.id, again.name, again.data, again.reason) == (dead.id, "n", {"a": 1}, DeadReason.ATTEMPTS)
    assert (again.tags, again.metadata, again.options) == ({"t"}, {"m": 1}, {"o": [1]})
    assert (again.settings.timeout, again.settings.retry) == (5.0, ONCE)
    assert [(type(e), e.args) for e in again.errors] == [(OSError, (5, "down"))] * 2
    assert [a[:6] for a in again.history] == [a[:6] for a in dead.history]


def test_what_belongs_to_the_process_stays_there() -> None:
    dead = dead_of(
        "odd",
        cancel=CancelToken(),
        drain=Drain(),
        cost=lambda data: 1,
        options={"f": lambda: 1},
        metadata={"f": lambda: 1},
        retry=RetryPolicy(attempts=1, retry_if=lambda error: True),
    )
    again = through_pickle(dead)
    assert isinstance(again.error, StoredError)
    assert str(again.error).endswith("Odd: 1, 2")
    assert (again.settings.cancel, again.settings.drain, again.settings.cost) == (None, None, 1.0)
    assert (dict(again.options), dict(again.metadata)) == ({}, {})


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(),
        RetryPolicy(attempts=7, delay=exponential(2), max_delay=None, jitter="equal", retry_if=OSError),
        RetryPolicy(attempts_for={OSError: 3}, immediate=True, retry_if=(OSError, ValueError)),
    ],
)
def test_policy_comes_through_a_pickle(policy: RetryPolicy) -> None:
    assert through_pickle(policy) == policy


def test_dead_task_as_a_dict_is_json() -> None:
    found = json.loads(json.dumps(dead_of({"a": 1}, name="n", tags={"t"}).to_dict()))
    assert found["data"] == {"a": 1}
    assert (found["reason"], found["error"]) == ("attempts", "OSError: [Errno 5] down")
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["failed", "failed"]


def test_status_comes_through_a_pickle() -> None:
    with Pool([fail], retry=ONCE) as pool:
        task = pool.dispatch(1)
        task.exception()
        status = pool.status(task.id)
    assert through_pickle(status) == status
    assert json.loads(json.dumps(status.to_dict()))["state"] == "dead"


def test_another_pool_takes_a_dead_task(other: Pool[Any, Any]) -> None:
    dead = through_pickle(dead_of({"a": 1}, name="n", worker=0, delay=0.001))
    task = other.adopt_dead_task(dead)
    assert task.result() == "{'a': 1}"
    assert (task.name, task.attempts, [str(e) for e in task.errors]) == ("n", 3, ["[Errno 5] down"] * 2)


def test_pool_takes_no_other_things(other: Pool[Any, Any]) -> None:
    with pytest.raises(InvalidType, match="a DeadTask"):
        other.adopt_dead_task(1)  # type: ignore[arg-type]
