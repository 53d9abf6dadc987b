"""The API that fleet.py calls: several tokens, each with its own limit. Run as a process of its own.

Reads its plan as one line of JSON from standard input, answers with its port, and ends with its input.
`/stats` tells what it has answered so far.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Bucket:
    """What one token may do: `rate` calls per second, and `burst` at once after a rest."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.level, self.at = burst, time.monotonic()

    def take(self) -> float:
        """Take one call out and return 0, or return the seconds until there will be one."""
        now = time.monotonic()
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) / self.rate


class Api(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens = plan["tokens"]
        self.buckets = {name: Bucket(t["rate"], t["burst"]) for name, t in self.tokens.items()}
        self.errors = plan["errors"]
        self.chance = random.Random(plan["seed"])
        self.lock = threading.Lock()
        self.answers: Counter[int] = Counter()

    def answer(self, token: str) -> tuple[int, float, float]:
        """Return the status, the seconds until it is sent, and the seconds to wait."""
        plan = self.tokens[token]
        with self.lock:
            status, wait = 200, 0.0
            if plan["revoked"]:
                status = 401
            elif wait := self.buckets[token].take():
                status = 429
            elif self.chance.random() < self.errors:
                status = 500
            self.answers[status] += 1
            return status, plan["latency"] * self.chance.uniform(0.8, 1.2), wait


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Api

    def do_GET(self) -> None:
        if self.path == "/stats":
            self.reply(200, json.dumps(self.server.answers).encode())
            return
        status, latency, wait = self.server.answer(self.headers["Authorization"])
        if status in (200, 500):
            time.sleep(latency)
        self.reply(status, b"{}", {"Retry-After-Ms": str(int(wait * 1000) + 1)} if wait else {})

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


if __name__ == "__main__":
    api = Api(json.loads(sys.stdin.readline()))
    print(api.server_address[1], flush=True)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    sys.stdin.read()
