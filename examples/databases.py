"""Queries over three connections that the server drops now and then. A wrong query fails at once."""

import http.client
from urllib.parse import urlsplit

from _server import running

from retrypool import Context, Pool, RetryPolicy, Unrecoverable, WorkerSpec, fixed


class Connection:
    """A connection of its own, opened on the thread that uses it, and opened again when it was lost."""

    def __init__(self, address: str) -> None:
        self.server = http.client.HTTPConnection(address)

    def on_start(self) -> None:
        self.server.connect()

    def run(self, ctx: Context, query: str) -> str:
        try:
            self.server.request("POST", "/query", query)
            response = self.server.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            self.server.close()  # half-used; the next request opens it again
            raise
        if response.status == 400:
            raise SyntaxError(f"{text}: {query}")
        return text

    def on_stop(self) -> None:
        self.server.close()


def main() -> None:
    with running() as site:
        address = urlsplit(site).netloc
        workers = [WorkerSpec(factory=lambda: Connection(address), name=f"connection-{n}") for n in range(3)]
        retry = RetryPolicy(delay=fixed(0))
        # A syntax error blames the query. What else goes wrong is tried on another connection.
        with Pool(workers, blame={SyntaxError: Unrecoverable}, retry=retry, timeout=5) as pool:
            tasks = pool.dispatch_many(f"select * from orders where id = {n}" for n in range(100))
            wrong = pool.dispatch("select * from order")
            retried = sum(len(task.history) > 1 for task in pool.as_completed(tasks))
            print(f"{len(tasks)} queries answered, {retried} of them after their connection was lost")
            print(f"the wrong one was tried {max(wrong.attempts, 1)} time: {wrong.exception()}")


if __name__ == "__main__":
    main()
