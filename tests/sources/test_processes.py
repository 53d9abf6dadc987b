"""Several processes, some of which are killed, as are the servers. `RETRYPOOL_FULL=1` is the full size."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retrypool import SourceError

from .conftest import Broker, need
from .servers import RabbitServer, RedisServer, Server, running

FULL = os.environ.get("RETRYPOOL_FULL") == "1"
TASKS = 20_000 if FULL else 1_500
WITHIN = 600.0 if FULL else 60.0

# pika forgets to close sockets of connections that break while they are made.
pytestmark = [
    pytest.mark.timeout(900 if FULL else 120),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

both = pytest.mark.parametrize(
    "kind",
    [pytest.param("redis", marks=pytest.mark.redis), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)],
)


@pytest.fixture(autouse=True)
def nothing_is_left_for_the_collector() -> Iterator[None]:
    """What pika has forgotten is found here, where it is ignored, and not in another test."""
    yield
    gc.collect()


class Heads:
    """Processes that work off one queue, and what they have done."""

    def __init__(self, broker: Broker, folder: Path, lease: float = 2.0) -> None:
        self.broker, self.folder, self.lease = broker, folder, lease
        self.processes: list[subprocess.Popen[bytes]] = []
        self.started = 0
        self.reports: list[dict[str, int]] = []

    def start(self, url: str | None = None) -> subprocess.Popen[bytes]:
        self.started += 1
        broker = self.broker
        where = [broker.kind, url or broker.server.url, broker.name, str(self.lease)]
        with (self.folder / f"errors-{self.started}").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("head.py")), *where, str(self.folder / "done")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """Kill the oldest."""
        process = self.processes.pop(0)
        process.kill()
        process.communicate()

    def executed(self) -> Counter[int]:
        path = self.folder / "done"
        return Counter(map(int, path.read_text().split())) if path.exists() else Counter()

    def wait_for(self, wanted: set[int], meanwhile: Callable[[], object] = lambda: None) -> Counter[int]:
        deadline = time.monotonic() + WITHIN
        while wanted - set(executed := self.executed()):
            assert time.monotonic() < deadline, f"{len(wanted - set(executed))} are missing"
            for process in self.processes:
                assert process.poll() is None, "a head has ended"
            meanwhile()
            time.sleep(0.05)
        return executed

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            out, _ = process.communicate(timeout=60)
            if process.returncode != -signal.SIGTERM:  # told before it had begun
                errors = [path.read_text()[-2000:] for path in self.folder.glob("errors-*")]
                assert process.returncode == 0, "\n".join(filter(None, errors))
                self.reports.append(json.loads(out))
        self.processes.clear()

    def clear(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def total(heads: Heads, what: str) -> int:
    return sum(report[what] for report in heads.reports)


@pytest.fixture
def show(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says figures, where somebody has asked for them."""

    def say(text: str) -> None:
        if FULL:
            with capsys.disabled():
                sys.stdout.write(f"\n{request.node.name}: {text}\n")

    return say


@contextlib.contextmanager
def heads_of(broker: Broker, folder: Path, **options: Any) -> Iterator[Heads]:
    heads = Heads(broker, folder, **options)
    try:
        yield heads
    finally:
        heads.clear()


def own_server(kind: str, folder: Path) -> Server:
    folder.mkdir()
    if kind == "redis":
        need(RedisServer, "redis")
        return RedisServer(folder)
    need(RabbitServer, "pika")
    return RabbitServer(folder)


@pytest.mark.parametrize(
    "broker",
    [pytest.param("redis", marks=pytest.mark.redis), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)],
    indirect=True,
)
def test_processes_are_killed_and_nothing_is_lost(
    broker: Broker, tmp_path: Path, show: Callable[[str], None]
) -> None:
    broker.source().send_many(range(TASKS))
    with heads_of(broker, tmp_path) as heads:
        for _ in range(4):
            heads.start()
        kills, seen = 0, 0

        def kill_one_now_and_then() -> None:
            nonlocal kills, seen
            # At its work: when so and so many are done, and not when it is still starting.
            count = sum(heads.executed().values())
            if count - seen > TASKS // 10:
                kills, seen = kills + 1, count
                heads.kill()
                heads.start()

        executed = heads.wait_for(set(range(TASKS)), kill_one_now_and_then)
        heads.stop()
    assert set(executed) == set(range(TASKS))
    assert kills >= (5 if FULL else 1)
    assert broker.source().dead_letters() == []
    twice = sum(executed.values()) - TASKS
    show(f"{TASKS} tasks, {kills} processes killed, 0 lost, {twice} executed twice")
    assert twice <= kills * 60  # what one head holds, and no more


@both
def test_server_is_killed_and_nothing_acknowledged_is_lost(
    kind: str, tmp_path: Path, show: Callable[[str], None]
) -> None:
    times = 10 if FULL else {"redis": 2, "rabbitmq": 1}[kind]
    with running(own_server(kind, tmp_path / "server")) as server:
        broker = Broker(kind, server)
        source = broker.source(send_timeout=0.5)
        source.send(0)
        sent, stop = [0], threading.Event()

        def send() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    source.send(number)
                except SourceError:
                    continue  # not acknowledged: it may be lost
                sent.append(number)

        sending = threading.Thread(target=send)
        with heads_of(broker, tmp_path) as heads:
            heads.start()
            heads.start()
            sending.start()
            try:
                heads.wait_for({0})
                server.sync()
                for _ in range(times):
                    heads.wait_for({sent[-1]})
                    server.kill()
                    server.start()
                heads.wait_for({sent[-1]})
            finally:
                stop.set()
                sending.join()
            executed = heads.wait_for(set(sent))
            heads.stop()
        broker.clear()
    show(
        f"killed {times} times: {len(sent)} acknowledged, 0 lost, "
        f"{sum(executed.values()) - len(executed)} executed twice, {total(heads, 'reconnects')} reconnects"
    )
    assert set(sent) <= set(executed)
    assert total(heads, "reconnects") >= 1


@pytest.mark.redis
def test_late_results_of_a_process_that_was_stopped_are_refused(
    redis_broker: Broker, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """It sleeps for more than two leases, while it holds messages; the others take them."""
    tasks = 4_000 if FULL else 1_500
    with heads_of(redis_broker, tmp_path, lease=1.0) as heads:
        first = heads.start()
        redis_broker.source().send_many(range(tasks))
        deadline = time.monotonic() + WITHIN
        while not heads.executed():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)
        try:
            second = heads.start()
            heads.wait_for(set(range(tasks)) - _held_by_one(redis_broker))
            time.sleep(2.2)
        finally:
            first.send_signal(signal.SIGCONT)
        executed = heads.wait_for(set(range(tasks)))
        heads.stop()
    assert second.returncode == 0
    lost, refused = total(heads, "lost"), total(heads, "refused")
    twice = sum(executed.values()) - tasks
    show(f"{tasks} tasks: {lost} taken away, {refused} late results refused, {twice} executed twice")
    assert lost >= 1
    assert total(heads, "succeeded") == tasks
    assert redis_broker.source().size() == 0


def _held_by_one(broker: Broker) -> set[int]:
    """The numbers that are held just now."""
    source: Any = broker.source()
    client = source.connect()
    try:
        pending = client.xpending_range(source.name, source.group, "-", "+", 100_000)
        ids = [entry["message_id"] for entry in pending]
        return {int(client.xrange(source.name, id, id)[0][1][b"d"]) for id in ids}
    except LookupError:  # done with meanwhile
        return set(range(TASKS))
    finally:
        client.close()


@pytest.mark.parametrize(
    "broker",
    [pytest.param("redis", marks=pytest.mark.redis), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)],
    indirect=True,
)
@pytest.mark.skipif(not FULL, reason="test_losing.py has a smaller one; RETRYPOOL_FULL=1 runs this")
def test_five_hundred_replies_are_lost(broker: Broker, tmp_path: Path, show: Callable[[str], None]) -> None:
    proxy, url = broker.proxy()
    proxy.cut_replies(500, every=23 if broker.kind == "redis" else 40)
    sent: list[int] = []
    with heads_of(broker, tmp_path) as heads:
        heads.start(url)
        heads.start(url)
        source = broker.source(url=url)
        while proxy.cuts < 500:
            source.send(len(sent))
            sent.append(len(sent))
        executed = heads.wait_for(set(sent))
        heads.stop()
    show(f"{proxy.cuts} replies lost, {len(sent)} sent, 0 lost, {sum(executed.values()) - len(sent)} twice")
    assert set(executed) == set(sent)
