"""What was found of one thing: as it should be, or not, and then what to do."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Finding", "Level"]


class Level(str, Enum):
    """How it is: as it should be, as it could be better, or as it should not be."""

    OK = "ok"
    ADVICE = "advice"
    WRONG = "wrong"


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        about: what, in a word.
        found: how it is.
        level: what that means.
        needed: how it should be, unless that is said already.
        to_do: what brings that about.
    """

    about: str
    found: str
    level: Level = Level.OK
    needed: str = ""
    to_do: str = ""

    def __str__(self) -> str:
        return f"{self.found}: {self.to_do}" if self.to_do else self.found
