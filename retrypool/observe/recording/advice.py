"""What a report says in sentences: what cost the most, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from retrypool.observe.recording.data import WorkerSeen
from retrypool.observe.recording.facts import Facts, rest_of, unrecoverable
from retrypool.observe.recording.tally import Error
from retrypool.observe.recording.texts import duration, first_line

__all__ = ["advice"]

AT_MOST = 10  # sentences


class Finding(NamedTuple):
    """A sentence or two, and the share of the run that it is about."""

    weight: float
    text: str


def advice(facts: Facts) -> list[str]:
    """Return the advice, the most costly problem first."""
    if not facts.recording.length:
        return []
    kinds = (
        _outages,
        _slow_workers,
        _failing_workers,
        _ejections,
        _throttled_groups,
        _timeouts,
        _long_task,
        _delays,
        _rates,
        _missing_workers,
        _hanging_attempts,
        _dead_tasks,
        _load,
    )
    found = [finding for kind in kinds for finding in kind(facts)]
    found.sort(key=lambda finding: -finding.weight)
    return [finding.text for finding in found[:AT_MOST]]


def percent(share: float) -> str:
    """Return a share as people write it."""
    return f"{share:.0%}" if share >= 0.01 or not share else "<1%"


def _of_makespan(facts: Facts, seconds: float) -> str:
    return f"{percent(min(seconds / facts.recording.length, 1.0))} of the makespan"


def _outages(facts: Facts) -> Iterator[Finding]:
    recording = facts.recording
    outages = [span for span in recording.spans if span.kind == "outage"]
    total = sum(span.end - span.start for span in outages)
    if not outages:
        return
    first = duration(max(outages[0].start - recording.begin, 0.0))
    length = duration(total) if len(outages) == 1 else f"{duration(total)} in {len(outages)} outages"
    why = f" ({first_line(outages[-1].why, 80)})" if outages[-1].why else ""
    yield Finding(
        total / recording.length,
        f"Everything failed, from {first} after the start, for {length}{why}: "
        f"{_of_makespan(facts, total)}. The pool held what it had, and asked now and then.",
    )


def _slow_workers(facts: Facts) -> Iterator[Finding]:
    recording = facts.recording
    slow = facts.slow_workers()
    if not slow:
        return
    ids = {worker.id for worker, _ in slow}
    alone = facts.seconds_with_only(ids)
    names = _listed([worker.name for worker, _ in slow])
    times = max(times for _, times in slow)
    one = len(slow) == 1
    text = f"{names} {'is' if one else 'are'} {'' if one else 'up to '}{times:.0f} × slower than the others"
    share = alone / recording.length
    if share >= 0.05:
        text += f": for {_of_makespan(facts, alone)} nobody else had anything to do."
        without = facts.optimum_without(ids)
        if without is not None and without < 0.95 * recording.length:
            text += f" Without {'it' if one else 'them'} the run could take {duration(without)}."
        text += f" Leave {'it' if one else 'them'} out, or give {'it' if one else 'them'} other tasks."
    else:
        calls = sum(worker.tally.calls for worker, _ in slow)
        text += f". {'It' if one else 'They'} made {_calls(calls)}, and held nobody up."
    yield Finding(max(share, 0.02), text)


def _failing_workers(facts: Facts) -> Iterator[Finding]:
    """Workers that fail most of what they are given, each of them if they are few."""
    found = _failing(facts)
    lost = sum(worker.tally.busy - worker.tally.seconds.get("succeeded", 0.0) for worker, _ in found)
    weight = lost / (facts.capacity or 1.0) + 0.05
    if len(found) > 3:
        errors = sum((worker.tally.errors for worker, _ in found), Counter[Error]())
        calls = sum(worker.tally.calls for worker, _ in found)
        names = _listed([worker.name for worker, _ in found])
        failed = sum(failed for _, failed in found)
        yield Finding(
            weight,
            f"{names} failed {_share(failed, calls)}{_because(errors)}. Check them, or leave them out.",
        )
        return
    for worker, failed in found:
        text = f"{worker.name} failed {_share(failed, worker.tally.calls)}{_because(worker.tally.errors)}."
        yield Finding(weight, f"{text}{_ejected(facts, worker)} Check it, or leave it out.")


def _failing(facts: Facts) -> list[tuple[WorkerSeen, int]]:
    """Return the workers that fail most of what they are given, and how often they did."""
    total = facts.recording.total
    found = []
    for worker in facts.recording.workers:
        tally = worker.tally
        failed = tally.in_vain - sum(
            tally.outcomes[kind] for kind in ("throttled", "withdrawn", "superseded")
        )
        others = total.in_vain - tally.in_vain
        usual = others / max(total.calls - tally.calls, 1)
        if failed >= 3 and failed >= 0.5 * tally.calls and failed / tally.calls >= 2 * usual:
            found.append((worker, failed))
    return found


def _ejections(facts: Facts) -> Iterator[Finding]:
    """Groups that were ejected, and are well otherwise."""
    told = {worker.group for worker, _ in _failing(facts)}
    seen: set[str] = set()
    for worker in facts.recording.workers:
        if worker.group in told | seen or not facts.recording.span_counts.get(("ejected", worker.group)):
            continue
        seen.add(worker.group)
        rested = rest_of(facts.recording, worker, ("ejected",))
        text = _ejected(facts, worker).strip().replace("It ", f"{worker.group} ", 1)
        yield Finding(
            rested / facts.recording.length / 2 + 0.02, f"{text} In all it failed {_failures(worker)}."
        )


def _failures(worker: WorkerSeen) -> str:
    tally = worker.tally
    return f"{tally.in_vain} of {_calls(tally.calls)}{_because(tally.errors)}"


def _share(failed: int, calls: int) -> str:
    return f"all {_calls(calls)}" if failed == calls else f"{failed} of {_calls(calls)}"


def _ejected(facts: Facts, worker: WorkerSeen) -> str:
    recording = facts.recording
    count = recording.span_counts.get(("ejected", worker.group), 0)
    if not count:
        return " It was never ejected." if worker.tally.in_vain >= 10 else ""
    first = next(
        (span for span in recording.spans if span.kind == "ejected" and span.who == worker.group), None
    )
    when = f"{duration(max(0.0 if first is None else first.start - recording.begin, 0.0))} after the start"
    rested = rest_of(recording, worker, ("ejected",))
    if count == 1:
        return f" It was ejected {when}, for {duration(rested)}."
    return f" It was ejected {count} times, first {when}, for {duration(rested)} together."


def _throttled_groups(facts: Facts) -> Iterator[Finding]:
    """Groups that were told to slow down, each of them if they are few."""
    recording = facts.recording
    groups: dict[str, list[WorkerSeen]] = {}
    for worker in recording.workers:
        groups.setdefault(worker.group, []).append(worker)
    rests = {group: rest_of(recording, workers[0], ("cooling",)) for group, workers in groups.items()}
    refused = {
        group: count
        for group, workers in groups.items()
        if (count := sum(worker.tally.outcomes["throttled"] for worker in workers)) and rests[group] > 0
    }
    weight = sum(rests[group] for group in refused) / recording.length / len(groups) + 0.02
    if len(refused) > 3:
        names = _listed(sorted(refused, key=lambda group: -rests[group]))
        mean = sum(rests[group] for group in refused) / len(refused)
        yield Finding(
            weight,
            f"{names} were told to slow down {sum(refused.values())} times, and rested {duration(mean)} each "
            f"on average: {_of_makespan(facts, mean)}. A Rate that they keep to "
            "spares the refusals.",
        )
        return
    for group, count in refused.items():
        text = (
            f"{group} was told to slow down {_times(count)} and rested {duration(rests[group])}: "
            f"{_of_makespan(facts, rests[group])}."
        )
        succeeded = sum(worker.tally.succeeded for worker in groups[group])
        if group in recording.rates:
            text += f" Its rate of {recording.rates[group]:.3g} per second is too high."
        elif succeeded:
            text += (
                f" It got {succeeded / recording.length:.2g} calls per second through: a Rate near that "
                "spares the refusals."
            )
        yield Finding(weight, text)


def _timeouts(facts: Facts) -> Iterator[Finding]:
    total = facts.recording.total
    count, seconds = total.outcomes["timed_out"], total.seconds.get("timed_out", 0.0)
    if not count:
        return
    usual = total.useful.quantile(0.95)
    text = (
        f"{_calls(count)} ran out of time, after {duration(seconds / count)} on average: "
        f"{percent(seconds / facts.capacity if facts.capacity else 0)} of the workers' time."
    )
    if usual and seconds / count > 5 * usual:
        text += f" 95% of what succeeds does so within {duration(usual)}: a shorter timeout costs less."
    yield Finding(seconds / (facts.capacity or 1.0) + 0.02, text)


def _long_task(facts: Facts) -> Iterator[Finding]:
    """The last attempt of all, if it went on for long when the others had ended."""
    recording = facts.recording
    slow = {worker.id for worker, _ in facts.slow_workers()}
    last = max(
        ((bar.end, lane, bar) for lane in recording.lanes for bar in lane.bars if not bar.outcomes),
        key=lambda found: found[0],
        default=None,
    )
    usual = recording.total.useful.quantile(0.5)
    if last is None or recording.running or last[1].worker_id in slow or len(recording.workers) < 2:
        return
    _, lane, bar = last
    others = max(
        (bar.end for other in recording.lanes if other is not lane and other.bars for bar in other.bars[-1:]),
        default=recording.begin,
    )
    alone = recording.end - max(others, bar.start)
    length = bar.end - bar.start
    if alone < 0.1 * recording.length or length < 3 * usual or usual <= 0:
        return
    yield Finding(
        alone / recording.length,
        f"Task {bar.task_id} ({bar.label}) ran for {duration(length)}, {length / usual:.0f} × the usual, and "
        f"for {_of_makespan(facts, alone)} nothing else ran. Dispatch the longest tasks first, or with a "
        f"higher priority.",
    )


def _delays(facts: Facts) -> Iterator[Finding]:
    idle = facts.seconds_idle_while_delayed()
    share = idle / facts.recording.length
    if share >= 0.1:
        yield Finding(
            share,
            f"For {_of_makespan(facts, idle)} nothing ran, while tasks waited out the delays before their "
            f"retries: a shorter RetryPolicy(delay=...) brings them back sooner.",
        )


def _rates(facts: Facts) -> Iterator[Finding]:
    recording = facts.recording
    for group, rate in recording.rates.items():
        tallies = [worker.tally for worker in recording.workers if not group or worker.group == group]
        calls, cost = sum(tally.calls for tally in tallies), sum(tally.cost for tally in tallies)
        if calls >= 10 and cost / recording.length >= 0.8 * rate:
            who = f"Group {group}" if group else "The pool"
            yield Finding(0.1, f"{who} was used as much as its rate of {rate:.3g} per second allows.")


def _missing_workers(facts: Facts) -> Iterator[Finding]:
    recording = facts.recording
    for worker in recording.workers:
        if worker.error:
            yield Finding(0.5, f"{worker.name} could not be started: {worker.error}.")
    last = {(span.kind, span.who): span for span in recording.spans if span.kind in ("stuck", "cordoned")}
    for (kind, who), span in last.items():
        name = recording.name_of(int(who))
        if kind == "cordoned":
            yield Finding(0.2, f"{name} was given nothing more{f' ({span.why})' if span.why else ''}.")
            continue
        times = recording.span_counts.get((kind, who), 1)
        often = f", {times} times" if times > 1 else ""
        back = ", and is not back yet" if span.end >= recording.end else ""
        yield Finding(0.2, f"{name} did not come back in time from an attempt that was over{often}{back}.")


def _hanging_attempts(facts: Facts) -> Iterator[Finding]:
    """Attempts that have run for long, and still do."""
    recording = facts.recording
    usual = recording.total.useful.quantile(0.95)
    long = [(recording.end - one.start, one) for one in recording.running]
    long = [(seconds, one) for seconds, one in long if usual and seconds > 5 * usual]
    if long:
        seconds, one = max(long, key=lambda found: found[0])
        others = f", and {len(long) - 1} more like it" if len(long) > 1 else ""
        yield Finding(
            1.0,
            f"Task {one.task_id} ({one.label}) has been running on {recording.name_of(one.worker_id)} for "
            f"{duration(seconds)}{others}; 95% of what succeeds does so within {duration(usual)}. "
            f"A timeout would end it.",
        )


def _dead_tasks(facts: Facts) -> Iterator[Finding]:
    recording = facts.recording
    dead = recording.counts.dead
    if not dead:
        return
    by_reason: Counter[str] = Counter()
    for (reason, _), count in recording.counts.reasons.items():
        by_reason[reason] += count
    parts = []
    for reason, count in by_reason.most_common():
        errors: Counter[Error] = Counter()
        for (other, error), seen in recording.counts.reasons.items():
            if other == reason:
                kind, _, text = error.partition(": ")
                errors[kind, text] += seen
        parts.append(f"{count} × {reason}{_because(errors)}")
    one = dead == 1
    hopeless = unrecoverable(recording)
    weight = (dead - hopeless) / max(recording.counts.ended, 1)
    yield Finding(
        weight + 0.03,
        f"{'One task is' if one else f'{dead} tasks are'} dead: {', '.join(parts)}. "
        f"pool.dead_tasks() has {'it' if one else 'them'}.",
    )


def _load(facts: Facts) -> Iterator[Finding]:
    recording, used = facts.recording, facts.utilisation
    free = 1 - used - (facts.resting / facts.capacity if facts.capacity else 0.0)
    threads = sum(worker.threads for worker in recording.workers)
    queued = recording.counts.queued / max(recording.counts.starts, 1)
    ran = recording.total.busy / max(recording.counts.starts, 1)
    if used >= 0.85 and queued > ran:
        yield Finding(
            0.03,
            f"The workers were busy {percent(used)} of their time, and tasks waited {duration(queued)} for "
            f"one that runs {duration(ran)}: more workers would make it quicker.",
        )
    elif free >= 0.5 and queued < ran and recording.counts.starts >= 10 * threads and threads > 1:
        enough = max(1, round(used * threads * 1.3 + 0.5))
        if enough < threads:
            yield Finding(
                0.01,
                f"The workers were idle {percent(free)} of their time, and tasks hardly waited: "
                f"{enough} of {threads} threads would have done.",
            )


def _because(errors: Counter[Error]) -> str:
    """Return what was raised most, in brackets."""
    by_type: Counter[str] = Counter()
    for (kind, _), count in errors.items():
        by_type[kind] += count
    if not by_type:
        return ""
    kind, of_kind = by_type.most_common(1)[0]
    (_, text), count = max(
        ((error, count) for error, count in errors.items() if error[0] == kind), key=lambda found: found[1]
    )
    if not text:
        return f" ({kind})"
    text = first_line(text, 80)
    return f" ({kind}: {text})" if count == of_kind else f" ({kind}, such as: {text})"


def _listed(names: list[str]) -> str:
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
