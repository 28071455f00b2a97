"""From what Celery hands over to the columns of a row, and back.

Payloads are written by the app's serializer, compressed if it says so, and each row names its content type: a row stays
readable when ``result_serializer`` changes. What a database would refuse is repaired here, never dropped: NUL and lone
surrogates are escaped, names are clipped to their column.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar

from celery import states
from celery.exceptions import SecurityError, SoftTimeLimitExceeded
from kombu.compression import compress
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError
from kombu.serialization import dumps, loads
from kombu.utils import json
from kombu.utils.encoding import safe_repr

from celery_sql_results._compat import private
from celery_sql_results.boundaries import caught
from celery_sql_results.foreign import escaping
from celery_sql_results.models import NAME_LENGTH, RECORDED_COLUMNS, STATE_LENGTH, utc_now

from .budget import Budget
from .costs import JSON
from .exceptions import restored
from .pickles import PICKLE, is_pickle, unpickle
from .recorded import is_of, recorded
from .results import UnreadableMeta, stamps_of, tree, trees
from .text import bounded_repr, is_short, text

__all__ = ["Encoding"]

logger = escaping(logging.getLogger(__name__))

#: What stands before a compressed payload, followed by its content type, NUL and the body. Celery 5.7 writes and reads
#: the same; no serializer writes a leading NUL.
COMPRESSED = b"\x00celery-compressed\x00"

#: Columns of a task that are read as they are.
_PLAIN = ("task_id", "status", "traceback", "date_done", *RECORDED_COLUMNS)
_TIMES = ("date_done", "date_queued", "date_started")
#: How a payload begins that is none, is compressed, or may be a pickle.
_MARKS = (b"", b"\x00", b"\x80")
#: Payloads that only inform.
_INFORMING = ("children", "args", "kwargs")
#: Errors that say why a payload cannot be read.
_REASONS = (ContentDisallowed, DecodeError, SecurityError)

T = TypeVar("T")


class Encoding:
    """Writes with one serializer, reads with every one that is accepted.

    Args:
        serializer: kombu's name of the serializer, such as ``json``.
        accept: the content types that may be read.
        compression: kombu's name of a compression, or ``None``.
        max_decompressed: bytes that the payloads of a row may take when they are decompressed; ``None`` for what
            :class:`~.budget.Budget` says.
        redact: what may be stored as the positional and the keyword arguments of a request; ``None`` for all.
    """

    def __init__(
        self,
        serializer: str,
        accept: Collection[str],
        compression: str | None,
        max_decompressed: int | None = None,
        redact: Callable[[Any], tuple[Any, Any]] | None = None,
    ) -> None:
        self.serializer = serializer
        self.accept = accept
        self.compression = compression
        self.max_decompressed = max_decompressed
        self.redact = redact or _everything
        self.content_type, self._encode = _codec(serializer)
        #: What may be read, the app's own first. Pickles are told by their first bytes.
        self._readable = [known for known in dict.fromkeys([self.content_type, *sorted(accept)]) if known != PICKLE]
        #: Nearly all rows are JSON, as they say, and need none of kombu's checks.
        decoders = private("kombu.serialization:registry._decoders") or {}
        self._decode = decoders.get(JSON) if JSON in accept else None

    # -- payloads ------------------------------------------------------------------------------------------------

    def dumps(self, value: Any) -> bytes:
        """Serialize ``value``, and compress it if so configured.

        Raises:
            kombu.exceptions.EncodeError: the serializer cannot write the value.
        """
        try:
            payload = self._encode(value)
        except Exception as error:  # a serializer may raise anything; kombu tells it so
            raise EncodeError(error) from error
        data: bytes = payload.encode("utf-8", "backslashreplace") if isinstance(payload, str) else payload
        if self.compression:
            body, method = compress(data, self.compression)
            return COMPRESSED + method.encode() + b"\x00" + body  # type: ignore[no-any-return]
        return data

    def dumps_lenient(self, value: Any) -> bytes:
        """Like :meth:`dumps`; a value that cannot be serialized is replaced by its ``repr``. For what only informs."""
        with caught():  # a serializer may raise anything over a foreign value
            return self.dumps(value)
        return self.dumps(text(safe_repr(value)))

    def loads(self, payload: bytes | None, content_type: str | None = None, budget: Budget | None = None) -> Any:
        """Read a payload in the content type of its row; rows of Celery's own backend have none.

        Args:
            payload: what the row holds.
            content_type: what that is.
            budget: of the row, if it has other payloads.

        Raises:
            kombu.exceptions.ContentDisallowed: the content type is not accepted.
            kombu.exceptions.DecodeError: the payload is not in any accepted content type.
            PayloadTooLarge: it would take more than the budget has.
        """
        if payload is None:
            return None
        data = payload if type(payload) is bytes else _bytes_of(payload)
        content_type = content_type or self.content_type
        if content_type == JSON and self._decode is not None and data[:1] not in _MARKS:
            try:
                return self._decode(data)
            except SoftTimeLimitExceeded:  # of the task that reads
                raise
            except Exception:  # noqa: BLE001 - a decoder may raise anything; told below, in kombu's words
                logger.debug("a payload is not %s", content_type)
        return self._loads_within(budget or Budget(self.max_decompressed), data, content_type)

    def _loads_within(self, budget: Budget, data: bytes, content_type: str) -> Any:
        """Read a payload that may become more than so many times what it takes in the database."""
        budget.store(data)
        is_packed = data.startswith(COMPRESSED)
        if is_packed:
            method, _, body = data[len(COMPRESSED) :].partition(b"\x00")
            data = budget.decompress(body, method.decode("ascii", "backslashreplace"), self.compression)
        if is_pickle(data):
            return unpickle(data, PICKLE in self.accept, budget)
        return self._loads_any(data, content_type, budget, is_packed)

    def _loads_any(self, data: bytes, content_type: str, budget: Budget, is_packed: bool) -> Any:
        """Read a payload in the first type that it is of.

        That may be the row's own; the app's, in case Celery's backend wrote over the row; or whatever is accepted.
        """
        errors: list[Exception] = []
        for candidate in dict.fromkeys([content_type[:NAME_LENGTH], *self._readable]):
            try:
                cost = budget.price(data, candidate, is_packed)
                value = loads(data, candidate, "utf-8", accept=self.accept)
            except (ContentDisallowed, DecodeError) as error:
                if isinstance(error.__context__, SoftTimeLimitExceeded):  # of the task that reads
                    raise error.__context__ from None
                errors.append(_without_frames(error))
            else:
                budget.spend(cost)
                return value
        if is_short(errors[0]):
            raise errors[0]
        raise DecodeError(f"the row holds what cannot be read: {bounded_repr(errors[0])}")

    # -- rows ----------------------------------------------------------------------------------------------------

    def to_row(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None,
        children: Any,
        request: Any,
        began: datetime | None,
        extended: bool,
    ) -> dict[str, Any]:
        """The columns that one write sets. ``date_done`` is set by finished states alone.

        What is not known of a task is left out, so that it does not replace what an earlier write has known.
        """
        row = {
            "task_id": task_id,
            "status": text(state, STATE_LENGTH),
            "result": self.dumps(result),
            "date_done": utc_now() if state in states.READY_STATES else None,
            "traceback": text(traceback),
            "children": self._children(children) if children else None,
            "content_type": self.content_type,
        }
        if request is not None and is_of(request, task_id):
            row |= recorded(request, began or (utc_now() if state == states.STARTED else None))
            if extended:
                row |= self._extended(request)
        return row

    def to_group_row(self, group_id: str, result: Any) -> dict[str, Any]:
        """The columns of a group that is saved; ``result`` is what Celery calls the tuple of its result."""
        return {
            "taskset_id": group_id,
            "result": self.dumps(tree(result)),
            "date_done": utc_now(),
            "content_type": self.content_type,
        }

    def members(self, row: Mapping[str, Any]) -> Any:
        """The tuple of the result of a group, of its row."""
        members = self.loads(row["result"], row.get("content_type"))
        return members and tree(members)

    def _extended(self, request: Any) -> dict[str, Any]:
        """What ``result_extended`` adds, from a task's request."""
        stamped = getattr(request, "stamped_headers", None)
        args, kwargs = self.redact(request)
        return {
            "args": self._argument(args),
            "kwargs": self._argument(kwargs),
            "stamps": self._stamps(stamped, request.stamps or {}) if stamped else None,
        }

    def _children(self, children: Collection[Any]) -> bytes | None:
        try:
            return self.dumps([*map(tree, children)])
        except (DecodeError, EncodeError) as error:  # they only inform
            logger.warning("what a task has sent is not stored with its result (%s)", error)
            return None

    def _argument(self, value: Any) -> bytes | None:
        return None if value is None else self.dumps_lenient(value)

    def _stamps(self, stamped: Collection[str], stamps: Mapping[str, Any]) -> bytes | None:
        with caught() as odd:  # a message may hold anything, and they only inform
            values = {header: value for header, value in stamps.items() if header in stamped}
            return self.dumps_lenient({"stamped_headers": sorted(stamped), "stamps": values})
        logger.warning("the stamps of a task are not stored (%s)", type(odd.error).__name__)
        return None

    def value(self, row: Mapping[str, Any]) -> Any:
        """The value that a row of a task, or of a part of a chord, holds; its exception in the states that have one.

        Raises:
            kombu.exceptions.ContentDisallowed: the row holds content that is not accepted.
            kombu.exceptions.DecodeError: it cannot be read, or is no exception where one should be.
            celery.exceptions.SecurityError: it names something that is no class of exceptions.
        """
        value, error = _tried(self._value, row, Budget(self.max_decompressed))
        if error is not None:
            raise error
        return value

    def _value(self, row: Mapping[str, Any], budget: Budget) -> Any:
        value, state = self.loads(row["result"], row.get("content_type"), budget), row["status"]
        if state not in states.EXCEPTION_STATES:
            return value
        exception = restored(value)
        if exception is None and state in states.PROPAGATE_STATES:
            raise DecodeError("the row tells of a failure, but holds no exception")
        return exception

    def to_meta(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What Celery calls the meta of a task: the row by the names of ``AsyncResult``, its payloads read.

        What only informs is left out if it cannot be read. In place of a value that cannot be read stands the error
        that says why. That error is the exception of a task that failed; of any other, the meta is an
        :class:`~.results.UnreadableMeta`.
        """
        meta, budget = self.recorded(row), Budget(self.max_decompressed)
        meta["result"], error = _tried(self._value, row, budget)
        for column in _INFORMING:
            if column in row:
                meta[column] = self._informing(row, column, budget)
        stamps = self._informing(row, "stamps", budget)
        if stamps:
            meta = {**stamps, **meta}
        if error is None:
            return meta
        meta["result"] = error
        return meta if row["status"] in states.EXCEPTION_STATES else UnreadableMeta(meta)

    def recorded(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that are no payloads, as they are."""
        meta: dict[str, Any] = {column: row[column] for column in _PLAIN if column in row}
        if type(row.get("date_done")) is str or type(row.get("date_started")) is str:  # of dates that are zero
            meta |= {column: None for column in _TIMES if isinstance(meta.get(column), str)}
        return meta

    def _informing(self, row: Mapping[str, Any], column: str, budget: Budget) -> Any:
        """A payload that only informs, or ``None`` if it cannot be read."""
        if row.get(column) is None:
            return None
        shaped = {"children": trees, "stamps": stamps_of}.get(column, _as_it_is)
        value, error = _tried(
            lambda row, budget: shaped(self.loads(row[column], row.get("content_type"), budget)), row, budget
        )
        if error is not None:
            logger.debug("%s of task %s cannot be read (%s)", column, row["task_id"], type(error).__name__)
        return value


def _tried(
    read: Callable[[Mapping[str, Any], Budget], Any], row: Mapping[str, Any], budget: Budget
) -> tuple[Any, Exception | None]:
    """What is read of a row, or the error that says why it cannot be."""
    try:
        return read(row, budget), None
    except SoftTimeLimitExceeded:  # of the task that reads
        raise
    except Exception as error:  # noqa: BLE001 - whoever can write to the table can put anything there
        _without_frames(error)
        if isinstance(error, _REASONS):
            return None, error
        told = DecodeError(f"the row of task {row['task_id']} cannot be read: {type(error).__name__}")
        told.__cause__ = error
        return None, told


def _bytes_of(payload: object) -> bytes:
    """A payload as every driver but one gives it. SQLite holds anything."""
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise DecodeError(f"the row holds {type(payload).__name__} where a payload should be")
    return bytes(payload)


def _without_frames(error: T) -> T:
    """An error that is kept, or is in a frame that it knows, must not keep what it was about: that may be large."""
    before: list[Any] = [error]
    for each in before:
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            before += (each.__cause__, each.__context__)
    return error


def _as_it_is(value: T) -> T:
    return value


def _everything(request: Any) -> tuple[Any, Any]:
    """The arguments of a task as they are."""
    return getattr(request, "args", None), getattr(request, "kwargs", None)


def _codec(serializer: str) -> tuple[str, Callable[[Any], Any]]:
    """The content type of a serializer, and what it writes with. Kombu's for JSON is made anew for each value."""
    encoders = private("kombu.serialization:registry._encoders")
    if encoders is None:
        return dumps(None, serializer)[0], lambda value: dumps(value, serializer)[2]
    content_type, _, encode = encoders[serializer]
    return content_type, json.JSONEncoder().encode if encode is json.dumps else encode
