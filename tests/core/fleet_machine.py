"""What can happen to a fleet, in any order: a pool stepped by hand, whose workers sleep until called."""

import math
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from retrypool import Budget, HealthPolicy, Rate, RetryPolicy, Throttled, WorkerFault, WorkerSpec
from retrypool.events import Event, GroupCooling, GroupEjected, GroupOpened
from retrypool.model.slots import Slot
from retrypool.testing import ManualAttempt, ManualPool

from .fleets import echo

ANY = st.integers(0, 1000)
POLICY = HealthPolicy(faults_in_a_row=2, sample=4, witnesses=2, ejection=20.0, longest_ejection=50.0)
RATES: list[Any] = [None, None, Rate(1), Rate(2, per=10, burst=2), Rate(5, burst=3)]
PATIENT = RetryPolicy(attempts=1000, delay=0)
ERRORS = st.sampled_from(
    [
        OSError(),
        OSError(),
        WorkerFault("ill"),
        WorkerFault("ill"),
        WorkerFault("ill"),
        Throttled(),
        Throttled(retry_after=0.5),
        Throttled(retry_after=7),
    ]
)


@dataclass
class Book:
    """What is known of a group from outside: what it was told, what it was given."""

    cools_until: float = -math.inf
    shut_until: float = -math.inf
    half_open: bool = False
    probes: list[ManualAttempt[Any, Any]] = field(default_factory=list)
    full_at: float = -math.inf


class Fleet(RuleBasedStateMachine):
    """The rules. After each, all workers that were called have looked for a task."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: ManualPool[Any, Any] | None = None
        self.running: list[ManualAttempt[Any, Any]] = []
        self.stuck: list[ManualAttempt[Any, Any]] = []
        self.called: list[Slot] = []
        self.books: dict[str, Book] = {}
        self.rates: dict[str, Any] = {}
        self.seen: set[Slot] = set()
        self.whole: Book = Book()

    @initialize(
        rates=st.lists(st.sampled_from(RATES), min_size=2, max_size=4),
        pool_rate=st.sampled_from([None, None, None, Rate(3, burst=2)]),
        budget=st.sampled_from([None, None, Budget(ratio=0.1, per_second=1)]),
        timeout=st.sampled_from([None, 4.0]),
    )
    def open(self, rates: list[Any], pool_rate: Any, budget: Any, timeout: float | None) -> None:
        self.pool_rate = pool_rate
        self.pool = ManualPool(
            [],
            retry=PATIENT,
            health=POLICY,
            rate=pool_rate,
            retry_budget=budget,
            timeout=timeout,
            listeners=[self.hear],
            wait_for_workers=True,
            grace=1e6,
        )
        for rate in rates:
            self.join(rate, 2)

    # -- what is heard and seen --------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        match event:
            case GroupCooling(group=name, until=until):
                book = self.books[name]
                book.cools_until = max(book.cools_until, until)
                self.shut(book, until)
            case GroupEjected(group=name, until=until):
                self.shut(self.books[name], until)
                assert self.pool is not None
                live = self.pool._engine.scheduler.fleet.live
                assert sum(group.ejected for group in live) < max(len(live), 2)
            case GroupOpened(group=name):
                book = self.books[name]
                book.half_open = False
                book.probes.clear()

    @staticmethod
    def shut(book: Book, until: float) -> None:
        book.shut_until = max(book.shut_until, until)
        book.half_open = True
        book.probes.clear()

    @property
    def now(self) -> float:
        assert self.pool is not None
        return self.pool.clock.monotonic()

    def slots(self) -> list[Slot]:
        assert self.pool is not None
        found = [runner.slot for runner in self.pool._workers]
        for slot in found:
            if slot not in self.seen:  # new: its thread starts by looking for a task
                self.seen.add(slot)
                slot.wake = lambda slot=slot: self.called.append(slot)  # type: ignore[misc]
                self.called.append(slot)
        return found

    def go_on(self) -> None:
        """Let the watchdog and all workers do what they have been called for."""
        assert self.pool is not None
        self.pool.clock.advance(0)
        while self.called or self.new_ones():
            slot = self.called.pop(0)
            if slot.running or slot.stuck is not None or slot not in self.slots():
                continue
            attempt = self.pool._claim(slot)
            if attempt is not None:
                self.check(slot, attempt)
                self.running.append(attempt)
            self.pool.clock.advance(0)

    def new_ones(self) -> bool:
        self.slots()
        return bool(self.called)

    def check(self, slot: Slot, attempt: ManualAttempt[Any, Any]) -> None:
        """May this worker have been given that task?"""
        book = self.books[slot.group.name]
        assert self.now >= book.cools_until, "it was told to wait"
        if book.half_open:
            assert self.now >= book.shut_until or not slot.group.ejected
            assert not any(probe in self.running for probe in book.probes), "two probes"
            book.probes.append(attempt)
        record = attempt.task._record
        cost = 1.0 if record is None else record.cost
        for ledger, rate in ((book, self.rates[slot.group.name]), (self.whole, self.pool_rate)):
            if isinstance(rate, Rate):
                room_at = ledger.full_at - (rate.burst - 1) * rate.interval
                assert self.now >= room_at - 1e-9, "too fast"
                ledger.full_at = max(ledger.full_at, self.now) + cost * rate.interval

    # -- rules -------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4), cost=st.sampled_from([None, None, 0.0, 3.0]), n=ANY, picky=st.booleans())
    def dispatch(self, count: int, cost: float | None, n: int, picky: bool) -> None:
        assert self.pool is not None
        options: dict[str, Any] = {} if cost is None else {"cost": cost}
        workers = self.pool.workers()
        if picky and workers:
            options["exclude"] = {workers[n % len(workers)].group}
        self.pool.dispatch_many(range(count), **options)
        self.go_on()

    @precondition(lambda self: self.running)
    @rule(n=ANY)
    def succeed(self, n: int) -> None:
        self.end(self.running[n % len(self.running)], None)

    @precondition(lambda self: self.running)
    @rule(n=ANY, error=ERRORS)
    def fail(self, n: int, error: Exception) -> None:
        self.end(self.running[n % len(self.running)], error)

    @precondition(lambda self: self.running)
    @rule(first=ERRORS, second=ERRORS)
    def all_fail(self, first: Exception, second: Exception) -> None:
        for number, attempt in enumerate(list(self.running)):
            self.end(attempt, second if number % 2 else first)

    def end(self, attempt: ManualAttempt[Any, Any], error: Exception | None) -> None:
        if attempt in self.running:
            self.running.remove(attempt)
        if error is None:
            attempt.finish(None)
        else:
            attempt.fail(error)
        self.called.append(attempt._slot)
        self.go_on()

    @precondition(lambda self: self.running)
    @rule(n=ANY, actual=st.sampled_from([0.0, 0.5, 4.0]))
    def settle(self, n: int, actual: float) -> None:
        attempt = self.running[n % len(self.running)]
        record = attempt.task._record
        taken = attempt.context._cost
        if taken is None:
            taken = 1.0 if record is None else record.cost
        attempt.context.settle(actual)
        name = attempt.context.group
        for ledger, rate in ((self.books[name], self.rates[name]), (self.whole, self.pool_rate)):
            if isinstance(rate, Rate):
                ledger.full_at += (actual - taken) * rate.interval
        self.go_on()

    @precondition(lambda self: self.running)
    @rule(n=ANY, then=st.sampled_from(["keep", "pause"]), fate=st.sampled_from(["retry", "drop"]))
    def interrupt(self, n: int, then: Any, fate: Any) -> None:
        """The attempts are taken away; their threads come back later."""
        assert self.pool is not None
        self.pool.interrupt_worker(self.running[n % len(self.running)].worker_id, task=fate, then=then)
        self.notice_those_taken_over()
        self.go_on()

    def notice_those_taken_over(self) -> None:
        for attempt in [attempt for attempt in self.running if attempt._slot.stuck is attempt.context]:
            self.running.remove(attempt)
            self.stuck.append(attempt)

    @precondition(lambda self: self.stuck)
    @rule(n=ANY)
    def come_back(self, n: int) -> None:
        self.end(self.stuck.pop(n % len(self.stuck)), None)

    @precondition(lambda self: len(self.rates) < 5)
    @rule(rate=st.sampled_from(RATES), concurrency=st.integers(1, 3))
    def join(self, rate: Any, concurrency: int) -> None:
        assert self.pool is not None
        name = f"group-{len(self.books)}"
        self.books[name], self.rates[name] = Book(), rate
        self.pool.add_worker(WorkerSpec(echo, name=name, group=name, rate=rate, concurrency=concurrency))
        self.go_on()

    @precondition(lambda self: self.pool and len(self.pool.workers()) > 1)
    @rule(n=ANY, how=st.sampled_from(["pause", "resume", "resume", "park", "remove"]))
    def change(self, n: int, how: str) -> None:
        assert self.pool is not None
        workers = self.pool.workers()
        worker_id = workers[n % len(workers)].id
        match how:
            case "pause":
                self.pool.pause_worker(worker_id)
            case "resume":
                self.pool.resume_worker(worker_id)
            case "park":
                self.pool.cordon_worker(worker_id, "revoked")
            case "remove":
                self.pool.remove_worker(worker_id, timeout=0)
                self.notice_those_taken_over()
        self.go_on()

    @rule(stop=st.booleans())
    def pause_all(self, stop: bool) -> None:
        assert self.pool is not None
        self.pool.pause() if stop else self.pool.resume()
        self.go_on()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 1.0, 7.0, 20.0, 60.0]))
    def let_time_pass(self, seconds: float) -> None:
        """From one moment at which something is due to the next, as the watchdog does."""
        assert self.pool is not None
        end = self.now + seconds
        while self.now < end:
            wakeup = self.pool._engine.scheduler.next_wakeup()
            until = end if wakeup is None else min(end, max(wakeup, self.now))
            self.pool.clock.advance(until - self.now)
            self.notice_those_taken_over()
            self.go_on()
