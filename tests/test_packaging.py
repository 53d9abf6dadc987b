"""What is installed: the wheel, whole, with one dependency and the promised names."""

import importlib.metadata
import importlib.resources
import inspect
import os
import tomllib
from pathlib import Path

import pytest

import retrypool

CHECKOUT = Path(__file__).parents[1]


@pytest.mark.skipif(not os.environ.get("CI"), reason="an editable install is fine elsewhere")
def test_the_installed_package_is_tested_not_the_folder() -> None:
    assert not Path(retrypool.__file__).is_relative_to(CHECKOUT / "retrypool")


def test_version_is_the_same_everywhere() -> None:
    assert importlib.metadata.version("retrypool") == retrypool.__version__


def test_typing_extensions_is_the_only_dependency() -> None:
    requirements = importlib.metadata.requires("retrypool") or []
    needed = [line for line in requirements if "extra ==" not in line]
    assert [line for line in needed if not line.startswith("typing-extensions")] == []
    assert len(needed) == 1


def test_type_checkers_are_told_to_read_the_package() -> None:
    assert importlib.resources.files("retrypool").joinpath("py.typed").is_file()


def test_python_versions_agree() -> None:
    """What may install it, what the linter writes for and what the types are checked for."""
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["requires-python"] == ">=3.11"
    assert settings["tool"]["ruff"]["target-version"] == "py311"
    assert settings["tool"]["mypy"]["python_version"] == "3.11"


def test_public_names_are_listed_once() -> None:
    assert len(retrypool.__all__) == len(set(retrypool.__all__))


@pytest.mark.parametrize("name", sorted(retrypool.__all__))
def test_public_name_exists_and_is_documented(name: str) -> None:
    try:
        value = getattr(retrypool, name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "retrypool":
            raise
        pytest.skip(f"needs {error.name}, which is optional")
    if inspect.isclass(value) or inspect.isroutine(value):
        assert inspect.getdoc(value)
