"""The next tick: on a grid of equal steps, or by a cron expression.

Pure: a recurrence knows no clock. A grid is on whatever clock its first tick is; cron is on the wall
clock, in seconds since the epoch, read in a time zone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from retrypool.errors import InvalidType, InvalidValue, MissingExtra

__all__ = ["Cron", "Grid", "Recurrence"]


class Recurrence(Protocol):
    """When something is to happen, over and over."""

    def after(self, moment: float) -> float | None:
        """Return the first tick later than `moment`; None if there is none."""
        ...

    def latest(self, moment: float) -> float | None:
        """Return the last tick not later than `moment`; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Grid:
    """`first`, and every `step` seconds from there. Each tick is reckoned from the first: no drift.

    >>> Grid(first=10.0, step=60.0).after(10.0)
    70.0
    """

    first: float
    step: float

    def after(self, moment: float) -> float:
        """Return the first tick later than `moment`."""
        if moment < self.first:
            return self.first
        return self.first + (self._number(moment) + 1) * self.step

    def latest(self, moment: float) -> float | None:
        """Return the last tick not later than `moment`; None before the first."""
        if moment < self.first:
            return None
        return self.first + self._number(moment) * self.step

    def number(self, tick: float) -> int:
        """Return which tick this is; the first one is 0."""
        return round((tick - self.first) / self.step)

    def _number(self, moment: float) -> int:
        """Return the number of the last tick not later than `moment`, whatever a division rounds to."""
        first, step = self.first, self.step
        number = math.floor((moment - first) / step)
        if first + number * step > moment:
            return number - 1
        if first + (number + 1) * step <= moment:
            return number + 1
        return number


class Cron:
    """Ticks by a cron expression of five fields, or of six, the first one being seconds.

    When clocks change, it does what Debian's cron does: what was set for an hour that is left out runs
    right after it, what was set for a time that comes twice runs once; what runs every so many minutes
    or hours goes on doing so in both.
    """

    __slots__ = ("expression", "tz")

    def __init__(self, expression: str, tz: tzinfo = UTC) -> None:
        if not isinstance(expression, str):
            raise InvalidType("cron", expression, "a string, such as '*/5 * * * *'")
        self.expression = expression
        self.tz = tz
        self._simulate(0.0)

    def after(self, moment: float) -> float | None:
        """Return the first tick later than `moment`; None if there is none within 50 years."""
        # In the hour that comes twice, the library may answer with a tick of the first pass.
        return next((tick for tick in self._ticks(moment) if tick > moment), None)

    def latest(self, moment: float) -> float | None:
        """Return the last tick not later than `moment`; None if there is none within 50 years.

        In the hour that comes twice, it may be one earlier than that.
        """
        # It looks for what lies before a full second, and never answers with that second itself.
        later = math.floor(moment) + 1.0
        return next((tick for tick in self._ticks(later, reverse=True) if tick <= moment), None)

    def _ticks(self, moment: float, *, reverse: bool = False) -> Iterator[float]:
        try:
            for tick in self._simulate(moment, reverse=reverse):
                yield tick.timestamp()
        except (OverflowError, ValueError):  # the calendar ends with the year 9999
            return

    def _simulate(self, moment: float, *, reverse: bool = False) -> _Simulation:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise MissingExtra("cron", "cronsim", "cron=") from None
        try:
            return CronSim(self.expression, datetime.fromtimestamp(moment, self.tz), reverse)
        except CronSimError as error:
            expected = f"a cron expression, such as '*/5 * * * *' ({str(error).lower()})"
            raise InvalidValue("cron", self.expression, expected) from None

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.tz})"


class _Simulation(Protocol):
    def __iter__(self) -> _Simulation: ...
    def __next__(self) -> datetime: ...
