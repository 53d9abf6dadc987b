"""Short texts that describe users' objects. They never raise, whatever those objects do."""

from __future__ import annotations

from typing import Any

from retrypool.model.describe import shortened
from retrypool.model.task import Task

__all__ = ["duration", "error_of", "first_line", "label_of"]

LONGEST_LABEL = 80
LONGEST_ERROR = 160


def first_line(text: str, length: int) -> str:
    """Return the first line of `text`, cut if it is long, without what a terminal would obey."""
    line = text[: length * 4].strip().partition("\n")[0].rstrip()
    if not line.isprintable():
        line = "".join(each if each.isprintable() else " " if each.isspace() else "?" for each in line)
    return line if len(line) <= length else line[: length - 3] + "..."


def label_of(task: Task[Any, Any]) -> str:
    """Return the name of a task, or else the beginning of what its data looks like."""
    if task.name is not None:
        return first_line(task.name, LONGEST_LABEL)
    data = task.data if getattr(task._owner, "shows_data", True) else f"task {task.id}"
    return first_line(data if isinstance(data, str) else shortened(data), LONGEST_LABEL)


def error_of(error: BaseException) -> tuple[str, str]:
    """Return the name of an error's type, and the first line of what it says."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error that can't say what it is, is still an error
        text = "its text could not be made"
    return type(error).__name__, first_line(text, LONGEST_ERROR)


def duration(seconds: float) -> str:
    """Return a length of time as people write it.

    >>> [duration(seconds) for seconds in (0, 0.0000321, 0.0123, 1.234, 75, 4000, 200_000)]
    ['0 s', '0.03 ms', '12 ms', '1.2 s', '75 s', '67 min', '2.3 days']
    """
    if seconds == 0:
        return "0 s"
    unit, length = "ms", 1e-3
    for longer, its_length, least in (
        ("s", 1.0, 1.0),
        ("min", 60.0, 120.0),
        ("h", 3600.0, 7200.0),
        ("days", 86_400.0, 172_800.0),
    ):
        if seconds >= least:
            unit, length = longer, its_length
    value = seconds / length
    number = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.95 else f"{value:.1g}"
    return f"{number} {unit}"
