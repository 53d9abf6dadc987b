"""What a stretch of work has cost: wall time, CPU time of the process, and context switches."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import Any, Self

_resource: Any = importlib.import_module("resource") if importlib.util.find_spec("resource") else None


class Cost(float):
    """Wall time in the unit of its contest, with the CPU time in the same unit, and switches per item."""

    __slots__ = ("cpu", "switches")

    cpu: float
    switches: float

    def __new__(cls, wall: float, cpu: float, switches: float) -> Self:
        self = super().__new__(cls, wall)
        self.cpu = cpu
        self.switches = switches
        return self


def _switches() -> int:
    if _resource is None:
        return 0
    usage = _resource.getrusage(_resource.RUSAGE_SELF)
    return int(usage.ru_nvcsw + usage.ru_nivcsw)


class Meter:
    """Measures the block that it is the context of; may be used for several, and adds them up."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.switches = 0

    def __enter__(self) -> Self:
        self._began = _switches(), process_time(), perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        switches, cpu, wall = self._began
        self.wall += perf_counter() - wall
        self.cpu += process_time() - cpu
        self.switches += _switches() - switches

    def per(self, items: int, unit: float = 1e6) -> Cost:
        """The cost of one item; `unit` is how many of the contest's units a second has."""
        return Cost(self.wall / items * unit, self.cpu / items * unit, self.switches / items)


SPELL = 15.0
"""Microseconds per item for which a round goes on."""


def middle(once: Callable[[], Cost], times: int = 1) -> Cost:
    """Do the same again, so many times at least and until the round is long enough; return the medians.

    A hiccup of the machine is shorter than a round.
    """
    costs: list[Cost] = []
    while len(costs) < times or sum(costs) < SPELL:
        costs.append(once())
    return medians(costs)


def medians(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(median(costs), median(c.cpu for c in costs), median(c.switches for c in costs))
