"""Where a broker is, and what becomes of URLs that say nothing of the kind. No server is asked."""

import pytest

from retrypool import InvalidType, InvalidValue, MissingExtra
from retrypool.sources import RabbitQueue, RedisStream, from_url

WRONG = [
    "http://user:secret@host",
    "host",
    "",
    "redis://user:secret@host:port/0",
    "amqp://user:secret@host:port",
]


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize(("kind", "library"), [(RedisStream, "redis"), (RabbitQueue, "pika")])
def test_url_that_is_none_is_refused_without_its_password(kind: type, library: str, url: str) -> None:
    pytest.importorskip(library)
    with pytest.raises(InvalidValue, match="url is") as refusal:
        kind(url, "pages")
    assert "secret" not in str(refusal.value)


def test_source_of_one_string() -> None:
    for url, kind, library in (
        ("redis://localhost:6379/0#pages", RedisStream, "redis"),
        ("rediss://localhost/0#pages", RedisStream, "redis"),
        ("amqp://localhost/%2F#pages", RabbitQueue, "pika"),
    ):
        pytest.importorskip(library)
        source = from_url(url)
        assert isinstance(source, kind)
        assert source.name == "pages"
    for wrong in ("redis://user:secret@localhost/0", "ftp://user:secret@localhost#pages"):
        with pytest.raises(InvalidValue, match="the source is") as refusal:
            from_url(wrong)
        assert "secret" not in str(refusal.value)
    with pytest.raises(InvalidType):
        from_url(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "library"), [(RedisStream, "redis"), (RabbitQueue, "pika")])
def test_library_that_is_missing(kind: type, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(MissingExtra, match=f"needs {library}"):
        kind("redis://localhost", "pages")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": ""}, InvalidValue),
        ({"name": 7}, InvalidType),
        ({"max_deliveries": 0}, InvalidValue),
        ({"max_deliveries": True}, InvalidType),
        ({"send_timeout": -1}, InvalidValue),
        ({"lease": 0}, InvalidValue),
        ({"lease": "long"}, InvalidType),
        ({"group": ""}, InvalidValue),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], error: type[Exception]) -> None:
    pytest.importorskip("redis")
    with pytest.raises(error):
        RedisStream(**{"url": "redis://localhost", "name": "pages", **options})  # type: ignore[arg-type]
