"""A batch that can be interrupted, or killed, at any moment: run it again, and it goes on where it was.

python batch.py JOURNAL: the file knows each page by its key, what came of it, and what was tried so far.
"""

import json
import sys
import urllib.error
import urllib.request
from functools import partial

from _server import running

from retrypool import Pool, RetryPolicy, SQLiteStorage

PAGES = range(1, 301)


def fetch(site: str, page: int) -> str | None:
    """Return what a page says, None if there is no such page."""
    request = urllib.request.Request(f"{site}/pages/{page}", headers={"X-Proxy": "proxy-1"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            return None
        raise


def main(journal: str) -> None:
    retry = RetryPolicy(attempts=5, delay=0)
    with running() as site:
        with Pool([partial(fetch, site)] * 4, retry=retry, storage=SQLiteStorage(journal)) as pool:
            # What has ended is not fetched again: its result comes from the journal.
            texts = list(pool.map(PAGES, key=lambda page: f"page-{page}", progress=True))
            fetched = pool.stats().succeeded
    print(f"{fetched} pages fetched now, {len(PAGES) - fetched} known from before")
    print(f"{sum(text is None for text in texts)} are not there; the last one says {json.dumps(texts[-2])}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "batch.db")
