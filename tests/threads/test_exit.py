"""A pool that is left open when the program ends."""

import subprocess
import sys

SCRIPT = """
import threading

from retrypool import Pool

started = threading.Event()

def work(data):
    started.set()
    threading.Event().wait(0.1)  # long enough for the main thread to be gone
    print(data, flush=True)

def main():
    pool = Pool([work], {options})
    pool.dispatch("first")
    pool.dispatch("second")
    started.wait()

main()
"""


def printed_by(options: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{options}", options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_pool_that_nobody_refers_to_any_more_is_drained_when_the_program_ends() -> None:
    """A function made it, dispatched and returned: its tasks were accepted all the same."""
    assert printed_by("").split() == ["first", "second"]
