"""Draws ratios as bars: what is as long as the mark, what is longer, and what is shorter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from docs.pictures.style import LINE, MARGIN, WIDTH, broken, lines, picture, tag

#: Where bars begin at the left, and the room for their figures at the right.
LEFT, RIGHT = 210, 70
BAR, GAP = 14, 12
#: Remarks are written smaller.
SMALL = 14 / 16

Bars = Sequence[tuple[str, float]]


class Scale(NamedTuple):
    """Powers of ten, from the first to the last."""

    first: int
    last: int

    def x(self, ratio: float) -> float:
        """Where a ratio is."""
        return LEFT + (math.log10(ratio) - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)


def scale_for(ratios: Sequence[float]) -> Scale:
    """The least one that has room for all, and for 1."""
    first = math.floor(math.log10(min(ratios, default=1.0)))
    last = math.ceil(math.log10(max(ratios, default=1.0)))
    return Scale(min(first, 0), max(last, 1))


def draw(title: str, groups: Mapping[str, Bars], remarks: Sequence[str]) -> str:
    """A picture of positive ratios on a logarithmic scale, a heading above each group, and remarks below.

    A bar begins at 1: it goes to the right for what is longer, and to the left for what is shorter.
    """
    scale = scale_for([ratio for bars in groups.values() for _, ratio in bars])
    parts: list[str] = []
    top = y = _write(parts, title, MARGIN, "bold") + LINE + GAP
    for heading, bars in groups.items():
        y = _write(parts, heading, y, "bold")
        for name, ratio in bars:
            parts += _bar(name, ratio, y, scale)
            y += LINE + 2
        y += GAP
    axis = [part for power in range(scale.first, scale.last + 1) for part in _tick(10.0**power, top, y, scale)]
    y += GAP
    for remark in remarks:
        y = _write(parts, remark, y, "small", SMALL)
    told = [
        f"{heading}: " + ", ".join(f"{name} {_figure(ratio)}" for name, ratio in groups[heading]) for heading in groups
    ]
    return picture(title, ". ".join([*told, *remarks]), y + MARGIN, [*axis, *parts])


def _write(parts: list[str], text: str, y: float, looks: str, size: float = 1.0) -> float:
    """Add text at the left margin, and return where the next begins."""
    words = broken(text, (WIDTH - 2 * MARGIN) / size)
    parts += lines(words, MARGIN, y, f"ink {looks}", "start")
    return y + len(words) * LINE + 4


def _bar(name: str, ratio: float, y: float, scale: Scale) -> list[str]:
    one, end = scale.x(1.0), scale.x(ratio)
    colour = "good" if ratio >= 1 else "bad"
    left, width = min(one, end), max(abs(end - one), 1.0)
    return [
        tag("rect", x=left, y=y + 3, width=width, height=BAR, class_=colour),
        *lines([name], MARGIN, y, "ink plain", "start"),
        *lines([_figure(ratio)], max(one, end) + 6, y, "ink", "start"),
    ]


def _tick(ratio: float, top: float, bottom: float, scale: Scale) -> list[str]:
    looks = {"class_": "quiet-line"} if ratio == 1 else {"class_": "quiet-line", "stroke_dasharray": "2 4"}
    x = scale.x(ratio)
    return [
        tag("line", x1=x, y1=top, x2=x, y2=bottom, **looks),
        *lines([f"{ratio:g}×"], x, top - LINE, "ink"),
    ]


def _figure(ratio: float) -> str:
    """Two digits: there are no more in it."""
    return f"{float(f'{ratio:.2g}'):g}×"
