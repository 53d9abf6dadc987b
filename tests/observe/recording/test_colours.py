"""The colours of outcomes can be told apart by the colour-blind, and from the page that they are on."""

import re
from importlib.resources import files
from itertools import combinations

import pytest

from retrypool import Outcome

# What is left of linear red, green and blue for the three kinds of colour-blindness, at full severity:
# Machado, Oliveira and Fernandes, 2009.
EYES = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.01182, 0.04294, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.3039),
    ),
}
TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)

Colour = tuple[float, float, float]


def themes() -> dict[str, dict[str, str]]:
    css = files("retrypool.observe.recording").joinpath("picture.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root(?:\[data-theme=\"(\w+)\"\])? \{(.*?)\}", css, re.DOTALL)
    return {theme or "light": dict(re.findall(r"--(\w+): (#[0-9a-f]+)", block)) for theme, block in blocks}


def times(matrix: tuple[tuple[float, ...], ...], colour: Colour) -> Colour:
    first, second, third = (sum(a * b for a, b in zip(row, colour, strict=True)) for row in matrix)
    return first, second, third


def linear(code: str) -> Colour:
    digits = code[1:] if len(code) == 7 else "".join(2 * digit for digit in code[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return red, green, blue


def lab(colour: Colour) -> Colour:
    x, y, z = (
        each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116
        for each in (max(a, 0.0) / b for a, b in zip(times(TO_XYZ, colour), WHITE, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(one: str, other: str, eyes: str) -> float:
    a, b = (lab(times(EYES[eyes], linear(code))) for code in (one, other))
    return float(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5)


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_outcomes_look_different(theme: str, eyes: str) -> None:
    """By 10 at the least in CIE L*a*b*, where 2.3 is what can just be noticed."""
    colours = {outcome.value: themes()[theme][outcome.value] for outcome in Outcome}
    close = {
        (a, b): round(distance(colours[a], colours[b], eyes), 1)
        for a, b in combinations(colours, 2)
        if distance(colours[a], colours[b], eyes) < 10
    }
    assert close == {}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_outcomes_stand_out_from_the_lanes(theme: str, eyes: str) -> None:
    colours = themes()[theme]
    for outcome in Outcome:
        for ground in ("card", "lane"):
            assert distance(colours[outcome.value], colours[ground], eyes) > 15
