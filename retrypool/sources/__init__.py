"""Work from elsewhere: the messages of a broker, which several pools work off together.

>>> from retrypool import Pool
>>> from retrypool.sources import MemoryQueue
>>> source = MemoryQueue("words")
>>> source.send("hello")
'1'
>>> with Pool([str.upper] * 2) as pool:
...     pool.consume(source, idle=0).succeeded
1
"""

from urllib.parse import urlsplit, urlunsplit

from retrypool.errors import InvalidType, InvalidValue
from retrypool.sources.base import Consumed, Source, without_password
from retrypool.sources.letters import DeadLetter
from retrypool.sources.memory import MemoryQueue
from retrypool.sources.rabbit import RabbitQueue
from retrypool.sources.redis import RedisStream

__all__ = ["Consumed", "DeadLetter", "MemoryQueue", "RabbitQueue", "RedisStream", "Source", "from_url"]


def from_url(url: str) -> Source:
    """Return the source that `url` names: the broker's URL with the queue's name as its fragment.

    `redis://localhost/0#pages` is a `RedisStream`, `amqp://localhost/#pages` a `RabbitQueue`; `rediss`,
    `unix` and `amqps` are known too. Raises `InvalidValue` for anything else.
    """
    expected = "a URL such as redis://localhost/0#pages or amqp://localhost/#pages"
    if not isinstance(url, str):
        raise InvalidType("the source", url, expected)
    parts = urlsplit(url)
    if not parts.fragment:
        raise InvalidValue(
            "the source", without_password(url), f"{expected}: the name of the queue follows the #"
        )
    broker = urlunsplit(parts._replace(fragment=""))
    match parts.scheme:
        case "redis" | "rediss" | "unix":
            return RedisStream(broker, parts.fragment)
        case "amqp" | "amqps":
            return RabbitQueue(broker, parts.fragment)
    raise InvalidValue("the source", without_password(url), expected)
