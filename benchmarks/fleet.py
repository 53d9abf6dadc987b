"""How fast does a fleet of tokens get through its work, and how often is it refused?

A real HTTP server in its own process gives each token its own limit and answers 429 beyond it. One token
is revoked, one is slow, some answers are 500. What the server allows, start-up bursts counted, is the
optimum; the figure is the makespan as a multiple of it.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .harness import Contest, Row, at_most, scaled

TOKENS = 6
TASKS = 800
SEATS = 4
BURST = 5
HEADROOM = 3  # of the burst that a client asks for, so that a jittery network costs no refusal
ERRORS = 0.01
SEEDS = (1, 2, 3)


@dataclass
class Fleet:
    """The tokens, what the server does to each, and what came of the last run of each contender."""

    seed: int
    tokens: dict[str, dict[str, Any]]
    results: dict[str, str] = field(default_factory=dict)

    def optimum(self, tasks: int) -> float:
        """Seconds in which the server allows so many calls."""
        good = [token for token in self.tokens.values() if not token["revoked"]]
        return (tasks - BURST * len(good)) / sum(token["rate"] for token in good)


def fleet(seed: int) -> Fleet:
    """Draw a fleet: the first token is revoked, the second is slow."""
    chance = random.Random(seed)
    tokens = {
        f"token-{n}": {
            "rate": chance.uniform(8, 16),
            "burst": BURST,
            "latency": 0.12 if n == 1 else chance.uniform(0.01, 0.03),
            "revoked": n == 0,
        }
        for n in range(TOKENS)
    }
    return Fleet(seed, tokens)


class Refused(Exception):
    """429, with the headers that say for how long."""

    def __init__(self, headers: Any) -> None:
        super().__init__("429")
        self.headers = headers


class Denied(Exception):
    """401: the token is worth nothing."""


class Failed(Exception):
    """500."""


class Connection(http.client.HTTPConnection):
    """Closed when the thread that it belongs to lets go of it."""

    def __del__(self) -> None:
        self.close()


class Client:
    """One connection with one token; connections belong to threads."""

    def __init__(self, port: int, token: str) -> None:
        self.token = token
        self._port = port
        self._local = threading.local()

    def call(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = Connection("127.0.0.1", self._port, timeout=10)
            connection.connect()
            self._local.connection = connection
        connection.request("GET", "/", headers={"Authorization": self.token})
        response = connection.getresponse()
        response.read()
        match response.status:
            case 429:
                raise Refused(response.headers)
            case 401:
                raise Denied
            case 500:
                raise Failed


@contextmanager
def server(fleet: Fleet) -> Iterator[int]:
    """Start the server, and end it."""
    plan = {"tokens": fleet.tokens, "errors": ERRORS, "seed": fleet.seed}
    command = [sys.executable, str(Path(__file__).with_name("fleet_server.py"))]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        try:
            child.stdin.write(json.dumps(plan) + "\n")
            child.stdin.flush()
            yield int(child.stdout.readline())
        finally:
            child.stdin.close()


def stats(port: int) -> dict[str, int]:
    """Ask the server what it has answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/stats")
    answers: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return answers


Contender = Callable[[Fleet, int, int], int]
"""Takes a fleet, the server's port and a number of tasks; returns how many tasks died."""


def with_retrypool(rate: str | None) -> Contender:
    def contend(fleet: Fleet, port: int, tasks: int) -> int:
        from retrypool import Pool, Rate, RetryPolicy, Throttled, WorkerSpec, parse_retry_after

        class Token:
            def __init__(self, name: str) -> None:
                self.client = Client(port, name)

            def run(self, ctx: Any, data: int) -> None:
                try:
                    self.client.call()
                except Refused as refusal:
                    raise Throttled(retry_after=parse_retry_after(refusal.headers)) from None

        def limit(token: dict[str, Any]) -> Any:
            return Rate(token["rate"], burst=HEADROOM) if rate == "told" else rate

        specs = [
            WorkerSpec(Token(name), name=name, concurrency=SEATS, rate=limit(token))
            for name, token in fleet.tokens.items()
        ]
        # A revoked token answers for itself.
        with Pool(specs, retry=RetryPolicy(attempts=6), blame={Denied: "group"}) as pool:
            pool.dispatch_many(range(tasks))
        return pool.dead_count

    return contend


def with_tenacity(fleet: Fleet, port: int, tasks: int) -> int:
    """A token at random for each try, and exponential back-off in the thread."""
    from tenacity import RetryError, retry, stop_after_attempt, wait_random_exponential

    clients = [Client(port, name) for name in fleet.tokens]
    chance = random.Random(fleet.seed)

    @retry(stop=stop_after_attempt(6), wait=wait_random_exponential(multiplier=0.1, max=30))
    def call(_: int) -> None:
        chance.choice(clients).call()

    dead = 0
    with ThreadPoolExecutor(TOKENS * SEATS) as executor:
        for future in [executor.submit(call, n) for n in range(tasks)]:
            try:
                future.result()
            except RetryError:
                dead += 1
    return dead


def by_hand(fleet: Fleet, port: int, tasks: int) -> int:
    """A round robin over the tokens that waits out a 429, and tries each task six times."""
    clients = itertools.cycle([Client(port, name) for name in fleet.tokens])
    turn = threading.Lock()

    def call(_: int) -> bool:
        for _ in range(6):
            with turn:
                client = next(clients)
            try:
                client.call()
            except Refused as refusal:
                time.sleep(int(refusal.headers["Retry-After-Ms"]) / 1000)
            except (Denied, Failed):
                pass
            else:
                return True
        return False

    with ThreadPoolExecutor(TOKENS * SEATS) as executor:
        return sum(not done for done in executor.map(call, range(tasks)))


def measured(label: str, contender: Contender, fleet: Fleet) -> Callable[[int], float]:
    """Return what runs a contender once and gives its makespan over the optimum."""

    def measure(size: int) -> float:
        with server(fleet) as port:
            start = time.perf_counter()
            dead = contender(fleet, port, size)
            makespan = time.perf_counter() - start
            answers = stats(port)
        calls = sum(answers.values())
        refused = answers.get("429", 0)
        fleet.results[label] = (
            f"{label}: {calls} calls, {refused} refused ({refused / calls:.1%}), "
            f"{answers.get('401', 0)} denied, {dead} dead"
        )
        return makespan / fleet.optimum(size)

    return measure


def contests(scale: float) -> list[Contest]:
    """One contest for each fleet."""
    contenders: dict[str, tuple[Contender, str | None]] = {
        "retrypool": (with_retrypool("told"), None),
        "retrypool, no rate": (with_retrypool(None), None),
        "ThreadPoolExecutor + tenacity": (with_tenacity, "tenacity"),
        "round robin by hand": (by_hand, None),
    }
    made = []
    for seed in SEEDS:
        drawn = fleet(seed)
        size = scaled(TASKS, scale, least=2 * BURST * TOKENS)
        rows = [
            Row(label, measured(label, contender, drawn), size, needs)
            for label, (contender, needs) in contenders.items()
        ]
        made.append(
            Contest(
                f"fleet {seed}, {size} tasks",
                "x optimum",
                rows,
                (at_most(1.05),),
                most_rounds=3,
                note=lambda drawn=drawn: "; ".join(drawn.results.values()),
            )
        )
    return made
