"""What a backend does about content: how it is written and read, and what is stored of a row that is refused.

An outcome is never dropped. Of a row that it refuses, a database gets as much as it takes, and the reason for the rest:
first the row without the columns that only inform; then with a marker for the result, in the content type of the row,
which says why it is there and how large the result was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from celery import states
from celery.utils.log import get_logger
from kombu.exceptions import DecodeError
from sqlalchemy.exc import SQLAlchemyError

from celery_sql_results.errors import ResultRefused
from celery_sql_results.models import EXTENDED_COLUMNS
from celery_sql_results.payload import exceptions as failures
from celery_sql_results.payload.encoding import Encoding
from celery_sql_results.payload.redaction import REPR_LEVELS, Redaction
from celery_sql_results.settings import Settings

__all__ = ["ContentMixin", "put", "stand_ins"]

logger = get_logger(__name__)
Row = Mapping[str, Any]

#: Columns without which a row still tells the outcome.
OPTIONAL = frozenset({*EXTENDED_COLUMNS, "children"})
#: Characters that a marker keeps of each end of a traceback.
END_OF_TRACEBACK = 4_000


class ContentMixin:
    """The methods of a backend about content. The backend brings the rest."""

    app: Any
    settings: Settings
    encoding: Encoding
    serializer: str
    accept: Any
    encode_result: Callable[[Any, str], Any]
    _refusal: Callable[[BaseException], str | None]

    def _make_encoding(self) -> Encoding:
        settings, redact = self.settings, None
        if settings.redact is not None:
            amqp = self.app.amqp
            sizes = (amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize)
            levels = getattr(self.app.conf, "task_repr_maxlevels", None) or REPR_LEVELS
            redact = Redaction(settings.redact, self._signature, sizes, levels)
        return Encoding(self.serializer, self.accept, settings.compression, settings.max_decompressed, redact)

    def _signature(self, task: str) -> inspect.Signature:
        return inspect.signature(self.app.tasks[task].run)

    def _payload(self, result: Any, state: str) -> bytes:
        return self.encoding.dumps(self.encode_result(result, state))

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """An exception as it is stored. Whatever is wrong with it, something is."""
        try:
            return super().prepare_exception(exc, serializer)  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - its arguments may be properties that raise
            return super().prepare_exception(failures.stand_in(exc), serializer)  # type: ignore[misc]

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """The exception that was stored."""
        return failures.restored(exc)

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Restore the exception of a task that failed."""
        found: dict[str, Any] = super().meta_from_decoded(meta)  # type: ignore[misc]
        if found["result"] is None and found["status"] in states.PROPAGATE_STATES:
            found["result"] = DecodeError("the row tells of a failure, but holds no exception")
        return found

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a part in; one whose result the database refuses counts as failed."""
        try:
            super().on_chord_part_return(request, state, result, **kwargs)  # type: ignore[misc]
        except SQLAlchemyError as error:
            reason = self._refusal(error)
            if reason is None:
                raise
            refused = ResultRefused(f"the database refused the result of task {request.id} ({reason})")
            super().on_chord_part_return(request, states.FAILURE, refused, **kwargs)  # type: ignore[misc]


def put(
    row: Row,
    write: Callable[[Row], object],
    refusal: Callable[[BaseException], str | None],
    encode: Callable[[Any, str], bytes],
) -> None:
    """Store ``row`` with ``write``, or what stands for it if the database refuses its content.

    Args:
        row: a row of a task.
        write: stores a row, or raises.
        refusal: the reason if an error of ``write`` is a refusal of content, else ``None``.
        encode: the payload of a value for a state.

    Raises:
        whatever ``write`` raised, if that is no refusal of content, or if the marker is refused as well.
    """
    try:
        write(row)
    except Exception as error:  # what is no refusal is raised again
        reason = refusal(error)
        if reason is None:
            raise
        if not _put_stand_in(row, reason, write, refusal, encode):
            raise


def _put_stand_in(
    row: Row,
    reason: str,
    write: Callable[[Row], object],
    refusal: Callable[[BaseException], str | None],
    encode: Callable[[Any, str], bytes],
) -> bool:
    """Whether one of the stand-ins was stored."""
    size = sum(len(value) for value in row.values() if isinstance(value, (bytes, str)))
    for stored, stand_in in stand_ins(row, reason, encode):
        try:
            write(stand_in)
        except Exception as error:  # what is no refusal is raised again
            if refusal(error) is None:
                raise
        else:
            what = (row["status"], row["task_id"], size, reason, stored)
            logger.error("%s of task %s, %d bytes, was refused by the database (%s): stored %s", *what)
            return True
    return False


def stand_ins(row: Row, reason: str, encode: Callable[[Any, str], bytes]) -> Iterator[tuple[str, Row]]:
    """What to store instead of a row, best first, each with the words for it."""
    bare = {column: value for column, value in row.items() if column not in OPTIONAL}
    if len(bare) < len(row):
        yield "without what result_extended adds and without children", bare
    marker = _marker(row, reason, encode)
    yield "a marker instead of the result", {**row, **marker}
    if len(bare) < len(row):
        yield "a marker instead of the result, and nothing else", {**bare, **marker}


def _marker(row: Row, reason: str, encode: Callable[[Any, str], bytes]) -> Row:
    """The columns of a row whose result was refused. What succeeded fails: its value is lost."""
    status = states.FAILURE if row["status"] == states.SUCCESS else row["status"]
    refused = ResultRefused(
        f"the task ended in {row['status']}, but the database refused its result of {len(row['result'] or b'')} bytes "
        f"({reason}): return less, or store it elsewhere and return where"
    )
    value = refused if status in states.EXCEPTION_STATES else str(refused)
    return {"status": status, "result": encode(value, status), "traceback": _clipped(row["traceback"])}


def _clipped(traceback: str | None) -> str | None:
    """Both ends of a traceback: where it began, and what was raised."""
    if traceback is None or len(traceback) <= 2 * END_OF_TRACEBACK:
        return traceback
    left_out = len(traceback) - 2 * END_OF_TRACEBACK
    head, tail = traceback[:END_OF_TRACEBACK], traceback[-END_OF_TRACEBACK:]
    return f"{head}\n… {left_out} characters left out …\n{tail}"
