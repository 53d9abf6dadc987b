"""What a pool writes to the `retrypool` logger, so that nothing fails in silence.

Each record has fields for structured logging (`extra=`): `pool`, `event`, and those of its event, such as
`task_id`, `reason`, `error_type`, `worker`, `group`.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from functools import partial
from typing import Any

from retrypool.callbacks import text_of
from retrypool.ctrl_c import shielded
from retrypool.events import (
    Event,
    GroupCooling,
    GroupEjected,
    GroupEvent,
    GroupOpened,
    GroupSuspected,
    OutageBegan,
    OutageEnded,
    PoolStopped,
    TaskDead,
    TaskRetrying,
    WorkerCordoned,
    WorkerEvent,
    WorkerReplaced,
    WorkerReturned,
    WorkerStuck,
)
from retrypool.model.describe import described, kind_of, shortened
from retrypool.model.task import DeadTask
from retrypool.threads.engine import Engine

__all__ = ["EventLog"]

log = logging.getLogger("retrypool")

AT_ONCE = 10
"""So many dead tasks are told of one by one; so many ejections, too. Of outages, it is one."""

INTERVAL = 10.0
"""After that, one in so many seconds, with how many there were in between."""

NOTABLE = 1.0
"""An outage that has lasted so many seconds is told of, though its beginning was left out."""


class _Quota:
    """Limits how many records of a kind are logged one by one, and counts the rest."""

    def __init__(self, most: int = AT_ONCE) -> None:
        self._most = float(most)  # at once
        self._lock = threading.Lock()  # around what follows
        self._room = self._most
        self._told_at = 0.0
        self.left_out = 0  # since the last that was let through

    def take(self, now: float) -> int | None:
        """Return how many were left out before this one; None if this one is left out too."""
        with self._lock:
            left_out = self.left_out
            room = min(self._most, self._room + max(0.0, now - self._told_at) / INTERVAL)
            if room < 1:
                self.left_out += 1
                return None
            self._room, self._told_at, self.left_out = room - 1, now, 0
            return left_out


class EventLog:
    """A listener that logs what goes wrong in one pool. Success costs nothing."""

    def __init__(self, engine: Engine[Any, Any], *, tasks: bool = True) -> None:
        self._engine = engine
        kinds: list[type[Event]] = [GroupEvent, OutageBegan, OutageEnded]
        kinds += [WorkerStuck, WorkerReturned, WorkerReplaced, WorkerCordoned]
        if tasks:
            kinds += [TaskDead, PoolStopped]
            if log.isEnabledFor(logging.DEBUG):
                kinds.append(TaskRetrying)
        self.listens_to = tuple(kinds)
        self._deaths, self._ejections, self._outages = _Quota(), _Quota(), _Quota(1)
        # Written by whoever gets the event, one after the other for each group.
        self._ejected: set[str] = set()
        self._untold: OutageBegan | None = None  # an outage that was left out, and is not over

    def on_event(self, event: Event) -> None:
        """Log `event`, if its level is enabled."""
        match event:
            case TaskDead():
                self._tell_of_death(event)
            case TaskRetrying():
                self._tell_of_retry(event)
            case GroupEvent():
                self._tell_of_group(event)
            case OutageBegan():
                left_out = self._outages.take(event.at)
                self._untold = event if left_out is None else None
                if left_out is None:
                    self._look_later(event.at)
                else:
                    self._tell_of_outage(event, left_out)
            case OutageEnded():
                untold, self._untold = self._untold, None
                if untold is not None and event.recovered and event.lasted < NOTABLE:
                    return
                level, text = logging.INFO, f"the outage is over after {event.lasted:.3g} s"
                if not event.recovered:
                    level = logging.WARNING
                    text = (
                        f"all groups still fail after {event.lasted:.3g} s: the pool goes on, and tasks die"
                    )
                self._write(level, "outage_ended", text, seconds=event.lasted, recovered=event.recovered)
            case WorkerEvent():
                self._tell_of_worker(event)
            case PoolStopped():
                self._sum_up()

    # -- outages ---------------------------------------------------------------------------------

    def _tell_of_outage(self, event: OutageBegan, left_out: int) -> None:
        length = event.until - event.at
        self._write(
            logging.WARNING,
            "outage_began",
            f"all groups fail ({_what(event.error)}): the pool holds, for at most {length:.3g} s, "
            f"and tries one task at a time{_more(left_out)}",
            seconds=length,
            left_out=left_out,
            **_error_fields(event.error),
        )

    @shielded
    def _look_later(self, began: float) -> None:
        engine = self._engine
        with engine.step:
            engine.scheduler.timers.add(began + NOTABLE, self._look_again, began)

    def _look_again(self, began: float, now: float) -> None:
        """Called under the lock, and perhaps just as the outage ends, which is told of before this then."""
        self._engine.run_errand(partial(self._tell_if_it_lasts, began), now)

    def _tell_if_it_lasts(self, began: float) -> None:
        if (event := self._untold) is not None and event.at == began:
            self._untold = None
            self._tell_of_outage(event, 0)

    # -- tasks -----------------------------------------------------------------------------------

    def _tell_of_death(self, event: TaskDead) -> None:
        if not log.isEnabledFor(logging.WARNING):
            return
        left_out = self._deaths.take(event.at)
        if left_out is None:
            return
        dead, shows = event.dead, self._engine.shows_data
        groups = list(dict.fromkeys(attempt.group for attempt in dead.history))
        self._write(
            logging.WARNING,
            "task_dead",
            f"{described(dead, data=shows)} is dead ({dead.reason.value}) after {_tries(dead, groups)}: "
            f"{_what(dead.error)}{_more(left_out)}",
            task_id=dead.id,
            task_name=dead.name,
            data=shortened(dead.data) if shows else None,
            reason=dead.reason.value,
            attempts=dead.attempts,
            groups=groups,
            left_out=left_out,
            **_error_fields(dead.error),
        )

    def _tell_of_retry(self, event: TaskRetrying) -> None:
        task, history = event.task, event.task.history
        where = f" on {history[-1].group}" if history else ""
        which = described(task, data=self._engine.shows_data)
        self._write(
            logging.DEBUG,
            "task_retrying",
            f"{which} failed{where}, attempt {len(history)}: {_what(event.error)}; "
            + (f"tried again in {event.delay:.3g} s" if event.delay else "tried again at once"),
            task_id=task.id,
            task_name=task.name,
            attempts=len(history),
            group=history[-1].group if history else None,
            delay=event.delay,
            **_error_fields(event.error),
        )

    def _sum_up(self) -> None:
        """Log once, at the end, that there are dead tasks."""
        engine, scheduler = self._engine, self._engine.scheduler
        with engine.lock:
            kept, dropped = list(scheduler.endings.dead.values()), scheduler.endings.dead_dropped
        total = len(kept) + dropped
        if not total:
            return
        kinds = Counter("no error" if dead.error is None else kind_of(dead.error) for dead in kept)
        named = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common(3))
        others = "" if len(kinds) <= 3 else f" and {len(kinds) - 3} other kinds"
        left_out = self._deaths.left_out
        text = f"it ends with {total} dead task{'' if total == 1 else 's'}"
        if kept:
            text += f": {named}{others}. dead_tasks() has {'it' if total == 1 else 'them'}"
        if dropped:
            text += f"; {dropped} were dropped (dead_limit)"
        self._write(
            logging.WARNING, "pool_stopped", text, dead=total, left_out=left_out, error_types=dict(kinds)
        )

    # -- groups and workers ----------------------------------------------------------------------

    def _tell_of_group(self, event: GroupEvent) -> None:
        group = event.group
        match event:
            case GroupEjected():
                left_out = self._ejections.take(event.at)
                if left_out is None:
                    return
                self._ejected.add(group)
                length = event.until - event.at
                self._write(
                    logging.WARNING,
                    "group_ejected",
                    f"{group} is ejected for {length:.3g} s: it fails what other groups do not"
                    f"{_more(left_out)}",
                    group=group,
                    seconds=length,
                    left_out=left_out,
                )
            case GroupSuspected():
                text = f"{group} is suspect: it failed a few tasks in a row, and waits for others to try them"
                self._write(logging.DEBUG, "group_suspected", text, group=group)
            case GroupCooling():
                length = event.until - event.at
                text = f"{group} cools down for {length:.3g} s"
                self._write(logging.DEBUG, "group_cooling", text, group=group, seconds=length)
            case GroupOpened():
                news = group in self._ejected
                self._ejected.discard(group)
                level = logging.INFO if news else logging.DEBUG
                self._write(level, "group_opened", f"{group} takes tasks again", group=group)

    def _tell_of_worker(self, event: WorkerEvent) -> None:
        name, level, fields = event.name, logging.WARNING, {}
        match event:
            case WorkerStuck():
                what, text = "worker_stuck", f"{name} has not come back from an attempt that is over"
            case WorkerReturned():
                what, level = "worker_returned", logging.INFO
                text = f"{name} has come back, and takes tasks again"
            case WorkerReplaced():
                what, level = "worker_replaced", logging.INFO
                text = f"{name} is replaced; its old thread is abandoned"
            case WorkerCordoned():
                what, text = "worker_cordoned", f"{name} is given nothing more: {event.reason}"
                fields["reason"] = event.reason
            case _:
                return
        self._write(level, what, text, worker=name, worker_id=event.worker_id, group=event.group, **fields)

    def _write(self, level: int, event: str, text: str, **fields: object) -> None:
        pool = self._engine.name
        log.log(level, "%s: %s", pool, text, extra={"pool": pool, "event": event, **fields})


def _more(left_out: int) -> str:
    return f"; {left_out} more are not told of one by one" if left_out else ""


def _tries(dead: DeadTask[Any], groups: list[str]) -> str:
    count = dead.attempts
    where = f" on {', '.join(groups[:5])}{', …' if len(groups) > 5 else ''}" if groups else ""
    return f"{count} attempt{'' if count == 1 else 's'}{where}"


def _what(error: BaseException | None) -> str:
    """Return an error in one line, with the place that raised it."""
    if error is None:
        return "no error"
    text = " ".join(text_of(error).split())
    place = ""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is not None:
        code = traceback.tb_frame.f_code
        place = f" ({code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{traceback.tb_lineno})"
    return f"{kind_of(error)}{': ' if text else ''}{text[:300]}{place}"


def _error_fields(error: BaseException | None) -> dict[str, object]:
    if error is None:
        return {"error_type": None}
    return {"error_type": kind_of(error), "error": _what(error)}
