"""The life of a chord: it is opened, its parts are counted in, and the last one hands over to the body."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.result import GroupResult
from celery.utils.functional import regen
from celery.utils.log import get_logger
from kombu.utils.json import dumps as dumps_json
from kombu.utils.json import loads as loads_json
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.boundaries import caught
from celery_sql_results.ids import stored_id
from celery_sql_results.payload import Encoding, tree
from celery_sql_results.rows import Chord, Database
from celery_sql_results.writing import CHORD, PART, Entry, Retries, Writer

from .handing_over import HandOver
from .parts import COUNTED, KEPT, part_of, stage_of

__all__ = ["Chords"]

logger = get_logger(__name__)

#: Seconds that a process has to be elected after the last part was stored, before its chord counts as stuck.
GRACE = 0.5


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
        in_a_hurry: Callable[[], bool],
    ) -> None:
        self._app = app
        self._database = database
        self._encoding = encoding
        self._encode = encode
        self._writer = writer
        self._retries = retries
        self._hand_over = hand_over
        self._in_a_hurry = in_a_hurry

    @property
    def are_there(self) -> bool:
        """Whether there are tables for them. This may be the first use of the database."""
        return self._retries.write("preparing the tables", lambda: self._database.rows).chords is not None

    # -- the beginning -------------------------------------------------------------------------------------------

    def open(self, header_result_args: tuple[Any, ...], body: Any) -> None:
        """Begin a chord, before its parts are sent."""
        row = {
            "group_id": stored_id("group", header_result_args[0]),
            "size": None,
            "header": None,
            "body": _as_json(body),
            "content_type": self._encoding.content_type,
        }
        self._writer.write(Entry(CHORD, {**row, **self._known_of(header_result_args)}))

    def _known_of(self, header_result_args: tuple[Any, ...]) -> dict[str, Any]:
        """What is known of a header before it is sent: nothing of a generator, which is read as it is sent.

        The results of nested groups reach the body nested as well, so the tree of them is kept.
        """
        members = header_result_args[1]
        if isinstance(members, type(regen(iter(())))):
            return {}
        if any(isinstance(member, GroupResult) for member in members):
            return {"header": self._encoding.dumps(tree(self._app.GroupResult(*header_result_args)))}
        return {"size": len(members)}

    def set_size(self, group_id: str, size: int) -> None:
        """Say how many parts a chord has, before its last part is sent."""
        id_ = stored_id("group", group_id)
        self._retries.write(f"sizing chord {id_}", lambda: self._rows.set_size(id_, size))

    def add(self, group_id: str, task_id: str) -> None:
        """Let a chord have one part more; called by a part, before it returns."""
        ids = stored_id("group", group_id), stored_id("task", task_id)
        self._retries.write(f"adding to chord {ids[0]}", lambda: self._rows.add(*ids))

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

    # -- what others have left -----------------------------------------------------------------------------------

    def look_after(self, group_id: str) -> None:
        """A part was stored that waited in the spool."""
        self._take_over(self._counted(group_id))

    def sweep(self) -> int:
        """Send the bodies of chords whose elected process has died, and return how many there were."""
        stuck = self._stuck()
        if stuck:
            time.sleep(GRACE)
            still = {chord.group_id for chord in self._stuck()}
            stuck = [chord for chord in stuck if chord.group_id in still]
        for chord in stuck:
            logger.warning("chord %s is complete, but its body was not sent: sending it", chord.group_id)
            self._take_over(chord)
        return len(stuck)

    def _stuck(self) -> list[Chord]:
        def look() -> list[Chord]:
            rows = self._database.rows.chords
            return [] if rows is None else rows.stuck()

        return self._retries.read("looking for stuck chords", look)

    def _take_over(self, chord: Chord | None) -> None:
        """Send the body that another process was to send, if it is time; all that there is of it is what is stored.

        One that cannot be sent keeps nobody from sending others.
        """
        if chord is None or not chord.is_complete:
            return
        if chord.body is None:
            logger.error("the body of chord %s cannot be sent: it is not JSON, and was not kept", chord.group_id)
            return
        with caught(SoftTimeLimitExceeded) as failure:  # what is stored as a body may be anything
            self._hand_over(chord, loads_json(chord.body))
        if isinstance(failure.error, SQLAlchemyError):
            raise failure.error
        if failure.error:
            logger.error("the body of chord %s could not be sent", chord.group_id, exc_info=failure.error)


def _as_json(body: Any) -> bytes | None:
    """The body for :meth:`Chords.sweep`; not there if only pickle could write it."""
    try:
        return dumps_json(body).encode()  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        return None
