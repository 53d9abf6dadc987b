"""Options that come again are checked once, and nothing else comes of it."""

import gc
import weakref
from typing import Any

import pytest

from retrypool import CancelToken, InvalidType, RetryPolicy


def test_same_options_share_their_settings(stage: Any) -> None:
    pool = stage.pool([str])
    options: dict[str, Any] = {"priority": 2, "retry": RetryPolicy(attempts=2)}
    first, second = (pool.dispatch(n, **options) for n in range(2))
    assert first._settings is second._settings
    assert pool.dispatch(3, **(options | {"priority": 3})).priority == 3


def test_what_is_equal_and_of_another_type_is_checked_by_itself(stage: Any) -> None:
    pool = stage.pool([str])
    assert pool.dispatch(1, priority=1).priority == 1
    for value in (True, 1.0):
        with pytest.raises(InvalidType):
            pool.dispatch(1, priority=value)


def test_what_belongs_to_one_task_is_not_kept(stage: Any) -> None:
    pool = stage.pool([str])
    token = CancelToken()
    pool.dispatch(1, cancel=token).result(stage.within)
    known = weakref.ref(token)
    del token
    pool.wait(stage.within)
    gc.collect()
    assert known() is None


def test_many_different_options_are_not_all_kept(stage: Any) -> None:
    pool = stage.pool([str])
    for number in range(1_000):
        pool.dispatch(number, name=f"task {number}")
    assert len(pool._known) <= 64
