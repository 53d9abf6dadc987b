"""What every storage has to do."""

import threading

import pytest

from retrypool.errors import InvalidType, InvalidValue, StorageError
from retrypool.storage.base import Storage
from retrypool.storage.records import (
    Accepted,
    Cancelled,
    Died,
    Failed,
    GroupState,
    Pulled,
    Requeued,
    ScheduleOver,
    ScheduleState,
    Started,
    Succeeded,
)

from .conftest import BackEnd


def accepted(number: int, key: str | None = None) -> Accepted:
    return Accepted(number, key, 1000.0 + number, None, None, f'"data {number}"')


def failed(number: int, attempt: int = 1, **changes: object) -> Failed:
    record = Failed(number, 2000.0, attempt, attempt, 0, 0.5 * attempt, '["a"]', f'{{"number": {attempt}}}')
    return record._replace(**changes)


def died(number: int) -> Died:
    return Died(
        number, "attempts", '{"type": "builtins.OSError", "text": "down"}', 3000.0, '{"number": 9}', 9
    )


def ids(storage: Storage) -> list[int]:
    return [task.id for task in storage.tasks()]


def test_new_storage_is_empty(back_end: BackEnd) -> None:
    storage = back_end.open()
    assert (ids(storage), list(storage.dead()), storage.last_id()) == ([], [], 0)
    assert (list(storage.groups()), list(storage.schedules())) == ([], [])
    assert storage.counts() == (type(storage.counts()))(0, 0, 0, 0, 0, 0)


def test_what_was_written_survives_a_crash(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1), accepted(2, "two")])
    storage = back_end.after_crash(storage)
    first, second = storage.tasks()
    assert (first.id, first.key, first.accepted, first.data) == (1, None, 1001.0, '"data 1"')
    assert (second.id, second.key, second.losses, second.history) == (2, "two", 0, ())


def test_what_was_entered_is_there_after_a_close(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1), accepted(2)])
    storage.enter(Succeeded(1, None, None, 5.0, 1))
    storage = back_end.again(storage)
    assert ids(storage) == [2]
    assert (storage.counts().succeeded, storage.counts().accepted) == (1, 2)


def test_what_was_entered_is_durable_with_the_next_write(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1)])
    storage.enter(Succeeded(1, None, None, 5.0, 1))
    storage.write([accepted(2)])
    assert ids(back_end.after_crash(storage)) == [2]


def test_what_was_entered_is_durable_after_a_flush(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.enter(accepted(1))
    storage.flush()
    assert ids(back_end.after_crash(storage)) == [1]


def test_failures_are_kept_with_the_history(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1)])
    storage.enter(failed(1))
    storage.enter(failed(1, 2, uncharged=1, tried='["a", "b"]'))
    storage.flush()
    (task,) = back_end.after_crash(storage).tasks()
    assert (task.entries, task.charged, task.uncharged, task.running_time) == (2, 2, 1, 1.0)
    assert (task.due, task.tried) == (2000.0, '["a", "b"]')
    assert task.history == ('{"number": 1}', '{"number": 2}')
    assert (task.accepted, task.data) == (1001.0, '"data 1"')


def test_failure_of_a_task_that_has_ended_is_ignored(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1)])
    storage.enter(Succeeded(1, None, None, 5.0, 1))
    storage.flush()
    storage.enter(failed(1))
    storage.enter(died(1))
    storage.flush()
    assert (ids(storage), list(storage.dead())) == ([], [])


def test_whole_life_in_one_group(back_end: BackEnd) -> None:
    """A task may be accepted, fail and end between two commits."""
    storage = back_end.open()
    storage.enter(accepted(1, "one"))
    storage.enter(failed(1))
    storage.enter(Succeeded(1, "one", "[1]", 5.0, 2))
    storage.flush()
    assert ids(storage) == []
    end = storage.find("one")
    assert end is not None
    assert (end.id, end.succeeded, end.result, end.attempts, end.ended) == (1, True, "[1]", 2, 5.0)


def test_end_of_a_task_with_a_key_is_found_after_reopening(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1, "one"), accepted(2, "two")])
    storage.enter(Succeeded(1, "one", '{"a": 1}', 5.0, 1))
    storage.enter(died(2))
    storage = back_end.again(storage)
    one, two = storage.find("one"), storage.find("two")
    assert one is not None
    assert two is not None
    assert (one.succeeded, one.result) == (True, '{"a": 1}')
    assert (two.succeeded, two.error) == (False, died(2).error)
    assert storage.find("three") is None
    assert storage.counts().kept == 1


def test_dead_tasks_are_kept_in_order(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1), accepted(2, "two")])
    storage.enter(failed(2))
    storage.enter(died(2))
    storage.flush()
    storage.enter(died(1))
    storage = back_end.again(storage)
    second, first = storage.dead()
    assert (second.id, second.key, second.reason, second.data) == (2, "two", "attempts", '"data 2"')
    assert second.history == ('{"number": 1}', '{"number": 9}')
    assert (first.id, first.history) == (1, ('{"number": 9}',))
    assert ids(storage) == []


def test_requeued_task_waits_again_with_its_history(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1, "one")])
    storage.enter(died(1))
    storage.write([Requeued(1, 4000.0)])
    (task,) = back_end.after_crash(storage).tasks()
    assert (task.key, task.accepted, task.entries, task.history) == ("one", 4000.0, 0, ('{"number": 9}',))


def test_pulled_and_cancelled_tasks_are_forgotten(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1), accepted(2, "two")])
    storage.enter(died(1))
    storage.enter(failed(2))
    storage.enter(Cancelled(2))
    storage.write([Pulled(1)])
    storage = back_end.after_crash(storage)
    assert (ids(storage), list(storage.dead()), storage.find("two")) == ([], [], None)
    assert storage.counts().cancelled == 1


def test_ids_are_never_given_twice(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(7)])
    storage.enter(Succeeded(7, None, None, 5.0, 1))
    assert back_end.again(storage).last_id() == 7


def test_identity_stays(back_end: BackEnd) -> None:
    storage = back_end.open()
    identity = storage.identity
    assert identity
    assert back_end.again(storage).identity == identity


def test_task_that_ran_when_the_process_died_has_a_loss(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1), accepted(2), accepted(3)])
    storage.begin(0, 1)
    storage.begin(1, 2)
    storage.finish(1)
    storage = back_end.after_crash(storage)
    assert [task.losses for task in storage.tasks()] == [1, 0, 0]
    storage.begin(5, 1)
    storage = back_end.after_crash(storage)
    assert [task.losses for task in storage.tasks()] == [2, 0, 0]


def test_task_that_ran_when_it_was_closed_has_none(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.write([accepted(1)])
    storage.begin(0, 1)
    storage = back_end.again(storage)
    assert [task.losses for task in storage.tasks()] == [0]


def test_recorded_start_without_an_end_is_a_loss(back_end: BackEnd) -> None:
    storage = back_end.open(record_starts=True)
    storage.write([accepted(1), accepted(2)])
    storage.write([Started(1, 1), Started(2, 1)])
    storage.enter(failed(2))
    storage.flush()
    storage = back_end.after_crash(storage)
    assert [task.losses for task in storage.tasks()] == [1, 0]


def test_last_state_of_a_group_counts(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.enter(GroupState("a", '{"until": 1}'))
    storage.enter(GroupState("b", '{"until": 2}'))
    storage.enter(GroupState("a", '{"until": 3}'))
    storage.enter(GroupState("b", None))
    storage = back_end.again(storage)
    assert list(storage.groups()) == [GroupState("a", '{"until": 3}')]


def test_schedules_are_kept_until_they_are_over(back_end: BackEnd) -> None:
    storage = back_end.open()
    state = ScheduleState("nightly", "{}", '"x"', 5000.0, 3, 1, False)
    storage.write([state._replace(runs=2), state])
    storage.write([state._replace(name="hourly")])
    storage.enter(ScheduleOver("hourly"))
    storage = back_end.again(storage)
    assert list(storage.schedules()) == [state]


def test_second_owner_is_told_of_the_first(back_end: BackEnd) -> None:
    storage = back_end.open()
    other = storage if back_end.kind == "memory" else back_end.make()
    with pytest.raises(StorageError, match="belongs to a pool"):
        other.open("another pool")


def test_closed_storage_can_be_opened_by_another(back_end: BackEnd) -> None:
    storage = back_end.open()
    storage.close()
    storage.close()
    storage.open("another pool")


def test_threads_that_write_at_once(back_end: BackEnd) -> None:
    storage = back_end.open()

    def write(first: int) -> None:
        for number in range(first, first + 25):
            storage.write([accepted(number)])
            storage.enter(Succeeded(number, f"key {number}", None, 5.0, 1))

    threads = [threading.Thread(target=write, args=(first,)) for first in range(1, 101, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage = back_end.again(storage)
    assert (ids(storage), storage.counts().kept, storage.last_id()) == ([], 100, 100)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"codec": "xml"}, InvalidValue),
        ({"record_starts": 1}, InvalidType),
        ({"max_losses": 0}, InvalidValue),
        ({"max_losses": "3"}, InvalidType),
        ({"policies": [1]}, InvalidType),
    ],
)
def test_options_that_make_no_sense(
    back_end: BackEnd, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        back_end.make(**options)
