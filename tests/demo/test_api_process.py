"""The API over real HTTP, in its real process."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from retrypool.demo import api as api_module
from retrypool.demo.api import TOKENS, Behaviour
from retrypool.demo.process import ApiProcess

SEED = 7
PATHS = [f"/items/{n}" for n in range(1, 301)]


@pytest.fixture
def api() -> Iterator[ApiProcess]:
    with ApiProcess(SEED) as api:
        yield api


@pytest.fixture
def connection(api: ApiProcess) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(api.host, api.port, timeout=30)
    yield connection
    connection.close()


def get(
    connection: http.client.HTTPConnection, path: str, token: str | None = "token-a"
) -> http.client.HTTPResponse:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()  # or the connection cannot be used again
    return response


def first_path(status: HTTPStatus | None) -> str:
    """The first item whose first answer is this one."""
    return next(p for p in PATHS if Behaviour(SEED).answer("token-a", p, now=0.0).status == status)


def test_item_is_served_as_json_over_a_connection_that_stays_open(
    connection: http.client.HTTPConnection,
) -> None:
    path = first_path(HTTPStatus.OK)
    connection.request("GET", path, headers={"Authorization": "Bearer token-a"})
    response = connection.getresponse()
    assert (response.status, response.version) == (200, 11)
    assert response.headers["Content-Type"] == "application/json"
    assert json.load(response)["path"] == path

    used = connection.sock
    assert used is not None
    get(connection, "/none")
    assert connection.sock is used


@pytest.mark.parametrize("token", [None, "token-b", "nonsense"])
def test_refused_token_is_a_401_that_asks_for_a_bearer(
    connection: http.client.HTTPConnection, token: str | None
) -> None:
    response = get(connection, "/items/1", token)
    assert response.status == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_used_up_quota_is_a_429_with_retry_after(connection: http.client.HTTPConnection) -> None:
    statuses = [get(connection, "/none", "token-d").status for _ in range(TOKENS["token-d"].quota)]
    assert set(statuses) == {404}
    response = get(connection, "/none", "token-d")
    assert (response.status, response.headers["Retry-After"]) == (429, "1")


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR])
def test_failure_that_the_seed_foretells_is_served(
    connection: http.client.HTTPConnection, status: HTTPStatus
) -> None:
    assert get(connection, first_path(status)).status == status


def test_cut_off_answer_closes_the_connection_and_the_next_request_works(
    connection: http.client.HTTPConnection,
) -> None:
    path = first_path(None)
    with pytest.raises(http.client.RemoteDisconnected):
        get(connection, path)
    connection.close()
    assert get(connection, "/none").status == 404


def test_every_answer_is_the_one_that_the_seed_foretells(
    connection: http.client.HTTPConnection,
) -> None:
    foretold = Behaviour(SEED)
    for path in PATHS[:20]:
        for token in ("token-a", "token-b"):
            expected = foretold.answer(token, path, now=0.0).status
            if expected is None:
                with pytest.raises(http.client.RemoteDisconnected):
                    get(connection, path, token)
                connection.close()
            else:
                assert get(connection, path, token).status == expected


def test_process_is_gone_after_the_block() -> None:
    with ApiProcess(SEED) as api:
        idle = socket.create_connection((api.host, api.port), timeout=30)
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((api.host, api.port), timeout=30)


def test_process_is_gone_after_an_error_in_the_block() -> None:
    with pytest.raises(ZeroDivisionError), ApiProcess(SEED) as api:
        _ = 1 / 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((api.host, api.port), timeout=30)


def test_process_that_does_not_end_by_itself_is_killed() -> None:
    with ApiProcess(SEED, grace=0.0) as api:
        os.kill(api.pid, signal.SIGSTOP)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((api.host, api.port), timeout=30)


STARTER = """
from retrypool.demo.process import ApiProcess
with ApiProcess(1) as api:
    print(api.port, flush=True)
    input()
"""


def test_process_dies_with_a_starter_that_is_killed() -> None:
    """It inherits the starter's stderr, so reading that to its end waits for both."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline())
        starter.kill()
        _, stderr = starter.communicate(timeout=30)
    assert stderr == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)


def test_process_that_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "__file__", os.devnull)
    with pytest.raises(RuntimeError, match="did not start: exit code 0"), ApiProcess(SEED):
        pass
