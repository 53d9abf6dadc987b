"""What `import retrypool` and `from retrypool import Pool` bring along: no more than is asked for."""

import subprocess
import sys
from importlib import import_module

import pytest

import retrypool


def modules_after(statement: str) -> set[str]:
    source = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def of_ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.startswith("retrypool")}


def test_package_alone_imports_nothing() -> None:
    assert of_ours(modules_after("import retrypool")) == {"retrypool"}


def test_pool_imports_what_it_is_made_of_when_one_is_made() -> None:
    imported = modules_after("from retrypool import Pool")
    assert of_ours(imported) == {"retrypool", "retrypool.pool"}
    assert "logging" not in imported - modules_after("pass")
    assert "retrypool.threads.engine" in modules_after("from retrypool import Pool; Pool().close()")


def test_pool_does_without_what_few_programs_use() -> None:
    imported = modules_after("from retrypool import Pool; Pool([len]).close()")
    for module in ("asyncio", "http", "multiprocessing", "opentelemetry", "prometheus_client"):
        assert module not in imported
    for module in ("rich", "socket", "sqlite3", "tqdm", "zoneinfo"):
        assert module not in imported
    for module in (
        "executor",
        "observe.live",
        "observe.metrics",
        "observe.progress",
        "observe.tracing",
        "sources",
    ):
        assert f"retrypool.{module}" not in imported


def test_every_public_name_has_its_place() -> None:
    assert set(retrypool.__all__) <= set(retrypool._HOMES)


@pytest.mark.parametrize("name", sorted(retrypool._HOMES))
def test_name_is_where_the_package_looks_for_it(name: str) -> None:
    assert getattr(retrypool, name) is getattr(import_module(retrypool._HOMES[name]), name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pol'"):
        retrypool.Pol  # noqa: B018
