"""Who completes a chord is elected, joins the header and sends the body."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from celery import maybe_signature
from celery.exceptions import ChordError, SoftTimeLimitExceeded
from celery.utils.log import get_logger
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.rows import Chord, ChordRows, Database
from celery_sql_results.writing import Retries

from .joining import Join

__all__ = ["HandOver", "lease_for"]

T = TypeVar("T")
logger = get_logger(__name__)

#: The shortest time, in seconds, that an elected process has to join the header, and the longest to publish the body.
SHORTEST_JOIN, LONGEST_PUBLISH = 10.0, 60.0
#: Seconds between two looks at a chord that another process is about to finish.
FIRST_PAUSE, LAST_PAUSE = 0.002, 0.25


class HandOver:
    """Hands complete chords over to their bodies.

    Args:
        app: makes signatures, and has the settings of the broker.
        database: where the chords are.
        retries: repeats what passes.
        join: the results of a header.
        fail: lets a body fail.
        in_a_hurry: whether trying again is not worth it.
    """

    def __init__(
        self,
        app: Any,
        database: Database,
        retries: Retries,
        join: Join,
        fail: Callable[[Any, BaseException], object],
        in_a_hurry: Callable[[], bool],
    ) -> None:
        self._app = app
        self._database = database
        self._retries = retries
        self._join = join
        self._fail = fail
        self._in_a_hurry = in_a_hurry

    def __call__(self, chord: Chord, body: Mapping[str, Any]) -> None:
        """Hand over to the body, unless another process does; if that one dies, take over when its lease is over."""
        rows: Any = self._database.rows.chords
        claimant, pause, group_id = uuid.uuid4().hex, FIRST_PAUSE, chord.group_id
        while not self._step(
            f"claiming chord {group_id}", lambda: rows.claim(group_id, claimant, lease_for(self._app.conf))
        ):
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            found = self._step(f"looking at chord {group_id}", lambda: rows.look(group_id))
            if found is None or found.is_dispatched:
                return
        self._see_through(rows, chord, maybe_signature(body, app=self._app), claimant)

    def _see_through(self, rows: ChordRows, chord: Chord, body: Any, claimant: str) -> None:
        """Join the header and send the body; whatever fails, but the database, becomes the error of the body."""
        group_id, since = chord.group_id, time.monotonic()
        claim = lambda: rows.claim(group_id, claimant, lease_for(self._app.conf))  # noqa: E731
        try:
            parts = self._step(f"joining chord {group_id}", lambda: rows.results(group_id))
            values = self._join(chord, parts) if len(parts) >= chord.size else None
            late = time.monotonic() - since > _time_to_join(self._app.conf)
            if values is None or (late and not self._step(f"claiming chord {group_id}", claim)):
                logger.warning("chord %s took too long to join: another process sends its body", group_id)
                return
            self._publish(body, values)
        except SQLAlchemyError:  # when the lease is over, another process tries
            raise
        except Exception as error:  # the header or the broker may raise anything, and the body must learn of it
            if isinstance(error, SoftTimeLimitExceeded) and chord.body is not None:  # of a part that has returned
                self._step(f"giving chord {group_id} up", lambda: rows.claim(group_id, claimant, timedelta()))
                raise  # another process tries at once
            logger.exception("chord %s failed", group_id)
            if not self._step(f"claiming chord {group_id}", claim):
                logger.warning("chord %s failed too late: another process sends its body", group_id)
                return
            self._fail(body, error if isinstance(error, ChordError) else ChordError(f"Join error: {error!r}"))
        self._step(f"closing chord {group_id}", lambda: rows.close(group_id, claimant))

    def _step(self, name: str, operation: Callable[[], T]) -> T:
        return self._retries.write(name, operation, self._in_a_hurry)

    def _publish(self, body: Any, values: list[Any]) -> None:
        publish = getattr(self._app.amqp, "_retry_publish", _call)  # newer Celery: also when the broker refuses
        try:
            publish(body.delay, values)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # a broker or a router may raise anything
            raise ChordError(f"Callback error: {error!r}") from error


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
