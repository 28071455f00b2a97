"""Chords without polling: the part that completes a header hands its results to the body.

``chords`` counts the parts in, ``handing_over`` elects one process, ``joining`` reads what the parts have left, and
``failing`` tells who learns of an error. Each part is a row of its own, so a part that runs twice counts once, and
parts that return at once do not wait for each other. Who is elected has a lease: if it dies before the body is sent,
another part of the same chord, the upkeep of a worker or the next cleanup takes over. The body's id is fixed when the
chord begins, so even a body that was sent twice has one result.

A body that is read from its row is sent only if ``signing`` knows it, where the app has a secret.

``sweeping`` is what the upkeep does. It also ends chords whose parts were stored by somebody else, which ``members``
finds by the ids of the header.
"""

from __future__ import annotations

from .chords import Chords
from .failing import ends_of, request_of
from .handing_over import HandOver
from .joining import Join
from .members import Members, header_of, missing_of
from .parts import is_over, mark, mark_outcome, part_for, part_with
from .signing import Signer
from .sweeping import Sweep

__all__ = [
    "Chords",
    "HandOver",
    "Join",
    "Members",
    "Signer",
    "Sweep",
    "ends_of",
    "header_of",
    "is_over",
    "mark",
    "mark_outcome",
    "missing_of",
    "part_for",
    "part_with",
    "request_of",
]
