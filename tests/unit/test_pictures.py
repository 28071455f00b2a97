"""The pictures of the documentation: drawn from their texts, and fit to be seen by everybody."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SVG = "{http://www.w3.org/2000/svg}"
#: What WCAG 2.2 asks of text, at level AA.
LEAST_CONTRAST = 4.5

every_picture = pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)


def brightness(colour: str) -> float:
    """The relative luminance of `#rrggbb`, as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1, where they are equally bright, to 21."""
    dark, bright = sorted(map(brightness, (one, other)))
    return (bright + 0.05) / (dark + 0.05)


def test_they_are_what_the_texts_say(tmp_path: Path) -> None:
    """If this fails, run `scripts/pictures`."""
    subprocess.run([sys.executable, "-m", "docs.pictures", str(tmp_path)], cwd=ROOT, check=True)
    made = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}

    assert len(made) == 4
    assert {name: (ROOT / "docs" / "pictures" / name).read_text("utf-8") for name in made} == made


@every_picture
def test_a_page_shows_it_and_says_what_is_seen(picture: Path) -> None:
    shown = [
        found for page in PAGES for found in re.findall(rf"!\[(.*)\]\(\S*/{picture.name}\)", page.read_text("utf-8"))
    ]

    assert shown != []
    assert min(map(len, shown)) > 40


@every_picture
def test_it_names_itself_and_needs_nothing_else(picture: Path) -> None:
    """It is shown where no script runs, nothing can be loaded, and a screen reader may be all there is."""
    tree = ET.fromstring(picture.read_text("utf-8"))
    named = [element.get("id") for element in tree[:2] if element.text]

    assert (tree.get("role"), tree.get("aria-labelledby"), named) == ("img", "title desc", ["title", "desc"])
    assert {element.tag.removeprefix(SVG) for element in tree.iter()} <= {
        *("svg", "title", "desc", "style", "rect", "line", "path", "text")
    }
    assert re.findall(r"href|url\(|@import", picture.read_text("utf-8")) == []


@every_picture
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(picture: Path, scheme: int) -> None:
    """On the paper and on boxes, in both schemes."""
    tree = ET.fromstring(picture.read_text("utf-8"))
    style = tree.findtext(f"{SVG}style", "").split("@media (prefers-color-scheme:dark)")[scheme]
    colours = dict(re.findall(r"\.(\w+)\{fill:(#\w+)\}", style))
    used = {str(text.get("class")).split()[0] for text in tree.iter(f"{SVG}text")}
    pairs = {(ink, ground) for ink in used for ground in ("paper", "box")}

    assert {pair for pair in pairs if contrast(*(colours[name] for name in pair)) < LEAST_CONTRAST} == set()
