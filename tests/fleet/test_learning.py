"""`rate="learn"`: the pace is found from refusals, against a server that is simulated in virtual time."""

from dataclasses import dataclass
from typing import Any

import pytest

from retrypool import RetryPolicy, Throttled, WorkerSpec
from retrypool.policy.rates import Learner
from retrypool.testing import ManualPool

from .parts import Echo


@dataclass
class Server:
    """A token bucket that tells whom it refuses when there will be a token."""

    rate: float
    burst: float
    level: float = 0.0
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def refuses(self, now: float, cost: float = 1.0) -> float:
        """Take tokens and return 0, or return the seconds to wait."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level >= cost - 1e-9:
            self.level -= cost
            return 0.0
        return (cost - self.level) / self.rate


class Client:
    """Calls as often as its pace and the server's word allow, as long as there is something to ask."""

    def __init__(self, server: Server, latency: float = 0.0) -> None:
        self.server, self.latency = server, latency
        self.pace = Learner()
        self.until = 0.0  # the end of the pause that it was told

    def work(self, start: float, end: float, every: float = 0.0) -> tuple[int, int]:
        """Return how many calls were accepted, and how many refused. `every`: seconds between tasks."""
        now, accepted, refused = start, 0, 0
        while True:
            now = max(now, self.until, self.pace.ready_at(now), start + accepted * every)
            if now >= end:
                return accepted, refused
            self.pace.take(now, 1.0)
            wait = self.server.refuses(now)
            if wait:
                refused += 1
                self.until = now + wait
                self.pace.refused(now, self.until)
            else:
                accepted += 1
                now += self.latency

    @property
    def rate(self) -> float:
        rate = self.pace.per_second
        assert rate is not None
        return rate


SERVERS = [(10, 5), (1, 5), (100, 50), (10, 100), (0.5, 30)]


def test_nothing_is_known_before_something_was_refused() -> None:
    pace = Learner()
    for _ in range(1000):
        assert pace.ready_at(1.0) <= 1.0
        pace.take(1.0, 1.0)
    assert pace.per_second is None


@pytest.mark.parametrize(("rate", "burst"), SERVERS)
def test_it_finds_the_rate_wastes_little_and_is_seldom_refused(rate: float, burst: float) -> None:
    client = Client(Server(rate, burst), latency=0.001)
    accepted, refused = client.work(0, 300)
    assert accepted >= 0.97 * (300 * rate + burst)
    assert refused <= 0.05 * (accepted + refused)
    assert client.rate == pytest.approx(rate, rel=0.15)


def test_server_without_a_burst_costs_a_tenth_at_the_most() -> None:
    """It refuses at the first call that is a little too early, so what is found is a little too low."""
    client = Client(Server(10, 1), latency=0.001)
    accepted, refused = client.work(0, 300)
    assert accepted >= 0.9 * 3000
    assert refused <= 0.05 * (accepted + refused)


@pytest.mark.parametrize(("before", "after"), [(10, 5), (10, 2), (5, 10), (2, 4)])
def test_it_follows_a_change(before: float, after: float) -> None:
    client = Client(Server(before, 5))
    client.work(0, 200)
    client.server.rate = after
    client.work(200, 400)
    accepted, refused = client.work(400, 500)
    assert accepted >= 0.93 * 100 * after
    assert refused <= 0.05 * (accepted + refused)


def test_it_finds_its_way_back_up_after_a_bad_spell() -> None:
    """A tenfold rise is found in a few minutes, not by the hour."""
    client = Client(Server(1, 5))
    client.work(0, 200)
    client.server.rate = 10
    client.work(200, 440)
    assert client.rate == pytest.approx(10, rel=0.25)


@pytest.mark.parametrize("lull", [20, 600, 3600, 86400])
def test_time_in_which_nothing_was_asked_is_no_slow_server(lull: float) -> None:
    client = Client(Server(10, 5))
    client.work(0, 100)
    accepted, refused = client.work(100 + lull, 200 + lull)
    assert accepted >= 0.93 * 1000
    assert refused <= 0.05 * (accepted + refused)


def test_lull_before_anything_was_learnt_is_no_slow_server_either() -> None:
    """One refusal, then nothing to do for most of a minute, then the next refusal."""
    client = Client(Server(10, 5), latency=0.01)
    client.work(0, 0.6)
    client.work(50, 51)
    assert client.rate >= 5


def test_calls_that_come_seldom_do_not_drive_the_rate_up() -> None:
    """It would be far too high when more is asked for (RFC 7661)."""
    client = Client(Server(10, 5))
    client.work(0, 100)
    known = client.rate
    client.work(100, 2000, every=1.0)
    assert client.rate <= 1.5 * known


def test_refusals_of_one_wave_are_one() -> None:
    """Ten calls under way that are all refused: the rate falls once."""
    one, ten = Learner(), Learner()
    for pace, wave in ((one, 1), (ten, 10)):
        now = 0.0
        for _ in range(3):
            for _ in range(20 + wave):
                now += 0.05
                pace.take(now, 1.0)
            for _ in range(wave):
                pace.refused(now, now + 0.5)
            now += 0.5
    assert one.per_second is not None
    assert ten.per_second is not None
    assert ten.per_second == pytest.approx(one.per_second, rel=0.1)


def test_costs_are_learnt_as_costs() -> None:
    """Units per second, not calls: each call takes four, and the pool is told so."""
    pace, server, now, until = Learner(), Server(40, 20), 0.0, 0.0
    while now < 100:
        now = max(now + 0.001, until, pace.ready_at(now))
        pace.take(now, 4.0)
        wait = server.refuses(now, 4.0)
        if wait:
            until = now + wait
            pace.refused(now, until)
    assert pace.per_second == pytest.approx(40, rel=0.3)


def test_pool_learns_each_groups_own_rate() -> None:
    """In a pool, with several threads for each token, and answers that take their time."""
    servers = {"slow": Server(2, 5), "fast": Server(10, 5)}
    specs: list[WorkerSpec[Any, Any]] = [
        WorkerSpec(Echo(), name=name, rate="learn", concurrency=3) for name in servers
    ]
    pool: ManualPool[Any, Any] = ManualPool(specs, retry=RetryPolicy(attempts=1))
    tasks = pool.dispatch_many(range(1200))
    refused, end = 0, 0.0
    while pool.tasks():
        under_way = []
        while attempt := pool.claim():
            under_way.append((attempt, servers[attempt.context.group].refuses(pool.clock.monotonic())))
        pool.clock.advance(0.02)
        for attempt, wait in under_way:
            refused += wait > 0
            # The server counted from when it was asked; the answer took a while.
            attempt.fail(Throttled(retry_after=wait)) if wait else attempt.finish(None)
        end = pool.clock.monotonic()
    assert all(task.exception() is None for task in tasks)
    assert end <= 1.15 * (1200 - 10) / 12
    assert refused <= 0.05 * 1200
    rates = {worker.name: worker.rate for worker in pool.workers()}
    assert rates["slow"] == pytest.approx(2, rel=0.25)
    assert rates["fast"] == pytest.approx(10, rel=0.25)


def test_told_pause_is_never_cut_short_by_what_was_learnt() -> None:
    pool: ManualPool[Any, Any] = ManualPool([WorkerSpec(Echo(), rate="learn")])
    pool.dispatch_many(range(50))
    for number in range(10):
        attempt = pool.claim()
        assert attempt is not None
        attempt.fail(Throttled(retry_after=3))
        pool.clock.advance(2.99)
        assert pool.claim() is None, number
        pool.clock.advance(0.01 + 10)
