"""Tasks and their failures in words: for logs, and for the notes that errors carry."""

from __future__ import annotations

import math
import reprlib
from typing import TYPE_CHECKING, Any

from retrypool.ctrl_c import is_ctrl_c
from retrypool.model.task import Task

if TYPE_CHECKING:
    from retrypool.model.slots import Slot
    from retrypool.model.task import DeadTask

__all__ = ["annotate", "described", "is_annotated", "kind_of", "shortened", "worker_fields"]

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxstring = _short.maxother = _short.maxlong = 80
_LONGEST = 120
_MARK = "retrypool: "


def shortened(data: object) -> str:
    """Return what `repr` says of `data`, on one line and cut short if it is long. Never raises."""
    try:
        if type(data) in (bytes, bytearray):
            data = data[:_LONGEST]  # type: ignore[index] # reprlib would write it all out, and then cut it
        text = " ".join(_short.repr(data).split())
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        text = f"<{type(data).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def described(task: Task[Any, Any] | DeadTask[Any], *, data: bool = True) -> str:
    """Return which task it is: `task 17 'page' (data 'https://…')`, or without its data."""
    name = "" if task.name is None else f" {task.name!r}"
    return f"task {task.id}{name}" + (f" (data {shortened(task.data)})" if data else "")


def worker_fields(pool: str, event: str, slot: Slot) -> dict[str, object]:
    """Return what a log record about a worker has for structured logging."""
    return {
        "pool": pool,
        "event": event,
        "worker": slot.name,
        "worker_id": slot.id,
        "group": slot.group.name,
    }


def kind_of(error: BaseException) -> str:
    """Return the type of an error as a traceback writes it."""
    kind = type(error)
    known = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"


def is_annotated(error: BaseException, task: Task[Any, Any]) -> bool:
    """Return whether the last note on an error is about this task."""
    notes = _notes_of(error)
    return bool(notes) and str(notes[-1]).startswith((f"{_MARK}task {task.id} ", f"{_MARK}task {task.id}, "))


def annotate(error: BaseException | None, task: Task[Any, Any]) -> None:
    """Note on what a task ends with which task that was, and where it was tried last.

    Of an error that is raised again and again, the note tells of the last time only. Called by the owner of
    the task, or once it has ended; calls the user's `__repr__`, so outside of locks. Never raises: an error
    that takes no notes, as a frozen dataclass does, has none.
    """
    if error is None:
        return
    record = task._record
    history = () if record is None else record.history
    if history:
        last = history[-1]
        limit = task._settings.retry.attempts
        of = f" of {limit}" if last.number <= limit < math.inf else ""
        where = f"attempt {last.number}{of} on {last.group}"
    else:
        where = "never tried"
    shows_data = getattr(task._owner, "shows_data", True)
    note = f"{_MARK}{described(task, data=shows_data)}, {where}"
    try:
        notes = _notes_of(error)
        notes[:] = [each for each in notes if not str(each).startswith(_MARK)]
        error.add_note(note)
    except BaseException as refused:
        if is_ctrl_c(refused):
            raise


def _notes_of(error: BaseException) -> list[object]:
    """Return the notes that an error has, as the list that it has them in."""
    try:
        notes = getattr(error, "__notes__", None)
        return notes if type(notes) is list else []
    except BaseException as refused:
        if is_ctrl_c(refused):
            raise
        return []
