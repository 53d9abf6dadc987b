"""The README's Python examples run, and its commands are the ones that CI runs."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

README = Path(__file__).parents[1] / "README.md"


class Block(NamedTuple):
    line: int
    source: str


def python_blocks(text: str) -> dict[str, list[Block]]:
    """The ```python blocks under each heading, with the line on which each starts."""
    sections: dict[str, list[Block]] = {}
    heading, start, language = "", 0, None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```") and language is None:
            start, language, lines = number + 1, line[3:].strip(), []
        elif line.startswith("```"):
            if language == "python":
                sections.setdefault(heading, []).append(Block(start, "\n".join(lines)))
            language = None
        elif language is not None:
            lines.append(line)
        elif found := re.match(r"#+ (.*)", line):
            heading = found[1]
    return sections


SECTIONS = python_blocks(README.read_text(encoding="utf-8"))


def test_there_are_examples() -> None:
    assert SECTIONS


@pytest.mark.parametrize("heading", SECTIONS)
def test_examples_run(heading: str) -> None:
    """Top to bottom, in one namespace for each heading."""
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in SECTIONS[heading]:
        # Empty lines in front: a traceback then names the line of the README.
        source = "\n" * (block.line - 1) + block.source
        exec(compile(source, str(README), "exec"), namespace)


@pytest.mark.parametrize("last_word", ["pytest", "demo"])
def test_one_line_installs_and_runs(last_word: str) -> None:
    """`.ci/run` looks for these two lines with the same pattern and runs them as they stand."""
    pattern = rf"^python -m pip install .* && python .*\b{last_word}\b"
    assert len(re.findall(pattern, README.read_text(encoding="utf-8"), re.MULTILINE)) == 1


def test_blocks_are_found_under_their_heading() -> None:
    text = "# A\n```python\nx = 1\n```\n## B\n```console\n# no heading\n```\n```python\ny\n```\n"
    assert python_blocks(text) == {"A": [Block(3, "x = 1")], "B": [Block(10, "y")]}
