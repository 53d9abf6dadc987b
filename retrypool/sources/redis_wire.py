"""How messages and dead letters look in Redis."""

from __future__ import annotations

import json
from typing import Any

from retrypool.sources.base import Settlement
from retrypool.sources.envelope import Outgoing, decode
from retrypool.sources.letters import DeadLetter, dead_letter

__all__ = ["buried", "fields", "now", "packed", "read_letter", "unpacked"]


def now(client: Any) -> float:
    """Return the seconds since the epoch on Redis's clock."""
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)


def fields(each: Outgoing) -> dict[str, bytes]:
    """Return the fields of a message that is sent."""
    return {"d": each.data, "o": each.options} if each.options else {"d": each.data}


def packed(uid: str, each: Outgoing) -> bytes:
    """Return what stands for a message in the set of delayed ones."""
    return b"\0".join((uid.encode(), each.options, each.data))


def unpacked(member: bytes) -> dict[str, bytes]:
    """Return the fields of a message that was delayed."""
    _, options, data = member.split(b"\0", 2)
    return {"d": data, "o": options} if options else {"d": data}


def buried(settlement: Settlement) -> dict[str, bytes]:
    """Return the fields of a dead letter."""
    message = settlement.message
    options = message.mark if isinstance(message.mark, bytes) else b""
    note = json.dumps({**settlement.letter, "uid": message.uid, "deliveries": message.deliveries})
    return {"d": message.raw, "o": options, "letter": note.encode()}


def read_letter(id: str, found: dict[bytes, bytes]) -> DeadLetter:
    """Return the dead letter of these fields."""
    data, options, _ = decode(found.get(b"d"), found.get(b"o"))
    try:
        note = json.loads(found.get(b"letter", b"{}"))
    except ValueError:
        note = {}
    raw = found.get(b"d", b"")
    return dead_letter(id, note.get("uid", ""), data, options, int(note.get("deliveries", 0)), raw, note)
