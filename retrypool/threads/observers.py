"""Who is told what happened: callbacks, listeners, the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from retrypool.callbacks import call_guarded
from retrypool.core.retry import FailureAction
from retrypool.errors import InvalidType
from retrypool.events import Event, Listener, TaskDead
from retrypool.task import DeadTask, Task

__all__ = ["Listening", "Observers"]

log = logging.getLogger("retrypool")

T = TypeVar("T")
R = TypeVar("R")

Listening = Listener | Callable[[Event], object]


class Observers(Generic[T, R]):
    """The callbacks and listeners of one pool. Whatever they raise is logged and changes nothing."""

    def __init__(
        self,
        *,
        on_success: Callable[[Task[T, R]], object] | None,
        on_failure: Callable[[Task[T, R], BaseException], FailureAction | None] | None,
        on_retry: Callable[[Task[T, R], BaseException, float], object] | None,
        on_dead: Callable[[DeadTask[T]], object] | None,
        listeners: Iterable[Listening],
    ) -> None:
        callbacks = {
            "on_success": on_success,
            "on_failure": on_failure,
            "on_retry": on_retry,
            "on_dead": on_dead,
        }
        for what, callback in callbacks.items():
            if callback is not None and not callable(callback):
                raise InvalidType(what, callback, "a function")
        self.on_success = on_success
        self.on_failure = on_failure
        self.on_retry = on_retry
        self.on_dead = on_dead
        if not isinstance(listeners, Iterable):
            raise InvalidType("listeners", listeners, "a list of listeners")
        self._listeners: Sequence[Callable[[Event], object]] = [_hearer(each) for each in listeners]
        self.listening = bool(self._listeners)

    def succeeded(self, task: Task[T, R]) -> None:
        """Tell `on_success`."""
        if self.on_success is not None:
            call_guarded("on_success", self.on_success, task)

    def failed(self, task: Task[T, R], error: BaseException) -> FailureAction | None:
        """Ask `on_failure` what is to be done."""
        if self.on_failure is None:
            return None
        answer = call_guarded("on_failure", self.on_failure, task, error)
        if answer is None or isinstance(answer, FailureAction):
            return answer
        log.error("on_failure returned %r, which is no FailureAction: the policy decides", answer)
        return None

    def retrying(self, task: Task[T, R], error: BaseException, delay: float) -> None:
        """Tell `on_retry`."""
        if self.on_retry is not None:
            call_guarded("on_retry", self.on_retry, task, error, delay)

    def tell(self, event: Event) -> None:
        """Tell the listeners, and `on_dead` if it is about that."""
        if isinstance(event, TaskDead) and self.on_dead is not None:
            call_guarded("on_dead", self.on_dead, event.dead)
        for hear in self._listeners:
            call_guarded("listener", hear, event)


def _hearer(listener: Listening) -> Callable[[Event], object]:
    on_event = getattr(listener, "on_event", None)
    if callable(on_event):
        return on_event  # type: ignore[no-any-return]
    if callable(listener):
        return listener
    raise InvalidType("a listener", listener, "an object with on_event(event), or a function of it")
