"""The fixtures in conftest.py catch what they are there to catch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

LEAVES_A_THREAD = """
import threading

release = threading.Event()

def test_leaves_a_thread():
    threading.Thread(target=release.wait, name="forgotten", daemon=True).start()
"""

THREAD_RAISES = """
import threading

def test_thread_raises():
    threading.Thread(target=lambda: 1 / 0).start()
"""

FINALIZER_RAISES = """
class Resource:
    def __del__(self):
        raise OSError("half closed")

def test_finalizer_raises():
    Resource()
"""

THREAD_ENDS = """
import threading

def test_thread_ends_soon():
    release = threading.Event()
    threading.Thread(target=release.wait).start()
    threading.Timer(0.01, release.set).start()
"""


def run_pytest(folder: Path, test: str) -> "subprocess.CompletedProcess[str]":
    conftest = (HERE / "conftest.py").read_text(encoding="utf-8")
    (folder / "conftest.py").write_text(conftest.replace("GRACE = 5.0", "GRACE = 1.0"), encoding="utf-8")
    (folder / "test_it.py").write_text(test, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", str(HERE.parent / "pyproject.toml")]
    return subprocess.run(
        [*command, "--rootdir", str(folder), "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        pytest.param(LEAVES_A_THREAD, "threads left behind: 'forgotten'", id="thread left"),
        pytest.param(THREAD_RAISES, "ZeroDivisionError", id="exception in a thread"),
        pytest.param(FINALIZER_RAISES, "half closed", id="exception in a finalizer"),
    ],
)
def test_careless_test_fails(tmp_path: Path, test: str, reason: str) -> None:
    finished = run_pytest(tmp_path, test)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert reason in finished.stdout


def test_thread_that_ends_within_the_grace_is_no_leak(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, THREAD_ENDS)
    assert finished.returncode == 0, finished.stdout + finished.stderr
