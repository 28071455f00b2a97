"""`python -m docs.operators [FOLDER]`: writes the pages of the commands anew, in place or into another folder."""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from docs.operators.pages import NAMES, ROOT, pages


def main(folder: Path = ROOT) -> None:
    """Write them all, by one process for each shop."""
    folder = folder.resolve()
    with ProcessPoolExecutor(len(NAMES), get_context("spawn")) as processes:
        made = [page for some in processes.map(pages, NAMES) for page in some.items()]
    for name, text in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
