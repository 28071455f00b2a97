"""Results of django-celery-results are copied into the tables of this package.

It reads by the models of that package, so it must be installed still. What has been copied is skipped the next time, so
the copying can be broken off, and repeated when the last worker has changed.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from celery import states
from kombu.exceptions import EncodeError
from kombu.serialization import dumps, registry

from .backend import DatabaseBackend
from .boundaries import caught
from .ids import asked_id
from .payload import Encoding, name, text
from .writing import GROUP, TASK, Entry

__all__ = ["Moved", "import_django_celery_results"]

#: Rows that are read and looked for at a time.
BATCH = 1000


@dataclass
class Moved:
    """What has become of the results.

    Attributes:
        tasks: how many results of tasks were copied; ``groups`` likewise.
        there: how many were there already.
        refused: the ids that no column here can hold: of more than 155 characters, for example.
        open_chords: chords that are not complete yet. They are not copied: what they need is with their tasks.
    """

    tasks: int = 0
    groups: int = 0
    there: int = 0
    refused: list[str] = field(default_factory=list)
    open_chords: int = 0


def import_django_celery_results(
    app: Any,
    *,
    url: str | None = None,
    batch: int = BATCH,
    dry_run: bool = False,
    progress: Callable[[Moved], object] = lambda moved: None,
) -> Moved:
    """Copy what django-celery-results has stored, and is not here yet; nothing is deleted there.

    Args:
        app: the Celery app. Its ``result_backend`` is where to, unless there is a ``url``.
        url: where to, such as ``sql+django://default``, while the app still uses the other backend.
        batch: rows that are read at a time.
        dry_run: count only.
        progress: called after each batch with what was done until then.

    Raises:
        ImportError: django-celery-results is not installed.
        SettingError: the URL cannot be used.
        sqlalchemy.exc.DBAPIError: the database could not be reached. Call it again.
    """
    from django_celery_results.models import ChordCounter, GroupResult, TaskResult

    backend = app.backend if url is None else DatabaseBackend(app=app, url=url.removeprefix("sql+"))
    moving = _Moving(backend, Moved(open_chords=ChordCounter.objects.count()), dry_run)
    for model, move in ((TaskResult, moving.tasks), (GroupResult, moving.groups)):
        for rows in _batches(model, batch):
            move(rows)
            progress(moving.moved)
    return moving.moved


def _batches(model: Any, size: int) -> Iterator[list[Any]]:
    """All rows of a model, the oldest first, by their primary keys: others go on writing meanwhile."""
    rows = list(model.objects.order_by("pk")[:size])
    while rows:
        yield rows
        rows = list(model.objects.filter(pk__gt=rows[-1].pk).order_by("pk")[:size])


class _Moving:
    def __init__(self, backend: Any, moved: Moved, dry_run: bool) -> None:
        self._backend, self.moved, self._dry_run = backend, moved, dry_run

    def tasks(self, rows: list[Any]) -> None:
        """Copy rows of tasks. One that has an outcome here keeps it; an unfinished one may have got one there."""
        known = self._backend.states_of([row.task_id for row in rows])
        for row in rows:
            here = known.get(row.task_id)
            if here is not None and (here in states.READY_STATES or here == row.status):
                self.moved.there += 1
            elif self._takes(row.task_id):
                self._put(TASK, _task(row, _read(self._backend._services.encoding, row, row.meta)))
                self.moved.tasks += 1

    def groups(self, rows: list[Any]) -> None:
        """Copy rows of groups."""
        for row in rows:
            if self._takes(row.group_id):
                is_there = self._backend.database.rows.groups.fetch(row.group_id) is not None
                if is_there:
                    self.moved.there += 1
                    continue
                self._put(GROUP, _group(row))
                self.moved.groups += 1

    def _takes(self, id_: str) -> bool:
        if asked_id(id_) is None:
            self.moved.refused.append(id_)
            return False
        return True

    def _put(self, kind: str, row: dict[str, Any]) -> None:
        if not self._dry_run:
            services = self._backend._services
            services.write("copying a result", lambda: services.writer.restore(Entry(kind, row)))


def _task(row: Any, meta: Any) -> dict[str, Any]:
    """The columns of a task. What there is no column for is kept as stamps are."""
    more = dict(meta) if isinstance(meta, dict) else {}
    children = more.pop("children", None)
    if row.periodic_task_name:
        more["periodic_task_name"] = row.periodic_task_name
    return {
        "task_id": row.task_id,
        "status": row.status,
        "result": _payload(row, row.result),
        "date_done": _utc(row.date_done),
        "date_started": _utc(row.date_started),
        "traceback": text(row.traceback),
        "children": _dumped(row, children) if children else None,
        "name": name(row.task_name),
        "worker": name(row.worker),
        "args": _payload(row, row.task_args),
        "kwargs": _payload(row, row.task_kwargs),
        "stamps": _dumped(row, {"stamped_headers": sorted(more), "stamps": more}) if more else None,
        "content_type": row.content_type,
    }


def _group(row: Any) -> dict[str, Any]:
    payload, done = _payload(row, row.result), _utc(row.date_done)
    return {"taskset_id": row.group_id, "result": payload, "date_done": done, "content_type": row.content_type}


def _payload(row: Any, found: str | None) -> bytes | None:
    """The bytes that the serializer wrote; those that are no text are kept there in base 64."""
    if found is None:
        return None
    return b64decode(found) if row.content_encoding == "binary" else found.encode()


def _read(encoding: Encoding, row: Any, found: str | None) -> Any:
    """What a payload holds that only informs: nothing, where it may not or cannot be read."""
    with caught():  # whoever could write to the table could put anything there
        return encoding.loads(_payload(row, found), row.content_type)
    return None


def _dumped(row: Any, value: Any) -> bytes | None:
    """A payload in the type of its row."""
    try:
        data = dumps(value, registry.type_to_name[row.content_type])[2]
    except (EncodeError, KeyError):
        return None
    return data.encode() if isinstance(data, str) else data


def _utc(time: datetime | None) -> datetime | None:
    """A time as our columns hold it; without ``USE_TZ``, Django gives those of its ``TIME_ZONE``."""
    from django.utils.timezone import is_naive, make_aware

    if time is None:
        return None
    return (make_aware(time) if is_naive(time) else time).astimezone(timezone.utc).replace(tzinfo=None)
