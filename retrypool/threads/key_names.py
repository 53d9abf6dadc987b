"""What can be a key. Apart from what keeps them, so that a pool without a storage need not import that."""

from __future__ import annotations

from retrypool.errors import InvalidType, InvalidValue, RetryPoolError

__all__ = ["checked_key", "printable", "without_storage"]


def checked_key(what: str, key: object) -> str:
    """Return `key` if it can be one: a string that can be written anywhere."""
    if not isinstance(key, str):
        raise InvalidType(what, key, "a string")
    if not key or "\0" in key or printable(key) != key:
        raise InvalidValue(what, key, "a text, not empty, of characters that can be written")
    return str(key)


def printable(text: str) -> str:
    """Return a text without half characters, which come from file names that are no text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def without_storage(key: str) -> RetryPoolError:
    """Return what is raised for a key where there is nothing that would know it again."""
    return InvalidValue("key", key, "given to a pool with a storage: Pool(..., storage=SQLiteStorage(path))")
