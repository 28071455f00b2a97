"""Who completes a chord is elected, joins the header and sends the body."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from celery import maybe_signature
from celery.exceptions import BackendError, ChordError, SecurityError, SoftTimeLimitExceeded
from kombu.utils.json import loads
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.payload import bounded_repr
from celery_sql_results.rows import Chord, ChordRows, Database, OpenChord
from celery_sql_results.writing import Retries

from .failing import ends_only
from .joining import Join
from .signing import FAIL, SEND, Signer

__all__ = ["HandOver", "lease_for"]

T = TypeVar("T")
logger = escaping(logging.getLogger(__name__))

#: The shortest time, in seconds, that an elected process has to join the header, and the longest to publish the body.
SHORTEST_JOIN, LONGEST_PUBLISH = 10.0, 60.0
#: Seconds between two looks at a chord that another process is about to finish.
FIRST_PAUSE, LAST_PAUSE = 0.002, 0.25
#: Why a body fails that only a part could send.
NOT_KEPT = (
    "JSON cannot write the body, so only a part that returns can send it, and none did: the last one died, "
    "was stored by somebody else, or waited in the spool"
)


class HandOver:
    """Hands complete chords over to their bodies.

    Args:
        app: makes signatures, and has the settings of the broker.
        database: where the chords are.
        retries: repeats what passes.
        join: the results of a header.
        fail: lets a body fail.
        signer: knows the bodies that were stored by this app.
        in_a_hurry: whether trying again is not worth it.
    """

    def __init__(
        self,
        app: Any,
        database: Database,
        retries: Retries,
        join: Join,
        fail: Callable[[Any, BaseException], object],
        signer: Signer,
        in_a_hurry: Callable[[], bool],
    ) -> None:
        self._app = app
        self._database = database
        self._retries = retries
        self._join = join
        self._fail = fail
        self._signer = signer
        self._in_a_hurry = in_a_hurry

    @property
    def lease(self) -> timedelta:
        """How long a claim holds."""
        return lease_for(self._app.conf)

    def __call__(self, chord: Chord, body: Mapping[str, Any]) -> None:
        """Hand over to the body, unless another process does; if that one dies, take over when its lease is over.

        That is waited for no longer than a lease of our own, whatever the other has claimed.
        """
        rows, group_id = self._rows, chord.group_id
        claimant, pause, deadline = uuid.uuid4().hex, FIRST_PAUSE, time.monotonic() + self.lease.total_seconds()
        while not self._claim(group_id, claimant):
            if time.monotonic() > deadline:
                logger.warning("chord %s is claimed for longer than a lease: it is left to the upkeep", group_id)
                return
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            found = self._step(f"looking at chord {group_id}", lambda: rows.look(group_id))
            if found is None or found.is_dispatched:
                return
        self._see_through(chord, maybe_signature(body, app=self._app), claimant)

    def take_over(self, chord: Chord, instead_of: OpenChord | None = None, wrong: ChordError | None = None) -> bool:
        """Hand a complete chord over to the body that is stored, unless another process does: ``False``.

        Args:
            chord: what it is like.
            instead_of: its claim, if that is to be broken.
            wrong: what the body is to fail with, whether the chord is complete or not.
        """
        rows, claimant, group_id = self._rows, uuid.uuid4().hex, chord.group_id
        if instead_of is None:
            claimed = self._claim(group_id, claimant)
        else:
            force = lambda: rows.claim_from(instead_of, claimant, self.lease)  # noqa: E731
            claimed = self._step(f"claiming chord {group_id}", force)
        if not claimed:
            return False
        stored = chord.body or self._step(f"reading chord {group_id}", lambda: rows.bare_body(group_id))
        if stored is None:
            raise ChordError("the body is not kept")
        with caught() as failure:  # whoever may write rows may have written anything
            opened = self._signer.opened(group_id, stored, SEND if chord.body else FAIL)
            body = maybe_signature(loads(opened), app=self._app)
        if failure.error is not None:
            self._refuse(group_id, stored, failure.error, claimant)
        else:
            self._see_through(chord, body, claimant, wrong or (None if chord.body else ChordError(NOT_KEPT)), not wrong)
        return True

    def _refuse(self, group_id: str, stored: bytes, error: BaseException, claimant: str) -> None:
        """Close a chord whose body cannot be trusted or read. Who waits for it is told; nothing is sent."""
        why = str(error) if isinstance(error, SecurityError) else type(error).__name__  # which may quote the body
        logger.error("chord %s is closed without its body: %s", group_id, why)
        with caught() as unreadable:
            ends = ends_only(loads(stored))
        if unreadable.error is None:
            self._let_fail(ends, ChordError(why))
        self._step(f"closing chord {group_id}", lambda: self._rows.close(group_id, claimant))

    @property
    def _rows(self) -> ChordRows:
        return self._database.rows.chords  # type: ignore[return-value]

    def _claim(self, group_id: str, claimant: str) -> bool:
        return self._step(f"claiming chord {group_id}", lambda: self._rows.claim(group_id, claimant, self.lease))

    def _see_through(
        self, chord: Chord, body: Any, claimant: str, wrong: ChordError | None = None, must_be_complete: bool = True
    ) -> None:
        """Join the header and send the body; whatever fails, but the database, becomes the error of the body.

        ``wrong`` is why the body cannot be sent.
        """
        rows, group_id, since = self._rows, chord.group_id, time.monotonic()
        parts = self._step(f"joining chord {group_id}", lambda: rows.results(group_id))
        if must_be_complete and len(parts) < chord.size:
            logger.warning("chord %s took too long to join: another process sends its body", group_id)
            return
        with caught(SoftTimeLimitExceeded) as failure:  # the header or the broker may raise anything
            if wrong is not None:
                raise wrong
            values = self._join(chord, parts)
            if time.monotonic() - since > _time_to_join(self._app.conf) and not self._claim(group_id, claimant):
                logger.warning("chord %s took too long to join: another process sends its body", group_id)
                return
            self._publish(body, values)
        if failure.error is not None and not self._failed(chord, body, failure.error, claimant):
            return
        self._step(f"closing chord {group_id}", lambda: rows.close(group_id, claimant))

    def _failed(self, chord: Chord, body: Any, error: BaseException, claimant: str) -> bool:
        """Let the body fail, if that is still ours to do. What was raised may quote payloads, so no log is told."""
        group_id = chord.group_id
        if isinstance(error, SQLAlchemyError):  # ours: those of parts are wrapped
            raise error  # tried again when the lease is over
        if isinstance(error, SoftTimeLimitExceeded) and chord.body is not None:  # of a part that has returned
            self._step(f"giving chord {group_id} up", lambda: self._rows.claim(group_id, claimant, timedelta()))
            raise error  # another process tries at once
        if not self._claim(group_id, claimant):
            logger.warning("chord %s failed too late: another process sends its body", group_id)
            return False
        self._let_fail(
            body, error if isinstance(error, ChordError) else ChordError(f"Join error: {bounded_repr(error)}")
        )
        logger.error("chord %s failed (%s)", group_id, type(error).__name__)
        return True

    def _let_fail(self, body: Any, error: ChordError) -> None:
        """Whatever is wrong with the body itself, too: it may have been read from a row."""
        with caught() as failure:
            try:
                raise error
            except ChordError as told:  # Celery stores the traceback of what is being handled
                self._fail(maybe_signature(body, app=self._app), told)
        if isinstance(failure.error, (SQLAlchemyError, BackendError)):
            raise failure.error

    def _step(self, name: str, operation: Callable[[], T]) -> T:
        return self._retries.write(name, operation, self._in_a_hurry)

    def _publish(self, body: Any, values: list[Any]) -> None:
        publish = getattr(self._app.amqp, "_retry_publish", _call)  # newer Celery: also when the broker refuses
        try:
            publish(body.delay, values)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # a broker or a router may raise anything
            raise ChordError(f"Callback error: {bounded_repr(error)}") from error


def lease_for(conf: Any) -> timedelta:
    """Long enough to join the header, and to publish the body to a broker that is as slow as the settings allow."""
    policy = conf.task_publish_retry_policy or {}
    retries = policy.get("max_retries", 3) if conf.task_publish_retry else 0
    pause = policy.get("interval_max", 1.0)
    attempts = math.inf if retries is None else retries + 1
    to_publish = min(attempts * ((conf.broker_connection_timeout or math.inf) + pause), LONGEST_PUBLISH)
    return timedelta(seconds=_time_to_join(conf) + to_publish)


def _time_to_join(conf: Any) -> float:
    """Seconds in which an elected process is to join the header."""
    return max(2 * (conf.result_chord_join_timeout or 0.0), SHORTEST_JOIN)


def _call(function: Callable[..., T], *args: Any) -> T:
    return function(*args)
