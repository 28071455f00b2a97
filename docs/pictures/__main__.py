"""`python -m docs.pictures [FOLDER]`: draws each `*.txt` of this folder as SVG, beside it or into another folder."""

import sys
from pathlib import Path

from docs.pictures.sequence import draw

HERE = Path(__file__).parent


def main(folder: Path = HERE) -> None:
    """Draw them all."""
    for source in sorted(HERE.glob("*.txt")):
        (folder / source.with_suffix(".svg").name).write_text(draw(source.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
