"""The page about the architecture speaks of files that exist, and of every folder."""

import re
from pathlib import Path

import pytest

import retrypool

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = Path(retrypool.__file__).parent
FILES = sorted(set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", PAGE)))
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def test_page_names_files() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("name", FILES)
def test_file_exists(name: str) -> None:
    root = Path(__file__).parents[2] if name.startswith("tests/") else PACKAGE
    assert (root / name).is_file()


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_in_the_house(name: str) -> None:
    assert f"{name}/" in PAGE or name in {"demo", "cli"}
