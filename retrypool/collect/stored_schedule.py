"""What a storage keeps of a named schedule: its rhythm, its data, and its state."""

from __future__ import annotations

import json
from datetime import UTC, datetime, tzinfo
from typing import Any

from retrypool.core.schedules import Plan
from retrypool.errors import InvalidValue
from retrypool.model.settings import TaskSettings
from retrypool.policy.recurrence import Grid
from retrypool.storage.records import ScheduleState
from retrypool.threads.journal import Journal

__all__ = ["StoredSchedule", "options_of", "rhythm_of"]


class StoredSchedule:
    """One schedule as the journal stores it, so that another process can continue it."""

    def __init__(
        self,
        journal: Journal,
        settings: TaskSettings,
        data: Any,
        plan: Plan,
        *,
        every: float | None,
        cron: str | None,
        tz: tzinfo,
        now: float,
        wall: float,
    ) -> None:
        assert settings.name is not None
        self.name = settings.name
        self._journal = journal
        until = plan.until
        self._facts = {
            "every": every,
            "cron": cron,
            "tz": _zone_name(tz, needed=cron is not None),
            "base": plan.base if every is not None else None,
            "start": plan.start,
            "until": None if until is None else until[0] if until[1] else wall + (until[0] - now),
            "times": plan.times,
            "jitter": plan.jitter,
            "overlap": plan.overlap,
            "options": journal.options.text_of(settings),
        }
        # A function makes the data of each tick: it has to be given again in the next process.
        self._data = None if callable(data) else journal.storage.codec.encode("data", data)

    def go_on(self, plan: Plan, before: ScheduleState, now: float, wall: float) -> float | None:
        """Resume `plan` where `before` stopped, if both tick alike; return the next tick."""
        facts = json.loads(before.spec)
        if any(facts[part] != self._facts[part] for part in ("every", "cron", "tz")):
            return None
        plan.runs, plan.skipped = before.runs, before.skipped
        if before.next is None:
            return None
        if facts["every"] is None:
            return before.next
        # The grid of the first process: what it would have ticked meanwhile is one tick now.
        plan.base = self._facts["base"] = facts["base"]
        plan.ticks = Grid(now - (wall - facts["base"]), facts["every"])
        plan.dated = False
        return now - (wall - before.next)

    def state(self, plan: Plan, now: float, wall: float) -> ScheduleState:
        """Return the state of the schedule. Under the pool's lock."""
        owed = plan.owed
        at = owed if owed is not None else None if plan.next is None else plan.label(plan.next, now, wall)
        spec = json.dumps(self._facts)
        return ScheduleState(self.name, spec, self._data, at, plan.runs, plan.skipped, plan.paused)


def rhythm_of(state: ScheduleState) -> dict[str, Any]:
    """Return what `Pool.schedule` is to be given to make the schedule again."""
    facts = json.loads(state.spec)
    until = facts["until"]
    return {
        "every": facts["every"],
        "cron": facts["cron"],
        "tz": facts["tz"],
        "start": None,
        "until": None if until is None else datetime.fromtimestamp(until, UTC),
        "times": facts["times"],
        "jitter": facts["jitter"],
        "overlap": facts["overlap"],
    }


def options_of(state: ScheduleState) -> str | None:
    """Return the text of the options of its tasks."""
    text = json.loads(state.spec)["options"]
    assert text is None or isinstance(text, str)
    return text


def _zone_name(tz: tzinfo, *, needed: bool) -> str:
    name = getattr(tz, "key", None)
    if isinstance(name, str):
        return name
    if tz is not UTC and needed:
        raise InvalidValue("tz", tz, "a zone with a name, with a storage, such as 'Europe/Berlin'")
    return "UTC"
