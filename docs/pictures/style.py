"""How all pictures look: the colours of both schemes, the frame, and text in lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

#: The width of all pictures, in pixels: on a phone they are shown at about half of it, and can still be read.
WIDTH = 640
MARGIN = 12
#: The size of text, the height of its lines, and how wide a letter is on average, at most.
SIZE, LINE, LETTER = 16, 20, 9.0

#: Colours by what they are for, in the light and in the dark scheme.
COLOURS = {
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1f2328", "#e6edf3"),
    "quiet": ("#57606a", "#9aa4af"),
    "good": ("#0a4fb3", "#79b8ff"),
    "bad": ("#b42318", "#ff8f85"),
    "box": ("#eef2f6", "#262d36"),
}


def rules(scheme: int) -> str:
    """The style sheet of one scheme: a class fills, with `-line` it strokes; text has a rim of paper."""
    inks = (f".{name}{{fill:{both[scheme]}}}.{name}-line{{stroke:{both[scheme]}}}" for name, both in COLOURS.items())
    return "".join(inks) + f"text{{stroke:{COLOURS['paper'][scheme]}}}.plain{{stroke:none}}"


STYLE = (
    f"text{{font:{SIZE}px sans-serif;paint-order:stroke;stroke-width:5px;stroke-linejoin:round}}"
    ".bold{font-weight:bold}.small{font-size:14px}path,line{stroke-width:2px}"
    f"{rules(0)}@media (prefers-color-scheme:dark){{{rules(1)}}}"
)


def tag(name: str, text: str = "", **attributes: object) -> str:
    """An element; `class_` is the attribute `class`, and numbers are rounded."""
    shown = {key.rstrip("_").replace("_", "-"): number(value) for key, value in attributes.items()}
    opened = " ".join([name, *(f"{key}={quoteattr(value)}" for key, value in shown.items())])
    return f"<{opened}>{escape(text)}</{name}>" if text else f"<{opened}/>"


def number(value: object) -> str:
    """Without what nobody can see."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def broken(text: str, width: float = WIDTH - 2 * MARGIN) -> list[str]:
    """Lines that are no wider."""
    return textwrap.wrap(text, int(width / LETTER))


def lines(words: list[str], x: float, y: float, class_: str, anchor: str = "middle") -> list[str]:
    """Text around `x`, moved where it would leave the picture; `y` is the top of the first line."""
    if anchor == "middle":
        half = max(map(len, words)) * LETTER / 2
        x = min(max(x, MARGIN + half), WIDTH - MARGIN - half)
    base = y + LINE - 5
    return [
        tag("text", word, x=x, y=base + n * LINE, text_anchor=anchor, class_=class_) for n, word in enumerate(words)
    ]


def picture(title: str, description: str, height: float, parts: Iterable[str]) -> str:
    """The whole document: it names itself, and has a ground of its own, since pages do not always follow the scheme."""
    frame = f'viewBox="0 0 {WIDTH} {number(height)}" width="{WIDTH}" height="{number(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {frame} role="img" aria-labelledby="title desc">'
    named = [tag("title", title, id="title"), tag("desc", description, id="desc"), tag("style", STYLE)]
    paper = tag("rect", width=WIDTH, height=height, rx=8, class_="paper")
    return "\n".join([head, *named, paper, *parts, "</svg>", ""])
