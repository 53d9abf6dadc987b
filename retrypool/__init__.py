"""Push many items through something slow and flaky, with several workers that are not identical."""

import atexit
import sys

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in `typing`, which need not be imported for it
if TYPE_CHECKING:
    from retrypool._public import *  # noqa: F403
    from retrypool.storage.base import Storage as Storage
    from retrypool.storage.memory import MemoryStorage as MemoryStorage
    from retrypool.storage.sqlite import SQLiteStorage as SQLiteStorage

# Public names of parts that few programs use: each is imported when it is asked for.
_PARTS = {
    "MemoryStorage": "retrypool.storage.memory",
    "SQLiteStorage": "retrypool.storage.sqlite",
    "Storage": "retrypool.storage.base",
}


def __getattr__(name: str) -> object:
    if name in _PARTS:
        from importlib import import_module

        found: object = getattr(import_module(_PARTS[name]), name)
        globals()[name] = found
        return found
    # All other public names are imported when the first of them is asked for.
    if not name.startswith("_") or name == "__all__":
        import retrypool._public as public

        names = globals()
        names.update({each: getattr(public, each) for each in ("__all__", *public.__all__)})
        if name in names:
            return names[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS, *__getattr__("__all__")})  # type: ignore[misc]


def _close_open_pools() -> None:
    if (closing := sys.modules.get("retrypool.threads.lifecycle")) is not None:
        closing.close_at_exit()


# Here, where it is registered in time also if the first pool is made by another function at the exit.
atexit.register(_close_open_pools)
