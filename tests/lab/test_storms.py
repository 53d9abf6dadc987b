"""Storms of signals over a program that goes on, and every way to end one in every state of a pool."""

import itertools
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

STORM = """
import os, random, signal, sys, threading, time
from retrypool import *

seed, many = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)
calm = threading.Event()
ready = threading.Event()

def storm():
    ready.wait()
    for _ in range(many):
        time.sleep(chance.random() * 0.003)
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    calm.set()

def run(data):
    if data % 7 == 0:
        raise OSError(data)
    return data

pool = Pool([run] * 3, retry=RetryPolicy(attempts=2, delay=0), max_queue=[None, 5][seed % 2])
threading.Thread(target=storm, daemon=True).start()
calls = [
    lambda: pool.dispatch(1).result(5),
    lambda: pool.dispatch(1, delay=0.001).result(5),
    lambda: list(pool.map(range(20), return_exceptions=True)),
    lambda: list(pool.as_completed(pool.dispatch_many(range(4)))),
    lambda: pool.wait(0.01),
    lambda: pool.remove_worker(pool.add_worker(run)),
    lambda: pool.dispatch(3, delay=3600).cancel(),
    lambda: (pool.pause(), pool.resume()),
    lambda: pool.dispatch(7).exception(5),
]
struck = 0
ready.set()
while not calm.is_set():
    try:
        chance.choice(calls)()
    except KeyboardInterrupt:
        struck += 1
pool.resume()
for task in pool.tasks():
    task.cancel()
assert [task.result(20) for task in pool.dispatch_many([1] * 9)] == [1] * 9
assert pool.wait(20)
assert pool.stats().waiting == 0
pool.close(20)
print("all well", struck > 0)
"""


def test_pool_outlives_a_storm_of_signals(patience: float) -> None:
    for seed in range(round(4 * patience) or 1):
        command = [sys.executable, "-c", STORM, str(seed), "150"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert ended.stdout.strip() == "all well True", (seed, ended)


STATES = {
    "idle": "pool.dispatch(0).result()",
    "busy": "pool.dispatch_many([0.05] * 8)",
    "delayed": "pool.dispatch(0, delay=0.1)",
    "stuck": "pool.dispatch(3600, timeout=0.05); time.sleep(0.1)",
    "paused": "pool.pause(); pool.dispatch(0)",
    "closed by force": "pool.dispatch_many([0.05] * 8); pool.force_close()",
    "scheduled": "pool.schedule(0, every=0.01)",
}
ENDS = {
    "by itself": "",
    "an error": "raise ValueError",
    "sys.exit": "sys.exit(3)",
    "Ctrl-C": "signal.raise_signal(signal.SIGINT)",
    "close": "pool.close(20)",
    "a finalizer": "me = type('F', (), {'__del__': lambda self: pool.close()})()",
    "a thread": "threading.Thread(target=lambda: pool.dispatch(0).exception(5)).start()",
}
CODES = {"an error": 1, "sys.exit": 3, "Ctrl-C": -signal.SIGINT}


@pytest.mark.parametrize("end", ENDS)
def test_program_comes_to_its_end_in_every_state(end: str, patience: float) -> None:
    running: dict[str, Any] = {}
    for state, code in itertools.islice(STATES.items(), None):
        source = f"""
        import signal, sys, threading, time
        from retrypool import *
        pool = Pool([time.sleep] * 2, exit_timeout=1, grace=0.1, retry=RetryPolicy(attempts=1))
        {code}
        {ENDS[end]}
        """
        running[state] = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source)], stderr=subprocess.PIPE, text=True
        )
    for state, process in running.items():
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"it hangs: {state}, {end}") from None
        if (end, state) == ("close", "stuck"):
            continue  # CloseTimeout
        assert process.returncode == CODES.get(end, 0), (state, err)
