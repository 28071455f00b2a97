"""Which members of a header have ended, whoever has stored their results, and what they leave behind as its parts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from celery import states
from celery.result import ResultSet
from kombu.utils.json import dumps as dumps_json
from kombu.utils.json import loads as loads_json

from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.ids import asked_id
from celery_sql_results.rows import ADDED, ChordRows, Database
from celery_sql_results.writing import Retries

from .parts import LAST

__all__ = ["Members", "as_members", "header_of", "leaves", "missing_of"]

logger = escaping(logging.getLogger(__name__))

#: A member and its position in the header.
Place = tuple[str, int]
#: Stands for a member of a chord whose ids cannot be read: it never ends.
UNKNOWN = ""


def leaves(results: Iterable[Any]) -> Iterator[Any]:
    """The single results of a header, those of nested groups included."""
    for result in results:
        if isinstance(result, ResultSet):
            yield from leaves(result.results or ())
        else:
            yield result


def as_members(results: Iterable[Any]) -> bytes:
    """The ids of a header, in its order, as they are kept with the chord."""
    return dumps_json([asked_id(result.id) for result in leaves(results)]).encode()  # type: ignore[no-any-return]


class Members:
    """The members of chords that are not complete.

    Args:
        app: knows the tasks, and with them the other backends that results may be stored in.
        database: where the chords are.
        retries: repeats what passes.
        encode: the payload of a value for a state, in ``content_type``.
    """

    def __init__(
        self, app: Any, database: Database, retries: Retries, encode: Callable[[Any, str], bytes], content_type: str
    ) -> None:
        self._app = app
        self._database = database
        self._retries = retries
        self._encode = encode
        self._content_type = content_type

    def ended(self, task_ids: Collection[str]) -> set[str]:
        """Those of some tasks that have ended, wherever their results are."""
        here = self._ended_here(task_ids)
        return here | {task_id for task_id in task_ids if task_id not in here and self._elsewhere(task_id)}

    def pending(self, group_ids: Collection[str]) -> dict[str, str | None]:
        """Of each chord one task that has not ended, or ``None``: a few queries for all of them.

        It is the last one, which is likely to be the last to end.
        """
        missing = self.missing(group_ids)
        ended = self._ended_here({task_id for places in missing.values() for task_id, _ in places})

        def has_ended(task_id: str) -> bool:
            return task_id in ended or self._elsewhere(task_id) is not None

        backwards = {group_id: [task_id for task_id, _ in places[::-1]] for group_id, places in missing.items()}
        return {
            group_id: next((task_id for task_id in task_ids if not has_ended(task_id)), None)
            for group_id, task_ids in backwards.items()
        }

    def missing(self, group_ids: Collection[str]) -> dict[str, list[Place]]:
        """The places of the headers of chords that no part was stored for; all of them once a body was sent."""
        members, parts = self._read(self._rows.members_of, group_ids), self._read(self._rows.parts_of, group_ids)
        return {group_id: list(missing_of(header_of(members.get(group_id)), parts[group_id])) for group_id in group_ids}

    def put_parts(self, group_id: str, missing: Sequence[Place]) -> None:
        """Count members of a chord in, which have all ended."""
        found = {row["task_id"]: row for row in self._read(self._database.rows.tasks.fetch_many, dict(missing))}
        for task_id, position in missing:
            row = found.get(task_id)
            part = self._part_there(task_id) if row is None or row["status"] not in states.READY_STATES else row
            columns = {name: part.get(name) for name in ("status", "result", "content_type")}
            ids = {"group_id": group_id, "task_id": task_id, "position": position}
            self._retries.write(f"counting task {task_id} in", partial(self._rows.put_part, {**ids, **columns}))

    def _part_there(self, task_id: str) -> dict[str, Any]:
        result = self._elsewhere(task_id)
        if result is None:
            raise LookupError(f"the result of task {task_id} is gone")
        payload = self._encode(result.result, result.state)
        return {"status": result.state, "result": payload, "content_type": self._content_type}

    # -- where they are ------------------------------------------------------------------------------------------

    @property
    def _rows(self) -> ChordRows:
        return self._database.rows.chords  # type: ignore[return-value]

    def _read(self, operation: Callable[..., Any], *args: Any) -> Any:
        return self._retries.read("looking at the members of chords", lambda: operation(*args))

    def _ended_here(self, task_ids: Collection[str]) -> set[str]:
        found = self._read(self._database.rows.tasks.fetch_states, task_ids) if task_ids else {}
        return {task_id for task_id, state in found.items() if state in states.READY_STATES}

    def _elsewhere(self, task_id: str) -> Any:
        """The result of a task that another backend holds and that has ended, or ``None``."""
        for backend in self._others() if task_id else ():
            with caught() as failure:  # it may be of any kind, and raise anything
                result = self._app.AsyncResult(task_id, backend=backend)
                if result.state in states.READY_STATES:
                    return result
            if failure.error:
                logger.debug("the backend of a task cannot be asked (%s)", type(failure.error).__name__)
        return None

    def _others(self) -> list[Any]:
        """The backends that tasks of this app have for themselves."""
        home, found = self._app.backend, {}
        for task in list(self._app.tasks.values()):
            if task.backend is not home:
                found[id(task.backend)] = task.backend
        return list(found.values())


def header_of(payload: bytes | None) -> list[str]:
    """The ids of a header. Whoever can write to the table can put anything there."""
    with caught():
        found = loads_json(payload)
        if isinstance(found, list) and found and all(isinstance(id_, str) and asked_id(id_) for id_ in found):
            return found
    return [UNKNOWN]


def missing_of(members: Sequence[str], parts: Sequence[Place]) -> Iterator[Place]:
    """The places without a part. One task may stand at several, and its parts at others than in the header."""
    header = [(task_id, position) for position, task_id in enumerate(members)]
    taken = set(parts).intersection(header)
    strays = Counter(task_id for task_id, position in parts if position != ADDED and (task_id, position) not in taken)
    added = [(task_id, LAST) for task_id, position in parts if position == ADDED]
    for place in (*header, *added):
        if place in taken:
            continue
        if strays[place[0]]:
            strays[place[0]] -= 1
        else:
            yield place
