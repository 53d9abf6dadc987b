"""Every back end, and how each is opened again: in good order, and after a crash."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrypool.storage.base import Storage
from retrypool.storage.memory import MemoryStorage
from retrypool.storage.sqlite import SQLiteStorage


class BackEnd:
    """Makes storages of one kind, and opens what is left of one."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.crashes = 0
        self.opened: list[Storage] = []

    def make(self, path: Path | None = None, **options: Any) -> Storage:
        if self.kind == "memory":
            return MemoryStorage(**options)
        durability = "power" if self.kind == "sqlite-power" else "process"
        return SQLiteStorage(path or self.folder / "run.db", durability=durability, **options)  # type: ignore[arg-type]

    def open(self, **options: Any) -> Storage:
        storage = self.make(**options)
        return self._opened(storage)

    def again(self, storage: Storage, **options: Any) -> Storage:
        """Close it, and open it as the next process would."""
        storage.close()
        if isinstance(storage, MemoryStorage):
            return self._opened(storage)
        assert isinstance(storage, SQLiteStorage)
        return self._opened(self.make(storage.path, **options))

    def after_crash(self, storage: Storage, **options: Any) -> Storage:
        """Open what is there now, as if the process had been killed."""
        if isinstance(storage, MemoryStorage):
            storage.abandon()
            return self._opened(storage)
        assert isinstance(storage, SQLiteStorage)
        self.crashes += 1
        there = self.folder / f"crash-{self.crashes}.db"
        for suffix in ("", "-wal", "-owner"):
            part = Path(f"{storage.path}{suffix}")
            if part.exists():
                shutil.copy(part, f"{there}{suffix}")
        return self._opened(self.make(there, **options))

    def _opened(self, storage: Storage) -> Storage:
        storage.open("a pool")
        self.opened.append(storage)
        return storage


@pytest.fixture(params=["memory", "sqlite-process", "sqlite-power"])
def back_end(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BackEnd]:
    made = BackEnd(request.param, tmp_path)
    yield made
    for storage in made.opened:
        storage.close()
