"""The code of the guides, as somebody copies it from there."""

from __future__ import annotations

import re
from pathlib import Path

from guides.environment import ROOT

#: A piece of code that begins with the name of its file.
FILE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    """The text of a guide."""
    return (ROOT / "docs" / "howto" / f"{name}.md").read_text(encoding="utf-8")


def copy(name: str, file: str, folder: Path) -> Path:
    """Write a file of a guide into a folder, and return its path."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dict(FILE.findall(page(name)))[file], encoding="utf-8")
    return path
