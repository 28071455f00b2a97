"""The tables are made ready, whatever state they are found in, and whatever rights there are."""

from __future__ import annotations

from .found import HEAD, State, look
from .prepare import Prepared, prepare_models
from .remedy import shortcomings

__all__ = ["HEAD", "Prepared", "State", "look", "prepare_models", "shortcomings"]
