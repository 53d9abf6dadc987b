"""CPython's own tests of thread pools are the contract: `PoolExecutor` passes them as they stand.

They are loaded from the Python that runs this, where it ships them, with our class in the place of
theirs; each runs in a process of its own, with a time limit.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("contract_child.py")

#: Seconds for one test, on a machine that is busy with other things.
LIMIT = 55

#: Most of them wait most of the time.
AT_ONCE = 4

# What these look at is how ThreadPoolExecutor is made inside, not what an executor does.
COUNTS_THREADS = "counts the threads in the private `_threads`, which start one by one there"
JOINS_THREADS = "joins the threads in the private `_threads`"
NAMES_THREADS = "reads thread names from the private `_threads`"
LEFT_OUT = {
    "test_thread_pool.ThreadPoolExecutorTest.test_idle_thread_reuse": COUNTS_THREADS,
    "test_thread_pool.ThreadPoolExecutorTest.test_saturation": COUNTS_THREADS,
    "test_shutdown.ThreadPoolShutdownTest.test_threads_terminate": COUNTS_THREADS,
    "test_shutdown.ThreadPoolShutdownTest.test_context_manager_shutdown": JOINS_THREADS,
    "test_shutdown.ThreadPoolShutdownTest.test_del_shutdown": JOINS_THREADS,
    "test_shutdown.ThreadPoolShutdownTest.test_shutdown_no_wait": JOINS_THREADS,
    "test_shutdown.ThreadPoolShutdownTest.test_thread_names_assigned": NAMES_THREADS,
    "test_shutdown.ThreadPoolShutdownTest.test_thread_names_default": NAMES_THREADS,
}


def run_child(*labels: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(CHILD), *labels],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def ships_the_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_concurrent_futures.test_thread_pool") is not None
    except ModuleNotFoundError:
        return False


SHIPPED = ships_the_tests()
LABELS = run_child().stdout.split() if SHIPPED else []
CONTRACT = [label for label in LABELS if label not in LEFT_OUT]

pytestmark = pytest.mark.skipif(not SHIPPED, reason="this Python does not ship test.test_concurrent_futures")

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def outcome_of() -> Iterator[Run]:
    """Start all of them, a few at a time, and let each test wait for its own."""
    with ThreadPoolExecutor(AT_ONCE) as executor:
        running = {label: executor.submit(run_child, label) for label in CONTRACT}
        yield lambda label: running[label].result()
        executor.shutdown(cancel_futures=True)


@pytest.mark.timeout(10 * LIMIT)  # each child has a limit of its own
@pytest.mark.parametrize("label", CONTRACT)
def test_contract(outcome_of: Run, label: str) -> None:
    finished = outcome_of(label)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_most_of_the_contract_is_there() -> None:
    """Nothing is left out that is not there, and the loader has not gone blind."""
    assert set(LEFT_OUT) <= set(LABELS)
    assert len(CONTRACT) >= 37
