"""The tables are made ready, whatever state they are found in, and whatever rights there are."""

from __future__ import annotations

from .prepare import HEAD, Columns, prepare_models

__all__ = ["HEAD", "Columns", "prepare_models"]
