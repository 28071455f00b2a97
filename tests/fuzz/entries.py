"""Entries of a spool that anybody has put there: each is one that could be stored, or unreadable."""

from __future__ import annotations

from celery_sql_results.models import models_for
from celery_sql_results.writing.spool.files import Unreadable, dumps, loads

MODELS = models_for()


def read(data: bytes) -> None:
    """Read one entry; written again, it is the same.

    Raises:
        whatever no reader should meet.
    """
    try:
        entry = loads(data, MODELS)
    except Unreadable:
        return
    assert loads(dumps(entry), MODELS) == entry, "it is another after it was written"
