"""Cool-downs: how long, and how a group comes out of one."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool.core.scheduler import Scheduler
from retrypool.events import GroupCooling, GroupOpened
from retrypool.model.slots import Group, Slot, cool_down
from retrypool.states import DeadReason

from .parts import claim, fail, sleep_on, slot_workers, submit


def cool(scheduler: Scheduler, group: Group, retry_after: float | None, now: float) -> None:
    scheduler.fleet.quarantine.cool(group, retry_after, now)


@pytest.mark.parametrize(
    ("throttles", "length"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10_000, 60), (10**9, 60)]
)
def test_untold_cool_down_doubles_up_to_a_minute(throttles: int, length: float) -> None:
    assert cool_down(throttles) == length


def test_group_doubles_by_itself_until_it_recovers() -> None:
    group = Group("a")
    assert [group.cool(100.0 * n, None) - 100.0 * n for n in range(4)] == [1, 2, 4, 8]
    group.recover()
    assert group.cool(500.0, None) == 501.0


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 100))))
def test_cool_down_is_never_cut_short(throttled: list[tuple[float, float | None]]) -> None:
    group, now, end = Group("a"), 0.0, 0.0
    for passed, retry_after in throttled:
        now += passed
        until = group.cool(now, retry_after)
        assert until >= max(end, now)
        assert until == group.until
        end = until


def test_told_time_is_kept_to_the_second() -> None:
    group, slot = Group("a"), None
    slot = Slot(1, "w", group)
    assert group.cool(10.0, 7.5) == 17.5
    assert group.refuses(slot, 17.4)
    assert not group.refuses(slot, 17.5)


def test_cooling_group_is_given_nothing_and_others_are() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2", "B")
    cool(scheduler, slots["A"].group, 5.0, now=0.0)
    task = submit(scheduler)
    assert claim(scheduler, slots["A"], now=4.9) is None
    assert claim(scheduler, slots["A2"], now=4.9) is None
    assert claim(scheduler, slots["B"], now=4.9) is task


def test_group_is_probed_by_one_worker_and_opens_when_that_succeeds() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2")
    cool(scheduler, slots["A"].group, 5.0, now=0.0)
    first, second = submit(scheduler), submit(scheduler)
    scheduler.advance(5.0)
    assert claim(scheduler, slots["A"], now=5.0) is first
    assert slots["A"].attentive
    assert claim(scheduler, slots["A2"], now=5.0) is None
    scheduler.succeeded(slots["A"], first, 6.0)
    assert claim(scheduler, slots["A2"], now=6.0) is second
    kinds = [type(event) for event in scheduler.take_happened()]
    assert kinds == [GroupCooling, GroupOpened]


def test_all_that_sleep_are_let_in_when_the_probe_has_succeeded() -> None:
    """Its thread looks for the next task then, and calls one of them if there is more to do."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2", "A3")
    cool(scheduler, slots["A"].group, 5.0, now=0.0)
    tasks = [submit(scheduler) for _ in range(3)]
    assert claim(scheduler, slots["A"], now=5.0) is tasks[0]
    called = sleep_on(scheduler, slots, "A2", "A3", now=5.0)
    scheduler.succeeded(slots["A"], tasks[0], 6.0)
    assert claim(scheduler, slots["A"], now=6.0) is tasks[1]
    assert called
    assert set(called) <= {"A2", "A3"}


def test_probe_that_is_throttled_again_closes_the_group_for_longer() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2")
    group = slots["A"].group
    cool(scheduler, group, None, now=0.0)
    submit(scheduler)
    assert claim(scheduler, slots["A"], now=1.0) is not None
    cool(scheduler, group, None, now=1.5)
    assert (group.until, group.probe, slots["A"].attentive) == (3.5, None, False)
    assert claim(scheduler, slots["A2"], now=2.0) is None


def test_attempt_from_before_the_cool_down_is_no_probe() -> None:
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2")
    group = slots["A"].group
    done = submit(scheduler)
    assert claim(scheduler, slots["A"]) is done
    cool(scheduler, group, 5.0, now=0.0)
    scheduler.succeeded(slots["A"], done, 1.0)
    assert group.until == 5.0


def test_probe_that_leaves_lets_another_try() -> None:
    """It may take its time: its thread is busy, and calls nobody."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2")
    cool(scheduler, slots["A"].group, 1.0, now=0.0)
    submit(scheduler)
    task = submit(scheduler)
    assert claim(scheduler, slots["A"], now=1.0) is not None
    called = sleep_on(scheduler, slots, "A2", now=1.0)
    scheduler.retire(slots["A"], now=2.0)
    assert called == ["A2"]
    assert claim(scheduler, slots["A2"], now=2.0) is task


def test_probe_that_runs_out_of_time_and_kills_its_task_lets_another_try() -> None:
    """Its thread hangs, and calls nobody; the task does not come back, and calls nobody either."""
    scheduler = Scheduler()
    slots = slot_workers(scheduler, "A", "A2")
    cool(scheduler, slots["A"].group, 1.0, now=0.0)
    probe = submit(scheduler)
    task = submit(scheduler)
    assert claim(scheduler, slots["A"], now=1.0) is probe
    called = sleep_on(scheduler, slots, "A2", now=1.0)
    fail(scheduler, slots["A"], probe, now=2.0)
    scheduler.bury(probe, DeadReason.ATTEMPTS, OSError(), 2.0)
    assert called == ["A2"]
    assert claim(scheduler, slots["A2"], now=2.0) is task
