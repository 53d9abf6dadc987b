"""One Ctrl-C ends a script, wherever it is."""

import signal
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")

PLACES = {
    "in the block": """
        with Pool([hang] * 2, exit_timeout=60) as pool:
            tasks = pool.dispatch_many(range(50))
            say("now")
            time.sleep(3600)
    """,
    "in result, with a block": """
        with Pool([hang], exit_timeout=60) as pool:
            task, waiting = pool.dispatch(1), pool.dispatch(2)
            say("now")
            task.result()
    """,
    "in result, without a block": """
        pool = Pool([hang], exit_timeout=60)
        task, waiting = pool.dispatch(1), pool.dispatch(2)
        say("now")
        task.result()
    """,
    "in result of a task that waits out a delay": """
        pool = Pool([hang], exit_timeout=60)
        task = pool.dispatch(1, delay=3600)
        say("now")
        task.result()
    """,
    "leaving the block": """
        with Pool([hang], exit_timeout=60) as pool:
            tasks = pool.dispatch_many(range(50))
            say("now")
    """,
    "in close": """
        pool = Pool([hang], exit_timeout=60)
        tasks = pool.dispatch_many(range(50))
        say("now")
        pool.close()
    """,
    "in close that joins a stuck thread": """
        pool = Pool([hang], timeout=0.05, retry=RetryPolicy(attempts=1), exit_timeout=60, grace=60)
        task = pool.dispatch(1)
        task.exception()
        say("now")
        pool.close()
    """,
    "in wait": """
        pool = Pool([hang], exit_timeout=60)
        pool.dispatch(1)
        say("now")
        pool.wait()
    """,
    "in close while a callback blocks the watchdog": """
        def block(task, error):
            say("now")
            time.sleep(3600)

        pool = Pool([hang], timeout=0.05, on_failure=block, exit_timeout=60)
        pool.dispatch(1)
        pool.close()
    """,
    "at the exit": """
        pool = Pool([hang], exit_timeout=60)
        pool.dispatch(1)
        say("now")
    """,
}


@pytest.mark.parametrize("way", ["interrupt", "interrupt_beside"])
def test_one_ctrl_c_ends_the_script(run: Any, way: str) -> None:
    """All of them at once: each is waiting for something that takes an hour.

    It may be that the signal does not wake the main thread: it comes just before that begins to wait.
    """
    scripts = {place: run(source) for place, source in PLACES.items()}
    if way == "interrupt_beside":
        scripts.pop("in the block").interrupt()  # the waiting there is not ours
    for script in scripts.values():
        script.wait_for("now")
    for place, script in scripts.items():
        calm = any(word in place for word in ("delay", "stuck", "watchdog"))
        if not calm and "hanging" not in script.out:
            script.wait_for("hanging")
        getattr(script, way)()
    for place, script in scripts.items():
        ended = script.end()
        assert "KeyboardInterrupt" in ended.err, (place, ended)
        if place != "at the exit":
            assert ended.returncode == -signal.SIGINT, (place, ended)
        assert "has not come back" not in ended.err, (place, ended)


def test_ctrl_c_cancels_what_waits_and_tells_what_runs(run: Any) -> None:
    script = run(
        """
        class Obedient:
            def run(self, ctx, data):
                say("running")
                while not ctx.cancelled:
                    pass
                say("told")
                told.set()

        told = threading.Event()
        try:
            with Pool([Obedient()]) as pool:
                tasks = pool.dispatch_many(range(10))
                tasks[0].result()
        except KeyboardInterrupt:
            say(*{task.state.value for task in tasks})
            told.wait()
        """
    )
    script.wait_for("running")
    script.interrupt()
    ended = script.end()
    assert ended.returncode == 0, ended.err
    assert sorted(ended.out) == ["cancelled", "running", "told"]


def test_ctrl_c_in_the_middle_of_dispatching_leaves_no_hung_script(run: Any) -> None:
    """It strikes anywhere in the pool's own code; with options, that is under its lock."""
    scripts = []
    for options in ("", "priority=n % 3", "delay=0.001", "timeout=60, deadline=60"):
        source = f"""
            with Pool([str] * 3, exit_timeout=60) as pool:
                say("now")
                n = 0
                while True:
                    n += 1
                    pool.dispatch(n, {options})
        """
        scripts += [run(source) for _ in range(2)]
    for script in scripts:
        script.wait_for("now")
    for script in scripts:
        script.interrupt()
    for script in scripts:
        ended = script.end()
        assert ended.returncode == -signal.SIGINT, ended
