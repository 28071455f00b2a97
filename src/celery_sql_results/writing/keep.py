"""When a backend keeps a write in the spool, and when it stores what waits there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from celery import states
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger
from sqlalchemy.engine import URL, make_url
from sqlalchemy.util import memoized_property

from celery_sql_results.models import Models
from celery_sql_results.rows.tasks import Store
from celery_sql_results.settings import Settings
from celery_sql_results.worker.shutdown import told_to_stop
from celery_sql_results.writing import stand_ins as content
from celery_sql_results.writing.retry import Failed, describe, never
from celery_sql_results.writing.spool.directory import Directory, Full
from celery_sql_results.writing.spool.entry import GROUP, PART, Entry, dumps
from celery_sql_results.writing.spool.replay import replay

__all__ = ["SpoolMixin"]

T = TypeVar("T")
logger = get_logger(__name__)

#: States of a task that no longer runs. Before, its soft time limit is its own to notice.
ENDED = states.READY_STATES | states.EXCEPTION_STATES
#: Seconds for which an operation that succeeded is held up, at most, to store some of what waits.
SPARED = 0.1


class SpoolMixin:
    """The methods of a backend that keep what the database cannot take now. The backend brings the rest."""

    settings: Settings
    models: Models
    chords: Any
    _retry: Callable[..., Any]
    _refusal: Callable[[BaseException], str | None]
    exception_safe_to_retry: Callable[[BaseException], bool]
    _payload: Callable[[Any, str], bytes]
    _restore_part: Callable[[Mapping[str, Any]], None]
    _look_after: Callable[[str], None]

    spool: Directory | None = None
    #: Whether something may wait that is for this process to store.
    _waiting = False

    @memoized_property
    def store(self) -> Store:
        """The rows of this backend."""
        raise NotImplementedError

    def _open_spool(self) -> None:
        """Make the spool ready, if there is one.

        Raises:
            SettingError: its directory cannot be used.
        """
        if self.settings.spool_dir is not None:
            place = (*_without_passwords(make_url(self.settings.url)), *self.settings.names)
            self.spool = Directory(self.settings.spool_dir, place, self.settings.spool_max_bytes)

    @property
    def spooled(self) -> int:
        """How many results wait in the spool; 0 without one."""
        return len(self.spool.names()) if self.spool else 0

    # -- in ------------------------------------------------------------------------------------------------------

    def _write_or_keep(
        self, name: str, entry: Callable[[], Entry], operation: Callable[[], T], failed: Failed | None = None
    ) -> T | None:
        """Write; what the database cannot take, for whatever reason but its content, goes to the spool.

        Raises:
            whatever ``operation`` raised last, if there is no spool, or no room in it.
        """
        return self._or_keep(name, entry, lambda: self._write(name, operation, self._in_a_hurry, failed), failed)

    def _or_keep(
        self, name: str, entry: Callable[[], Entry], operation: Callable[[], T], failed: Failed | None = None
    ) -> T | None:
        if self.spool is None:
            return operation()
        began = failed.began if failed else time.monotonic()
        try:
            return operation()
        except Exception as error:  # a driver, or what fetches a password for it, may raise anything
            if self._refusal(error) or not _kept(self.spool, entry(), name, error, time.monotonic() - began):
                raise
        self._waiting = True
        return None

    def _write(
        self,
        name: str,
        operation: Callable[[], T],
        gives_up: Callable[[], bool] = never,
        failed: Failed | None = None,
    ) -> T:
        done: T = self._retry(name, operation, self.settings.retry.writes, gives_up, failed)
        if self._waiting:
            self._catch_up()
        return done

    def _in_a_hurry(self) -> bool:
        """Whether it is better to keep a write than to try it again."""
        return self.spool is not None and told_to_stop()

    # -- out -----------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """The database is there: store a little of what waits, and the rest after other operations."""
        self._waiting = False  # before a look: what another thread keeps from now on is not forgotten
        try:
            more = self.replay(SPARED)
        except Exception as error:  # what gave the occasion has succeeded, and must not fail for this
            if _is_time_limit(error):
                raise
            more = self.exception_safe_to_retry(error)
            logger.warning("the spool could not be emptied yet (%s)", describe(error))
        if more:
            self._waiting = True

    def replay(self, seconds: float = float("inf")) -> bool:
        """Store what waits in the spool, for so long; return whether something may be left.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot be reached, or does not take an entry for now.
            OSError: the spool, or an entry, cannot be read.
        """
        if self.spool is None:
            return False
        return replay(self.spool, self.models, self._restore, self._refusal, self._only_this, seconds)

    def _only_this(self, error: Exception) -> Exception:
        """Return an error that is about one entry only: it does not pass, and yet the database can be read.

        Raises:
            the error, or what keeps the database from being read: any other entry would meet it as well.
        """
        if _is_time_limit(error) or self.exception_safe_to_retry(error):
            raise error
        self.store.exists("")
        return error

    def _restore(self, entry: Entry) -> None:
        if entry.kind == GROUP:
            self._restore_saved(entry.row)
        elif entry.kind == PART:
            self._restore_part(entry.row)
        else:
            content.put(entry.row, partial(self._restore_row, entry.part), self._refusal, self._payload)

    def _restore_saved(self, group: Mapping[str, Any]) -> None:
        """A group, unless it was saved again since: it has no state that would tell."""
        found = self.store.fetch_group(group["taskset_id"])
        there, here = found and found["date_done"], group["date_done"]
        if there is None or here is None or there <= here:
            self.store.put_group(group)

    def _restore_row(self, part: Mapping[str, Any] | None, row: Mapping[str, Any]) -> None:
        self._put(row, part and {**part, "status": row["status"], "result": row["result"]})
        if part is not None:
            self._look_after(part["group_id"])

    def _put(self, row: Mapping[str, Any], part: Mapping[str, Any] | None) -> bool:
        self.store.put(row, None if self.chords is None else part)
        return True


def _without_passwords(url: URL) -> tuple[object, ...]:
    """What tells databases apart, the query included: it may name a host, a service or a schema."""
    query = sorted((name, value) for name, value in url.query.items() if "pass" not in name)
    return (url.get_backend_name(), url.username, url.host, url.port, url.database, query)


def _is_time_limit(error: BaseException) -> bool:
    """Whether it is the soft time limit of a task; SQLAlchemy wraps what strikes while it prepares a statement."""
    return isinstance(getattr(error, "orig", error), SoftTimeLimitExceeded)


def _kept(spool: Directory, entry: Entry, name: str, error: BaseException, seconds: float) -> bool:
    failed, status = (name, describe(error), seconds), entry.row.get("status")
    if status not in ENDED and _is_time_limit(error):
        return False
    if status == states.STARTED:  # would be old news, and no outcome is lost
        logger.warning("%s failed (%s) for %.1f s: left out", *failed)
        return True
    try:
        spool.add(dumps(entry))
    except Full:
        advice = "bring the database back, or raise database_spool_max_bytes"
        size = (spool.path, spool.used(), spool.max_bytes)
        logger.error("%s failed, and the spool %s is full (%d of %d bytes): %s", name, *size, advice)
    except OSError as refused:
        logger.error("%s failed, and the spool %s cannot be written to: %s", name, spool.path, refused)
    else:
        kept = (spool.path, spool.used())
        logger.warning("%s failed (%s) for %.1f s: kept in the spool %s, %d bytes now", *failed, *kept)
        return True
    return False
