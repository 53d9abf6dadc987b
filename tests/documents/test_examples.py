"""The Python examples of the README and of the documentation run, and the README's commands are those of CI.

A block runs in one namespace with the others of its page (README: of its heading). A comment in the line
above may say what it needs (`<!-- needs: dask -->`: modules, without which it is left out) or
that it can't run here (`<!-- not run: it needs a broker -->`).
"""

import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    line: int
    source: str
    needs: tuple[str, ...] = ()


def python_blocks(text: str) -> dict[str, list[Block]]:
    """The ```python blocks under each heading that are to run, with the line on which each starts."""
    sections: dict[str, list[Block]] = {}
    heading, start, language, remark = "", 0, None, ""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```") and language is None:
            start, language, lines = number + 1, line[3:].strip(), []
        elif line.startswith("```"):
            if language == "python" and not remark.startswith("not run:"):
                needs = tuple(re.findall(r"[\w.]+", remark.removeprefix("needs:")))
                sections.setdefault(heading, []).append(Block(start, "\n".join(lines), needs))
            language, remark = None, ""
        elif language is not None:
            lines.append(line)
        elif found := re.match(r"#+ (.*)", line):
            heading = found[1]
        elif found := re.fullmatch(r"<!-- ((?:needs|not run): .*) -->", line):
            remark = found[1]
    return sections


def runs(path: Path) -> list[Any]:
    """What runs in a namespace of its own: each section of the README, each page of the documentation."""
    sections = python_blocks(path.read_text(encoding="utf-8"))
    name = path.relative_to(ROOT)
    if path == README:
        return [pytest.param(path, blocks, id=f"{name}: {heading}") for heading, blocks in sections.items()]
    blocks = [block for blocks in sections.values() for block in blocks]
    return [pytest.param(path, blocks, id=str(name))] if blocks else []


@pytest.mark.parametrize(("path", "blocks"), [run for path in DOCUMENTS for run in runs(path)])
def test_examples_run(
    path: Path, blocks: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Top to bottom, in an empty folder. What needs a module that is not there is left out."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "example"}
    left_out = []
    for block in blocks:
        if missing := [module for module in block.needs if importlib.util.find_spec(module) is None]:
            left_out += missing
            continue
        # Empty lines in front: a traceback then names the line of the document.
        source = "\n" * (block.line - 1) + block.source
        exec(compile(source, str(path), "exec"), namespace)
    if left_out:
        pytest.skip(f"some of it needs {', '.join(left_out)}")


@pytest.mark.parametrize("last_word", ["pytest", "demo"])
def test_one_line_installs_and_runs(last_word: str) -> None:
    """`.ci/run` looks for these two lines with the same pattern and runs them as they stand."""
    pattern = rf"^python -m pip install .* && python .*\b{last_word}\b"
    assert len(re.findall(pattern, README.read_text(encoding="utf-8"), re.MULTILINE)) == 1


def test_blocks_are_found_under_their_heading() -> None:
    text = "# A\n```python\nx = 1\n```\n## B\n```console\n# no heading\n```\n"
    text += "<!-- needs: z -->\n```python\ny\n```\n<!-- not run: no -->\n```python\nz\n```\n"
    assert python_blocks(text) == {"A": [Block(3, "x = 1")], "B": [Block(11, "y", ("z",))]}
