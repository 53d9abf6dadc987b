"""What the scheduler knows of a worker: its seat at the counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrypool.context import Context
    from retrypool.core.health import Group
    from retrypool.core.queue import Standing

__all__ = ["Seat"]


def _nobody() -> None:
    """Wake nobody: the seat of a worker without a thread."""


def _never(_ctx: Context) -> bool:
    """Interrupt nobody."""
    return False


class Seat:
    """One worker, as far as scheduling goes. One thread works at a seat at a time."""

    # Who may write what:
    #   direct, attentive, paused, unfit, retired, stuck, standings, timed_out   under the pool's lock
    #   idle             its own thread: set under the pool's lock, cleared when it wakes and before
    #                    it looks for a task
    #   running          a box for the attempt that runs. Its own thread puts it in; whoever gets it
    #                    out (list.pop and list.remove are atomic, and one of them wins) decides how
    #                    the attempt ends
    #   succeeded, failed, retried   its own thread alone; anybody may read them
    __slots__ = (
        "attentive",
        "direct",
        "failed",
        "group",
        "id",
        "idle",
        "interrupt",
        "name",
        "paused",
        "retired",
        "retried",
        "running",
        "standings",
        "stuck",
        "succeeded",
        "tags",
        "timed_out",
        "unfit",
        "wake",
    )

    def __init__(
        self,
        id: int,
        name: str,
        group: Group,
        tags: frozenset[str] = frozenset(),
    ) -> None:
        self.id = id
        self.name = name
        self.group = group
        self.tags = tags
        # Given by the threads. The first ends the wait of the seat's thread, and is harmless if it does
        # not wait; the second raises in it, if it is still in that attempt.
        self.wake: Callable[[], None] = _nobody
        self.interrupt: Callable[[Context], bool] = _never
        self.direct = False  # it may take from the arrivals without asking
        self.attentive = False  # the scheduler wants to hear of its next success
        self.idle = True  # its thread has no task in hand, and is not about to take one
        self.paused = False
        self.unfit = False  # its worker is to be made anew before it is given anything
        self.retired = False  # it takes nothing any more
        self.running: list[Context] = []
        self.stuck: Context | None = None  # an attempt that is over, while its thread has not come back
        self.standings: list[Standing] = []  # a heap of the lanes that it may take from
        self.succeeded = 0
        self.failed = 0
        self.retried = 0
        self.timed_out = 0

    def __repr__(self) -> str:
        return f"<Seat {self.id} of {self.group.name}>"
