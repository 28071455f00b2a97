"""The project that `celery -A cli.shop results …` looks at; the variable CLI_SETTINGS has its settings as JSON."""

from __future__ import annotations

import json
import os

from celery import Celery

settings = json.loads(os.environ.get("CLI_SETTINGS", "{}"))
if "+portable" in settings.get("result_backend", ""):
    import servers  # noqa: F401 - which makes that name known

app = Celery("shop", broker="memory://")
app.conf.update(settings)


@app.task(name="shop.add")
def add(x: int, y: int) -> int:
    """Something that can be sent again."""
    return x + y
