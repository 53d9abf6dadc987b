"""The context of an attempt in a far process."""

from __future__ import annotations

import math
from collections.abc import Mapping

from retrypool.clock import SystemClock
from retrypool.errors import AttemptTimeout, InvalidValue
from retrypool.model.cancel import CancelToken
from retrypool.model.context import Context
from retrypool.model.slots import Slot
from retrypool.policy.rates import Rate, checked_cost
from retrypool.remote.wire import Order

__all__ = ["RemoteContext"]

_CLOCK = SystemClock()


class RemoteContext(Context):
    """A context far from the pool: the values of the order, on the clock of this machine.

    The attempt is over when the head says so, or when its time has run out, in case the connection is dead.
    """

    __slots__ = ("_order", "_restart", "_sent")

    def __init__(self, order: Order, slot: Slot) -> None:
        self._slot = slot
        self._started = now = _CLOCK.monotonic()
        self._expires = math.inf if order.remaining is None else now + order.remaining
        self._reason = None
        self._token = None
        self._cost = None
        self.attempt = order.attempt
        self._order = order
        self._sent: list[object] = []
        self._restart = False

    @property
    def _clock(self) -> SystemClock:
        return _CLOCK

    @property
    def task_id(self) -> int:
        """The id of the task."""
        return self._order.task_id

    @property
    def name(self) -> str | None:
        """The name of the task."""
        return self._order.name

    @property
    def options(self) -> Mapping[str, object]:
        """The options of the task: its own, or else the pool's."""
        return self._order.options

    @property
    def token(self) -> CancelToken:
        """A token that is cancelled with the attempt, to hand on to what can watch one."""
        token = super().token
        if token.deadline is None and self._expires != math.inf:
            token.deadline = self._expires
        return token

    @property
    def idempotency_key(self) -> str:
        """A text that no other task has, and that is the same in all attempts of this one."""
        return self._order.idempotency_key

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is over already: nobody waits for what it does."""
        self._look_at_the_clock()
        return self._reason is not None

    def send(self, value: object) -> bool:
        """Put a value into the task's `Drain`; it arrives there when the attempt ends."""
        if not self._order.has_drain:
            raise InvalidValue("the task's drain", None, "a Drain, given with dispatch(..., drain=...)")
        if self.cancelled:
            return False
        self._sent.append(value)
        return True

    def settle(self, actual: float, rate: Rate | None = None) -> None:
        """Say how many calls this attempt really counted as; the pool learns it when the attempt ends.

        Which of several rates can't be said from here: raises `InvalidValue` for a `rate`.
        """
        if rate is not None:
            raise InvalidValue("rate", rate, "left out in a process of a cluster")
        self._cost = checked_cost("actual", actual)

    def restart(self) -> None:
        """Have this worker started afresh, here or elsewhere, before its next task."""
        self._restart = True

    def check(self) -> None:
        """Raise if the attempt is over: `AttemptTimeout` if it was for time, else `CancelledError`."""
        self._look_at_the_clock()
        super().check()

    def _look_at_the_clock(self) -> None:
        seconds = self._order.seconds
        if self._reason is None and seconds is not None and self._clock.monotonic() >= self._expires:
            self._cancel(AttemptTimeout(seconds))

    def _let_go(self) -> None:
        """Do nothing: this context holds nothing of the pool."""
