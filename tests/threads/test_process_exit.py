"""What happens to a pool that is open when the interpreter exits."""

import subprocess
import sys
from typing import Any

import pytest

DRAINED = {
    "plain": """
        pool = Pool([lambda data: (time.sleep(0.02), say(data))] * 2)
        pool.dispatch_many("abc")
    """,
    # From Python 3.12 on, no thread can be started any more by then, and there is no watchdog yet.
    "first retry": """
        def fail_once(seen):
            time.sleep(0.2)
            seen.append(1)
            if len(seen) == 1:
                raise ValueError
            say("a b c".replace(" ", "\\n"))

        pool = Pool([fail_once], retry=RetryPolicy(attempts=3, delay=0.05))
        pool.dispatch([])
    """,
    "first timeout": """
        def slow_once(seen):
            time.sleep(0.1)
            seen.append(1)
            if len(seen) == 1:
                raise ValueError
            if len(seen) == 2:
                time.sleep(0.5)
            else:
                say("a\\nb\\nc")

        pool = Pool([slow_once] * 2, retry=RetryPolicy(attempts=9, delay=0), timeout=0.3)
        pool.dispatch([])
    """,
    "delayed": """
        pool = Pool([say], exit_timeout=0.05)
        for n, data in enumerate("abc"):
            pool.dispatch(data, delay=0.2 * n)
    """,
    "longer than the timeout, one after the other": """
        pool = Pool([lambda data: (time.sleep(0.3), say(data))], exit_timeout=0.5)
        pool.dispatch_many("abc")
    """,
    "after an error": """
        pool = Pool([lambda data: (time.sleep(0.02), say(data))])
        pool.dispatch_many("abc")
        raise ValueError("the script fails")
    """,
    "after sys.exit": """
        pool = Pool([lambda data: (time.sleep(0.02), say(data))])
        pool.dispatch_many("abc")
        sys.exit(0)
    """,
    "paused": """
        pool = Pool([say])
        pool.pause()
        pool.dispatch_many("abc")
    """,
}

STUCK = {
    "hung attempt": """
        pool = Pool([hang], exit_timeout=0.2)
        pool.dispatch(1)
    """,
    "hung attempt with others behind it": """
        pool = Pool([hang], exit_timeout=0.2)
        pool.dispatch_many(range(9))
    """,
    "timed out, never comes back": """
        pool = Pool([hang], timeout=0.05, retry=RetryPolicy(attempts=1), exit_timeout=0.2)
        pool.dispatch(1)
    """,
    "timed out, with others behind it": """
        pool = Pool([hang], timeout=0.05, exit_timeout=0.2)
        pool.dispatch_many(range(9))
    """,
    "timed out with a factory": """
        pool = Pool([WorkerSpec(factory=lambda: hang)], timeout=0.05, exit_timeout=0.2, grace=0.05)
        pool.dispatch_many(range(9))
    """,
    "timed out before the exit": """
        pool = Pool([hang], timeout=0.05, retry=RetryPolicy(attempts=1), exit_timeout=0.2)
        pool.dispatch(1).exception()
    """,
    "all of several": """
        pool = Pool([hang] * 4, timeout=0.05, retry=RetryPolicy(attempts=9, delay=0), exit_timeout=0.2)
        pool.dispatch(1)
    """,
    "interrupted, in C": """
        pool = Pool([hang], timeout=0.05, interrupt_on_timeout=True, exit_timeout=0.2)
        pool.dispatch(1)
    """,
    "swallows interrupts": """
        def swallow(data):
            while True:
                try:
                    time.sleep(0.01)
                except BaseException:
                    pass

        pool = Pool([swallow], timeout=0.05, interrupt_on_timeout=True, exit_timeout=0.2)
        pool.dispatch_many(range(3))
    """,
    "hung on_start": """
        class Worker:
            def on_start(self):
                hang(None)

            def run(self, ctx, data):
                pass

        pool = Pool([Worker()], exit_timeout=0.2)
        pool.dispatch(1)
    """,
    "hung factory": """
        pool = Pool([WorkerSpec(factory=lambda: hang(None))], exit_timeout=0.2)
        pool.dispatch(1)
    """,
    "with block, grace over": """
        with Pool([hang], timeout=0.05, grace=0.1) as pool:
            pool.dispatch(1)
    """,
    "with block, grace over, with others behind it": """
        with Pool([hang] * 2, timeout=0.05, grace=0.1) as pool:
            pool.dispatch_many(range(9))
    """,
    "closed by force": """
        pool = Pool([hang])
        pool.dispatch(1)
        pool.force_close()
    """,
    "several pools": """
        pools = [Pool([hang], exit_timeout=0.1) for _ in range(3)]
        for pool in pools:
            pool.dispatch(1)
    """,
}

FINE = {
    "nothing dispatched": "pool = Pool([str] * 3)",
    "closed": "pool = Pool([str]); pool.dispatch(1); pool.close()",
    "manual": """
        from retrypool.testing import FakeClock, ManualPool
        pool = ManualPool([str])
        pool.dispatch(1)
        other = ManualPool([str])
        other.dispatch(1)
        other.claim()
    """,
    "virtual time": """
        from retrypool.testing import FakeClock
        pool = Pool([str], clock=FakeClock(), exit_timeout=0.2)
        pool.dispatch(1)
    """,
    "forgotten": """
        Pool([str] * 2).dispatch(1)
        import gc
        gc.collect()
    """,
}


def test_open_pool_is_drained(run_all: Any) -> None:
    for name, ended in run_all(DRAINED).items():
        assert sorted(ended.out) == ["a", "b", "c"], (name, ended)
        assert ended.returncode == (1 if name == "after an error" else 0), (name, ended)
        expected = "the script fails" if name == "after an error" else ""
        assert ended.err.strip().endswith(expected), (name, ended)
        assert name == "after an error" or "Traceback" not in ended.err, (name, ended)


def test_stuck_worker_does_not_hold_up_the_exit(run_all: Any) -> None:
    for name, ended in run_all(STUCK).items():
        assert ended.returncode == 0, (name, ended)
        assert "Traceback" not in ended.err, (name, ended)


def test_exit_that_does_not_wait_any_longer_says_for_whom(run: Any) -> None:
    ended = run("pool = Pool([WorkerSpec(hang, name='phone')], exit_timeout=0.1); pool.dispatch(1)").end()
    assert "the exit does not wait any longer for phone (task 1)" in ended.err


def test_nothing_keeps_a_script_that_is_done(run_all: Any) -> None:
    for name, ended in run_all(FINE).items():
        assert (ended.returncode, ended.err) == (0, ""), (name, ended)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there are no new threads at the exit")
def test_pool_that_is_made_by_another_function_at_the_exit_is_drained() -> None:
    """Also if that is the first use of the package."""
    source = """if True:
        import atexit, retrypool
        atexit.register(lambda: retrypool.Pool([print]).dispatch("ran"))
    """
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("ran\n", "")
