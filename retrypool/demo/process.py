"""The demo API as a child process."""

import subprocess
import sys
from typing import Self

from retrypool.demo import api

__all__ = ["ApiProcess"]


class ApiProcess:
    """Runs the API in a process of its own for as long as the `with` block lasts.

    The process ends when its stdin is closed, which the system does for us if we are killed.
    """

    host = "127.0.0.1"

    def __init__(self, seed: int, *, grace: float = 5.0) -> None:
        """Start nothing yet. `grace`: seconds that the process may take to end by itself."""
        self.port = 0
        self._seed = seed
        self._grace = grace
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the demo API is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        # Isolated, so that neither the environment nor the current folder changes what it imports.
        # In a session of its own, so that Ctrl-C in the terminal reaches us and not the API.
        self._process = subprocess.Popen(
            [sys.executable, "-I", api.__file__, "--seed", str(self._seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self.port = self._read_port(self._process)
        except BaseException:
            self._stop(self._process)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._stop(self._process)

    @staticmethod
    def _read_port(process: subprocess.Popen[str]) -> int:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the demo API did not start: exit code {process.wait()}")
        return int(line)

    def _stop(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            process.wait(self._grace)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when a second Ctrl-C ends the wait
            process.kill()  # nothing happens if it has ended
            process.wait()
            process.stdout.close()
