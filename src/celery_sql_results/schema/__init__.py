"""The tables are made ready, whatever state they are found in, and whatever rights there are."""

from __future__ import annotations

from .found import ESSENTIAL, HEAD, State, look
from .indexes import Wanted, index_statements, missing_indexes, wanted_indexes
from .prepare import Prepared, prepare_models
from .remedy import shortcomings

__all__ = [
    "ESSENTIAL",
    "HEAD",
    "Prepared",
    "State",
    "Wanted",
    "index_statements",
    "look",
    "missing_indexes",
    "prepare_models",
    "shortcomings",
    "wanted_indexes",
]
