"""The page about the architecture speaks of files and functions that exist, and of every folder."""

import ast
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


ROWS = re.findall(r"^\| (.+\?) \| (.+) \|$", PAGE, flags=re.MULTILINE)
NAMES = re.compile(r"`([\w/]+\.py)`|`([A-Za-z_]\w*(?:\.\w+)?)`")


def names_in(path: Path) -> set[str]:
    """The functions, classes and methods of a module: `misses`, `Fleet`, `Fleet.usable`."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return names


def test_page_answers_questions() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("question", "answer"), ROWS, ids=[question for question, _ in ROWS])
def test_answer_is_at_most_two_files_and_names_what_is_there(question: str, answer: str) -> None:
    files: dict[str, list[str]] = {}
    for name, there in NAMES.findall(answer):
        if name:
            files[name] = []
        else:
            files[next(reversed(files))].append(there)
    assert 1 <= len(files) <= 2
    for name, wanted in files.items():
        assert wanted, f"say what to look at in {name}"
        assert set(wanted) <= names_in(PACKAGE / name)


def test_every_room_of_the_threads_is_on_the_page() -> None:
    """But for the small ones, which are found from there."""
    rooms = [path for path in (PACKAGE / "threads").glob("*.py") if len(path.read_text().splitlines()) > 150]
    assert [path.name for path in rooms if f"`threads/{path.name}`" not in PAGE] == []
