"""Chords that nobody else ends: who was to send the body has died, or the parts were stored by somebody else."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.rows import ChordRows, Database, OpenChord
from celery_sql_results.writing import Retries

from .handing_over import HandOver
from .members import Members

__all__ = ["GRACE", "Sweep"]

logger = escaping(logging.getLogger(__name__))

#: Seconds that a process has to be elected after the last part was stored, before its chord counts as stuck.
GRACE = 0.5
#: Open chords that one round looks at; the next goes on behind them.
CHORDS = 500
#: Members that one round looks at, unless one chord has more: some hundredths of a second. Which chords these are is
#: drawn by lot, so that the workers of a fleet share them.
MEMBERS = 20_000
#: Chords that are remembered from one round to the next.
REMEMBERED = 50_000


@dataclass
class _Memory:
    """What a chord was like when it was seen last.

    Attributes:
        pending: a member that had not ended. While that has not, nothing else of the chord is looked at.
        claim: who was elected, and ``since`` when that is known, by the monotonic clock.
        told: when the log was told of a failure.
    """

    pending: str | None = None
    claim: Any = None
    since: float = math.nan
    told: float = -math.inf


class Sweep:
    """Ends chords, one round for each call. What is wrong with one chord keeps nobody from ending others.

    Args:
        database: where the chords are.
        retries: repeats what passes.
        members: tells which tasks of a header have ended.
        hand_over: joins a header and sends its body.
    """

    def __init__(self, database: Database, retries: Retries, members: Members, hand_over: HandOver) -> None:
        self._database = database
        self._retries = retries
        self._members = members
        self._hand_over = hand_over
        self._after = ""
        self._memories: dict[str, _Memory] = {}

    def __call__(self) -> int:
        """Look at the next open chords, end what can be ended, and return how many chords that were.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot be reached.
        """
        if self._retries.read("looking for chords", lambda: self._database.rows).chords is None:
            return 0
        found = self._next()
        with self._retries.at_most(0):  # the next round comes soon, and others wait
            return self._end_complete(found) + self._end_by_members(found)

    @property
    def _rows(self) -> ChordRows:
        return self._database.rows.chords  # type: ignore[return-value]

    def _next(self) -> list[OpenChord]:
        found = self._retries.read("looking for chords", lambda: self._rows.opened(self._after, CHORDS))
        self._after = found[-1].group_id if len(found) == CHORDS else ""
        return found

    def _memory(self, group_id: str) -> _Memory:
        if len(self._memories) > REMEMBERED:
            self._memories.clear()  # it only saves work
        return self._memories.setdefault(group_id, _Memory())

    # -- complete, and not sent ----------------------------------------------------------------------------------

    def _end_complete(self, found: Sequence[OpenChord]) -> int:
        due = [chord for chord in found if chord.is_complete and self._is_due(chord)]
        if due:
            time.sleep(GRACE)
        return sum(self._each(partial(self._end, chord), chord.group_id) for chord in due)

    def _is_due(self, chord: OpenChord) -> bool:
        """Whether it is time. No claim is believed for longer than a lease of our own, whatever the row says.

        A body that is not kept, only a part can send: it has as long.
        """
        if chord.is_free and chord.has_body:
            return True
        memory = self._memory(chord.group_id)
        if memory.claim != chord.claim or math.isnan(memory.since):
            memory.claim, memory.since = chord.claim, time.monotonic()
        return time.monotonic() - memory.since > self._hand_over.lease.total_seconds()

    def _end(self, found: OpenChord) -> bool:
        chord = self._rows.look(found.group_id)
        if chord is None or not chord.is_complete:
            return False
        done = self._hand_over.take_over(chord, None if found.is_free else found)
        if done:
            logger.warning("chord %s was complete, but its body was not sent: done now", chord.group_id)
        return done

    # -- parts that were stored by somebody else -----------------------------------------------------------------

    def _end_by_members(self, found: Sequence[OpenChord]) -> int:
        chosen = self._chosen([chord for chord in found if chord.has_members and chord.size and not chord.is_complete])
        pending = self._members.pending(chosen) if chosen else {}
        for group_id, task_id in pending.items():
            self._memory(group_id).pending = task_id
        done = [group_id for group_id, task_id in pending.items() if task_id is None]
        return sum(self._each(partial(self._end_by_parts, group_id), group_id) for group_id in done)

    def _chosen(self, chords: list[OpenChord]) -> list[str]:
        """The chords to look at more closely: those whose pending member has ended, as many as a round may look at."""
        awaited = {chord.group_id: self._memory(chord.group_id).pending for chord in chords}
        ended = self._members.ended({task_id for task_id in awaited.values() if task_id is not None})
        random.shuffle(chords)
        chosen: list[str] = []
        budget = MEMBERS
        for chord in chords:
            task_id = awaited[chord.group_id]
            if budget > 0 and (task_id is None or task_id in ended):
                chosen.append(chord.group_id)
                budget -= chord.size
        return chosen

    def _end_by_parts(self, group_id: str) -> bool:
        missing = self._members.missing([group_id])[group_id]
        chord = self._rows.look(group_id)  # afterwards: with its end, a chord loses its parts
        if chord is None or chord.is_dispatched or chord.is_complete:
            return False  # the parts have just returned by themselves
        self._members.put_parts(group_id, missing)
        chord = self._rows.counted(group_id)
        if chord is None or not chord.is_complete:
            return False
        logger.info("the parts of chord %s were stored by somebody else: it is complete", group_id)
        return self._hand_over.take_over(chord)

    # -- one by one ----------------------------------------------------------------------------------------------

    def _each(self, operation: Callable[[], bool], group_id: str) -> bool:
        """Whether the operation has ended a chord. If it fails, but the database answers, only this chord is wrong."""
        with caught() as locked:
            self._rows.touch(group_id)
        if locked.error is None:
            with caught() as failure:  # what is stored of a chord may be anything
                return operation()
            self._tell(group_id, failure.error)
        self._retries.read("looking for chords", lambda: self._rows.look(group_id))
        return False

    def _tell(self, group_id: str, error: BaseException | None) -> None:
        """Once in a lease. The error itself may quote what is stored."""
        memory, now = self._memory(group_id), time.monotonic()
        if now - memory.told > self._hand_over.lease.total_seconds():
            memory.told = now
            logger.error("chord %s could not be ended (%s): it is tried again", group_id, type(error).__name__)
