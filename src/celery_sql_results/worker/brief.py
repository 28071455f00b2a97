"""What Celery logs of an error that is told in one line: that line, without the way to it.

The way leads through Celery, this package, SQLAlchemy and a driver, and nobody can act on it. It is logged at DEBUG.

Celery's loggers are told apart by name. Where a release names them otherwise, the way is logged as well.
"""

from __future__ import annotations

import logging
import re

from celery.exceptions import BackendStoreError
from sqlalchemy.exc import DBAPIError

from celery_sql_results.errors import DatabaseUnusable, Described, SchemaError, SettingError
from celery_sql_results.foreign import shown
from celery_sql_results.writing import describe

__all__: list[str] = []

#: What is wrong with how a worker is set up, and what keeps the outcome of a task from being stored.
OURS = (DatabaseUnusable, SchemaError, SettingError, BackendStoreError, DBAPIError)
#: How Celery begins to warn of what it then logs as "Task handler raised error": twice is once too often.
OUTSIDE = re.compile(r"RuntimeWarning: Exception raised outside body: (\w+)\(")


def _names(kind: type[BaseException]) -> set[str]:
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))


def _shorten(record: logging.LogRecord) -> bool:
    """Leave the traceback of one of ours out."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OURS) and isinstance(record.args, tuple) and not _are_looked_for():
        record.args = tuple(Described(_told(each)) if isinstance(each, OURS) else each for each in record.args)
        record.exc_info = record.exc_text = None
    return True


def _told(error: BaseException) -> str:
    return shown(describe(error)) if isinstance(error, DBAPIError) else str(error)


def _are_looked_for() -> bool:
    return logging.getLogger(__name__).isEnabledFor(logging.DEBUG)


def _leave_out(record: logging.LogRecord) -> bool:
    """Whether a warning is not about one of ours."""
    found = OUTSIDE.search(record.getMessage())
    is_ours = found is not None and found[1] in set().union(*map(_names, OURS))
    return not is_ours or _are_looked_for()


for name in ("celery.worker", "celery.worker.request", "multiprocessing"):  # the last is that of the pool
    logging.getLogger(name).addFilter(_shorten)
logging.getLogger("py.warnings").addFilter(_leave_out)
