"""Who owns a journal, and what its workers run: a small file beside it that outlives the process.

The file `<journal>-owner` is locked as long as its owner lives; the operating system sees to that. It holds
a page that tells who that is, and then a cell of eight bytes for each worker: the id of the task that it
runs, 0 for none. The cells are memory that is mapped to the file, so a worker writes one in a fraction of a
microsecond, and it is there still when the process was killed. (A power cut may lose it, but then it was
not the task that ended the process.)
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

from retrypool.errors import StorageError

__all__ = ["CELLS", "Ownership", "cells_of", "read_owner", "running_in"]

CELLS = 4096
_PAGE = 4096
_SIZE = _PAGE + 8 * CELLS

# Locks of one process do not always keep each other out, and closing one handle of a file may drop the lock
# of another: so within the process it is known here which files are owned.
_owned: dict[str, Ownership] = {}
_owned_lock = threading.Lock()
_all: WeakSet[Ownership] = WeakSet()


class Ownership:
    """The owner file of a journal, locked and mapped. `lost` is what ran when the last owner died."""

    about: dict[str, Any]

    def __init__(self, journal: Path, pool: str) -> None:
        self._path = str(journal.resolve()) + "-owner"
        with _owned_lock:
            if self._path in _owned:
                raise StorageError(str(journal), f"it belongs to {_told(_owned[self._path].about)} already")
            self._file = _open(journal, self._path)
            try:
                if not _lock(self._file):
                    owner = _told(_about(self._file))
                    raise StorageError(
                        str(journal), f"it belongs to {owner}: one process works with a journal at a time"
                    )
                self.about = _describe(pool)
                self._map, self.lost = self._move_in()
            except BaseException:
                self._file.close()
                raise
            self.cells = memoryview(self._map)[_PAGE:].cast("Q")
            _owned[self._path] = self
            _all.add(self)

    def _move_in(self) -> tuple[mmap.mmap, set[int]]:
        file = self._file
        lost = running_in(file)
        page = json.dumps(self.about).encode()[: _PAGE - 1]
        file.seek(0)
        file.truncate()
        file.write(page.ljust(_PAGE, b"\0") + bytes(8 * CELLS))
        file.flush()
        return mmap.mmap(file.fileno(), _SIZE), lost

    def release(self) -> None:
        """Release the journal after an orderly end: nothing was lost."""
        with _owned_lock:
            if _owned.get(self._path) is self:
                del _owned[self._path]
            if self._file.closed:
                return
            self.cells.release()
            self._map.close()
            self._file.seek(0)
            self._file.truncate()
            _unlock(self._file)
            self._file.close()

    def leave_to_parent(self) -> None:
        """Close it in a forked child, whose copy would keep the lock when the parent has died."""
        if not self._file.closed:
            self.cells.release()
            self._map.close()  # it has a handle of its own
            os.close(self._file.fileno())


def _leave_all() -> None:
    _owned.clear()
    for ownership in list(_all):
        with suppress(OSError, ValueError):
            ownership.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def read_owner(journal: Path) -> dict[str, Any] | None:
    """Return the description of the owner of a journal; None if it has none now."""
    path = str(journal.resolve()) + "-owner"
    with _owned_lock:
        if path in _owned:
            return dict(_owned[path].about)
        try:
            with Path(path).open("r+b") as file:
                if _lock(file):
                    _unlock(file)
                    return None
                return _about(file)
        except OSError:
            return None


def running_in(source: IO[bytes]) -> set[int]:
    """Return the tasks that run by the owner file, or ran when its owner died."""
    source.seek(_PAGE)
    raw = source.read(8 * CELLS)
    cells = memoryview(raw[: len(raw) // 8 * 8]).cast("Q")
    return {task_id for task_id in cells if task_id}


def cells_of(journal: Path) -> list[int]:
    """Return the task of each cell by the owner file, 0 for none; an empty list if there is no such file."""
    try:
        with Path(str(journal.resolve()) + "-owner").open("rb") as file:
            file.seek(_PAGE)
            raw = file.read(8 * CELLS)
    except OSError:
        return []
    return memoryview(raw).cast("Q").tolist() if len(raw) == 8 * CELLS else []


def _open(journal: Path, path: str) -> IO[bytes]:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+b")
    except OSError as error:
        raise StorageError(str(journal), f"its owner file can't be written: {error}") from error


def _describe(pool: str) -> dict[str, Any]:
    command = " ".join(sys.argv)[:200] or "an interactive session"
    about = {"pid": os.getpid(), "host": socket.gethostname(), "pool": pool, "command": command}
    return {**about, "since": time.time()}


def _about(file: IO[bytes]) -> dict[str, Any]:
    file.seek(0)
    try:
        about = json.loads(file.read(_PAGE).rstrip(b"\0"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _told(about: dict[str, Any]) -> str:
    if not about:
        return "another process"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about.get("since", 0.0)))
    whose = "this process" if about.get("pid") == os.getpid() else f"process {about.get('pid')}"
    return f"{about.get('pool')} of {whose} on {about.get('host')} ({about.get('command')}), since {since}"


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # a byte that nobody reads: what is locked there can't be read by others

    def _lock(file: IO[bytes]) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
