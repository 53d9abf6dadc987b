"""Real processes, killed at random moments. The full sizes: RETRYPOOL_FULL_SIZE=1."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from .killed import WORKERS

KILLS = 200 if os.environ.get("RETRYPOOL_FULL_SIZE") else 4
PROGRAM = Path(__file__).with_name("killed.py")


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-P", str(PROGRAM), *map(str, arguments)]


@pytest.mark.timeout(60 + 3 * KILLS)
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("record_starts", [False, True], ids=["", "record_starts"])
def test_nothing_accepted_is_lost(tmp_path: Path, durability: str, record_starts: bool) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    journal, runs = tmp_path / "run.db", tmp_path / "runs.txt"
    accepted: list[str] = []
    for kill in range(KILLS):
        with subprocess.Popen(
            program(journal, runs, durability, record_starts), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            assert child.stdout
            assert child.stderr
            first = child.stdout.readline()
            # Not a wait for something to happen: the moment is what is tried out.
            timer = threading.Timer(chance.uniform(0, 0.15), child.send_signal, [signal.SIGKILL])
            timer.start()
            lines = (first + child.stdout.read()).decode().split("\n")
            timer.join()
            errors = child.stderr.read().decode()
            assert child.wait() == -signal.SIGKILL, f"seed {seed}, kill {kill}: {errors}"
        accepted += lines[:-1]  # the last one may be cut
    db = sqlite3.connect(journal)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    began = time.monotonic()
    done = subprocess.run(
        program(journal, runs, durability, record_starts, "drain"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = runs.read_text().splitlines()
    ran = Counter(line.split()[0] for line in lines if line)
    lost = set(accepted) - set(ran)
    assert not lost, f"seed {seed}: {len(lost)} of {len(accepted)} lost, such as {sorted(lost)[:5]}"
    repeats = sum(ran.values()) - len(ran)
    keys = {tuple(line.split()) for line in lines if line}
    assert len(keys) == len(ran), "a task has one idempotency key in all processes"
    if record_starts:
        assert repeats <= KILLS * WORKERS, f"seed {seed}"
    print(  # noqa: T201 - for the full sizes, which are run for their figures
        f"{KILLS} kills, {durability}, record_starts={record_starts}: {len(accepted)} accepted, 0 lost,"
        f" {repeats} repeats, drained in {time.monotonic() - began:.1f} s, seed {seed}"
    )


def test_task_that_ends_its_process_is_dead_after_three_times(tmp_path: Path) -> None:
    """And the fleet goes on."""
    source = f"""
import os, sys
from retrypool import Pool, SQLiteStorage
def run(data):
    if data == "bad":
        os._exit(7)
    return data
with Pool([run] * 2, storage=SQLiteStorage({str(tmp_path / "run.db")!r})) as pool:
    pool.dispatch("bad", key="bad")
    pool.dispatch("good", key="good")
    pool.wait()
    for dead in pool.dead_tasks():
        print(dead.data, dead.reason.value, dead.error)
    print(pool.dispatch("good", key="good").result())
"""
    command = [sys.executable, "-P", "-c", source]
    for _ in range(3):
        assert subprocess.run(command, capture_output=True, check=False).returncode == 7
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lost, good = done.stdout.splitlines()
    assert lost.startswith("bad lost the process ended 3 times")
    assert good == "good"


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")
def test_full_disk_in_a_real_process(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    source = f"""
import resource, sys
from retrypool import Pool, SQLiteStorage, StorageError
path = {str(tmp_path / "run.db")!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
accepted, refused = [], 0
with Pool([len], storage=SQLiteStorage(path)) as pool:
    pool.pause()
    for number in range(100):
        try:
            pool.dispatch(str(number).ljust(20_000), key=str(number))
            accepted.append(number)
        except StorageError as error:
            refused += 1
    assert accepted and refused, (accepted, refused)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    pool.dispatch("more", key="more").add_done_callback(lambda task: None)
    assert pool.storage.counts().waiting == len(accepted) + 1, (pool.storage.counts(), len(accepted))
    pool.resume()
with Pool([len], storage=SQLiteStorage(path)) as pool:
    assert pool.storage.counts().kept == len(accepted) + 1
    assert pool.dispatch("", key="0").result() == 20_000
print(len(accepted), refused)
"""
    done = subprocess.run([sys.executable, "-P", "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
