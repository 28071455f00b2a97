"""The tables are made ready, whatever state they are found in, and whatever rights there are."""

from __future__ import annotations

from .found import HEAD
from .prepare import Prepared, prepare_models

__all__ = ["HEAD", "Prepared", "prepare_models"]
