"""Whatever happens to a fleet: nobody is called too early, too often or too fast, and nobody starves."""

from hypothesis import settings
from hypothesis.stateful import invariant

from retrypool import Throttled
from retrypool.model.slots import Slot

from .fleet_machine import Fleet


class FleetMachine(Fleet):
    """What must hold once all workers that were called have looked for a task."""

    @invariant()
    def some_group_is_not_ejected(self) -> None:
        if self.pool is not None:
            live = self.pool._engine.scheduler.fleet.live
            assert not live or not all(group.ejected for group in live)

    @invariant()
    def nobody_sleeps_who_could_work(self) -> None:
        """Unless the clock has something to do first: there is a moment at which it will be called."""
        if self.pool is None:
            return
        scheduler = self.pool._engine.scheduler
        wakeup = scheduler.next_wakeup()
        assert wakeup is None or wakeup > self.now
        for slot in self.slots():
            if self.may_work(slot):
                left = [task for task in scheduler.backlog if self.is_for(slot, task)]
                assert not left, f"{slot} sleeps on {left}"

    def may_work(self, slot: Slot) -> bool:
        assert self.pool is not None
        fleet = self.pool._engine.scheduler.fleet
        if slot.running or slot.stuck is not None or slot.retired or slot.paused or fleet.paused:
            return False
        if slot.group.suspected is not None or fleet.quarantine.holds:
            return False
        book = self.books[slot.group.name]
        if slot.cordoned_for is not None or self.now < book.cools_until:
            return False
        if book.half_open and (slot.group.shut(self.now) or any(p in self.running for p in book.probes)):
            return False
        paces = [pace for pace in (slot.group.pace, fleet.pace) if pace is not None]
        return all(pace.ready_at(self.now) <= self.now for pace in paces)

    def is_for(self, slot: Slot, task: object) -> bool:
        assert self.pool is not None
        scheduler = self.pool._engine.scheduler
        if not task._settings.constraints.suits(slot):  # type: ignore[attr-defined]
            return False
        # The probe of an outage may be made with any task.
        return scheduler.fleet.quarantine.outage is not None or scheduler.admits(slot, task)  # type: ignore[arg-type]

    def teardown(self) -> None:
        """Every task comes to its end, once its workers may work and succeed."""
        if self.pool is None:
            return
        self.pool.resume()
        for worker in self.pool.workers():
            self.pool.resume_worker(worker.id)
        self.join(None, 1)
        self.join(None, 1)
        for _ in range(2000):
            while self.stuck:
                self.come_back(0)
            while self.running:
                self.succeed(0)
            self.nobody_sleeps_who_could_work()
            if not self.pool.tasks():
                break
            wakeup = self.pool._engine.scheduler.next_wakeup()
            assert wakeup is not None, "nothing will ever happen again"
            self.let_time_pass(max(wakeup - self.now, 0.001))
        assert self.pool.tasks() == []
        assert self.pool.dead_tasks() == []


TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=40)


def test_suspect_that_is_cleared_while_it_cools_is_not_said_to_be_open() -> None:
    it = FleetMachine()
    it.open(rates=[None, None], pool_rate=None, budget=None, timeout=None)
    it.join(concurrency=3, rate=None)
    it.dispatch(cost=None, count=4, n=0, picky=False)
    it.all_fail(first=OSError(), second=Throttled("throttled"))
    it.let_time_pass(seconds=0.1)
    it.all_fail(first=OSError(), second=OSError())
    it.let_time_pass(seconds=1.0)
    it.nobody_sleeps_who_could_work()
