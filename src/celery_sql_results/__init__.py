"""A SQL result backend for Celery: durable, found at once, open to be looked at.

::

    app.conf.result_backend = "sql+postgresql+psycopg://user@host/db"

Life of a result::

     worker                                                       caller
     a task ends                                                  AsyncResult.get()
       │                                                            │
     backend.py           store_result                            backend.py
       │  payload/          value → columns                         │
       ▼                                                            ▼
     writing/writer.py    one attempt, and what helps if it fails  waiting/  subscribe, look, wait
       ▼                                                            │
     rows/tasks.py        put                                       ├─ listening.py  LISTEN/NOTIFY
       │  dialects/         one upsert ── COMMIT ── notify ───────▶ │
       ▼                                                            └─ polling.py    any database
     the row  ◀───────── rows/tasks.py fetch_many(ids) ─────────────┘
       │                 payload/      columns → meta  →  the result
       │  if the task is a part of a chord
     chords/chords.py     count the parts, elect one ──▶ handing_over.py, joining.py  send the body

The rooms in reading order: backend → services → writing → rows → dialects → connections; then waiting, chords and
payload; then schema, which makes the tables ready, and session, which makes the engines. So that no outcome is lost,
writing asks once what an error means (verdict), repeats what passes (retry), stores what the database takes instead
(stand_ins), and keeps on the disk what has to wait (spool).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backend import DatabaseBackend
    from .completing import complete
    from .errors import (
        AlreadyCompleted,
        AwaitTimeout,
        CannotComplete,
        DatabaseUnusable,
        NotCommitted,
        PayloadTooLarge,
        ResultRefused,
        SchemaError,
        SettingError,
        TaskIdInvalid,
        TaskIdTooLong,
    )
    from .models import Task, TaskExtended, TaskSet
    from .session import SessionManager, session_cleanup

__version__ = "0.1.0"

__all__ = [
    "AlreadyCompleted",
    "AwaitTimeout",
    "CannotComplete",
    "DatabaseBackend",
    "DatabaseUnusable",
    "NotCommitted",
    "PayloadTooLarge",
    "ResultRefused",
    "SchemaError",
    "SessionManager",
    "SettingError",
    "Task",
    "TaskExtended",
    "TaskIdInvalid",
    "TaskIdTooLong",
    "TaskSet",
    "complete",
    "session_cleanup",
]

#: Where each public name is at home. It is imported when somebody asks: each `celery` command imports this package for
#: its commands, and most have no use for SQLAlchemy.
_HOMES = {
    "backend": ("DatabaseBackend",),
    "completing": ("complete",),
    "errors": (
        *("AlreadyCompleted", "AwaitTimeout", "CannotComplete", "NotCommitted"),
        *("DatabaseUnusable", "PayloadTooLarge", "ResultRefused", "SchemaError", "SettingError"),
        *("TaskIdInvalid", "TaskIdTooLong"),
    ),
    "models": ("Task", "TaskExtended", "TaskSet"),
    "session": ("SessionManager", "session_cleanup"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name == home or name in names:
            module = import_module(f".{home}", __name__)
            return module if name == home else getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
