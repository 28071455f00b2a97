"""What a worker runs: the app of the entry in BENCHMARKS_ENTRY."""

from __future__ import annotations

import json
import os
from typing import Any

from celery.signals import worker_ready

from benchmarks.contenders import Entry, make

ENTRY = "BENCHMARKS_ENTRY"
READY = "this worker is ready"

if ENTRY in os.environ:
    app = make(Entry(**json.loads(os.environ[ENTRY]))).app


def greet(**_: Any) -> None:
    """Say in the log that tasks are taken from now on."""
    print(READY, flush=True)


worker_ready.connect(greet)
