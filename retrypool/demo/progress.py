"""How far the pool has come, said while it works."""

from typing import Self, TextIO

from retrypool import Stats

__all__ = ["Progress", "progress_line"]

BAR_WIDTH = 24
_ERASE_TO_END = "\x1b[K"


class Progress:
    """A callback for `pool.wait_with`: a line that is rewritten on a terminal, else repeated."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rewrites = stream.isatty()
        self._written = False
        self.interval = 0.1 if self._rewrites else 1.0
        """How often to be called, in seconds."""

    def __call__(self, stats: Stats) -> bool:
        line = progress_line(stats)
        self._written = True
        self._stream.write(f"\r{line}{_ERASE_TO_END}" if self._rewrites else f"{line}\n")
        self._stream.flush()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._rewrites and self._written:  # leave the last line where it is and go below it
            self._stream.write("\n")
            self._stream.flush()


def progress_line(stats: Stats) -> str:
    """All counts in at most 90 columns."""
    filled = BAR_WIDTH * stats.ended // max(stats.dispatched, 1)
    width = len(str(stats.dispatched))
    return (
        f"[{'#' * filled:-<{BAR_WIDTH}}] {stats.ended:>{width}}/{stats.dispatched}"
        f"  {stats.running} running, {stats.waiting} waiting, {stats.retries} retries,"
        f" {stats.died} dead"
    )
