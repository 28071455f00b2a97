"""The one way to write: try, ask for one verdict, and act on it until the outcome is stored or kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count

from celery.exceptions import BackendStoreError, SoftTimeLimitExceeded

from celery_sql_results.errors import bare
from celery_sql_results.foreign import escaping
from celery_sql_results.rows import Database

from .described import describe
from .entry import CHORD, GROUP, PART, TASK, Entry
from .mentions import Mentions
from .outage import LOST, NO_MORE
from .retry import Failed, Retries, attempt, never
from .spool import Spool
from .stand_ins import Encode, put_stand_in
from .verdict import Judge, Verdict

__all__ = ["StruckMeanwhile", "Writer"]

logger = escaping(logging.getLogger(__name__))

#: Bytes from which on a row may be what makes a statement slow, and how often such a one may be ended for its time
#: before something smaller is stored.
LARGE, TOO_SLOW = 1_000_000, 3


def always() -> bool:
    """What is over for whoever does not know of a task that runs."""
    return True


class StruckMeanwhile(SoftTimeLimitExceeded):
    """The soft time limit of the task that runs has struck while it stored the outcome of a task, which is stored."""


class Writer:
    """Stores the entries of one backend.

    Args:
        database: where they are stored.
        judge: tells what an error means.
        retries: repeats what passes.
        encode: the payload of a value for a state, for what stands for a value that is refused.
        spool: keeps on the disk what the database cannot take now, if there is one.
    """

    def __init__(self, database: Database, judge: Judge, retries: Retries, encode: Encode, spool: Spool | None) -> None:
        self._database = database
        self._judge = judge
        self._retries = retries
        self._encode = encode
        self._spool = spool
        self._outage = outage = retries.outage
        self._mentions = Mentions(self.put_or_stand_in, lambda: database.is_in_this_process, outage, judge.passes)

    def write(self, entry: Entry, in_a_hurry: Callable[[], bool] = never, is_over: Callable[[], bool] = always) -> bool:
        """Store ``entry``: ``False`` if it is kept in the spool instead.

        An outcome is tried again as the settings say, or until the process is ``in_a_hurry`` and there is a spool. A
        time limit that strikes meanwhile does not end that. A state that is no outcome may be left out.

        Raises:
            StruckMeanwhile: a time limit has struck, and the task that it is for ``is_over`` not yet.
            BackendStoreError: the database could not be reached for as long as the settings say.
            whatever the database raised last.
        """
        if not entry.is_outcome:
            self._mentions.put(entry)
            return True
        failed = self._attempt(entry)  # nearly always that is all: what helps against errors takes time to make ready
        if failed is None:
            self._outage.answered(writes=True)
            return True
        return self._insist(entry, failed, in_a_hurry, is_over)

    def restore(self, entry: Entry) -> None:
        """Store an entry that waited; a group that was saved again since stays as it is.

        Raises:
            whatever the database raised last.
        """
        if entry.kind == GROUP:
            self._database.rows.groups.put_unless_newer(entry.row)
        else:
            self.put_or_stand_in(entry)

    def put_or_stand_in(self, entry: Entry) -> None:
        """Store ``entry`` at the first attempt, or what stands for it if it is refused.

        Raises:
            whatever the database raised last.
        """
        failed = self._attempt(entry)
        if failed and failed.verdict.refusal:
            failed = put_stand_in(entry, failed, self._attempt, self._encode)
        if failed:
            raise failed.error

    def keep_or_do(self, entry: Callable[[], Entry], operation: Callable[[], object]) -> bool:
        """Do what follows the storing of an entry. If that cannot be done now, keep the entry: ``False``.

        Whoever stores the entry from the spool does then what follows.

        Raises:
            whatever ``operation`` raised, if there is no spool, or no room in it.
        """
        failed = attempt(operation, self._judge)
        if not isinstance(failed, Failed):
            return True
        if failed.verdict.refusal or not self._is_kept(entry(), failed):
            raise failed.error
        return False

    # -- the steps -----------------------------------------------------------------------------------------------

    def _put(self, entry: Entry) -> None:
        kind, row, part = entry
        rows = self._database.rows
        if kind == TASK:
            rows.tasks.put(row, part if rows.chords else None)
        elif kind == GROUP:
            rows.groups.put(row)
        elif rows.chords and kind == PART:
            rows.chords.put_part(row)
        elif rows.chords and kind == CHORD:
            rows.chords.open(row)

    def _attempt(self, entry: Entry) -> Failed | None:
        return attempt(lambda: self._put(entry), self._judge)

    def _insist(
        self, entry: Entry, failed: Failed, in_a_hurry: Callable[[], bool], is_over: Callable[[], bool]
    ) -> bool:
        limit = failed.error if failed.verdict.time_limit else None
        try:
            stored = self._settle(entry, failed, in_a_hurry)
        except SoftTimeLimitExceeded as struck:  # it strikes anywhere, but only once in the life of a task
            if not entry.ends_a_task:
                raise
            limit = struck
            stored = self._settle(entry, Failed(struck, Verdict(time_limit=True), failed.began), in_a_hurry)
        if limit and not is_over():
            raise StruckMeanwhile from limit
        return stored

    def _settle(self, entry: Entry, failed: Failed | None, in_a_hurry: Callable[[], bool]) -> bool:
        left = self._attempts(entry, in_a_hurry, failed)
        if left and left.verdict.refusal:
            left = put_stand_in(entry, left, lambda stand_in: self._attempts(stand_in, in_a_hurry), self._encode)
        if left is None:
            return True
        if left.verdict.time_limit and not entry.ends_a_task:
            raise left.error
        if self._is_kept(entry, left):
            return False
        if left.verdict.time_limit:
            return self._settle(entry, None, in_a_hurry)
        self._tell_lost(entry, left)
        if entry.kind == TASK and left.verdict.passes:
            ids = {"task_id": entry.row["task_id"], "state": entry.row["status"]}
            reason = f"{self._database.name} cannot be reached ({describe(left.error)})"
            raise BackendStoreError(f"the result database {reason}", **ids) from bare(left.error)
        raise left.error

    def _tell_lost(self, entry: Entry, failed: Failed) -> None:
        if self._outage.is_first(LOST):
            failure = (entry, describe(failed.error), time.monotonic() - failed.began)
            logger.error("%s failed (%s) for %.1f s: given up. %s", *failure, NO_MORE)

    def _attempts(self, entry: Entry, in_a_hurry: Callable[[], bool], failed: Failed | None = None) -> Failed | None:
        gives_up = in_a_hurry if self._spool else never
        writes, judge = self._retries.policy.writes, self._judge_of(entry)
        return self._retries.insist(str(entry), lambda: self._put(entry), writes, gives_up, failed, judge)

    def _judge_of(self, entry: Entry) -> Callable[[BaseException], Verdict]:
        """A server that ends each statement with a large row for its time will never take it."""
        if entry.size < LARGE:
            return self._judge
        slow = count(1)

        def judge(error: BaseException) -> Verdict:
            verdict = self._judge(error)
            if verdict.timed_out and next(slow) >= TOO_SLOW:
                return Verdict(refusal="each attempt took longer than the server's time limit for a statement")
            return verdict

        return judge

    def _is_kept(self, entry: Entry, failed: Failed) -> bool:
        """Whether the spool has it now, also where the table refuses whatever comes: its ids may be used up."""
        if self._spool is None or entry.kind == CHORD:
            return False
        return self._spool.keep(entry, failed, self._outage)
