"""The contract of a storage back end.

A pool tells its storage of every change as a record. There are two ways:

- `write` returns when the records are durable, all of them, or raises `StorageError` and has stored none.
  This is for what a caller waits for: `dispatch` does not return before.
- `enter` returns at once and never raises. The records become durable in groups, in the order in which
  they were entered, at the latest with the next `write` or `flush`. This is for the ends of attempts and
  tasks: one that is lost with its process means that an attempt is made again.

A group that can't be stored (the disk is full) stays entered, and is tried again with the next one.
`tests/storage/` holds one suite that every back end has to pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from retrypool.errors import InvalidType, InvalidValue, StorageError
from retrypool.storage.codec import Codec, CodecName, codec_for
from retrypool.storage.records import (
    Counts,
    GroupState,
    Record,
    ScheduleState,
    StoredDead,
    StoredEnd,
    StoredTask,
)

__all__ = ["Storage"]


class Storage(ABC):
    """Where a pool's tasks are kept. See the module's text for what its methods promise.

    - `codec`: `"json"`, or `"pickle"` for whatever can be pickled. Who can write to a pickle journal can
      run code in the process that opens it: use it for journals that only you can write to.
    - `record_starts`: whether each attempt is written before it begins. Then one kill makes at most one
      attempt for each worker be made again; it costs a commit for each attempt.
    - `max_losses`: how often the process may end while it runs a task. After that the task is dead, with
      the reason `LOST`: it may be what ends the process.
    - `policies`: retry policies by name. A task that brings one of its own can be stored only if that
      has a name here: what is stored is the name.
    """

    def __init__(
        self,
        *,
        codec: CodecName = "json",
        record_starts: bool = False,
        max_losses: int = 3,
        policies: Mapping[str, Any] | None = None,
    ) -> None:
        self.codec: Codec = codec_for(codec)
        if not isinstance(record_starts, bool):
            raise InvalidType("record_starts", record_starts, "True or False")
        if isinstance(max_losses, bool) or not isinstance(max_losses, int):
            raise InvalidType("max_losses", max_losses, "a whole number, 1 or more")
        if max_losses < 1:
            raise InvalidValue("max_losses", max_losses, "1 or more")
        if policies is not None and not isinstance(policies, Mapping):
            raise InvalidType("policies", policies, "a mapping of names to retry policies")
        self.record_starts = record_starts
        self.max_losses = max_losses
        self.policies: dict[str, Any] = dict(policies or {})
        # Called with the id of a dead task that somebody who looks at the journal wants to be requeued.
        self.on_wish: Callable[[int], object] | None = None

    # -- open and close

    @abstractmethod
    def open(self, pool: str) -> None:
        """Take possession, for the pool of this name. Raises `StorageError`, also if another has it."""

    @abstractmethod
    def close(self) -> None:
        """Make what was entered durable, and give up possession. Idempotent."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """A text that no other journal has, and that stays the same."""

    @property
    @abstractmethod
    def where(self) -> str:
        """What to call it in messages."""

    # -- what is there, when it was just opened

    @abstractmethod
    def last_id(self) -> int:
        """Return the highest id that a task has had; 0 if there was none."""

    @abstractmethod
    def tasks(self) -> Iterator[StoredTask]:
        """Iterate over the tasks that have not ended, by id. Those that ran at the crash have a loss."""

    @abstractmethod
    def dead(self) -> Iterator[StoredDead]:
        """Iterate over the dead tasks, in the order in which they died."""

    @abstractmethod
    def groups(self) -> Iterator[GroupState]:
        """Iterate over the groups that were told something."""

    @abstractmethod
    def schedules(self) -> Iterator[ScheduleState]:
        """Iterate over the schedules that are not over."""

    # -- what happens

    @abstractmethod
    def write(self, records: Sequence[Record]) -> None:
        """Make records durable, or raise `StorageError` and store none of them."""

    @abstractmethod
    def enter(self, record: Record) -> None:
        """Have a record made durable soon. Never raises, never waits."""

    @abstractmethod
    def begin(self, slot: int, task_id: int) -> None:
        """Record that a worker runs a task, in case the process dies. Must cost next to nothing."""

    @abstractmethod
    def finish(self, slot: int) -> None:
        """Record that a worker does not run a task any more."""

    @abstractmethod
    def flush(self) -> None:
        """Make all that was entered durable. Raises `StorageError`."""

    @property
    def trouble(self) -> StorageError | None:
        """Why what was entered last could not be made durable; None: it could, or was not tried yet."""
        return None

    # -- what was

    @abstractmethod
    def find(self, key: str) -> StoredEnd | None:
        """Return how the task of this key has ended, if it has and is still known."""

    @abstractmethod
    def counts(self) -> Counts:
        """Return how many tasks there are and were."""
