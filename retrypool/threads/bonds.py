"""The tokens that a pool follows: those of the pool itself, of workers, of tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from retrypool.model.cancel import CancelToken, Following
from retrypool.threads.works import Works

__all__ = ["Bonds"]


def _nothing() -> None:
    """End nothing: that was done."""


class Bond(Following):
    """That a pool follows a token. What is over holds on to nothing."""

    __slots__ = ("_end", "_token")

    def __init__(self, token: CancelToken, callback: Callable[[CancelToken], object]) -> None:
        self._token: CancelToken | None = token
        self._end: Callable[[], object]
        if type(token) is CancelToken:
            self._end = partial(token._take_back, self)
            token._listen(self, callback)
        else:
            self._end = token.on_cancel(callback)

    @property
    def past(self) -> bool:
        """Whether it is over: then the timers need not hold it."""
        return self._token is None

    def look(self) -> None:
        """Look at the token, which cancels it if its time is over."""
        token = self._token
        if token is not None:
            token.cancelled  # noqa: B018 - see above

    def end(self) -> None:
        """Follow the token no more."""
        self._token = None
        end, self._end = self._end, _nothing  # it leads to the token
        end()


class Bonds:
    """The tokens that one pool follows."""

    # _ends: anybody, one atomic step at a time.
    def __init__(self, engine: Works) -> None:
        self._engine = engine
        self._ends: dict[object, Callable[[], None]] = {}  # how that ends, by what `bind` was told

    def follow(self, token: CancelToken, callback: Callable[[CancelToken], object]) -> Callable[[], None]:
        """Have `callback(token)` called when `token` is cancelled, also if that is for its time.

        Returns a function that ends it.
        """
        bond = Bond(token, callback)
        left = token.time_left()
        if left is not None:
            with self._engine.lock:
                self._engine.scheduler.timers.add(self._engine.monotonic() + left, self._expire, bond)
                happened = self._engine.decided()
            self._engine.act(happened)
        return bond.end

    def _expire(self, bond: Bond, now: float) -> None:
        self._engine.run_errand(bond.look, now)

    def bind(self, key: object, token: CancelToken, callback: Callable[[CancelToken], object]) -> None:
        """Follow a token until `unbind(key)`, or until the pool is over."""
        self._ends[key] = self.follow(token, callback)

    def unbind(self, key: object) -> None:
        """Follow a token no more. Called outside the lock: the token may be of a class of the user's."""
        end = self._ends.pop(key, None)
        if end is not None:
            end()

    def unbind_all(self) -> None:
        """Follow no token any more."""
        for key in list(self._ends):
            self.unbind(key)
