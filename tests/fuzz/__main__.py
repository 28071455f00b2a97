"""`python -m fuzz TARGET OPTIONS…`: fuzz a target, until it fails or the time is up. The options are libFuzzer's."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import atheris

with atheris.instrument_imports(include=["celery_sql_results"]):
    target = import_module(f"fuzz.{sys.argv.pop(1)}")

logging.disable()  # of each chord that is refused
atheris.Setup(sys.argv, target.read)
atheris.Fuzz()
