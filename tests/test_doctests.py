"""The examples in the docstrings of the installed package do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import retrypool

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# Of `__main__` modules there is nothing to import.
MODULES = ["retrypool"] + [
    found.name
    for found in pkgutil.walk_packages(retrypool.__path__, "retrypool.")
    if not found.name.endswith(".__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "retrypool":
            raise
        pytest.skip(f"needs {error.name}, which is optional")
    failed, _ = doctest.testmod(module, optionflags=FLAGS)
    assert failed == 0, "see the captured output"
