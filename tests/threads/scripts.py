"""Scripts that are run by a Python of their own, and sent real signals."""

import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass

#: Seconds after which a script counts as hung. Only a test that fails waits this long.
PATIENCE = 40.0

PRELUDE = """
import os, signal, sys, threading, time
from retrypool import *

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

def strike_beside():
    if sys.stdin.readline():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

threading.Thread(target=strike_beside, daemon=True).start()

def hang(data):
    say("hanging")
    time.sleep(3600)
"""


@dataclass
class Ended:
    """What a script has come to."""

    returncode: int
    out: list[str]
    err: str


class Script:
    """A running script."""

    def __init__(self, source: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._kill = threading.Timer(PATIENCE, self.process.kill)
        self._kill.start()
        self.out: list[str] = []

    def wait_for(self, words: str) -> None:
        """Wait until the script has said this."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.out.append(line.rstrip())
            if self.out[-1] == words:
                return
        raise AssertionError(f"it never said {words!r}: {self.out}, {self.end().err}")

    def interrupt(self) -> None:
        """Press Ctrl-C, once."""
        self.process.send_signal(signal.SIGINT)

    def interrupt_beside(self) -> None:
        """Press Ctrl-C, and have another than the main thread be the one that is woken by it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> Ended:
        """Wait for the end of the script."""
        out, err = self.process.communicate()
        self._kill.cancel()
        self._kill.join()
        assert self.process.returncode != -signal.SIGKILL, f"it hung: {self.out}, {out}, {err}"
        return Ended(self.process.returncode, self.out + out.splitlines(), err)

    def clear(self) -> None:
        self._kill.cancel()
        self._kill.join()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
