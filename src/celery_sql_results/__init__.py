"""A SQL result backend for Celery: durable, found at once, open to be looked at.

::

    app.conf.result_backend = "sql+postgresql+psycopg://user@host/db"

Life of a result::

     worker                                                          caller
     task finishes                                                   AsyncResult.get()
       │                                                               │
     backend.py    DatabaseBackend._store_result                     backend.py
       │  encoding.py   meta → row                                   waiting/consumer.py   subscribe, look, wait
       ▼                                                               │
     store.py      put(row)                                          waiting/notifier.py   when to look again
       │  dialects/   one upsert ── COMMIT ── wake-up ─────────────▶   ├─ waiting/listen.py  LISTEN/NOTIFY
       ▼                                                               └─ waiting/poll.py    any database
     the row  ◀──────────────── store.py fetch_many(ids) ──────────────┘
       │                        encoding.py  row → meta  →  result
       │  if the task is part of a chord
     chords/rows.py             count in, elect one ──▶ chords/contract.py   join the header, send the body

Five words in reading order: backend → store → dialects → waiting → encoding. Below them are session and schema; chords
stand beside, and retention deletes what has expired. So that no result is lost, retry repeats what passes, content puts
a marker where a value is refused, spool keeps on the disk what has to wait, and upkeep empties it.
"""

from __future__ import annotations

from .backend import DatabaseBackend
from .errors import PayloadTooLarge, ResultRefused, SchemaError, SettingError, TaskIdTooLong
from .models import Task, TaskExtended, TaskSet
from .session import SessionManager, session_cleanup

__version__ = "0.1.0"

__all__ = [
    "DatabaseBackend",
    "PayloadTooLarge",
    "ResultRefused",
    "SchemaError",
    "SessionManager",
    "SettingError",
    "Task",
    "TaskExtended",
    "TaskIdTooLong",
    "TaskSet",
    "session_cleanup",
]
