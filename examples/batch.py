"""A batch that can be interrupted at any moment: run it again, and it goes on where it was.

python batch.py RESULTS: each line of that file is a page and what came of it, written as it is done.
"""

import json
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from _server import running

from retrypool import Pool, RetryPolicy

PAGES = range(1, 301)


def fetch(site: str, page: int) -> dict[str, object]:
    """Return what is to be written of a page. A page that is not there has been done, too."""
    request = urllib.request.Request(f"{site}/pages/{page}", headers={"X-Proxy": "proxy-1"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return {"page": page, "text": response.read().decode()}
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            return {"page": page, "missing": True}
        raise


def main(results: Path) -> None:
    known = results.read_text(encoding="utf-8") if results.exists() else ""
    whole = known[: known.rfind("\n") + 1]  # without a line that was just being written
    results.write_text(whole, encoding="utf-8")
    done = {json.loads(line)["page"] for line in whole.splitlines()}
    todo = [page for page in PAGES if page not in done]
    print(f"{len(done)} pages done, {len(todo)} to do", flush=True)
    retry = RetryPolicy(attempts=5, delay=0)
    with running() as site, results.open("a", encoding="utf-8") as file:
        with Pool([partial(fetch, site)] * 4, retry=retry) as pool:
            # Few at a time: what is lost with the program is what is in hand, and no more.
            for line in pool.map(todo, window=16, ordered=False, progress=True):
                file.write(json.dumps(line) + "\n")
                file.flush()
    print(f"all {len(PAGES)} pages are in {results.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results.jsonl"))
