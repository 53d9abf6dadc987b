"""Tasks and their failures in words: for logs, and for the notes that errors carry."""

from __future__ import annotations

import math
import reprlib
from typing import TYPE_CHECKING, Any

from retrypool.ctrl_c import is_ctrl_c
from retrypool.model.task import Task

if TYPE_CHECKING:
    from retrypool.model.task import DeadTask

__all__ = ["annotate", "described", "is_annotated", "kind_of", "shortened"]

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxstring = _short.maxother = _short.maxlong = 80
_LONGEST = 120
_MARK = "retrypool: "


def shortened(data: object) -> str:
    """Return what `repr` says of `data`, on one line and cut short if it is long."""
    if isinstance(data, (bytes, bytearray)) and len(data) > _LONGEST:
        data = data[:_LONGEST]  # what reprlib does not cut short before it is written out
    try:
        text = " ".join(_short.repr(data).split())
    except BaseException as error:  # whatever the user's __repr__ raises
        if is_ctrl_c(error):
            raise
        text = f"<{type(data).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def described(task: Task[Any, Any] | DeadTask[Any]) -> str:
    """Return which task it is: `task 17 'page' (data 'https://…')`."""
    name = "" if task.name is None else f" {task.name!r}"
    return f"task {task.id}{name} (data {shortened(task.data)})"


def kind_of(error: BaseException) -> str:
    """Return the type of an error as a traceback writes it."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else (f"{kind.__module__}.{kind.__qualname__}")
    )


def is_annotated(error: BaseException, task: Task[Any, Any]) -> bool:
    """Return whether the last note on an error is about this task."""
    try:
        notes = getattr(error, "__notes__", None) or [""]
        return str(notes[-1]).startswith(f"{_MARK}task {task.id} ")
    except BaseException as wrong:
        if is_ctrl_c(wrong):
            raise
        return True  # it is not to be asked again


def annotate(error: BaseException | None, task: Task[Any, Any]) -> None:
    """Note on what a task ends with which task that was, and where it was tried last.

    Of an error that is raised again and again, the note tells of the last time only. Called by the owner of
    the task, or once it has ended; calls the user's `__repr__`, so outside of locks.
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
    note = f"{_MARK}{described(task)}, {where}"
    try:
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [each for each in notes if not str(each).startswith(_MARK)]
        error.add_note(note)
    except BaseException as wrong:  # an error that takes no notes, as a frozen dataclass does
        if is_ctrl_c(wrong):
            raise
