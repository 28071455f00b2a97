"""The project that `celery -A cli.shop results …` looks at; the variable CLI_SETTINGS has its settings as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery, Task

settings = json.loads(os.environ.get("CLI_SETTINGS", "{}"))
if "+portable" in settings.get("result_backend", ""):
    import servers  # noqa: F401 - which makes that name known

app = Celery("shop", broker="memory://")
app.conf.update(settings)


@app.task(name="shop.add")
def add(x: int, y: int) -> int:
    """Something that can be sent again."""
    return x + y


class Labelled(Task):
    """Tasks that are sent with a header of the project."""

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Add the header."""
        return super().apply_async(args, kwargs, **{**options, "headers": {"shop": "Rome"}})


@app.task(name="shop.pack", base=Labelled, expires=3600, time_limit=60, soft_time_limit=50, priority=6)
def pack(folder: str, number: int, currency: str) -> None:
    """Something with options of its own."""
