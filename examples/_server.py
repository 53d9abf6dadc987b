"""The world that the examples work against: one local server that misbehaves in many ways."""

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run the server for as long as the block lasts; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        CLOSING.set()
        server.shutdown()
        server.server_close()


LOCK = threading.Lock()
COUNTS: defaultdict[str, int] = defaultdict(int)
QUOTAS = {"key-small": (5, 75), "key-large": (11, 165)}  # requests and tokens in any half second
WINDOWS: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
CLOSING = threading.Event()


def count(what: str) -> int:
    with LOCK:
        COUNTS[what] += 1
        return COUNTS[what]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        _, what, *rest = urlsplit(self.path).path.split("/")
        getattr(self, what)(rest, body)

    def answer(self, status: int, text: str = "", **headers: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked has given up
            self.wfile.write(data)

    def pages(self, rest: list[str], body: str) -> None:
        """A site behind proxies: one is banned, one is slow, some pages are not there, some fail once."""
        proxy, number = self.headers["X-Proxy"], int(rest[0])
        time.sleep(0.15 if proxy == "proxy-slow" else 0.005)
        if proxy == "proxy-banned":
            return self.answer(403)
        if number % 25 == 0:
            return self.answer(404)
        if number % 10 == 3 and count(self.path) == 1:
            return self.answer(502)
        return self.answer(200, f"page {number}")

    def complete(self, rest: list[str], body: str) -> None:
        """A language model: two keys with limits on requests and tokens, and one that was revoked."""
        key, now, tokens = self.headers["Authorization"], time.monotonic(), len(body.split())
        if key not in QUOTAS:
            return self.answer(401)
        with LOCK:
            window = WINDOWS[key] = [call for call in WINDOWS[key] if call[0] > now - 0.5]
            requests, allowed = QUOTAS[key]
            if len(window) >= requests or sum(used for _, used in window) + tokens > allowed:
                return self.answer(429, Retry_After="0.2")
            window.append((now, tokens))
        time.sleep(0.02)
        return self.answer(200, json.dumps({"text": body.upper(), "tokens": tokens}))

    def query(self, rest: list[str], body: str) -> None:
        """A database that drops each connection now and then, and knows one table only."""
        if count("query") % 13 == 0:
            self.close_connection = True  # without an answer
            return None
        return self.answer(200, f"rows of {body}") if "orders" in body else self.answer(400, "no such table")

    def device(self, rest: list[str], body: str) -> None:
        """A rack of phones: one is four times as slow, one hangs at its second command."""
        if rest[0] == "phone-hung" and count("hung") == 2:
            CLOSING.wait(60)
        time.sleep(0.08 if rest[0] == "phone-old" else 0.02)
        return self.answer(200, f"{body} on {rest[0]}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
        """Stay silent."""
