"""How data, results and errors are converted to text and back."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from typing import Any, Literal, Protocol

from retrypool.errors import InvalidValue, NotStorable, StoredError

__all__ = ["Codec", "CodecName", "JsonCodec", "PickleCodec", "codec_for"]

CodecName = Literal["json", "pickle"]

# What is the same after it was written as JSON and read again, by its type alone.
_SCALARS = (str, int, bool, type(None))
# Modules whose errors can be made again: to make one runs nothing that is not Python's or our own.
_KNOWN = ("builtins", "retrypool.errors")
_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_loads = json.JSONDecoder().decode
_quoted = json.encoder.encode_basestring_ascii


class Codec(Protocol):
    """Values to text and back."""

    name: CodecName

    def encode(self, what: str, value: object) -> str:
        """Return `value` as text. Raises `NotStorable`, which names the part that can't be stored."""
        ...

    def decode(self, text: str) -> Any:
        """Return the value of a text that `encode` has made."""
        ...

    def encode_error(self, error: BaseException) -> str:
        """Return an error as text, as completely as possible. Never raises."""
        ...

    def decode_error(self, text: str) -> BaseException:
        """Return an error of a text that `encode_error` has made."""
        ...


class JsonCodec:
    """JSON. Refuses values that JSON would change.

    A tuple would be read back as a list, and the key 1 as the key "1".
    """

    name: CodecName = "json"

    def encode(self, what: str, value: object) -> str:
        """Return `value` as text."""
        kind = type(value)
        try:
            if kind is str:
                return _quoted(value)  # type: ignore[arg-type]
            text = repr(value) if kind is int else _dumps(value)
            # Reading it again is the one test that needs no list of all that can go wrong.
            if kind in _SCALARS or _same(_loads(text), value):
                return text
        except (TypeError, ValueError, RecursionError):
            pass
        path, part, why = _culprit(what, value, set())
        raise NotStorable(path, part, why)

    def decode(self, text: str) -> Any:
        """Return the value of a text."""
        return _loads(text)

    def encode_error(self, error: BaseException) -> str:
        """Return an error as text: its type, its message, and its arguments if they are plain."""
        facts = _facts(error)
        try:
            if _same(_loads(_dumps(list(error.args))), list(error.args)):
                facts["args"] = list(error.args)
        except (TypeError, ValueError, RecursionError):
            pass
        return _dumps(facts)

    def decode_error(self, text: str) -> BaseException:
        """Return an error: the same one if it is Python's or retrypool's own, else a `StoredError`."""
        return _made_from(_loads(text))


class PickleCodec:
    """Whatever can be pickled. Reading such text can run any code that its writer put there."""

    name: CodecName = "pickle"

    def encode(self, what: str, value: object) -> str:
        """Return `value` as text."""
        try:
            return base64.b64encode(pickle.dumps(value)).decode("ascii")
        except Exception as error:
            raise NotStorable(what, value, f"it can't be pickled: {error}") from error

    def decode(self, text: str) -> Any:
        """Return the value of a text."""
        return pickle.loads(base64.b64decode(text))

    def encode_error(self, error: BaseException) -> str:
        """Return an error as text: the pickle, if it can be unpickled, and the message."""
        facts = _facts(error)
        try:
            dumped = pickle.dumps(error)
            pickle.loads(dumped)  # an error with a constructor of its own may be pickled and not come back
            facts["pickle"] = base64.b64encode(dumped).decode("ascii")
        except Exception:  # noqa: BLE001 - then it is told in words
            pass
        return _dumps(facts)

    def decode_error(self, text: str) -> BaseException:
        """Return an error."""
        facts = _loads(text)
        if "pickle" in facts:
            try:
                error = pickle.loads(base64.b64decode(facts["pickle"]))
            except Exception:  # noqa: BLE001 - its class may have gone since
                pass
            else:
                if isinstance(error, BaseException):
                    return error
        return _made_from(facts)


def codec_for(name: object) -> Codec:
    """Return the codec of this name. Raises `InvalidValue`."""
    if name == "json":
        return JsonCodec()
    if name == "pickle":
        return PickleCodec()
    raise InvalidValue("codec", name, "'json' or 'pickle'")


def _same(found: object, value: object) -> bool:
    """Return whether `found`, which was read from JSON, is `value`: in type too, where equality is lax."""
    try:
        return bool(found == value)
    except Exception:  # noqa: BLE001 - what can't be compared is not the same
        return False


def _culprit(path: str, value: object, above: set[int]) -> tuple[str, object, str]:
    """Find the part of a value that JSON can't hold: its path, the part, and why not."""
    if isinstance(value, (dict, list)):
        if id(value) in above:
            return path, value, "it holds itself"
        if len(above) > 200:
            return path, value, "it is nested too deeply"
        above = above | {id(value)}
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                return path, key, "a key must be a string: as any other it would come back as one"
            if not _is_fine(part):
                return _culprit(f"{path}[{key!r}]", part, above)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            if not _is_fine(part):
                return _culprit(f"{path}[{number}]", part, above)
    elif isinstance(value, tuple):
        return path, value, "a tuple would come back as a list: use a list"
    elif isinstance(value, float):
        return path, value, "there is no such number in JSON"
    return path, value, "it is no JSON: use str, int, float, bool, None, and lists and dicts of them"


def _is_fine(value: object) -> bool:
    try:
        return type(value) in _SCALARS or _same(_loads(_dumps(value)), value)
    except (TypeError, ValueError, RecursionError):
        return False


def _facts(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error that can't say what it is, is still an error
        text = "its text could not be made"
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "text": text}


def _made_from(facts: dict[str, Any]) -> BaseException:
    module, _, name = str(facts["type"]).rpartition(".")
    home = sys.modules.get(module) if module in _KNOWN else None
    kind = getattr(home, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException) and "args" in facts:
        try:
            return kind(*facts["args"])
        except Exception:  # noqa: BLE001 - it wants other arguments than it keeps
            pass
    return StoredError(str(facts["type"]), str(facts["text"]))
