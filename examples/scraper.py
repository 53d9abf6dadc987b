"""Two hundred pages through four proxies: one is banned, one is slow, and some pages are not there."""

import urllib.error
import urllib.request

from _server import running

from retrypool import Context, Pool, Recorder, RetryPolicy, Unrecoverable, WorkerSpec


class Proxy:
    """Fetches pages through one proxy."""

    def __init__(self, name: str, site: str) -> None:
        self.name = name
        self.site = site

    def run(self, ctx: Context, page: int) -> str:
        # A real proxy would go into the opener. This server looks at a header.
        request = urllib.request.Request(f"{self.site}/pages/{page}", headers={"X-Proxy": self.name})
        try:
            with urllib.request.urlopen(request, timeout=ctx.remaining) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:  # the page is to blame: no proxy will find it
                raise Unrecoverable(f"no such page: {page}") from None
            raise  # try it through another proxy


def main() -> None:
    with running() as site:
        names = ["proxy-1", "proxy-2", "proxy-slow", "proxy-banned"]
        proxies = [WorkerSpec(Proxy(name, site), name=name) for name in names]
        with Pool(proxies, timeout=5, retry=RetryPolicy(attempts=5)) as pool, Recorder(pool) as run:
            tasks = pool.dispatch_many(range(1, 201))
        found = [task.result() for task in tasks if task.exception() is None]
        print(f"{len(found)} pages, from {found[0]!r} to {found[-1]!r}")
        print(f"{len(pool.dead_tasks())} pages are not there")
        print(run.report())


if __name__ == "__main__":
    main()
