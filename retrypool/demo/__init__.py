"""`python -m retrypool demo`: several tokens, one API that misbehaves, every task accounted for."""

import sys
from typing import TextIO

from retrypool.demo.client import fetch_all
from retrypool.demo.process import ApiProcess
from retrypool.demo.progress import Progress
from retrypool.demo.report import describe, find_unaccounted

__all__ = ["main"]

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(
    *,
    tasks: int,
    seed: int,
    attempts: int,
    save: str | None = None,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """Run the demo and return its exit code: 0, 1 if a task is unaccounted for, 130 after Ctrl-C.

    The report goes to `out` (default: stdout), progress and complaints to `err` (default: stderr), a picture
    of the run to the file `save`.
    """
    out = sys.stdout if out is None else out
    err = sys.stderr if err is None else err
    try:
        with ApiProcess(seed) as api:
            print(f"API on http://{api.host}:{api.port} with seed {seed}", file=out, flush=True)
            with Progress(err) as progress:  # pyright: ignore[reportArgumentType]
                run = fetch_all(api.host, api.port, tasks=tasks, attempts=attempts, progress=progress)
    except KeyboardInterrupt:
        print("interrupted", file=err)
        return INTERRUPTED

    print("", *describe(run), sep="\n", file=out)
    if save is not None:
        run.recorder.save(save)
        print(f"\na picture of the run is in {save}", file=out)
    problems = find_unaccounted(run)
    for problem in problems:
        print(f"UNACCOUNTED: {problem}", file=err)
    if not problems:
        print("\nevery task is accounted for", file=out)
    return 1 if problems else 0
