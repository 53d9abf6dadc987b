"""Why a task waits, for whom, and until when.

Pure, and under the pool's lock. An answer is a sequence of parts: text, and moments, which the caller
formats as times of day. A new reason why a worker takes nothing belongs in `obstacle`; a new reason why
a task waits, in `explain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

from retrypool.core.scheduler import Scheduler
from retrypool.core.timers import Moment
from retrypool.model.context import Context
from retrypool.model.slots import Slot
from retrypool.model.task import Task
from retrypool.states import TaskState

__all__ = ["Part", "explain", "explain_all"]

Part = str | Moment


class Obstacle(NamedTuple):
    """What keeps a worker from taking a task."""

    word: str  # what the worker is: "cooling"
    until: float | None = None  # for how long, as far as that is known
    at_most: bool = False  # whether it may be sooner


def explain(scheduler: Scheduler, task: Task[Any, Any], now: float) -> list[Part]:
    """Return one sentence on the state of `task`, in parts."""
    match task.state:
        case TaskState.SUCCEEDED | TaskState.DEAD | TaskState.CANCELLED:
            return _how_it_ended(scheduler, task)
        case TaskState.RUNNING:
            return _where_it_runs(scheduler, task)
        case TaskState.SCHEDULED | TaskState.RETRYING:
            return _what_it_waits_out(scheduler, task)
        case TaskState.QUEUED if task._slot is not None:
            return [f"{task._slot.name} is just taking it"]
    fleet = scheduler.fleet
    slots = [slot for slot in fleet if not slot.retired]
    if not slots:
        return ["waits for a worker: the pool has none"]
    if fleet.paused:
        return ["waits until the pool, which is paused, is resumed"]
    return _for_whom(scheduler, task, slots, now)


SLOW = 5
"""A worker is slow that has made so many times fewer calls than the others, and is not idle."""

ENOUGH = 10
"""So many calls of the others tell something."""


def explain_all(scheduler: Scheduler, now: float) -> list[Part]:
    """Return a few sentences on what the pool does, and what holds it back, in parts."""
    fleet, backlog = scheduler.fleet, scheduler.backlog
    slots = [slot for slot in fleet if not slot.retired]
    waiting, running = len(backlog), sum(len(slot.running) for slot in fleet)
    parts: list[Part] = [_how_many(waiting, "waits", "wait"), ", ", _how_many(running, "runs", "run")]
    if scheduler.delayed:
        parts += [", ", _how_many(scheduler.delayed, "is delayed", "are delayed")]
        if (first := scheduler.first_due()) is not None:
            parts += [" (the first until ", first, ")"]
    parts.append(".")
    if not slots:
        parts.append(
            " There is no worker." if waiting or scheduler.delayed else " There is no worker, and no work."
        )
    elif fleet.paused:
        parts.append(" The pool is paused, until it is resumed.")
    elif waiting:
        parts += _what_holds_back(scheduler, slots, now)
    return parts + _who_is_slow(slots)


def _what_holds_back(scheduler: Scheduler, slots: list[Slot], now: float) -> list[Part]:
    """Say why tasks wait that could be claimed now."""
    fleet, parts = scheduler.fleet, list[Part]()
    if (pace := fleet.pace) is not None and (ready := pace.ready_at(now)) > now:
        parts += [" The rate of the pool allows the next call at ", (ready, False), "."]
    if (outage := fleet.quarantine.outage) is not None:
        parts += [" All groups have failed since ", (outage.began, False), ": the pool holds until "]
        return [*parts, (outage.until, False), " at the latest, and tries one task at a time."]
    found = [each for each in (obstacle(slot, now) for slot in slots) if each is not None]
    if len(found) < len(slots):
        free = len(slots) - len(found)
        parts.append(
            f" {free} of {len(slots)} workers {'is' if free == 1 else 'are'} free"
            if len(slots) > 1
            else " The worker is free"
        )
        parts += [", ", *_summary(found, "the other is"), "."] if found else ["."]
    else:
        parts += [" No worker is free: ", *_summary(found, "the only one is"), "."]
    free_slots = [slot for slot in slots if obstacle(slot, now) is None]
    unmet: dict[str, int] = {}  # how many ask for what nobody has
    untried = 0  # how many wait for somebody who has not tried them
    for subqueue in scheduler.backlog.subqueues.values():
        constraints = subqueue.constraints
        tasks = [task for _, _, task in subqueue.tasks if not task._withdrawn]
        if not tasks:
            continue
        if not any(constraints.suits(slot) for slot in slots):
            wants = tasks[0]._settings.wants
            unmet[wants] = unmet.get(wants, 0) + len(tasks)
        elif constraints.tried and not any(constraints.admits(slot) for slot in free_slots):
            untried += len(tasks)
    for wants, count in unmet.items():
        parts.append(f" {_how_many(count, 'asks', 'ask')} for a worker that has {wants}: there is none.")
    if untried:
        what = "it" if untried == 1 else "them"
        parts.append(f" {_how_many(untried, 'waits', 'wait')} for a worker that has not tried {what}.")
    return parts


def _who_is_slow(slots: list[Slot]) -> list[Part]:
    """Name the workers that have made much fewer calls than the others, and are busy with the next."""
    parts: list[Part] = []
    calls = sorted(map(_calls, slots))
    usual = calls[len(calls) // 2] if calls else 0
    for slot in slots:
        if slot.running and usual >= ENOUGH and _calls(slot) * SLOW <= usual:
            parts.append(f" {slot.name} is slow: it has made {_calls(slot)} calls, the usual is {usual}")
            since = slot.running[-1:]
            parts += [", and is at its next since ", (since[0]._started, False), "."] if since else ["."]
    return parts


def _calls(slot: Slot) -> int:
    return slot.succeeded + slot.failed + slot.timed_out


def _how_many(count: int, one: str, many: str) -> str:
    if count == 0:
        return f"no task {one}"
    return f"1 task {one}" if count == 1 else f"{count} tasks {many}"


def obstacle(slot: Slot, now: float) -> Obstacle | None:
    """Return what keeps the worker at `slot` from taking anything now; None if nothing does."""
    group = slot.group
    if slot.cordoned_for is not None:
        return Obstacle("cordoned")
    if slot.paused:
        return Obstacle("paused")
    if slot.unfit:
        return Obstacle("being made anew")
    if slot.stuck is not None:
        return Obstacle("stuck in an attempt that is over")
    if group.suspected is not None:
        return Obstacle("suspect, because of failures that others have yet to confirm")
    if group.shut(now):
        return Obstacle("ejected" if group.ejected else "cooling", group.until)
    if running := slot.running[-1:]:
        expires = getattr(running[0], "_expires", inf)  # a task that stands for its attempt has no limit
        return Obstacle("busy") if expires == inf else Obstacle("busy", expires, at_most=True)
    if group.refuses(slot, now):
        return Obstacle("waiting for the outcome of another's probe")
    if group.pace is not None and (ready := group.pace.ready_at(now)) > now:
        return Obstacle("held back by a rate", ready)
    return None


# -- steps ---------------------------------------------------------------------------------------


def _how_it_ended(scheduler: Scheduler, task: Task[Any, Any]) -> list[Part]:
    ended = scheduler.history.find(task.id)
    when: list[Part] = [] if ended is None else [", since ", (ended.ended, False)]
    if task.state is TaskState.CANCELLED:
        return ["is cancelled", *when, f": {task._outcome}" if task._outcome else ""]
    if task.state is TaskState.DEAD:
        dead = scheduler.endings.dead.get(task.id)
        return ["is dead", *when, f": {dead.reason.value}" if dead is not None else ""]
    return ["has succeeded", *when]


def _where_it_runs(scheduler: Scheduler, task: Task[Any, Any]) -> list[Part]:
    slot = task._slot
    for ctx in scheduler.running_at(slot) if slot is not None else ():
        if ctx._task is task:
            assert slot is not None
            where = "" if slot.where is None else f", on {slot.where},"
            parts: list[Part] = [f"runs on {slot.name}{where} since ", (ctx._started, False)]
            return [*parts, f", attempt {ctx.attempt}", *_second_attempt(scheduler, task, ctx)]
    return ["an attempt is over, and what comes of it is just being decided"]


def _second_attempt(scheduler: Scheduler, task: Task[Any, Any], first: Context) -> list[Part]:
    """Say where a task runs that was begun a second time, because it takes long."""
    for slot in scheduler.fleet:
        for ctx in scheduler.running_at(slot):
            if ctx._task is task and ctx is not first:
                return [f"; it takes long, so {slot.name} runs it too, since ", (ctx._started, False)]
    return []


def _what_it_waits_out(scheduler: Scheduler, task: Task[Any, Any]) -> list[Part]:
    record = task._record
    if task.state is TaskState.SCHEDULED:
        what = "waits for its time, "
    else:
        number = 1 if record is None else record.entries + 1
        what = f"waits out the delay before attempt {number}, until "
    moment = scheduler.due(task)
    return [what, moment] if moment is not None else ["its delay is just over"]


def _for_whom(scheduler: Scheduler, task: Task[Any, Any], slots: list[Slot], now: float) -> list[Part]:
    """Say which workers may take a queued task, and what they do now."""
    suited = [slot for slot in slots if task._settings.constraints.suits(slot)]
    if not suited:
        return [f"waits for a worker that has {task._settings.wants}: the pool has none"]
    if (pace := scheduler.fleet.pace) is not None and (ready := pace.ready_at(now)) > now:
        return ["waits for the rate of the pool to allow a call, at ", (ready, False)]
    if (outage := scheduler.fleet.quarantine.outage) is not None:
        return [
            "waits for the end of an outage: all workers fail, and one task at a time is tried until ",
            (outage.until, False),
        ]
    picky, slots = len(suited) < len(slots), suited
    eligible = [slot for slot in slots if scheduler.admits(slot, task)]
    choosy = len(eligible) < len(slots)
    if not eligible:  # all live groups have tried it: the next claim clears its tried set
        eligible, choosy = slots, False
    obstacles = [obstacle(slot, now) for slot in eligible]
    found = [each for each in obstacles if each is not None]
    ahead = scheduler.backlog.ahead(task)
    if len(found) < len(eligible):
        return [_in_line(ahead)]
    parts: list[Part] = ["waits for a worker" + (" that may take it" if picky and not choosy else "")]
    if choosy:
        parts.append(f" that has not tried it: {len(eligible)} of {len(slots)} left, ")
    else:
        parts.append(": ")
    parts += _summary(found, "it is" if choosy else "the only one is")
    if choosy and (since := scheduler.backlog.since(task)) is not None:
        parts += ["; any worker may take it from ", (since + scheduler.affinity_wait, False), " on"]
    elif ahead:
        parts.append(f"; {_in_line(ahead)}")
    return parts


def _summary(obstacles: Sequence[Obstacle], single: str) -> list[Part]:
    """Say what keeps some workers from taking tasks, grouped by the reason."""
    kinds: dict[str, list[Obstacle]] = {}
    for each in obstacles:
        kinds.setdefault(each.word, []).append(each)
    total = len(obstacles)
    parts: list[Part] = []
    for word, alike in kinds.items():
        if len(kinds) > 1:
            how_many = str(len(alike))
        else:
            how_many = single if total == 1 else "both" if total == 2 else f"all {total}"
        parts.append(f"{', ' if parts else ''}{how_many} {word}")
        times = [(each.until, each.at_most) for each in alike if each.until is not None]
        if len(times) == len(alike):  # the first of them to be free again
            until, at_most = min(times)
            parts += [" until at the latest " if at_most else " until ", (until, False)]
    return parts


def _in_line(ahead: int) -> str:
    if ahead == 0:
        return "is next in line"
    return f"is behind {ahead} other{'' if ahead == 1 else 's'}"
