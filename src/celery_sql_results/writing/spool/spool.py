"""What the database cannot take now is kept on the disk, and the log says so."""

from __future__ import annotations

import logging
import time

from sqlalchemy.engine import URL, make_url

from celery_sql_results.foreign import escaping
from celery_sql_results.models import TableNames
from celery_sql_results.writing.described import describe
from celery_sql_results.writing.entry import Entry
from celery_sql_results.writing.outage import FULL, KEPT, NO_MORE, Outage
from celery_sql_results.writing.retry import Failed

from .directory import Directory, Full
from .files import dumps

__all__ = ["Spool"]

logger = escaping(logging.getLogger(__name__))


class Spool:
    """The spool of one database and set of tables.

    Args:
        root: the directory that was set.
        url: URL of the database.
        names: names of the tables.
        max_bytes: how large it may become.
        shown: the URL as it may be shown, for people who look at the directory.

    Raises:
        SettingError: the directory cannot be used.
    """

    def __init__(self, root: str, url: str, names: TableNames, max_bytes: float, shown: str) -> None:
        place = (*_without_passwords(make_url(url)), *names)
        self.directory = Directory(root, place, max_bytes)
        self.directory.note(f"{shown}, tables {names.task} and {names.group}")

    def may_hold_entries(self) -> bool:
        """Whether something waits. If that cannot be seen, yes: who empties the spool tells why."""
        try:
            return bool(self.directory.names())
        except OSError:
            return True

    def keep(self, entry: Entry, failed: Failed, outage: Outage) -> bool:
        """Whether ``entry``, which has ``failed``, waits in the spool now. Of an outage, the first is told."""
        path, failure = self.directory.path, (entry, describe(failed.error), time.monotonic() - failed.began)
        try:
            self.directory.add(dumps(entry))
        except Full:
            advice = "bring the database back, or raise database_spool_max_bytes"
            size = (path, self.directory.used(), self.directory.max_bytes)
            if outage.is_first(FULL):
                logger.error("%s failed, and the spool %s is full (%d of %d bytes): %s", entry, *size, advice)
        except OSError as refused:
            if outage.is_first(FULL):
                logger.error("%s failed, and the spool %s cannot be written to: %s", entry, path, refused)
        else:
            if outage.is_first(KEPT):
                logger.warning("%s failed (%s) for %.1f s: kept in the spool %s. %s", *failure, path, NO_MORE)
            return True
        return False


def _without_passwords(url: URL) -> tuple[object, ...]:
    """What tells databases apart, the query included: it may name a host, a service or a schema."""
    query = sorted((name, value) for name, value in url.query.items() if "pass" not in name)
    return (url.get_backend_name(), url.username, url.host, url.port, url.database, query)
