"""Run as a program: many apps of one process wait on one database. Arguments: the URL, how many apps, how many files.

Prints, as JSON, how many values each round has given, and what the process held while it was idle, and at work.
"""

import json
import os
import resource
import sys
import threading
import time
import warnings

from celery import states

import servers  # noqa: F401  makes the portable dialect known
from support import app_on

URL, APPS, FILES = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
warnings.simplefilter("error")
PATIENCE = 60.0
OURS = "celery-sql-results-l"


def held() -> dict[str, object]:
    """The threads that wait, and the descriptors that are open beyond those before the first wait."""
    names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(OURS))
    return {"threads": names, "descriptors": max(0, len(os.listdir("/proc/self/fd")) - before)}


def store(task_id: str) -> None:
    """Store a result, through an app of its own."""
    writer.backend.store_result(task_id, task_id, states.SUCCESS)


def later(task_id: str) -> str:
    """What an app gets that waits for a result which is stored a little later."""
    timer = threading.Timer(0.001, store, (task_id,))
    timer.start()
    value = apps[int(task_id.partition("-")[2])].AsyncResult(task_id).get(timeout=PATIENCE)
    timer.join()
    return str(value)


writer = app_on(URL)
store("ready")
apps = [app_on(URL) for _ in range(APPS)]
apps[0].AsyncResult("ready").get()
before = len(os.listdir("/proc/self/fd"))
ready = [app.AsyncResult("ready").get() for app in apps]
idle = held()
in_turn = [later(f"turn-{number}") for number in range(APPS)]
found: list[str] = []
results = [app.AsyncResult(f"together-{number}") for number, app in enumerate(apps)]
for result in results:
    result.then(lambda result: found.append(result.result))
for result in results:
    store(result.id)
deadline = time.monotonic() + PATIENCE
while len(found) < APPS and time.monotonic() < deadline:
    time.sleep(0.01)
at_work = held()
for app in apps:
    app.close()
again = [app.AsyncResult("ready").get(timeout=PATIENCE) for app in apps]
rounds = {"ready": ready, "in turn": in_turn, "together": found, "again": again}
values = {name: len([value for value in values if value]) for name, values in rounds.items()}
print(json.dumps({"values": values, "idle": idle, "at work": at_work}))
