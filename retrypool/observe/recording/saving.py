"""Writes a recording to a file, in the form that the file's name asks for."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from retrypool.errors import InvalidType, InvalidValue
from retrypool.observe.recording.data import Recording

__all__ = ["save"]


def save(path: str | PathLike[str], look: Callable[[], Recording]) -> None:
    """Write what `look` returns to `path`."""
    if not isinstance(path, (str, PathLike)):
        raise InvalidType("path", path, "a path, such as 'run.html'")
    target = Path(path)
    match target.suffix.lower():
        case ".html" | ".htm":
            from retrypool.observe.recording.picture import page

            text = page(look())
        case ".json":
            from retrypool.observe.recording.trace import trace

            text = trace(look())
        case _:
            raise InvalidValue(
                "path", path, "a name that ends in .html (a page) or .json (a trace for Perfetto)"
            )
    target.write_text(text, encoding="utf-8", errors="replace")  # a name may be no valid text
