"""The tables are made ready, whatever state they are found in, and whatever rights there are."""

from __future__ import annotations

from .found import ESSENTIAL, HEAD, State, look, version_table
from .indexes import Wanted, index_statements, missing_indexes, wanted_indexes
from .prepare import Prepared, prepare_models, upgrade, upgrade_within
from .remedy import pending, remedy, shortcomings, strangers
from .rights import PURPOSES, grants, needed
from .script import script, text

__all__ = [
    "ESSENTIAL",
    "HEAD",
    "PURPOSES",
    "Prepared",
    "State",
    "Wanted",
    "grants",
    "index_statements",
    "look",
    "missing_indexes",
    "needed",
    "pending",
    "prepare_models",
    "remedy",
    "script",
    "shortcomings",
    "strangers",
    "text",
    "upgrade",
    "upgrade_within",
    "version_table",
    "wanted_indexes",
]
