"""The HTTP API that the demo calls: it wants a bearer token, and misbehaves as real ones do.

`Behaviour` decides what it answers, without clock or sockets; the rest serves that over HTTP.

Run as a script it listens on a free port of the loopback, writes that port to stdout as one line,
and ends when its stdin does. Whoever started it holds the other end, so it can't outlive them,
however they end. It imports the standard library only: it runs isolated, without `retrypool` on
its path.
"""

import argparse
import json
import math
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["TOKENS", "Answer", "Behaviour", "Token", "main"]


@dataclass(frozen=True, slots=True)
class Token:
    """What one token is worth: nothing once revoked, else `quota` calls at a time (0: no limit).

    With it, answers take `slowness` times as long.
    """

    revoked: bool = False
    quota: int = 0
    slowness: float = 1.0


TOKENS: Mapping[str, Token] = {
    "token-a": Token(),
    "token-b": Token(revoked=True),
    "token-c": Token(),
    "token-d": Token(quota=12),
    "token-e": Token(),
    "token-f": Token(slowness=20.0),
}

QUOTA_PAUSE = 1.0
"""Seconds until a used-up quota is granted again, counted from the first refusal."""

FASTEST, SLOWEST = 0.020, 0.060
MISSING = 0.03  # share of items that were never there
BROKEN = 0.02  # share of items that end in an error whenever they are asked for
FAILING = 0.08  # share of the answers for all other items that are a 500 ...
CUT_OFF = 0.01  # ... or no answer at all

_ITEM = re.compile(r"/items/\d+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets after `delay` seconds. No status: the connection is cut instead."""

    status: HTTPStatus | None
    delay: float
    retry_after: int | None = None


class Behaviour:
    """Decides every answer from the seed and from what was asked before.

    The fate of an item depends on the seed, its path and how often it was served, never on the
    token or the time, so two runs with one seed meet the same errors in whatever order they ask.
    Not thread-safe.
    """

    def __init__(self, seed: int, tokens: Mapping[str, Token] = TOKENS) -> None:
        self._seed = seed
        self._tokens = tokens
        self._requests: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        self._used: Counter[str] = Counter()
        self._refused_until: dict[str, float] = {}

    def answer(self, token: str | None, path: str, now: float) -> Answer:
        """The answer to one request that arrives at `now`."""
        self._requests[path] += 1
        delay = self._chance("delay", path, self._requests[path]).uniform(FASTEST, SLOWEST)
        granted = self._tokens.get(token or "")
        if token is None or granted is None or granted.revoked:
            return Answer(HTTPStatus.UNAUTHORIZED, delay)
        delay *= granted.slowness
        if (seconds := self._over_quota(token, granted.quota, now)) is not None:
            return Answer(HTTPStatus.TOO_MANY_REQUESTS, delay, retry_after=seconds)
        return Answer(self._fate(path), delay)

    def is_missing(self, path: str) -> bool:
        """Whether the item is a 404, now and for ever."""
        return not _ITEM.fullmatch(path) or self._chance("missing", path).random() < MISSING

    def is_broken(self, path: str) -> bool:
        """Whether the item is a 500 each time."""
        return self._chance("broken", path).random() < BROKEN

    def _fate(self, path: str) -> HTTPStatus | None:
        if self.is_missing(path):
            return HTTPStatus.NOT_FOUND
        if self.is_broken(path):
            return HTTPStatus.INTERNAL_SERVER_ERROR
        self._served[path] += 1
        draw = self._chance("fate", path, self._served[path]).random()
        if draw < CUT_OFF:
            return None
        if draw < CUT_OFF + FAILING:
            return HTTPStatus.INTERNAL_SERVER_ERROR
        return HTTPStatus.OK

    def _over_quota(self, token: str, quota: int, now: float) -> int | None:
        """Whole seconds (the header knows no fractions) to wait, or None if a call is left."""
        if not quota:
            return None
        until = self._refused_until.get(token)
        if until is not None and now >= until:
            del self._refused_until[token]
            self._used[token] = 0
            until = None
        if until is None and self._used[token] >= quota:
            until = self._refused_until[token] = now + QUOTA_PAUSE
        if until is not None:
            return math.ceil(until - now)
        self._used[token] += 1
        return None

    def _chance(self, *what: object) -> random.Random:
        return random.Random(" ".join(map(str, (self._seed, *what))))


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._behaviour = behaviour
        self._lock = threading.Lock()  # guards _behaviour: every connection has a thread of its own

    def decide(self, token: str | None, path: str) -> Answer:
        with self._lock:
            return self._behaviour.answer(token, path, time.monotonic())

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that hangs up is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True  # or head and body, written apart, would wait 40 ms for each other

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        answer = self.server.decide(_bearer(self.headers["Authorization"]), self.path)
        time.sleep(answer.delay)
        if answer.status is None:
            self.close_connection = True
            return
        body = json.dumps({"path": self.path, "status": answer.status.phrase}).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if answer.status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Bearer error="invalid_token"')
        if answer.retry_after is not None:
            self.send_header("Retry-After", str(answer.retry_after))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the demo's own report is what should be read."""


def _bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which then lets go of our stdin
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed: int = parser.parse_args(argv).seed
    server = _Server(Behaviour(seed))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
