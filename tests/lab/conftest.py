"""The lab: long and random searches for what a pool can't bear.

In CI it takes a minute. By hand it runs with `RETRYPOOL_LAB=5 pytest tests/lab`, that is five times as long;
without either, it is left out. What it finds becomes a test of its own elsewhere.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATIENCE = float(os.environ.get("RETRYPOOL_LAB") or bool(os.environ.get("CI")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(120 + 60 * PATIENCE))
            if not PATIENCE:
                item.add_marker(pytest.mark.skip(reason="the lab: set RETRYPOOL_LAB=1"))


@pytest.fixture
def patience() -> float:
    """How many times as long as in CI a search may take."""
    return PATIENCE
