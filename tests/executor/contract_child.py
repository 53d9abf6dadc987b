"""Runs one of CPython's own thread pool tests with another executor in the place of ThreadPoolExecutor.

Not a test file: `test_cpython_contract.py` starts it as `python contract_child.py LABEL...`, once for
each label, and `python contract_child.py` prints all labels. CPython's text is loaded, not copied.
"""

import concurrent.futures
import sys
import unittest
from typing import Any

import retrypool

SUITE = "test.test_concurrent_futures"
MODULES = ("test_thread_pool", "test_shutdown", "test_wait", "test_as_completed", "test_init")
LEFT_OUT = "Process"  # the classes for process pools have it in their name


def swap() -> None:
    """Let everything that is imported from now on find our class under the name of the other."""
    concurrent.futures.ThreadPoolExecutor = retrypool.PoolExecutor  # type: ignore[misc]


def cases(suite: unittest.TestSuite) -> "list[unittest.TestCase]":
    found: list[unittest.TestCase] = []
    for each in suite:
        found += cases(each) if isinstance(each, unittest.TestSuite) else [each]
    return found


def find() -> "dict[str, unittest.TestCase]":
    loader = unittest.TestLoader()
    found = {}
    for module in MODULES:
        for case in cases(loader.loadTestsFromName(f"{SUITE}.{module}")):
            kind = type(case).__name__
            if LEFT_OUT not in kind and hasattr(case, "executor_type"):
                found[f"{module}.{case.id().removeprefix(f'{SUITE}.{module}.')}"] = case
    return found


def swap_in_children() -> None:
    """The tests that start a Python of their own name the class in its script: let it import ours."""
    from test.test_concurrent_futures import test_shutdown

    original = test_shutdown.assert_python_ok

    def assert_python_ok(option: str, script: str, **kwargs: Any) -> Any:
        ours = script.replace(
            "from concurrent.futures import PoolExecutor", "from retrypool import PoolExecutor"
        )
        theirs = script.replace(
            "from concurrent.futures import ThreadPoolExecutor",
            "from retrypool import PoolExecutor as ThreadPoolExecutor",
        )
        assert ours != script or theirs != script, script
        changed = ours if ours != script else theirs
        path = f"import sys; sys.path[:] = {sys.path!r}\n"
        return original(option, path + changed, **kwargs)

    test_shutdown.assert_python_ok = assert_python_ok


def main(labels: "list[str]") -> int:
    swap()
    found = find()
    if not labels:
        sys.stdout.write("\n".join(found))
        return 0
    from test import support

    support.use_resources = ["cpu", "walltime"]
    swap_in_children()
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(found[label] for label in labels))
    return 0 if result.wasSuccessful() and result.testsRun == len(labels) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
