"""From a file to items with keys."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from retrypool.cli.errors import CommandError

__all__ = ["Format", "Item", "format_of", "items_in", "opened"]

Format = Literal["jsonl", "csv", "lines"]

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}


class Item(NamedTuple):
    """One line of the input; or why it is none."""

    key: str
    data: Any
    problem: str | None = None


def format_of(path: str, told: Format | None) -> Format:
    """Return the format of an input: what was told, or what its name says; without a name, JSON lines."""
    if told is not None:
        return told
    return "jsonl" if path == "-" else _SUFFIXES.get(Path(path).suffix.lower(), "lines")


def opened(path: str) -> IO[str]:
    """Open an input; `-` is standard input. Raises `CommandError`."""
    # Not sys.stdin: what is no text is one bad item, not the end of all; and who waits for a line there must
    # not keep the interpreter from its end.
    try:
        return open(
            0 if path == "-" else path,
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
            closefd=path != "-",
        )
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}") from None


def items_in(file: IO[str], kind: Format, key: str | None) -> Iterator[Item]:
    """Iterate over the items: what JSON says, a row of CSV as a dict, or a line of text.

    The key is that field of the item, or else the number of its line. Empty lines are no items.
    """
    if kind == "csv":
        return _rows(file, key)
    return _lines(file, kind, key)


def _lines(file: IO[str], kind: Format, key: str | None) -> Iterator[Item]:
    for number, line in enumerate(file, 1):
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        data: Any = text
        if kind == "jsonl":
            try:
                data = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield Item(str(number), None, f"line {number} is no JSON: {error}")
                continue
        elif not text.isprintable() and _has_halves(text):
            yield Item(str(number), None, f"line {number} is no UTF-8")
            continue
        yield _keyed(data, number, key)


def _rows(file: IO[str], key: str | None) -> Iterator[Item]:
    rows = csv.DictReader(file, strict=True)
    try:
        if key is not None and rows.fieldnames is not None and key not in rows.fieldnames:
            raise CommandError(f"there is no column {key!r}; there are: {', '.join(rows.fieldnames)}")
        for row in rows:
            number = rows.line_num
            if None in row or None in row.values():
                yield Item(str(number), None, f"line {number} has another number of fields than the first")
            else:
                yield _keyed(dict(row), number, key)
    except csv.Error as error:
        raise CommandError(f"line {rows.line_num} is no CSV: {error}") from None


def _keyed(data: Any, number: int, key: str | None) -> Item:
    if key is None:
        return Item(str(number), data)
    if not isinstance(data, dict) or key not in data:
        return Item(str(number), None, f"line {number} has no field {key!r}")
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "" or _has_halves(str(value)):
        return Item(str(number), None, f"line {number} has a {key!r} that is neither a text nor a number")
    return Item(str(value), data)


def _has_halves(text: str) -> bool:
    """Return whether it has surrogates (bytes that were not UTF-8) or a NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return "\0" in text
