"""Many tasks of every kind, one after the other: memory stays flat."""

import gc
import sys
from typing import Any

import pytest

from retrypool import CancelToken, Pool, RetryPolicy

ROUNDS = 6


def fail_some(number: int) -> int:
    if number % 10 == 0:
        raise OSError(number)
    return number


def plain(pool: Pool[Any, Any], token: CancelToken, count: int) -> None:
    for _ in pool.map(range(count), return_exceptions=True):
        pass


def cancelled(pool: Pool[Any, Any], token: CancelToken, count: int) -> None:
    for _ in range(count // 10):
        pool.dispatch(1, delay=3600).cancel()


def with_options(pool: Pool[Any, Any], token: CancelToken, count: int) -> None:
    for number in range(count // 20):
        pool.dispatch(number, timeout=60, deadline=60, cancel=token.after(3600), keep_data=False)
    pool.wait()


def workers(pool: Pool[Any, Any], token: CancelToken, count: int) -> None:
    for _ in range(count // 1000):
        pool.remove_worker(pool.add_worker(fail_some, cancel=token))


def pools(pool: Pool[Any, Any], token: CancelToken, count: int) -> None:
    for _ in range(count // 1000):
        with Pool([fail_some], cancel=token) as other:
            other.dispatch(1)


KINDS = [plain, cancelled, with_options, workers, pools]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_memory_stays_flat(kind: Any, patience: float) -> None:
    """By the number of blocks that Python holds, after each round but the first two."""
    token, held = CancelToken(), []
    twice = RetryPolicy(attempts=2, delay=0)
    with Pool([fail_some] * 4, retry=twice, dead_limit=10, history_limit=10, health=None) as pool:
        for _ in range(ROUNDS):
            kind(pool, token, round(20_000 * patience))
            pool._engine.look(pool._engine.scheduler.timers._timed.sweep)  # it may hold a thousand in vain
            gc.collect()
            held.append(sys.getallocatedblocks())
    assert held[-1] - held[1] < 3000, held
