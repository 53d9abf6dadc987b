"""One failed attempt, as policies, delays and callbacks see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from retrypool.errors import AttemptTimeout
from retrypool.policy.blame import Scope, scope_of

__all__ = ["FailedTask", "Failure", "FailureAction"]


class FailedTask(Protocol):
    """What a policy may ask of the task that failed; what it gets is the `Task` itself."""

    @property
    def id(self) -> int:
        """Its number in the pool."""
        ...

    @property
    def data(self) -> Any:
        """What it was dispatched with."""
        ...

    @property
    def name(self) -> str | None:
        """Its name, if it was given one."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """Its options for the worker."""
        ...

    @property
    def attempts(self) -> int:
        """How many attempts have been made."""
        ...


class FailureAction(StrEnum):
    """What `on_failure` may answer; None leaves the decision to the policy."""

    RETRY = "retry"  # try again, even if the attempts are used up
    DEAD = "dead"  # give up, and keep it among the dead tasks
    DROP = "drop"  # give up, and keep nothing: the task ends cancelled


def _half() -> float:
    """The random number of a failure that was given no source of them."""
    return 0.5


class Failure:
    """One failed attempt, as a policy and a delay function see it.

    `error` is what the worker raised and `attempt` the number of the attempt, 1 for the first. The
    rest is there when a pool asks: `task`; `round`, 1 for the first: how often all groups that may take
    the task have failed it, and once more; `elsewhere`, whether the next attempt goes on in the same
    round, on a group that has not tried the task, while others succeed; `scope`, whose fault it is;
    `charged` and `uncharged`, how many attempts count against the policy, and how many don't;
    `errors`, those of all attempts; `running_time`, seconds over all attempts; `time_limit` and
    `deadline` (a moment on the pool's clock); `random()`, a number from 0 up to 1.
    """

    __slots__ = (
        "action",
        "attempt",
        "cancelled",
        "charged",
        "deadline",
        "elsewhere",
        "error",
        "errors",
        "random",
        "round",
        "running_time",
        "scope",
        "task",
        "time_limit",
        "turn",
        "uncharged",
    )

    def __init__(
        self,
        *,
        error: BaseException,
        attempt: int,
        task: FailedTask | None = None,
        scope: Scope | None = None,
        charged: int | None = None,
        uncharged: int = 0,
        round: int | None = None,  # noqa: A002 - the word for it
        elsewhere: bool = False,
        errors: Sequence[BaseException] | None = None,
        running_time: float = 0.0,
        time_limit: float | None = None,
        deadline: float | None = None,
        cancelled: bool = False,
        action: FailureAction | None = None,
        random: Callable[[], float] = _half,
    ) -> None:
        self.error = error
        self.attempt = attempt
        self.task = task
        self.scope = scope_of(error) if scope is None else scope
        self.charged = attempt if charged is None else charged
        self.uncharged = uncharged
        self.round = max(self.charged, 1) if round is None else round
        self.elsewhere = elsewhere
        self.turn = max(self.charged, 1)
        self.errors = (error,) if errors is None else errors
        self.running_time = running_time
        self.time_limit = time_limit
        self.deadline = deadline
        self.cancelled = cancelled
        self.action = action
        self.random = random

    def use_up(self, now: float) -> None:
        """Mark the limit that ended an attempt as used up, whatever rounding makes of the sums."""
        assert isinstance(self.error, AttemptTimeout)
        if self.error.limit == "time limit" and self.time_limit is not None:
            self.running_time = max(self.running_time, self.time_limit)
        elif self.error.limit == "deadline" and self.deadline is not None:
            self.deadline = min(self.deadline, now)

    def __repr__(self) -> str:
        return f"<Failure of attempt {self.attempt}: {self.error!r}>"
