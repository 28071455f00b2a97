"""Stores and reads results in a process for which a library lacks a name: `python without.py NAME URL...`.

The name is hidden from the one place that asks for such names; the library itself, whose other releases would have
another name for it, goes on working.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
from types import ModuleType
from typing import Any

from celery import Celery, states
from celery.result import AsyncResult, GroupResult

#: Seconds within which a result must be there.
LONG = 20


class Without:
    """A thing without one attribute of it, or of one of its attributes."""

    def __init__(self, thing: Any, path: list[str]) -> None:
        self._thing, self._path = thing, path

    def __getattr__(self, name: str) -> Any:
        first, *rest = self._path
        if name != first:
            return getattr(self._thing, name)
        if not rest:
            raise AttributeError(name)
        return Without(getattr(self._thing, name), rest)


def hide(name: str) -> None:
    """Hide a name, such as `module:attribute.attribute`, from the package. Before the package is imported."""
    hidden, _, path = name.partition(":")
    original = importlib.import_module

    def import_module(module: str, package: str | None = None) -> Any:
        found: ModuleType = original(module, package)
        asks = sys._getframe(1).f_globals.get("__name__")
        is_hidden = module == hidden and asks == "celery_sql_results._compat"
        return Without(found, path.split(".")) if is_hidden else found

    importlib.import_module = import_module  # type: ignore[assignment]


def use(url: str) -> list[Any]:
    """What is read of a task, of one that is awaited, of one that may not be replaced, and of a group."""
    app = Celery("without", broker="memory://", set_as_current=False)
    app.conf.update(result_backend=f"sql+{url}")
    for _ in range(8):  # often enough for psycopg to prepare the statement
        app.backend.store_result("t", None, states.STARTED)
    app.backend.store_result("t", "Ü", states.SUCCESS)
    app.backend.store_result("t", "late", states.FAILURE)
    later = threading.Timer(0.2, app.backend.store_result, ("later", [1, None], states.SUCCESS))
    later.start()
    found = [AsyncResult(task_id, app=app).get(timeout=LONG) for task_id in ("t", "later")]
    later.join()
    GroupResult("g", [AsyncResult("t", app=app)], app=app).save()
    app.backend.cleanup()
    return [*found, GroupResult.restore("g", app=app).get(timeout=LONG)]


def main(name: str, *urls: str) -> None:
    """Print what was read, what was told of it until then, and what is told to whoever asks for the name."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("celery_sql_results").addHandler(handler)
    hide(name)
    from celery_sql_results._compat import private

    found = [use(url) for url in urls]
    by_use = list(told)
    private(name)
    print(json.dumps([found, by_use, told]))


if __name__ == "__main__":
    main(*sys.argv[1:])
