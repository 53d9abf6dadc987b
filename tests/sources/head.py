"""A head in a process of its own: works a queue off until it is told to stop, and says then what it has done.

python head.py KIND URL NAME LEASE FILE: each number that it gets is written to FILE, one a line.
"""

import dataclasses
import json
import logging
import os
import signal
import sys
import time

from retrypool import CancelToken, Pool, WorkerSpec
from retrypool.sources import RabbitQueue, RedisStream


class Writer:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def run(self, _ctx: object, number: int) -> None:
        time.sleep(0.001)  # a call
        os.write(self._file, f"{number}\n".encode())


def main(kind: str, url: str, name: str, lease: str, path: str) -> None:
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    source = RedisStream(url, name, lease=float(lease)) if kind == "redis" else RabbitQueue(url, name)
    stop = CancelToken()
    signal.signal(signal.SIGTERM, lambda *_: stop.cancel())
    with Pool([WorkerSpec(Writer(path), concurrency=4)]) as pool:
        done = pool.consume(source, window=50, cancel=stop)
    sys.stdout.write(json.dumps(dataclasses.asdict(done)))


if __name__ == "__main__":
    main(*sys.argv[1:])
