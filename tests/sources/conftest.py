"""Each broker as the conformance suite sees it, and where a real one is to be had."""

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retrypool.sources import MemoryQueue, RabbitQueue, RedisStream, Source

from .servers import Proxy, RabbitServer, RedisServer, Server, running

_number = itertools.count(1).__next__


def need(server: type[Server], library: str) -> None:
    """Skip if a broker can't be had here. Where it must be, that is a failure."""
    reason = server.missing()
    if reason is None and importlib.util.find_spec(library) is None:
        reason = f"{library} is not installed"
    if reason is None:
        return
    if server.word in os.environ.get("RETRYPOOL_SERVERS", "").split():
        pytest.fail(f"{reason}, and these tests must run here: RETRYPOOL_SERVERS names it")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(RedisServer, "redis")
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server  # type: ignore[misc]


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    need(RabbitServer, "pika")
    with running(RabbitServer(tmp_path_factory.mktemp("rabbit"))) as server:
        yield server  # type: ignore[misc]


class Broker:
    """One kind of source: makes queues that nobody else uses."""

    def __init__(self, kind: str, server: Any = None) -> None:
        self.kind, self.server = kind, server
        self._sources: list[Source] = []
        self._proxies: list[Proxy] = []
        self.name = f"queue-{os.getpid()}-{_number()}"
        self._memory: dict[tuple[str, Any], MemoryQueue] = {}

    @property
    def real(self) -> bool:
        return self.server is not None

    def source(self, *, lease: float = 30.0, url: str | None = None, **options: Any) -> Source:
        """Return the queue of this test, as one more process would see it."""
        made: Source
        where = url or getattr(self.server, "url", "")
        if self.kind == "redis":
            made = RedisStream(where, self.name, lease=lease, **options)
        elif self.kind == "rabbitmq":
            made = RabbitQueue(where, self.name, **options)
        else:
            return self._memory.setdefault((self.name, tuple(options)), MemoryQueue(lease=lease, **options))
        self._sources.append(made)
        return made

    def proxy(self) -> tuple[Proxy, str]:
        """Return a proxy before the server, and the URL that leads through it."""
        proxy = Proxy(self.server.port)
        self._proxies.append(proxy)
        return proxy, self.server.url.replace(f":{self.server.port}", f":{proxy.port}")

    def clear(self) -> None:
        for source in self._sources:
            source.close()
        for proxy in self._proxies:
            proxy.close()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    ]
)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    servers: dict[str, Callable[[], Any]] = {
        "memory": lambda: None,
        "redis": lambda: request.getfixturevalue("redis_server"),
        "rabbitmq": lambda: request.getfixturevalue("rabbit_server"),
    }
    it = Broker(request.param, servers[request.param]())
    yield it
    it.clear()


@pytest.fixture
def redis_broker(redis_server: RedisServer) -> Iterator[Broker]:
    it = Broker("redis", redis_server)
    yield it
    it.clear()


@pytest.fixture
def rabbit_broker(rabbit_server: RabbitServer) -> Iterator[Broker]:
    it = Broker("rabbitmq", rabbit_server)
    yield it
    it.clear()
