"""What every test gets: no thread is left behind, and generated tests repeat in CI."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A test that starts another Python gets the same retrypool there, whatever the current folder is.
os.environ["PYTHONSAFEPATH"] = "1"

# A busy machine makes an example slow, never wrong: no deadline.
settings.register_profile("local", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "local")

#: How long a thread that was told to end may take to do so. Only a test that fails waits this long.
GRACE = 5.0


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """Fails a test that leaves a thread running.

    Set up before a test's own fixtures, so it looks after they have closed their pools. The threads
    are joined here, inside the test, so that an exception in one of them is this test's failure
    too: pytest warns of it, and warnings are errors.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + GRACE
    # Ask again after each join: a thread may start another on its way out.
    while new := [thread for thread in threading.enumerate() if thread not in before]:
        left = deadline - time.monotonic()
        if left <= 0:
            names = ", ".join(sorted(repr(thread.name) for thread in new))
            pytest.fail(f"threads left behind: {names}")
        new[0].join(left)
