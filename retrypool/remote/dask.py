"""Hands in the processes of a Dask cluster: actors of `distributed`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

from retrypool.remote.engine import EngineClosed, Place
from retrypool.remote.host import Host

__all__ = ["DaskEngine"]

log = logging.getLogger("retrypool")

BETWEEN_LOOKS = 1.0
"""Seconds between two questions to the scheduler, at least."""

WARY = 5.0
"""Seconds without a heartbeat after which a process is given no new hands, or `silence` if that is less."""


def is_closed(client: Any) -> bool:
    """Return whether a client is of no use any more."""
    return client.status in ("closing", "closed")


def start(client: Any, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
    """Run a coroutine in a client's loop."""
    try:
        if is_closed(client):
            raise ConnectionError("the Dask client is closed")
        return asyncio.run_coroutine_threadsafe(coroutine, client.loop.asyncio_loop)
    except BaseException as error:  # noqa: BLE001 - whatever the engine raises is for the one who waits
        coroutine.close()
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


class DaskEngine:
    """Makes an actor for each hand. Those in one process have a thread each: none waits for another."""

    def __init__(
        self,
        client: Any,
        connect: Callable[[], Any] | None,
        *,
        silence: float,
        workers: Collection[str] | None,
        resources: Mapping[str, float] | None,
    ) -> None:
        self.client = client
        self.view = _View(self, silence)
        self._connect = connect  # makes another client, when this one has closed itself
        self._connecting: threading.Thread | None = None  # under _lock
        self._lock = threading.Lock()
        self._workers = None if workers is None else set(workers)
        self._resources = None if resources is None else dict(resources)

    def place(self) -> Future[Place]:
        """Make an actor."""
        if is_closed(self.client):
            broken: Future[Place] = Future()
            broken.set_exception(self._reconnect())
            return broken
        self.view.refresh()
        return start(self.client, self._place(self.client))

    def _reconnect(self) -> Exception:
        """Begin to make another client, if there is a function for that; return what to raise meanwhile."""
        if self._connect is None:
            return EngineClosed(
                "the Dask client is closed; it closes itself when the scheduler is away for longer than its "
                "timeout: give Client(timeout=...) more, or a function that makes a client"
            )
        with self._lock:
            if self._connecting is None or not self._connecting.is_alive():
                # In a thread: it may wait for the scheduler for as long as the client's timeout.
                self._connecting = threading.Thread(
                    target=self._renew, args=(self._connect,), name="retrypool-connect", daemon=True
                )
                self._connecting.start()
        return ConnectionError("the Dask client is closed, and another one is being made")

    def _renew(self, connect: Callable[[], Any]) -> None:
        try:
            if is_closed(self.client):
                self.client = connect()
        except Exception:
            log.warning("no Dask client could be made; it is tried again", exc_info=True)

    async def _place(self, client: Any) -> Place:
        from distributed import Actor  # on first use: it is there if somebody has made a client

        allowed = self.view.without_the_silent(self._workers)
        future = client.submit(
            Host,
            key=f"retrypool-{uuid.uuid4().hex}",
            actor=True,
            pure=False,
            workers=None if allowed is None else sorted(allowed),
            resources=self._resources,
        )
        try:
            await _ended(future)
            # Not with `gather`, which asks all workers that are to be gathered from at once, and so waits for
            # those that are gone.
            holders = await client.scheduler.who_has(keys=[future.key])
            address = holders[future.key][0]
        except BaseException:
            future.release()
            raise
        # An actor belongs to the client that is current where it is made, which may be another one.
        with client.as_current():
            from distributed import Actor  # here, where the engine is known to be there

            return DaskPlace(self, client, Actor(Host, address, future.key), future, address)


async def _ended(future: Any) -> None:
    """Wait for a future of Dask's, in the loop; raise its error. Does not fetch its result."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def tell(_: Any) -> None:  # in a thread
        error = future.exception() if future.status == "error" else None
        if future.status == "cancelled":
            error = ConnectionError("the scheduler is gone")
        loop.call_soon_threadsafe(ended.set_result, error)

    future.add_done_callback(tell)
    error = await ended
    if error is not None:
        raise error


class DaskPlace:
    """An actor."""

    def __init__(self, engine: DaskEngine, client: Any, actor: Any, future: Any, address: str) -> None:
        self._engine = engine
        self._client = client
        self._actor = actor
        self._future = future
        self._address = address
        self._since = time.monotonic()

    def ask(self, method: str, *args: object, **kwargs: object) -> Future[Any]:
        """Call a method of the actor."""
        return start(self._client, self._ask(method, args, kwargs))

    async def _ask(self, method: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        return await getattr(self._actor, method)(*args, **kwargs)

    def lost(self, *, started: bool = True) -> str | None:  # noqa: ARG002 - the actor has been made
        """Ask the scheduler: the connection to a stopped process only stays silent."""
        status = self._future.status
        if status not in ("finished", "pending"):
            return f"the scheduler says that the actor is {status}"
        view = self._engine.view
        view.refresh()
        return view.verdict(self._address, self._since)

    def leave(self, *, lost: bool) -> None:  # noqa: ARG002
        """Have the scheduler forget the actor. Its thread finishes what it runs."""
        self._actor = None
        self._future.release()

    def kill(self) -> bool:
        """Return False: the process is not the hand's alone."""
        return False


class _View:
    """What the scheduler knows of its workers, asked for at most once a second, while somebody waits."""

    def __init__(self, engine: DaskEngine, silence: float) -> None:
        self._engine = engine
        self._silence = silence
        self._wary = min(WARY, silence)
        self._pending: Future[Any] | None = None
        self._asked = 0.0
        self._at = 0.0  # when what is below was asked for
        self._seen: dict[str, tuple[float, float]] = {}  # the last heartbeat, and since when it is the last

    def refresh(self) -> None:
        """Ask the scheduler, if it was not asked just now."""
        now = time.monotonic()
        pending = self._pending
        if (pending is None or pending.done()) and now - self._asked >= BETWEEN_LOOKS:
            self._asked = now
            self._pending = start(self._engine.client, self._fetch(now))

    async def _fetch(self, asked: float) -> None:
        # The clocks of two machines may differ: what counts is how long the same heartbeat is the last.
        identity = await self._engine.client.scheduler.identity()
        now, seen = time.monotonic(), self._seen
        fresh: dict[str, tuple[float, float]] = {}
        for address, worker in identity["workers"].items():
            last = worker["last_seen"]
            known = seen.get(address)
            fresh[address] = known if known is not None and known[0] == last else (last, now)
        self._seen, self._at = fresh, asked

    def verdict(self, address: str, since: float) -> str | None:
        """Say why the process is lost in which an actor was made at that time."""
        if self._at <= since:
            return None
        known = self._seen.get(address)
        if known is None:
            return f"the scheduler does not know {address} any more"
        silent = self._at - known[1]
        return f"{address} was silent for {silent:.0f} s" if silent > self._silence else None

    def without_the_silent(self, allowed: set[str] | None) -> set[str] | None:
        """Return who may be given a new hand; None for anybody."""
        silent = {address for address, (_, since) in self._seen.items() if self._at - since > self._wary}
        if not silent:
            return allowed
        rest = (allowed or set(self._seen)) - silent
        return rest or allowed
