"""The lab: long and random searches for what a pool can't bear.

It runs with `RETRYPOOL_LAB=1 pytest tests/lab`, some minutes, or a multiple of that; without, it is left out.
In CI it has a minute. What it finds becomes a test of its own elsewhere.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATIENCE = float(os.environ.get("RETRYPOOL_LAB") or 0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The strikes come first. CPython 3.11 gets into an endless loop when code is traced bytecode by bytecode
    # that it has specialized long before, in another thread.
    items.sort(key=lambda item: item.path != HERE / "test_strikes.py")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(120 + 60 * PATIENCE))
            if not PATIENCE:
                item.add_marker(pytest.mark.skip(reason="the lab: set RETRYPOOL_LAB=1"))


@pytest.fixture
def patience() -> float:
    """How thorough a search is: 1 is usual."""
    return PATIENCE
