"""What a row is made of: payloads, exceptions, and what is hidden of arguments."""

from __future__ import annotations

from .encoding import Encoding
from .exceptions import restored, stand_in, storable
from .readable import NotReadable, Readable, raised, task_of
from .recorded import SENT, of_sending
from .redaction import Redact, redaction_for
from .results import UnreadableMeta, pending, tree, value_of
from .sent import Sent, sent
from .text import bounded_repr, name, text

__all__ = [
    "SENT",
    "Encoding",
    "NotReadable",
    "Readable",
    "Redact",
    "Sent",
    "UnreadableMeta",
    "bounded_repr",
    "name",
    "of_sending",
    "pending",
    "raised",
    "redaction_for",
    "restored",
    "sent",
    "stand_in",
    "storable",
    "task_of",
    "text",
    "tree",
    "value_of",
]
