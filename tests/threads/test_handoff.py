"""The page of the protocol is true: its tests exist, its numbers are those that comments cite."""

import re
from pathlib import Path

import retrypool
from retrypool.threads import handoff

TESTS = Path(__file__).parents[1]
PACKAGE = Path(retrypool.__file__).parent

HANDSHAKES = dict(
    re.findall(r"^(H\d+) .*?^    Test: (\w+)$", handoff.__doc__ or "", re.MULTILINE | re.DOTALL)
)


def test_handshakes_are_numbered_from_one() -> None:
    assert list(HANDSHAKES) == [f"H{number}" for number in range(1, len(HANDSHAKES) + 1)]
    assert HANDSHAKES


def test_each_handshake_names_a_test_that_exists() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    missing = {number: test for number, test in HANDSHAKES.items() if f"def {test}(" not in source}
    assert missing == {}


def test_comments_cite_handshakes_that_exist_and_all_are_cited() -> None:
    cited = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "handoff.py":
            cited |= set(re.findall(r"\bH\d+\b", path.read_text(encoding="utf-8")))
    assert cited == set(HANDSHAKES)
