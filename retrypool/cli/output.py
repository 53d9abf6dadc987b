"""Lines of results, each of them once, also if the command is killed and started again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from retrypool.cli.errors import CommandError

__all__ = ["Output", "line_of"]

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Output:
    """The file that results are appended to. An existing file is continued, if that is wanted.

    `done` are the keys of the lines in it: the last line for a key counts.
    """

    def __init__(self, path: str, *, go_on: bool) -> None:
        self.done: dict[str, bool] = {}  # key: whether its last line is a result
        self.goes_on = go_on
        self._file: BinaryIO
        if path == "-":
            self._file = sys.stdout.buffer
            return
        try:
            file = Path(path).open("ab+")  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise CommandError(f"{path} can't be written: {error.strerror}") from None
        self._file = file
        if file.tell() and not go_on:
            file.close()
            raise CommandError(
                f"{path} is there already, and without a journal there is no going on with it:"
                " give --journal FILE, or another --output"
            )
        try:
            self._read(file)
        except BaseException:
            file.close()
            raise

    def _read(self, file: BinaryIO) -> None:
        """Read which keys are done, and cut off a line that was not written completely."""
        file.seek(0)
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                facts = json.loads(line)
                self.done[facts["key"]] = "error" not in facts
            except (ValueError, KeyError, TypeError):
                raise CommandError(
                    f"{file.name} holds a line that this command has not written: {line[:80]!r}"
                ) from None
        file.seek(0, os.SEEK_END)
        if file.tell() != whole:
            file.truncate(whole)

    def write(self, lines: Sequence[str]) -> None:
        """Append lines."""
        self._file.write("".join(lines).encode("utf-8", "backslashreplace"))
        self._file.flush()

    def close(self) -> None:
        """Close the file, if it is one."""
        if self._file is not sys.stdout.buffer:
            with suppress(OSError):
                os.fsync(self._file.fileno())
            self._file.close()


def line_of(key: str, result: Any, error: BaseException | str | None) -> tuple[str, bool]:
    """Return a line for the outcome of an item, and whether it is a result."""
    if error is None:
        try:
            return _encode({"key": key, "result": result}) + "\n", True
        except (TypeError, ValueError, RecursionError) as problem:
            error = f"the result can't be written as JSON: {problem}"
    if isinstance(error, BaseException):
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - an error that can't say what it is, is still an error
            text = "its text could not be made"
        error = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _encode({"key": key, "error": error}) + "\n", False
