"""A SQL result backend for Celery: durable, found at once, open to be looked at.

::

    app.conf.result_backend = "sql+postgresql+psycopg://user@host/db"

Life of a result::

     worker                                                          caller
     task finishes                                                   AsyncResult.get()
       │                                                               │
     backend.py    DatabaseBackend._store_result                     backend.py
       │  encoding.py   meta → row                                     │  _get_task_meta_for, get_many
       ▼                                                               │
     store.py      put(row)                                            │
       │  dialects/   one upsert ── COMMIT                             │
       ▼                                                               │
     the row  ◀──────────────── store.py fetch, fetch_many ────────────┘
                                encoding.py  row → meta  →  result

Five words, five files, in reading order: backend → store → dialects → session and schema → encoding.
"""

from __future__ import annotations

from .backend import DatabaseBackend
from .errors import SchemaError, SettingError, TaskIdTooLong
from .models import Task, TaskExtended, TaskSet
from .session import SessionManager, session_cleanup

__version__ = "0.1.0"

__all__ = [
    "DatabaseBackend",
    "SchemaError",
    "SessionManager",
    "SettingError",
    "Task",
    "TaskExtended",
    "TaskIdTooLong",
    "TaskSet",
    "session_cleanup",
]
