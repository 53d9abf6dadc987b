"""What can't work as a worker is refused when it is given, with what to do about it."""

import functools
from typing import Any

import pytest

from retrypool import InvalidType, InvalidValue, NoWorkers, Pool, Unrecoverable, WorkerSpec
from retrypool.testing import ManualPool


async def fetch(url: str) -> str:
    return url


def pages(url: str) -> Any:
    yield url


async def pages_later(url: str) -> Any:
    yield url


class Asynchronous:
    async def run(self, ctx: Any, data: str) -> str:
        return data


class Generating:
    def run(self, ctx: Any, data: str) -> Any:
        yield data


class AsynchronousCall:
    async def __call__(self, data: str) -> str:
        return data


class WithoutContext:
    def run(self, data: str) -> str:
        return data


class Wrapped:
    """Of what is wrapped the wrapper counts: it may bring in arguments."""

    def run(self, ctx: Any, data: str) -> str:
        return data


def two(ctx: Any, data: str) -> str:
    return data


def with_session(function: Any) -> Any:
    @functools.wraps(function)
    def call(data: str) -> Any:
        return function("session", data)

    return call


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        (fetch, "async def"),
        (functools.partial(fetch), "async def"),
        (pages_later, "async def"),
        (Asynchronous(), "async def"),
        (AsynchronousCall(), "async def"),
        (pages, "generator function"),
        (Generating(), r"generator function.*ctx\.send"),
        (WithoutContext(), r"run\(ctx, data\): the context comes first"),
        (two, r"it\(data\): a plain function gets the data alone.*current_context\(\)"),
        (lambda: None, r"it\(data\)"),
        (lambda data, *, key: data, r"it\(data\)"),
    ],
)
def test_worker_that_cannot_work_is_refused(worker: Any, words: str) -> None:
    with pytest.raises(InvalidType, match=words):
        Pool([worker])
    with pytest.raises(InvalidType, match=words):
        WorkerSpec(worker)


@pytest.mark.parametrize(
    "worker",
    [
        len,
        int,
        str.upper,
        print,
        functools.partial(two, "ctx"),
        functools.partial(max, "a"),
        with_session(two),
        lambda *data: data,
        lambda data, key=None: data,
        Wrapped(),
    ],
)
def test_worker_that_can_work_is_taken(worker: Any) -> None:
    pool = ManualPool([worker])
    task = pool.dispatch("7")
    pool.claim().run()
    assert task.exception() is None
    pool.close()


@pytest.mark.parametrize("factory", [fetch, pages, lambda name: len])
def test_factory_that_cannot_work_is_refused(factory: Any) -> None:
    with pytest.raises(InvalidType, match="factory"):
        WorkerSpec(factory=factory)


def test_worker_made_by_a_factory_is_checked_when_it_is_made(stage: Any) -> None:
    pool = stage.pool([WorkerSpec(factory=lambda: fetch)])
    stage.until(lambda: pool.workers()[0].error is not None)
    assert isinstance(pool.workers()[0].error, InvalidType)


# -- one object twice ----------------------------------------------------------------------------


class Browser:
    def __init__(self) -> None:
        self.page = ""

    def run(self, ctx: Any, url: str) -> str:
        self.page = url
        return self.page


class Slotted:
    __slots__ = ("page",)

    def __init__(self) -> None:
        self.page = ""

    def run(self, ctx: Any, url: str) -> str:
        return url


@pytest.mark.parametrize("kind", [Browser, Slotted])
def test_same_stateful_object_given_twice_is_warned_of(kind: Any) -> None:
    worker = kind()
    with pytest.warns(RuntimeWarning, match=rf"\[{kind.__name__}\(\.\.\.\) for _ in range\(n\)\]") as caught:
        Pool([worker] * 3).close()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with Pool([worker]) as pool, pytest.warns(RuntimeWarning, match="concurrency=n"):
        pool.add_worker(worker)


def test_what_has_no_state_or_is_meant_to_be_shared_is_not_warned_of() -> None:
    for workers in (
        [len] * 2,
        [Wrapped()] * 2,
        [WorkerSpec(Browser(), concurrency=2)],
        [Browser(), Browser()],
    ):
        Pool(workers).close()


# -- options -------------------------------------------------------------------------------------


def test_typo_in_an_option_is_answered_with_what_was_meant() -> None:
    with pytest.raises(InvalidType, match=r"'time_out'.*Did you mean 'timeout'\?"):
        Pool([len], time_out=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidType, match=r"'concurency'.*Did you mean 'concurrency'\?"):
        WorkerSpec(len, concurency=3)  # type: ignore[call-arg]
    with Pool([len]) as pool:
        with pytest.raises(InvalidType, match=r"'priorty'.*Did you mean 'priority'\?"):
            pool.dispatch("x", priorty=3)  # type: ignore[call-arg]
        with pytest.raises(InvalidType, match=r"'tag'.*Did you mean 'tags'\?"):
            pool.add_worker(len, tag={"a"})  # type: ignore[call-arg]
        with pytest.raises(InvalidType, match=r"'delays'.*Did you mean 'delay'\?"):
            pool.map(["x"], delays=3)  # type: ignore[call-overload]


def test_option_that_is_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(InvalidType, match=r"one of: .*timeout") as caught:
        Pool([len], zzz=3)  # type: ignore[call-arg]
    assert "Did you mean" not in str(caught.value)


def test_exclude_that_names_nobody_is_refused() -> None:
    pool = ManualPool([WorkerSpec(len, name="a"), WorkerSpec(len, name="b", group="backup")])
    with pytest.raises(InvalidValue, match=r"exclude is 'nope'.*a, backup"):
        pool.dispatch("x", exclude={"nope"})
    with pytest.raises(InvalidValue, match="exclude is 7"):
        pool.dispatch("x", exclude={7})
    with pytest.raises(InvalidValue, match="exclude"):
        pool.dispatch_many(["x"], exclude={"nope"})
    with pytest.raises(InvalidValue, match="exclude"):
        next(pool.map(["x"], exclude={"nope"}))
    pool.dispatch("x", exclude={0, "backup-to-come"}, wait_for_worker=True)
    with pytest.raises(NoWorkers):
        pool.dispatch("x", exclude={"a", "backup"})
    pool.force_close()


def test_exclude_may_name_who_has_left() -> None:
    pool = ManualPool([WorkerSpec(len, name="a"), WorkerSpec(str, name="b")])
    pool.remove_worker(0)
    pool.dispatch("x", exclude={"a", 0})
    pool.claim().run()
    pool.close()


def test_unrecoverable_is_still_what_a_worker_says() -> None:
    """Checks look at how a worker is called, not at what it does."""

    def run(data: str) -> None:
        raise Unrecoverable(data)

    pool = ManualPool([run])
    task = pool.dispatch("x")
    pool.claim().run()
    assert isinstance(task.exception(), Unrecoverable)
