"""A Python that finds this folder at its start has no rich, as after `pip install celery-sql-results`."""

from __future__ import annotations

import sys


class Without:
    """Whoever imports rich is told that there is none."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "rich":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Without())
