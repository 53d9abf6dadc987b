"""What the tests of fleets are made of: pools stepped by hand, and what can be seen of them."""

from collections.abc import Callable, Iterable
from typing import Any

from retrypool import HealthPolicy, Pool, RetryPolicy, Task, WorkerSpec
from retrypool.events import Event
from retrypool.testing import ManualAttempt, ManualPool

AT_ONCE = RetryPolicy(attempts=3, delay=0)
STUBBORN = RetryPolicy(attempts=1000, delay=0)
QUICK = HealthPolicy(faults_in_a_row=2, ejection=30.0)


def echo(data: Any) -> Any:
    return data


class Echo:
    """An object of its own for each worker, so that each has a group of its own."""

    def run(self, ctx: Any, data: Any) -> Any:
        return data


def fleet(*names: str, concurrency: int = 1, **options: Any) -> ManualPool[Any, Any]:
    """A pool with one worker for each name, each in a group of its own, numbered from 0."""
    specs: list[WorkerSpec[Any, Any]] = [
        WorkerSpec(Echo(), name=name, concurrency=concurrency) for name in names
    ]
    return ManualPool(specs, **{"retry": AT_ONCE, **options})


def claim_all(pool: ManualPool[Any, Any]) -> list[ManualAttempt[Any, Any]]:
    """Let every worker take a task, as long as there are tasks for them."""
    attempts = []
    while (attempt := pool.claim()) is not None:
        attempts.append(attempt)
    return attempts


def claimed(pool: ManualPool[Any, Any], worker_id: int | None = None) -> ManualAttempt[Any, Any]:
    attempt = pool.claim(worker_id)
    assert attempt is not None
    return attempt


def fail_on(pool: ManualPool[Any, Any], worker_id: int, errors: Iterable[BaseException]) -> None:
    """Give a worker a task for each error, and let it fail by it, as long as it is given any."""
    for error in errors:
        task = pool.dispatch("fed", worker=worker_id, priority=1, retry=RetryPolicy(attempts=1))
        attempt = pool.claim(worker_id)
        if attempt is None:
            task.cancel()
            return
        attempt.fail(error)
        task.cancel()


def states(pool: Pool[Any, Any]) -> dict[str, str]:
    return {worker.name: worker.state for worker in pool.workers()}


def outcomes(task: Task[Any, Any]) -> list[tuple[str, str]]:
    """Where it was tried, and how that went."""
    return [(attempt.group, attempt.outcome.value) for attempt in task.history]


def heard(kinds: tuple[type[Event], ...]) -> tuple[list[Event], Callable[[Event], None]]:
    """A list, and a listener that puts what is of these kinds into it."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, kinds):
            events.append(event)

    return events, listen
