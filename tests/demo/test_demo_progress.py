"""What is said while the pool works."""

import io

import pytest

from retrypool import Stats
from retrypool.demo.progress import Progress, progress_line


def stats(
    queued: int = 0,
    delayed: int = 0,
    running: int = 0,
    succeeded: int = 0,
    died: int = 0,
    retries: int = 0,
) -> Stats:
    return Stats(
        queued=queued,
        delayed=delayed,
        running=running,
        succeeded=succeeded,
        died=died,
        cancelled=0,
        retries=retries,
        failures=retries + died,
        dead=died,
        dead_dropped=0,
        workers=5,
        abandoned=0,
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


START = stats(queued=295, running=5)
MIDDLE = stats(queued=80, delayed=3, running=5, succeeded=208, died=4, retries=41)
END = stats(succeeded=291, died=9, retries=66)


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        (START, "[------------------------]   0/300  5 running, 295 waiting, 0 retries, 0 dead"),
        (MIDDLE, "[################--------] 212/300  5 running, 83 waiting, 41 retries, 4 dead"),
        (END, "[########################] 300/300  0 running, 0 waiting, 66 retries, 9 dead"),
        (stats(), "[------------------------] 0/0  0 running, 0 waiting, 0 retries, 0 dead"),
    ],
)
def test_line_tells_all_counts(counts: Stats, line: str) -> None:
    assert progress_line(counts) == line


def test_line_is_rewritten_on_a_terminal_and_left_whole_at_the_end() -> None:
    terminal = Terminal()
    with Progress(terminal) as progress:
        assert progress(START)
        assert progress(END)
    assert terminal.getvalue() == f"\r{progress_line(START)}\x1b[K\r{progress_line(END)}\x1b[K\n"


def test_plain_lines_are_written_where_nothing_can_be_rewritten_and_less_often() -> None:
    file = io.StringIO()
    with Progress(file) as progress:
        progress(START)
        progress(END)
    assert file.getvalue().splitlines() == [progress_line(START), progress_line(END)]
    assert progress.interval > Progress(Terminal()).interval


def test_terminal_is_left_alone_when_there_was_nothing_to_say() -> None:
    terminal = Terminal()
    with Progress(terminal):
        pass
    assert terminal.getvalue() == ""
