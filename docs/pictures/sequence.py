"""Draws who tells whom what, from the top to the bottom, as a text has it.

title: A wait
columns: Caller, Database
== a band across all columns
Caller -> Database: an arrow, "-->" a dashed one, "-x" one that does not arrive
Caller: a note
Database away: from here on it is not there
Database back: and from here on it is
Caller dies: its line ends
"""

from __future__ import annotations

import re
from collections.abc import Callable

from docs.pictures.style import LETTER, LINE, MARGIN, WIDTH, broken, lines, picture, tag

ARROW = re.compile(r"(?P<who>.+?) (?P<how>-->|->|-x) (?P<whom>.+)")
STATE = re.compile(r"(?P<who>.+) (?P<what>away|back|dies)")
#: How the lines of those look who are there, and who are not.
THERE, NOT_THERE = {"class_": "quiet-line"}, {"class_": "bad-line", "stroke_dasharray": "3 6"}
TOP, GAP = 46, 14


class Sequence:
    """One picture; `y` is how far it has come."""

    def __init__(self, columns: list[str]) -> None:
        step = (WIDTH - 2 * MARGIN) / len(columns)
        self.x = {name: MARGIN + step * (number + 0.5) for number, name in enumerate(columns)}
        self.y: float = TOP + GAP
        self.parts: list[str] = []
        self._lifelines: list[str] = []
        #: Since when each line looks as it does; who has died has none.
        self._since = {name: (float(TOP), THERE) for name in columns}

    def head(self) -> list[str]:
        """The names of the columns, and below them their lines, behind all else."""
        for name in list(self._since):
            self._turn(name, None)
        boxes = []
        for name, x in self.x.items():
            half = len(name) * LETTER / 2 + 14
            boxes.append(tag("rect", x=x - half, y=MARGIN, width=2 * half, height=TOP - MARGIN, rx=6, class_="box"))
            boxes += lines([name], x, MARGIN + 7, "ink bold plain")
        return [*self._lifelines, *boxes]

    def arrow(self, who: str, how: str, whom: str, text: str) -> None:
        """What one tells another."""
        start, end = self.x[who], self.x[whom]
        words, away = broken(text), 1 if end > start else -1
        colour = "bad" if how == "-x" else "good"
        self.parts += lines(words, (start + end) / 2, self.y, "ink")
        self.y += len(words) * LINE + 9
        y, end = self.y, start + (end - start) * 0.75 if how == "-x" else end - away * 3
        dashes = {"stroke_dasharray": "7 5"} if how == "-->" else {}
        self.parts.append(tag("path", d=f"M{start:.0f} {y:.0f}H{end:.0f}", class_=f"{colour}-line", **dashes))
        if how == "-x":
            self._cross(end, y)
        else:
            head = f"M{end:.0f} {y:.0f}l{-away * 10} -6v12z"
            self.parts.append(tag("path", d=head, class_=colour))
        self.y += GAP

    def note(self, who: str, text: str, class_: str = "ink") -> None:
        """What one does for himself."""
        words = broken(text, WIDTH * 0.6)
        half = max(map(len, words)) * LETTER / 2 + 10
        x = min(max(self.x[who], MARGIN + half), WIDTH - MARGIN - half)
        height = len(words) * LINE + 10
        self.parts.append(tag("rect", x=x - half, y=self.y, width=2 * half, height=height, rx=6, class_="box"))
        self.parts += lines(words, x, self.y + 5, f"{class_} plain")
        self.y += height + GAP

    def band(self, text: str) -> None:
        """A heading."""
        words = broken(text)
        self.y += GAP / 2
        height = len(words) * LINE + 8
        self.parts.append(tag("rect", x=0, y=self.y, width=WIDTH, height=height, class_="box"))
        self.parts += lines(words, WIDTH / 2, self.y + 4, "ink bold plain")
        self.y += height + GAP

    def state(self, who: str, what: str, text: str) -> None:
        """Somebody goes, comes back, or dies."""
        if what != "back":
            self._cross(self.x[who], self.y)
            self._turn(who, NOT_THERE if what == "away" else None)
            self.y += GAP
        self.note(who, text, "ink" if what == "back" else "bad")
        if what == "back":
            self._turn(who, THERE)

    def _turn(self, who: str, looks: dict[str, str] | None) -> None:
        """The line of one looks different from here on, or ends."""
        since, before = self._since.pop(who, (self.y, None))
        if before:
            x = self.x[who]
            self._lifelines.append(tag("line", x1=x, y1=since, x2=x, y2=self.y, **before))
        if looks:
            self._since[who] = self.y, looks

    def _cross(self, x: float, y: float) -> None:
        d = f"M{x - 7:.0f} {y - 7:.0f}l14 14m0 -14l-14 14"
        self.parts.append(tag("path", d=d, class_="bad-line", stroke_width="3"))


def draw(source: str) -> str:
    """The picture that a text describes."""
    told = [line.strip() for line in source.splitlines() if line.strip()]
    known = dict(line.split(": ", 1) for line in told[:2])
    made = Sequence(known["columns"].split(", "))
    for line in told[2:]:
        step(made, line)
    head = made.head()
    return picture(known["title"], ". ".join(told[2:]).replace("== ", ""), made.y + GAP / 2, [*head, *made.parts])


def step(made: Sequence, line: str) -> None:
    """Draw one line of the text."""
    if line.startswith("== "):
        made.band(line[3:])
        return
    who, text = line.split(": ", 1)
    ways: list[tuple[re.Pattern[str], Callable[..., None]]] = [(ARROW, made.arrow), (STATE, made.state)]
    for pattern, way in ways:
        if found := pattern.fullmatch(who):
            way(**found.groupdict(), text=text)
            return
    made.note(who, text)
