"""What people give executors to: each takes ours where it asks for a `ThreadPoolExecutor`."""

import asyncio
import io
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from retrypool import PoolExecutor, RetryPolicy, fixed

MUST = os.environ.get("RETRYPOOL_CLIENTS", "").split()
"""Clients that have to be there: where CI installs them."""


def client(name: str) -> Any:
    if name in MUST:
        return __import__(name)
    return pytest.importorskip(name)


def name_of_thread(*_arguments: Any) -> str:
    return threading.current_thread().name


def test_it_is_a_thread_pool_executor() -> None:
    executor = PoolExecutor(1)
    assert isinstance(executor, ThreadPoolExecutor)
    assert executor._max_workers == 1
    assert not executor._shutdown
    executor.shutdown()
    assert executor._shutdown


def test_event_loop_takes_it_as_its_default() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(PoolExecutor(2, thread_name_prefix="ours"))
        return await asyncio.gather(*(asyncio.to_thread(name_of_thread) for _ in range(20)))

    assert set(asyncio.run(main())) <= {"ours_0", "ours_1"}


def test_event_loop_gets_errors_and_retries() -> None:
    errors = [OSError("once")]

    def flaky() -> str:
        if errors:
            raise errors.pop()
        return "there"

    async def main(executor: PoolExecutor) -> str:
        return await asyncio.get_running_loop().run_in_executor(executor, flaky)

    with PoolExecutor(1, retry=RetryPolicy(attempts=2, delay=fixed(0))) as executor:
        assert asyncio.run(main(executor)) == "there"


def test_tornado_runs_functions_in_it() -> None:
    client("tornado")
    from tornado.ioloop import IOLoop

    async def main() -> str:
        IOLoop.current().set_default_executor(PoolExecutor(1, thread_name_prefix="ours"))
        try:
            return await IOLoop.current().run_in_executor(None, name_of_thread)
        finally:
            await asyncio.get_running_loop().shutdown_default_executor()

    assert asyncio.run(main()) == "ours_0"


def test_dask_computes_in_it() -> None:
    client("dask")
    import dask

    with PoolExecutor(2, thread_name_prefix="ours") as executor, dask.config.set(pool=executor):
        names = dask.compute(*(dask.delayed(name_of_thread)(n) for n in range(10)), scheduler="threads")
    assert set(names) <= {"ours_0", "ours_1"}


def test_grpc_serves_with_it() -> None:
    client("grpc")
    import grpc

    def answer(request: bytes, _context: Any) -> bytes:
        return request.upper()

    handler = grpc.method_handlers_generic_handler(
        "test.Echo", {"Call": grpc.unary_unary_rpc_method_handler(answer)}
    )
    with PoolExecutor(2) as executor:
        server = grpc.server(executor)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test.Echo/Call")
            assert [call(b"abc", timeout=20) for _ in range(3)] == [b"ABC"] * 3
        server.stop(None).wait()


def test_s3transfer_moves_files_with_it() -> None:
    client("s3transfer")
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from s3transfer.manager import TransferConfig, TransferManager

    stored: dict[str, bytes] = {}
    made: list[PoolExecutor] = []

    class Bucket(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            if self.headers.get("Expect"):
                self.send_response_only(100)
                self.end_headers()
            stored[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    def ours(max_workers: int | None = None) -> PoolExecutor:
        made.append(PoolExecutor(max_workers))
        return made[-1]

    with PoolExecutor(3) as executor, ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        executor.submit(server.serve_forever)
        s3 = botocore.session.Session().create_client(
            "s3",
            region_name="nowhere-1",
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
            config=Config(
                signature_version=UNSIGNED,
                request_checksum_calculation="when_required",
                s3={"addressing_style": "path"},
            ),
        )
        with TransferManager(s3, TransferConfig(), executor_cls=ours) as manager:
            for number in range(5):
                manager.upload(io.BytesIO(b"content"), "bucket", f"key-{number}")
        s3.close()
        server.shutdown()
    assert stored == {f"/bucket/key-{number}": b"content" for number in range(5)}
    assert sum(len(each._threads) for each in made) > 0


def test_socket_server_hands_requests_to_it() -> None:
    """As ThreadingMixIn does, with a bounded number of threads."""
    import socketserver

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline().upper())

    with PoolExecutor(2) as executor:

        class Server(socketserver.TCPServer):
            def process_request(self, request: Any, client_address: Any) -> None:
                executor.submit(self._serve, request, client_address)

            def _serve(self, request: Any, client_address: Any) -> None:
                self.finish_request(request, client_address)
                self.shutdown_request(request)

        with Server(("127.0.0.1", 0), Handler) as server:
            executor.submit(server.serve_forever)
            with socket.create_connection(server.server_address, timeout=20) as connection:
                connection.sendall(b"abc\n")
                assert connection.makefile("rb").readline() == b"ABC\n"
            server.shutdown()


# -- threads -------------------------------------------------------------------------------------


def test_threads_start_when_they_are_needed() -> None:
    with PoolExecutor(8) as executor:
        assert len(executor._threads) == 0
        for _ in range(20):
            executor.submit(pow, 2, 2).result()
        assert len(executor._threads) == 1


def test_threads_are_as_many_as_there_are_calls_at_a_time(stage: Any) -> None:
    gate = stage.gate()
    with PoolExecutor(8) as executor:
        futures = [executor.submit(gate.hold) for _ in range(3)]
        assert len(executor._threads) == 3
        futures += [executor.submit(gate.hold) for _ in range(20)]
        assert len(executor._threads) == 8
        gate.open()
    assert all(future.done() for future in futures)


def test_failed_and_cancelled_calls_need_no_more_threads() -> None:
    with PoolExecutor(8) as executor:
        for _ in range(10):
            assert executor.submit(int, "x").exception() is not None
        assert len(executor._threads) == 1


def test_submitting_from_many_threads_starts_no_more_than_allowed() -> None:
    with PoolExecutor(3) as executor, ThreadPoolExecutor(8) as others:
        results = list(others.map(lambda n: executor.submit(pow, n, 2).result(), range(500)))
        assert results == [n * n for n in range(500)]
        assert 1 <= len(executor._threads) <= 3
