"""A real browser without a window, driven over the WebDriver protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
]


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._session}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["value"]

    def open(self, page: Path, address: str = "") -> None:
        self.call("POST", "/url", {"url": "about:blank"})
        self.call("POST", "/url", {"url": f"{page.as_uri()}#{address}"})

    def run(self, script: str, *arguments: object) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": arguments})

    def drawn(self) -> dict[str, str]:
        """What the page says of itself, once it has drawn what it was last told to."""
        self.call(
            "POST",
            "/execute/async",
            {"script": "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))", "args": []},
        )
        return dict(self.run("return {...document.body.dataset}"))

    def move(self, *points: tuple[float, float], drag: bool = False, clicks: int = 0) -> None:
        """Move the pointer from point to point, with the button held if it is to drag, and click there."""
        moves = [
            {"type": "pointerMove", "duration": 20, "x": round(x), "y": round(y), "origin": "viewport"}
            for x, y in points
        ]
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        steps: list[Any] = [moves[0], down, *moves[1:], up] if drag else moves
        steps += [down, up] * clicks
        self.call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]})

    def press(self, key: str) -> None:
        steps = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def complaints(self) -> list[str]:
        """What the console of the page has got."""
        entries = self.call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("GET", "/screenshot"))


@contextmanager
def browser(folder: Path, width: int = 1400, height: int = 1200) -> Iterator[Browser]:
    """Yield a browser with a profile of its own in `folder`."""
    assert CHROMEDRIVER is not None
    with subprocess.Popen(
        [CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        assert driver.stdout is not None
        try:
            port = next(
                line.rpartition("port ")[2].strip(" .\n")
                for line in driver.stdout
                if "successfully on port" in line
            )
            options = {
                "binary": CHROMIUM,
                "args": [
                    *ARGUMENTS,
                    f"--window-size={width},{height}",
                    f"--user-data-dir={folder / 'profile'}",
                ],
            }
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            server = Browser(f"http://127.0.0.1:{port}")
            session = server.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            window = Browser(f"http://127.0.0.1:{port}/session/{session}")
            try:
                yield window
            finally:
                window.call("DELETE", "")
        finally:
            driver.terminate()
