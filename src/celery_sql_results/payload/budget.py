"""What the payloads of one row may come to when they are read: a small row must not fill the memory of its reader."""

from __future__ import annotations

from celery_sql_results.errors import PayloadTooLarge

from .compression import decompress
from .costs import YAML, cost_of, cost_of_yaml

__all__ = ["DEPTH", "Budget"]

MB = 1024 * 1024
#: Bytes that the payloads of a row may take when they are decompressed: so many times what they took, within bounds.
FACTOR, LEAST, MOST = 100, 8 * MB, 256 * MB
#: Bytes of what is made of them: so many times what is stored, or what may be decompressed. JSON, as dense as it gets,
#: becomes 30 times as much.
DECODED_FACTOR, DECODED_PER_BYTE, DECODED_LEAST = 400, 8, 64 * MB
#: How deep collections may be in one another. Python's own functions go twice as deep from wherever they are called.
DEPTH = 500


class Budget:
    """The budget of one row; each of its payloads adds what it takes in the database, and takes what it comes to.

    Args:
        given: bytes that they may take when they are decompressed, if the settings say so.
    """

    #: Bytes as they are stored, of compressed payloads alone, as they are decompressed, and of what is made of them. Of
    #: nearly all rows none of this is asked for.
    _stored = _packed = _decompressed = 0
    _decoded = 0.0

    def __init__(self, given: int | None = None) -> None:
        self._given = given

    def store(self, payload: bytes) -> None:
        """Count a payload as it is stored."""
        self._stored += len(payload)

    def decompress(self, body: bytes, method: str, own: str | None) -> bytes:
        """Decompress a payload; see :func:`~.compression.decompress`."""
        self._packed += len(body)
        limit = min(MOST, max(LEAST, FACTOR * self._packed)) if self._given is None else self._given
        data = decompress(body, method, max(limit - self._decompressed, 0), own)
        self._decompressed += len(data)
        return data

    def price(self, data: bytes, content_type: str, is_packed: bool) -> float:
        """Bytes that decoding takes: to spend when it is done.

        What is stored as it is, and not compressed (``is_packed``), becomes no more than so many times as much, and
        costs nothing, unless it can say things twice.

        Raises:
            PayloadTooLarge: so much is not left.
            kombu.exceptions.DecodeError: it would take too long.
        """
        cost = float(cost_of(data, content_type)) if is_packed else 0.0
        self._check(cost)
        if content_type == YAML:
            cost += cost_of_yaml(data)
            self._check(cost)
        return cost

    def _check(self, cost: float) -> None:
        if cost > self.left:
            raise self.exceeded(self.left)

    @property
    def left(self) -> float:
        """Bytes that what is made of the payloads may still take."""
        limit = max(DECODED_LEAST, DECODED_FACTOR * self._stored, DECODED_PER_BYTE * (self._given or 0))
        return limit - self._decoded

    def spend(self, size: float) -> None:
        """Take ``size`` bytes."""
        self._decoded += size

    @staticmethod
    def exceeded(limit: float) -> PayloadTooLarge:
        """The error of a row that comes to more than ``limit`` bytes."""
        return PayloadTooLarge(int(limit), "a payload that becomes a value")
