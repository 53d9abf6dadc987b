"""Many interrupts at once, at random: nothing but the user's code is struck, and nothing is lost."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))


@pytest.mark.parametrize("seed", [1, 2])
def test_storm_does_no_harm(seed):
    """A tenth of what `python -m benchmarks.interrupts` makes."""
    from benchmarks.interrupts import Storm

    counts = Storm(500, seed=seed).blow()
    assert counts.interrupted >= 500
    assert counts.faults == {}, str(counts)
