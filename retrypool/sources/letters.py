"""Dead letters: what is stored of a dead message."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retrypool.errors import InvalidType
from retrypool.model.record import Attempt

__all__ = ["DeadLetter", "checked_letter", "dead_letter", "letter", "sendable", "told"]

_ATTEMPTS = 50
"""Attempts in a dead letter, the last ones."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that will not be delivered again, with the reason and the errors."""

    id: str  # among the dead letters
    uid: str  # what the message was
    data: object
    options: Mapping[str, object]
    reason: str  # a `DeadReason`, or "deliveries", "malformed" or "invalid"
    error: str | None  # the last error, as text
    history: tuple[Mapping[str, object], ...]  # its attempts on the head that gave it up
    deliveries: int
    raw: bytes = field(default=b"", repr=False)


def letter(
    reason: str, error: BaseException | str | None, history: Iterable[Attempt] = ()
) -> Mapping[str, object]:
    """Return what is stored with a dead message: the reason, the error and the history."""
    text = told(error) if isinstance(error, BaseException) else error
    kept: dict[str, object] = {
        "reason": reason,
        "error": text,
        "died": time.time(),
        "head": f"{socket.gethostname()}:{os.getpid()}",
        "history": [_shown(attempt) for attempt in list(history)[-_ATTEMPTS:]],
    }
    if isinstance(error, BaseException):
        kept["traceback"] = _trace(error)
    return kept


def _shown(attempt: Attempt) -> dict[str, object]:
    return {
        "number": attempt.number,
        "worker_id": attempt.worker_id,
        "group": attempt.group,
        "duration": round(attempt.duration, 6),
        "ended": round(time.time() - (time.monotonic() - attempt.ended), 3),
        "outcome": attempt.outcome.value,
        "error": None if attempt.error is None else told(attempt.error),
    }


def told(error: BaseException) -> str:
    """Return type and text of an error, whatever it is."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error that can't be shown
        text = type(error).__name__
    return text.encode("utf-8", "replace").decode()[:500]


def _trace(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001
        return ""
    return text.encode("utf-8", "replace").decode()[-4000:]


def dead_letter(
    id: str,
    uid: str,
    data: object,
    options: Mapping[str, object],
    deliveries: int,
    raw: bytes,
    letter: Mapping[str, Any],
) -> DeadLetter:
    """Return a dead letter with what is known of its end."""
    error = letter.get("error")
    history = letter.get("history")
    return DeadLetter(
        id=id,
        uid=uid,
        data=data,
        options=options,
        reason=str(letter.get("reason", "unknown")),
        error=None if error is None else str(error),
        history=tuple(history) if isinstance(history, list) else (),
        deliveries=deliveries,
        raw=raw,
    )


def sendable(options: Mapping[str, object]) -> dict[str, Any]:
    """The options of a dead message, to be sent with it again: its deadline begins anew."""
    return {option: value for option, value in options.items() if option != "sent"}


def checked_letter(letter: object) -> None:
    """Raise `InvalidType` for what is no dead letter."""
    if not isinstance(letter, DeadLetter):
        raise InvalidType("letter", letter, "one of dead_letters()")
