"""The life of a chord: it is opened, its parts are counted in, and the last one hands over to the body."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.result import GroupResult
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.ids import stored_id
from celery_sql_results.payload import Encoding, tree
from celery_sql_results.rows import Chord, Database
from celery_sql_results.writing import CHORD, PART, Entry, Retries, Writer

from .failing import as_json, bare
from .handing_over import HandOver
from .members import as_members
from .parts import COUNTED, KEPT, part_of, stage_of
from .signing import FAIL, SEND, Signer
from .sweeping import GRACE

__all__ = ["Chords"]

logger = escaping(logging.getLogger(__name__))


class Chords:
    """The chords of one backend.

    Args:
        app: makes results and signatures.
        database: where chords and parts are stored.
        encoding: writes the tree of nested groups.
        encode: the payload of a value for a state.
        writer: stores chords and parts.
        retries: repeats what passes.
        hand_over: joins a header and sends its body.
        signer: signs bodies.
        in_a_hurry: whether it is better to keep a write than to try it again.
    """

    def __init__(
        self,
        app: Any,
        database: Database,
        encoding: Encoding,
        encode: Callable[[Any, str], bytes],
        writer: Writer,
        retries: Retries,
        hand_over: HandOver,
        signer: Signer,
        in_a_hurry: Callable[[], bool],
    ) -> None:
        self._app = app
        self._database = database
        self._encoding = encoding
        self._encode = encode
        self._writer = writer
        self._retries = retries
        self._hand_over = hand_over
        self._signer = signer
        self._in_a_hurry = in_a_hurry

    @property
    def are_there(self) -> bool:
        """Whether there are tables for them. This may be the first use of the database."""
        return self._retries.write("preparing the tables", lambda: self._database.rows).chords is not None

    # -- the beginning -------------------------------------------------------------------------------------------

    def open(self, header_result_args: tuple[Any, ...], body: Any) -> None:
        """Begin a chord, before its parts are sent."""
        kept, group_id = as_json(body), stored_id("group", header_result_args[0])
        row = {
            "group_id": group_id,
            "size": None,
            "header": None,
            "body": self._signer.signed(group_id, kept, SEND),
            "content_type": self._encoding.content_type,
            "bare_body": None if kept else self._signer.signed(group_id, as_json(bare(body)), FAIL),
        }
        self._writer.write(Entry(CHORD, {**row, **self._known_of(*header_result_args)}))

    def _known_of(self, group_id: str, header: Iterable[Any]) -> dict[str, Any]:
        """What is known of a header before it is sent.

        A generator is read for it, as by Celery's own database backend: tasks that have no ids yet get them now. The
        results of nested groups reach the body nested as well, so the tree of them is kept.
        """
        results = list(header)
        known: dict[str, Any] = {"members": as_members(results)}
        if any(isinstance(result, GroupResult) for result in results):
            return {**known, "header": self._encoding.dumps(tree(self._app.GroupResult(group_id, results)))}
        return {**known, "size": len(results)}

    def set_size(self, group_id: str, size: int) -> None:
        """Say how many parts a chord has, before its last part is sent."""
        id_ = stored_id("group", group_id)
        self._retries.write(f"sizing chord {id_}", lambda: self._rows.set_size(id_, size))

    def add(self, group_id: str, task_id: str) -> bool:
        """Let a chord have one part more; called by a part, before it returns. ``False`` if it was not begun here."""
        ids = stored_id("group", group_id), stored_id("task", task_id)
        return self._retries.write(f"adding to chord {ids[0]}", lambda: bool(self._rows.add(*ids)))

    @property
    def _rows(self) -> Any:
        return self._database.rows.chords

    # -- the parts -----------------------------------------------------------------------------------------------

    def returned(self, request: Any, state: str, result: Any) -> bool:
        """Count a part in; ``False`` if it waits in the spool. Whoever completes the chord, and is elected, hands over.

        With a spool, what cannot be done now is done by whoever stores the part from there.
        """
        if not request.group or not request.id:
            return True
        stage = stage_of(request)
        if stage == KEPT:
            return False

        def part() -> Entry:  # the task ignores its result, or is further down a chain
            payload = self._encode(result, state)
            return Entry(PART, part_of(request, state, payload, self._encoding.content_type))

        if stage != COUNTED and not self._writer.write(part(), self._in_a_hurry):
            return False
        return self._writer.keep_or_do(part, lambda: self._count(request))

    def _count(self, request: Any) -> None:
        chord = self._counted(stored_id("group", request.group))
        if chord is not None and chord.is_complete:
            self._hand_over(chord, request.chord)

    def _counted(self, group_id: str) -> Chord | None:
        def count() -> Chord | None:
            rows = self._database.rows.chords
            return None if rows is None else rows.counted(group_id)

        return self._retries.write(f"counting the parts of chord {group_id}", count, self._in_a_hurry)

    def look_after(self, group_id: str) -> None:
        """A part was stored that waited in the spool. A body that cannot be sent keeps nobody from storing others.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached.
        """
        chord = self._counted(group_id)
        if chord is None or not chord.is_complete:
            return
        if chord.body is None:
            time.sleep(GRACE)  # another part, which may have returned just now, can send it
        with caught(SoftTimeLimitExceeded) as failure:  # what is stored as a body may be anything
            self._hand_over.take_over(chord)
        if isinstance(failure.error, SQLAlchemyError):
            raise failure.error
        if failure.error:
            logger.error("the body of chord %s could not be sent (%s)", group_id, type(failure.error).__name__)
