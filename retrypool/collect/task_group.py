"""Tasks that belong together: dispatched in one block, which ends when they have."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

from typing_extensions import TypeVar, Unpack

from retrypool.collect.results import TaskResult
from retrypool.ctrl_c import shielded
from retrypool.errors import InvalidType, PoolClosed
from retrypool.model.completion import Reporter
from retrypool.model.task import Task
from retrypool.states import TaskState

if TYPE_CHECKING:
    from retrypool.model.settings import TaskOptions, TaskSettings
    from retrypool.threads.engine import Engine
from retrypool.threads.key_names import checked_key

__all__ = ["OnError", "TaskGroup"]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)

OnError = Literal["collect", "cancel", "ignore"]
"""What a group does about tasks that are dead."""


class TaskGroup(Generic[T, R]):
    """The tasks of one `with` block. Made by `Pool.group`, which says how it behaves."""

    # _tasks is appended to by the block's thread, and read by whoever ends a task. If a failure is to
    # cancel the others, `_fail` sets _failed and then looks at _tasks; `dispatch` appends and then looks
    # at _failed. So no task is left out.
    def __init__(self, engine: Engine[T, R], settings: TaskSettings, on_error: OnError) -> None:
        self._engine = engine
        self._settings = settings
        self._on_error = on_error
        self._tasks: list[Task[T, R]] = []
        self._failed = False
        self._stop: CancelledError | None = None  # what `dispatch` has raised to end the block
        self._state = "new"
        reporter = Reporter(self._fail) if on_error == "cancel" else None
        self._reporter = reporter
        self._enter = engine.intake.entrance(settings, reporter)

    @shielded
    def dispatch(self, data: T, **options: Unpack[TaskOptions]) -> Task[T, R]:
        """Dispatch a task of the group. Options as in `Pool.dispatch`, in place of the group's own.

        Raises what that raises, and `PoolClosed` outside of the group's block. In a group with
        `on_error="cancel"` it raises `CancelledError` once a task has failed: that ends the block, and
        the group then raises the failure in its place.
        """
        if self._state != "open":
            raise PoolClosed(
                "the group", f"its block is {'over' if self._state == 'over' else 'not entered'}"
            )
        if self._failed:
            self._stop = CancelledError("a task of the group has failed")
            raise self._stop
        if options:
            key = checked_key("key", options.pop("key")) if "key" in options else None
            task = self._engine.intake.dispatch(data, self._settings.having(options), self._reporter, key=key)
        else:
            task = self._enter(data)
        self._tasks.append(task)
        if self._failed:
            self._cancel(task)
        return task

    def dispatch_many(self, items: Iterable[T], **options: Unpack[TaskOptions]) -> list[Task[T, R]]:
        """Dispatch each of `items`, and return the tasks in the same order."""
        if not isinstance(items, Iterable):
            raise InvalidType("items", items, "an iterable of data")
        return [self.dispatch(data, **options) for data in items]

    def results(self) -> list[TaskResult[T, R]]:
        """Return the outcomes of the tasks that have ended so far, in order of dispatch."""
        return [TaskResult.of(task) for task in list(self._tasks) if task.done()]

    def __enter__(self) -> Self:
        if self._state != "new":
            raise PoolClosed("the group", "it can be entered once; make another")
        self._state = "open"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._state = "over"
        stopped = error is not None and error is self._stop
        self._stop = None
        if error is not None and not stopped:
            self._cancel_all()
            return
        try:
            for task in self._tasks:
                task._wait(None)
        except BaseException:  # a Ctrl-C
            self._cancel_all()
            raise
        if self._reporter is not None:
            self._reporter.end()
        del error, traceback
        if self._on_error != "ignore" and (errors := self._errors()):
            message = f"{len(errors)} of {len(self._tasks)} tasks failed"
            # Nothing is said of a `CancelledError` that only served to get here.
            raise BaseExceptionGroup(message, errors) from None

    def _errors(self) -> list[BaseException]:
        """Return the errors of the tasks, in order of dispatch.

        A task that the user has cancelled has none. A task that the pool cancelled because it was closed has
        one, so that this does not go unnoticed.
        """
        unexpected = self._engine.closed and not self._failed
        return [
            result.error
            for result in self.results()
            if result.error is not None and (unexpected or result.state is TaskState.DEAD)
        ]

    def _fail(self, task: Task[Any, Any]) -> None:
        """Cancel the others if a task is dead. On the thread that ended it."""
        if task._phase is TaskState.DEAD and not self._failed:
            self._failed = True
            self._cancel_all()

    @shielded
    def _cancel_all(self) -> None:
        # The newest first: so those that wait are gone before a worker that is freed can take one.
        for task in reversed(list(self._tasks)):
            self._cancel(task)

    def _cancel(self, task: Task[T, R]) -> None:
        if not task.done():
            self._engine.cancelling.cancel_task(task, "its group was given up")

    def __repr__(self) -> str:
        ended = sum(task.done() for task in self._tasks)
        return f"<TaskGroup {self._state}: {ended} of {len(self._tasks)} tasks ended>"
