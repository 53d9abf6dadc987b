"""The page of a run in a real browser: it draws, zooms, follows a task, and nothing is complained of."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrypool import Recorder, RetryPolicy, Throttled
from retrypool.observe.recording.data import Recording
from retrypool.observe.recording.picture import page

from .acting import play, stage, takes
from .browser import CHROMEDRIVER, CHROMIUM, Browser, browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and CHROMEDRIVER) and not os.environ.get("RETRYPOOL_BROWSER"),
        reason="needs chromium and chromedriver",
    ),
    pytest.mark.timeout(120),
]


#: How many pixels of the lanes have each colour.
COLOURS = """
    const canvas = document.getElementById("lanes"), found = {};
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4) {
        const [r, g, b] = data.slice(i, i + 3);
        const colour = `#${((r << 16) | (g << 8) | b).toString(16).padStart(6, "0")}`;
        found[colour] = (found[colour] || 0) + 1;
    }
    return found;
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def recorded() -> Recording:
    refused = iter([None, None, None, Throttled(retry_after=6)])
    fails = iter([OSError("cut off")])
    scripts: Any = {
        "token-a": lambda _: (1.0, next(fails, None)),
        "token-b": takes(0.5, lambda: PermissionError("401")),
        "token-c": lambda _: (1.5, next(refused, None)),
    }
    pool = stage(scripts, retry=RetryPolicy(delay=0))
    with Recorder(pool) as run:
        pool.dispatch_many([f"https://example.com/{n}" for n in range(30)])
        play(pool, scripts)
    return run.recording()


@pytest.fixture(scope="module")
def recording() -> Recording:
    return recorded()


@pytest.fixture(scope="module")
def file(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.html"
    path.write_text(page(recording), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def nothing_is_complained_of(window: Browser) -> Iterator[None]:
    window.complaints()
    yield
    assert window.complaints() == []


def lanes(window: Browser) -> tuple[float, float, float, float]:
    """Left, top, width and height of what is drawn for all workers, without their names."""
    x, y, width, height = window.run(
        "scrollTo(0, 300);"
        "const box = document.getElementById('lanes').getBoundingClientRect();"
        "return [box.x + GUTTER, box.y, box.width - GUTTER - RIGHT, box.height]"
    )
    return x, y, width, height


def view(window: Browser) -> tuple[float, float]:
    start, end = map(float, window.drawn()["view"].split())
    return start, end


def test_every_attempt_is_drawn(window: Browser, file: Path, recording: Recording) -> None:
    window.open(file)
    drawn = window.drawn()
    assert drawn["ready"] == "true"
    # The small map of the whole run and the lanes draw the same bars; the lanes are counted.
    assert int(drawn["drawn"]) == sum(len(lane.bars) for lane in recording.lanes)
    assert (
        window.run("return document.title") == f"A run of {recording.pool}: 29 s" or recording.length != 29.0
    )
    assert window.run("return document.querySelectorAll('#workers tr').length") == 4
    assert window.run("return document.querySelectorAll('#advice li').length") >= 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_outcomes_have_the_colours_of_the_legend(window: Browser, file: Path, theme: str) -> None:
    window.open(file, f"theme={theme}")
    window.drawn()
    found: Counter[str] = Counter(window.run(COLOURS))
    for outcome in ("succeeded", "failed", "throttled"):
        colour = window.run("return colours[arguments[0]]", outcome)
        assert found[colour] > 30, outcome
    background = window.run("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(244, 246, 249)", "dark": "rgb(14, 18, 23)"}[theme]


def test_dragging_zooms_in_and_a_double_click_shows_all(window: Browser, file: Path) -> None:
    window.open(file)
    window.drawn()
    x, y, width, height = lanes(window)
    whole = view(window)
    window.move(
        (x + width * 0.25, y + height / 2), (x + width * 0.4, y + 5), (x + width * 0.5, y + 5), drag=True
    )
    length = whole[1] - whole[0]
    assert view(window) == pytest.approx((length * 0.25, length * 0.5), abs=length * 0.005)
    window.move((x + width / 2, y + height / 2), clicks=2)
    assert view(window) == whole


def test_keys_and_buttons_move_and_zoom(window: Browser, file: Path) -> None:
    window.open(file)
    whole = view(window)
    length = whole[1]
    window.press("+")
    assert view(window) == pytest.approx((length * 0.2, length * 0.8))
    window.press("\ue014")  # the arrow to the right
    assert view(window) == pytest.approx((length * 0.29, length * 0.89))
    window.press("0")
    assert view(window) == whole
    window.run("document.querySelector('[data-zoom=in]').click()")
    assert view(window) == pytest.approx((length * 0.25, length * 0.75))


def test_hovering_tells_of_the_attempt_and_a_click_follows_its_task(
    window: Browser, file: Path, recording: Recording
) -> None:
    window.open(file)
    window.drawn()
    x, y, width, height = lanes(window)
    length = view(window)[1]
    lane = height / 3
    window.move((x + width * 0.5 / length, y + lane / 2))
    window.drawn()
    told = window.run("return document.getElementById('tip').innerText")
    assert "failed: task 1" in told
    assert "https://example.com/0" in told
    assert "OSError: cut off" in told
    assert "attempt 1 on token-a, 1 s, from 0.000 s" in told
    window.move((x + width * 0.5 / length, y + lane / 2), clicks=1)
    assert window.drawn()["task"] == "1"
    window.press("\ue00c")  # Escape
    assert window.drawn()["task"] == "0"
    attempts = [bar for lane in recording.lanes for bar in lane.bars if bar.task_id == 1]
    assert window.run("return attemptsOf(1).length") == len(attempts) > 1


def test_hovering_over_the_curves_tells_their_values(window: Browser, file: Path) -> None:
    window.open(file)
    window.drawn()
    for name, words in (("queue", "waiting tasks"), ("rate", "calls per second")):
        x, y, width, height = window.run(
            "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
            "return [box.x, box.y, box.width, box.height]",
            name,
        )
        window.move((x + width / 3, y + height / 2))
        window.drawn()
        assert words in window.run("return document.getElementById('tip').innerText")


def test_outcome_can_be_hidden(window: Browser, file: Path, recording: Recording) -> None:
    window.open(file)
    window.drawn()
    window.run("document.querySelector('#legend button').click()")
    assert int(window.drawn()["drawn"]) == recording.total.in_vain


def test_place_and_task_can_be_in_the_address(window: Browser, file: Path) -> None:
    window.open(file, "from=2&to=4.5&task=3")
    assert view(window) == pytest.approx((2, 4.5))
    assert window.drawn()["task"] == "3"


def test_hundred_thousand_attempts_need_no_more_drawing_than_there_are_pixels(
    window: Browser, recording: Recording, tmp_path: Path
) -> None:
    template, wide = recording.lanes[0].bars[0]._replace(outcome="succeeded"), []
    for row in range(20):
        lane = recording.lanes[row % 3].copy()
        lane.row = row
        lane.bars = [template._replace(start=n / 100, end=n / 100 + 0.009, task_id=n) for n in range(5000)]
        wide.append(lane)
    file = tmp_path / "big.html"
    file.write_text(page(replace(recording, lanes=wide, begin=0.0, end=50.0)), encoding="utf-8")
    window.open(file)
    drawn = int(window.drawn()["drawn"])
    assert window.run("return bars.start.length") == 100_000
    assert drawn <= 20 * lanes(window)[2] + 20
    window.run("look(10, 10.1)")
    assert int(window.drawn()["drawn"]) <= 20 * 12
