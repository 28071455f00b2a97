"""A broker that needs no server: kombu's `filesystem` transport without its races.

kombu writes messages where the workers look for them, so that now and then one takes a file that is still empty, and
the task is lost; and two workers that start at once may read a table of queues that is still empty, and die. A test of
results should not fail for that.
"""

from __future__ import annotations

import fcntl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

TRANSPORT_ALIASES["files"] = f"{__name__}:Transport"
#: Seconds between two looks for messages.
INTERVAL = 0.02


class Channel(filesystem.Channel):
    """A channel that writes messages elsewhere, then moves them, and touches tables of queues under a lock."""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with Path(self.control_folder, "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _queue_bind(self, *arguments: Any) -> None:
        with self._alone():
            super()._queue_bind(*arguments)

    def get_table(self, exchange: str) -> Any:
        with self._alone():
            return super().get_table(exchange)

    def _delete(self, *arguments: Any, **more: Any) -> None:
        with self._alone():
            super()._delete(*arguments, **more)

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        name = f"{time.monotonic_ns():020}_{uuid.uuid4()}.{queue}.msg"
        draft = Path(self.processed_folder, name)
        draft.write_text(dumps(payload))
        draft.rename(Path(self.data_folder_out, name))


class Transport(filesystem.Transport):
    """kombu's transport with the channel above."""

    Channel = Channel


def broker_in(folder: Path) -> dict[str, Any]:
    """Celery's settings of a broker whose messages are files in a folder."""
    paths = {name: folder / name for name in ("queue", "taken", "control")}
    for path in paths.values():
        path.mkdir(exist_ok=True)
    options = {
        "data_folder_in": str(paths["queue"]),
        "data_folder_out": str(paths["queue"]),
        "control_folder": str(paths["control"]),
        "processed_folder": str(paths["taken"]),
        "store_processed": True,
        "polling_interval": INTERVAL,
    }
    return {"broker_url": "files://localhost", "broker_transport_options": options}
