"""From what Celery hands over to the columns of a row, and back.

Payloads are written by the app's serializer, compressed if it says so, and each row names its content type: a row stays
readable when ``result_serializer`` changes. What a database would refuse is repaired here, never dropped: NUL and lone
surrogates are escaped, names are clipped to their column.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from celery import states
from celery.result import ResultBase
from kombu.compression import compress
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError
from kombu.serialization import loads, registry
from kombu.utils import json
from kombu.utils.encoding import safe_repr

from celery_sql_results.models import NAME_LENGTH, STATE_LENGTH, utc_now

from .compression import LIMIT, decompress

__all__ = ["Encoding"]

#: What stands before a compressed payload, followed by its content type, NUL and the body. Celery 5.7 writes and reads
#: the same; no serializer writes a leading NUL.
COMPRESSED = b"\x00celery-compressed\x00"
PICKLE = "application/x-python-serialize"
#: A pickle begins with this byte and its protocol. Of the other serializers, msgpack alone begins with it, for ``{}``.
PICKLE_MARK = b"\x80"
PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")

#: What a row holds of a task: payloads, and columns that are read as they are, the extended ones last.
_PAYLOADS = ("result", "children", "args", "kwargs")
_PLAIN = (
    *("task_id", "status", "traceback", "date_done"),
    *("name", "worker", "retries", "queue", "date_queued", "date_started", "parent_id", "root_id", "group_id"),
)


class _PlainUnpickler(pickle._Unpickler):
    """Reads numbers, strings and collections, and refuses whatever names a class or a function.

    In Python: eight bytes can make the one in C take 32 GB for its memo.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise ContentDisallowed(
            f"the row is a pickle that names {module}.{name}: to read it, add 'pickle' to result_accept_content, "
            "if everybody who can write to the database may run code here"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise ContentDisallowed("the row is a pickle that refers to objects outside of it")


class _Unpickler(pickle.Unpickler):
    """Reads whatever is named, but for the backend that Celery pickles with each result: it would connect elsewhere."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("celery.backends.base", "unpickle_backend"):
            return _the_apps_own
        return super().find_class(module, name)


def _the_apps_own(cls: object, args: object, kwargs: object) -> None:
    """A result without a backend takes the one of its app."""


def text(value: str | None, longest: int | None = None) -> str | None:
    """Escape what no text column takes (NUL, lone surrogates), then clip to ``longest`` characters."""
    if value is None:
        return None
    value = str(value)
    if "\x00" in value:
        value = value.replace("\x00", "\\x00")
    if not value.isascii():
        value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value[:longest]


def name(value: str | None) -> str | None:
    """A text that fits the columns of names."""
    return text(value, NAME_LENGTH)


class Encoding:
    """Writes with one serializer, reads with every one that is accepted.

    Args:
        serializer: kombu's name of the serializer, such as ``json``.
        accept: the content types that may be read.
        compression: kombu's name of a compression, or ``None``.
        max_decompressed: bytes that a payload may take when it is decompressed.
        redact: what may be stored as the positional and the keyword arguments of a request; ``None`` for all.
    """

    def __init__(
        self,
        serializer: str,
        accept: Collection[str],
        compression: str | None,
        max_decompressed: int = LIMIT,
        redact: Callable[[Any], tuple[Any, Any]] | None = None,
    ) -> None:
        self.serializer = serializer
        self.accept = accept
        self.compression = compression
        self.max_decompressed = max_decompressed
        self.redact = redact or _everything
        self.content_type: str = registry._encoders[serializer].content_type
        self._encode = _encoder_of(serializer)
        #: What may be read, the app's own first. Pickles are told by their first bytes.
        self._readable = [known for known in dict.fromkeys([self.content_type, *sorted(accept)]) if known != PICKLE]
        #: Nearly all rows are what they say that they are, and need none of kombu's checks.
        self._decoders = {known: registry._decoders.get(known) for known in self._readable if known in accept}

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
        try:
            return self.dumps(value)
        except Exception:  # noqa: BLE001 - a serializer may raise anything over a foreign value
            return self.dumps(text(safe_repr(value)))

    def loads(self, payload: bytes | None, content_type: str | None = None) -> Any:
        """Read a payload in the content type of its row; rows of Celery's own backend have none.

        Raises:
            kombu.exceptions.ContentDisallowed: the content type is not accepted.
            kombu.exceptions.DecodeError: the payload is not in any accepted content type.
        """
        if payload is None:
            return None
        data = self._decompressed(bytes(payload))
        if data[:1] == PICKLE_MARK and data[1:2] in PICKLE_PROTOCOLS:
            return self._unpickle(data)
        content_type = content_type or self.content_type
        decode = self._decoders.get(content_type)
        if decode is not None and data:
            with suppress(Exception):  # told below, in kombu's words
                return decode(data)
        errors: list[Exception] = []
        # The row's own type; then the app's, in case Celery's backend wrote over the row; then whatever is accepted.
        for candidate in dict.fromkeys([content_type, *self._readable]):
            try:
                return loads(data, candidate, _encoding_of(candidate), accept=self.accept)
            except (ContentDisallowed, DecodeError) as error:
                errors.append(error)
        raise errors[0]

    def _decompressed(self, data: bytes) -> bytes:
        if not data.startswith(COMPRESSED):
            return data
        method, _, body = data[len(COMPRESSED) :].partition(b"\x00")
        return decompress(body, method.decode("ascii", "backslashreplace"), self.max_decompressed)

    def _unpickle(self, data: bytes) -> Any:
        unpickler = _Unpickler if PICKLE in self.accept else _PlainUnpickler
        try:
            return unpickler(io.BytesIO(data)).load()
        except ContentDisallowed:
            raise
        except Exception as error:  # broken pickles raise almost anything
            raise DecodeError(f"the row begins like a pickle, but cannot be read as one: {error}") from error

    # -- rows ----------------------------------------------------------------------------------------------------

    def to_row(
        self, task_id: str, result: Any, state: str, traceback: str | None, children: Any, request: Any, extended: bool
    ) -> dict[str, Any]:
        """The columns that one write sets. ``date_done`` is set by finished states alone."""
        row = {
            "task_id": task_id,
            "status": text(state, STATE_LENGTH),
            "result": self.dumps(result),
            "date_done": utc_now() if state in states.READY_STATES else None,
            "traceback": text(traceback),
            "children": self.dumps(children) if children else None,
            "content_type": self.content_type,
        }
        if extended and request is not None:
            row |= self._extended(request, state)
        return row

    def _extended(self, request: Any, state: str) -> dict[str, Any]:
        """What ``result_extended`` adds, from a task's request. The start is known only while it happens."""
        stamped = getattr(request, "stamped_headers", None)
        delivery = getattr(request, "delivery_info", None) or {}
        args, kwargs = self.redact(request)
        row = {
            "name": name(getattr(request, "task", None)),
            "args": self._argument(args),
            "kwargs": self._argument(kwargs),
            "worker": name(getattr(request, "hostname", None)),
            "retries": getattr(request, "retries", None),
            "queue": name(delivery.get("routing_key")),
            "stamps": self._stamps(stamped, request.stamps or {}) if stamped else None,
            "parent_id": name(getattr(request, "parent_id", None)),
            "root_id": name(getattr(request, "root_id", None)),
            "group_id": name(getattr(request, "group", None)),
        }
        return {**row, "date_started": utc_now()} if state == states.STARTED else row

    def _argument(self, value: Any) -> bytes | None:
        return None if value is None else self.dumps_lenient(value)

    def _stamps(self, stamped: Collection[str], stamps: Mapping[str, Any]) -> bytes:
        values = {header: value for header, value in stamps.items() if header in stamped}
        return self.dumps_lenient({"stamped_headers": sorted(stamped), "stamps": values})

    def to_meta(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What Celery calls the meta of a task: the row by the names of ``AsyncResult``, its payloads read.

        Raises:
            kombu.exceptions.ContentDisallowed: the row holds content that is not accepted.
            kombu.exceptions.DecodeError: the row cannot be read.
        """
        try:
            return self._to_meta(row)
        except (ContentDisallowed, DecodeError):
            raise
        except Exception as error:  # whoever can write to the table can put anything there
            raise DecodeError(f"the row of task {row['task_id']} cannot be read: {error!r}") from error

    def _to_meta(self, row: Mapping[str, Any]) -> dict[str, Any]:
        content_type = row.get("content_type")
        meta: dict[str, Any] = {column: row[column] for column in _PLAIN if column in row}
        meta |= {column: self.loads(row[column], content_type) for column in _PAYLOADS if column in row}
        for child in meta.get("children") or ():
            tree(child)
        stamps = self.loads(row.get("stamps"), content_type)
        return {**stamps["stamps"], "stamped_headers": stamps["stamped_headers"], **meta} if stamps else meta


def tree(value: Any) -> Any:
    """``value``, which is a result as Celery's ``result_from_tuple`` takes it: ``((id, parent), members)``.

    Raises:
        kombu.exceptions.DecodeError: it is none.
    """
    if isinstance(value, ResultBase):  # from a pickle, which was accepted
        return value
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    head, members = value if pair else (None, None)
    id_, parent = head if isinstance(head, (list, tuple)) and len(head) == 2 else (head, None)
    if not isinstance(id_, str) or not isinstance(members, (list, tuple, type(None))):
        raise DecodeError("the row holds something else where a result should be")
    for each in (*([parent] if parent else ()), *(members or ())):
        tree(each)
    return value


def _everything(request: Any) -> tuple[Any, Any]:
    """The arguments of a task as they are."""
    return getattr(request, "args", None), getattr(request, "kwargs", None)


def _encoder_of(serializer: str) -> Callable[[Any], Any]:
    """Kombu's for JSON is made anew for each value, though nothing in it changes."""
    encoder: Callable[[Any], Any] = registry._encoders[serializer].encoder
    return json.JSONEncoder().encode if encoder is json.dumps else encoder


def _encoding_of(content_type: str) -> str:
    known = registry.type_to_name.get(content_type)
    return registry._encoders[known].content_encoding if known in registry._encoders else "utf-8"
