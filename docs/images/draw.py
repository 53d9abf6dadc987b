"""Draws run.png: runs the demo, and takes a picture of the page that it saves, in a real browser.

    python docs/images/draw.py

Needs chromium, and Pillow to make the file small.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).with_name("run.png")
SIZE = (1280, 998)

with tempfile.TemporaryDirectory() as folder:
    page, shot = Path(folder, "run.html"), Path(folder, "run.png")
    subprocess.run([sys.executable, "-m", "retrypool", "demo", "--save", str(page)], check=True)
    subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            "--virtual-time-budget=3000",
            f"--screenshot={shot}",
            f"{page.as_uri()}#theme=light",
        ],
        check=True,
    )
    with Image.open(shot) as image:
        # By coverage: a colour that is rare must not be lost.
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            TARGET, optimize=True
        )
print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes")
