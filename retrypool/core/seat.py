"""What the scheduler knows of a worker: its seat at the counter."""

from __future__ import annotations

from collections import Counter
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
    #   direct, go, attentive, paused, barred_for, unfit, retired, stuck, given_up, standings, timed_out,
    #   lost             under the pool's lock
    #   idle             its own thread: set under the pool's lock, cleared when it wakes and before
    #                    it looks for a task
    #   running          a box for the attempt that runs. Its own thread puts it in; whoever gets it
    #                    out (list.pop and list.remove are atomic, and one of them wins) decides how
    #                    the attempt ends
    #   succeeded, failed, failures, retried   its own thread alone; anybody may read them
    __slots__ = (
        "attentive",
        "barred_for",
        "direct",
        "failed",
        "failures",
        "given_up",
        "go",
        "group",
        "id",
        "idle",
        "interrupt",
        "lost",
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
        self.go = False  # what it has claimed, or taken by itself, it may begin
        self.attentive = False  # the scheduler wants to hear of its next success
        self.idle = True  # its thread has no task in hand, and is not about to take one
        self.paused = False
        self.barred_for: str | None = None  # why it is given nothing for good
        self.unfit = False  # its worker is to be made anew before it is given anything
        self.retired = False  # it takes nothing any more
        self.running: list[Context] = []
        self.stuck: Context | None = None  # an attempt that is over, while its thread has not come back
        self.given_up = False  # it has been stuck for too long, and there is nothing to replace it with
        self.standings: list[Standing] = []  # a heap of the lanes that it may take from
        self.succeeded = 0
        self.failed = 0
        self.failures: Counter[str] = Counter()  # attempts by outcome, as its own thread ended them
        self.lost: Counter[str] = Counter()  # the same, for those that were taken over
        self.retried = 0
        self.timed_out = 0

    def __repr__(self) -> str:
        return f"<Seat {self.id} of {self.group.name}>"
