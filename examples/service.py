"""A small web service over a pool: POST a page, get an id; GET the id, see how it stands.

On SIGTERM it takes no more, finishes what it has accepted, and goes.
"""

import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from retrypool import Pool, PoolClosed, QueueFull, RetryPolicy, TaskNotFound


def render(page: str) -> str:
    time.sleep(0.05)
    if page == "broken":
        raise ValueError("cannot be rendered")
    return f"<h1>{page}</h1>"


pool: Pool[str, str] = Pool([render] * 4, retry=RetryPolicy(attempts=2), max_queue=100, on_full="raise")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        page = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            self.answer(HTTPStatus.ACCEPTED, {"id": pool.dispatch(page, deadline=60).id})
        except (QueueFull, PoolClosed) as refusal:  # come back later, or to another instance
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(refusal)})

    def do_GET(self) -> None:
        try:
            self.answer(HTTPStatus.OK, pool.status(int(self.path[1:])).to_dict())
        except (ValueError, TaskNotFound):
            self.answer(HTTPStatus.NOT_FOUND, {"error": f"no rendering {self.path[1:]}"})

    def answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, pool.drain_on_signals():
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            threading.Event().wait()  # until the pool is drained and the signal comes on to us
        finally:
            stats = pool.stats()
            print(f"{stats.succeeded} rendered, {stats.died} failed, {stats.waiting} left", flush=True)
            server.shutdown()


if __name__ == "__main__":
    main()
