"""The demo's workers, one for each token, and the run that sets a pool of them to work."""

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from retrypool import (
    Context,
    DeadTask,
    Pool,
    Recorder,
    RetryPolicy,
    Stats,
    Task,
    Throttled,
    Unrecoverable,
    WorkerInfo,
    WorkerSpec,
)
from retrypool.demo.api import TOKENS
from retrypool.demo.progress import Progress

__all__ = ["Run", "ServerError", "TokenWorker", "fetch_all"]

TIMEOUT = 10.0  # for one attempt: the API never takes that long, so its process would be in trouble


class ServerError(Exception):
    """The API failed at its own end; another try may well succeed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return f"{self.status} {HTTPStatus(self.status).phrase}"


class TokenWorker:
    """Fetches pages with one token, over a connection of its own that it opens again when lost."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection(host, port)
        self._headers = {"Authorization": f"Bearer {token}"}

    def run(self, ctx: Context, path: str) -> str:
        """Return the path that the API says it served; raise what its answer calls for."""
        response, body = self._get(path, ctx.remaining)
        match response.status:
            case HTTPStatus.OK:
                return str(json.loads(body)["path"])
            case HTTPStatus.UNAUTHORIZED:
                raise PermissionError("401 token refused")
            case HTTPStatus.NOT_FOUND:
                raise Unrecoverable(f"404 no such page: {path}")
            case HTTPStatus.TOO_MANY_REQUESTS:
                raise Throttled("429 over quota", retry_after=response.headers["Retry-After"])
            case status:
                raise ServerError(status)

    def on_stop(self) -> None:
        self._connection.close()

    def _get(self, path: str, timeout: float | None) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._connection
        connection.timeout = timeout  # for a connection that is about to be opened
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            return response, response.read()
        except BaseException:
            connection.close()  # half-used; the next request opens it again
            raise


@dataclass(frozen=True, slots=True)
class Run:
    """What is left of a run once the pool has nothing more to do."""

    tasks: Sequence[Task[str, str]]
    dead: Sequence[DeadTask[str]]
    stats: Stats
    workers: Sequence[WorkerInfo]
    recorder: Recorder


def fetch_all(host: str, port: int, *, tasks: int, attempts: int, progress: Progress) -> Run:
    """Fetch the items 1 to `tasks`, one worker for each token, and say how far it is meanwhile."""
    workers = [WorkerSpec(TokenWorker(host, port, token), name=token) for token in TOKENS]
    retry = RetryPolicy(attempts=attempts)
    with Pool(workers, retry=retry, timeout=TIMEOUT, name="demo") as pool, Recorder(pool) as recorder:
        dispatched = [pool.dispatch(f"/items/{n}", name=f"item-{n}") for n in range(1, tasks + 1)]
        pool.wait_with(progress, progress.interval)
        return Run(dispatched, pool.dead_tasks(), pool.stats(), pool.workers(), recorder)
