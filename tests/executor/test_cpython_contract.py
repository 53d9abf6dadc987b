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

pytestmark = pytest.mark.skipif(not SHIPPED, reason="this Python does not ship test.test_concurrent_futures")

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def outcome_of() -> Iterator[Run]:
    """Start all of them, a few at a time, and let each test wait for its own."""
    with ThreadPoolExecutor(AT_ONCE) as executor:
        running = {label: executor.submit(run_child, label) for label in LABELS}
        yield lambda label: running[label].result()
        executor.shutdown(cancel_futures=True)


@pytest.mark.timeout(10 * LIMIT)  # each child has a limit of its own
@pytest.mark.parametrize("label", LABELS)
def test_contract(outcome_of: Run, label: str) -> None:
    finished = outcome_of(label)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_whole_contract_is_there() -> None:
    """The loader has not gone blind: CPython 3.13 has 45 of them."""
    assert len(LABELS) >= 44
