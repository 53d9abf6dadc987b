"""The page is whole, needs no network, and cannot be broken by what tasks are called."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from retrypool import Recorder, RetryPolicy
from retrypool.testing import ManualPool

from .acting import play, stage, takes

NASTY = "</script><script>alert(1)</script> <!-- {{js}} \u2028 & \"quoted\" 'text' é 漢"


class Page(HTMLParser):
    """What of a page leads elsewhere, and what its scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self.report = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["pre"]:
            self.report += data
        if self.scripts and self.tags[-1] == "script":
            self.scripts[-1] += data

    @property
    def run(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def saved(run: Recorder, path: Path) -> str:
    run.save(path)
    return path.read_text(encoding="utf-8")


def nasty_run(path: Path) -> str:
    scripts: Any = {NASTY: takes(1.0, lambda: OSError(NASTY))}
    pool = stage(scripts, retry=RetryPolicy(attempts=1), name=NASTY)
    with Recorder(pool) as run:
        pool.dispatch(NASTY)
        play(pool, scripts)
    return saved(run, path)


def test_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = nasty_run(tmp_path / "run.html")
    assert Page(text).addresses == []
    assert not re.search(
        r"\b(https?:|url\(|@import|fetch\(|XMLHttp|WebSocket|import\()", text.replace(NASTY, "")
    )
    assert "default-src 'none'" in text


def test_what_tasks_are_called_stays_text(tmp_path: Path) -> None:
    page = Page(nasty_run(tmp_path / "run.html"))
    assert page.tags.count("script") == 2
    assert page.run["labels"] == [NASTY.replace("\u2028", " ")]
    assert page.run["errors"][1].startswith("OSError: </script>")
    assert "tasks     1 dispatched = 0 succeeded + 1 dead + 0 cancelled" in page.report
    assert page.run["lanes"][0]["name"] == NASTY
    assert "{{" not in page.scripts[1]


def test_columns_tell_when_each_attempt_began_and_ended(tmp_path: Path) -> None:
    errors = iter([OSError("down")])
    scripts: Any = {"red": lambda _: (1.0, next(errors, None)), "blue": takes(2.0)}
    pool = stage(scripts, retry=RetryPolicy(delay=0), health=None)
    pool.clock.advance(1000)
    with Recorder(pool) as run:
        pool.dispatch_many(["a", "b", "c"])
        play(pool, scripts)
    found = Page(saved(run, tmp_path / "run.htm")).run
    columns, at = found["columns"], 0
    bars = []
    for lane in found["lanes"]:
        clock = 0
        for _ in range(lane["bars"]):
            clock += columns["start"][at]
            outcome = found["outcomes"][columns["outcome"][at]]
            label = found["labels"][columns["label"][at]]
            bars.append((lane["name"], label, clock / 1e6, columns["length"][at] / 1e6, outcome))
            at += 1
    assert ("red", "a", 0.0, 1.0, "failed") in bars
    assert ("blue", "b", 0.0, 2.0, "succeeded") in bars
    assert len(bars) == 4
    assert {len(column) for name, column in columns.items() if name != "bundles"} == {4}


def test_page_of_a_hundred_thousand_attempts_is_small_enough(tmp_path: Path) -> None:
    pool: ManualPool[Any, Any] = ManualPool([len] * 8)
    with Recorder(pool, attempts=2000) as run:
        pool.dispatch_many([b""] * 20_000)
        while attempt := pool.claim():
            pool.clock.advance(0.001)
            attempt.finish(0)
    text = saved(run, tmp_path / "run.html")
    found = Page(text).run
    assert sum(lane["bars"] for lane in found["lanes"]) <= 2000
    assert len(text) < 400_000
    assert sum(found["series"]["succeeded"]) == pytest.approx(20_000, rel=1e-3)


def test_names_that_are_no_valid_text_do_not_prevent_a_page(tmp_path: Path) -> None:
    scripts: Any = {"file-\udc80": takes(1.0)}
    pool = stage(scripts, name="pool-\udcff")
    with Recorder(pool) as run:
        pool.dispatch("\udc80")
        play(pool, scripts)
    assert "file-?" in saved(run, tmp_path / "run.html")
    run.save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))


def test_empty_run_has_a_page(tmp_path: Path) -> None:
    pool: ManualPool[Any, Any] = ManualPool([len])
    with Recorder(pool) as run:
        pass
    assert Page(saved(run, tmp_path / "run.html")).run["length"] == 0.0


def test_parts_of_the_page_are_in_the_package() -> None:
    from importlib.resources import files

    for ending in ("html", "css", "js"):
        assert files("retrypool.observe.recording").joinpath(f"picture.{ending}").is_file()
