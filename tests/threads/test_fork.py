"""A forked child has the pool and not its threads: it refuses."""

import os
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]

CALLS = {
    "dispatch": "pool.dispatch(1)",
    "dispatch with options": "pool.dispatch(1, priority=1)",
    "dispatch_many": "pool.dispatch_many([1, 2])",
    "close": "pool.close()",
    "add_worker": "pool.add_worker(str)",
    "wait": "pool.wait()",
    "wait_with": "pool.wait_with(lambda stats: None, interval=0.01)",
    "the end of its block": "pool.__exit__(None, None, None)",
}


def in_a_child(call: str, options: str = "") -> str:
    return f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
pool = Pool([lambda data: time.sleep(0.3)] * 2, timeout=60, {options})
tasks = pool.dispatch_many(range(4))
time.sleep(0.05)
if (child := os.fork()) == 0:
    try:
        {call}
        say("nothing")
    except PoolClosed as error:
        say("refused:", error)
    except BaseException as error:
        say("raised:", repr(error))
    sys.exit(0)
os.waitpid(child, 0)
for task in tasks:
    task.result()
pool.close()
say("parent done")
"""


def test_child_refuses_with_a_clear_error(run_all: Any) -> None:
    for name, ended in run_all({name: in_a_child(call) for name, call in CALLS.items()}).items():
        assert ended.returncode == 0, (name, ended)
        refusal, done = ended.out
        assert refusal.startswith("refused: pool-1 refuses: it was made in the parent process"), (name, ended)
        assert done == "parent done"
        assert "Traceback" not in ended.err, (name, ended)


def test_child_refuses_whatever_way_a_task_comes_in(run_all: Any) -> None:
    scripts = {option: in_a_child("pool.dispatch(1)", option) for option in ("listeners=[id]", "max_queue=2")}
    for option, ended in run_all(scripts).items():
        assert [line[:7] for line in ended.out] == ["refused", "parent "], (option, ended)


def test_child_may_look_at_the_pool_and_force_it(run_all: Any) -> None:
    calls = {
        "force_close": "pool.force_close()",
        "stats": "pool.stats()",
        "workers": "pool.workers()",
        "repr": "repr(pool)",
    }
    for name, ended in run_all({name: in_a_child(call) for name, call in calls.items()}).items():
        assert ended.out == ["nothing", "parent done"], (name, ended)


def test_child_may_make_a_pool_of_its_own(run: Any) -> None:
    call = "p = Pool([str], timeout=60); say(p.dispatch(7).result()); p.close()"
    ended = run(in_a_child(call)).end()
    assert ended.out == ["7", "nothing", "parent done"], ended


def test_child_of_a_busy_pool_leaves_without_waiting(run: Any) -> None:
    """Whatever locks were held in the parent as it forked, and by whom."""
    ended = run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        sys.setswitchinterval(1e-5)
        with Pool([lambda data: 1 / 0] * 4, retry=RetryPolicy(attempts=UNLIMITED, delay=0.005)) as pool:
            tasks = pool.dispatch_many(range(20), timeout=60)
            for n in range(20):
                if os.fork() == 0:
                    try:
                        pool.dispatch(1)
                    except PoolClosed:
                        sys.exit(7) if n == 0 else os._exit(7)
                assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
            say("all refused")
            pool.force_close()
        """
    ).end()
    assert ended.out == ["all refused"], ended
