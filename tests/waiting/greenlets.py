"""Run as a program: greenlets of one process store and wait at once. Arguments: gevent, eventlet or threads; the URL.

Each waits for the result of the one before it and stores its own, greater by one; so all wait at the same time, and
one that is not woken, or that lets the others stand still, is missed. Prints the last result.
"""

import sys
import warnings

from greening import patch

HOW, URL = sys.argv[1:]
patch(HOW)

import threading  # noqa: E402

from celery import states  # noqa: E402

import servers  # noqa: E402, F401  makes the portable dialect known
from support import app_on  # noqa: E402

GREENLETS, PATIENCE = 50, 60.0


def hand_on(number: int) -> None:
    """Be one of the greenlets."""
    value = app.AsyncResult(f"t-{number - 1}").get(timeout=PATIENCE)
    app.backend.store_result(f"t-{number}", value + 1, states.SUCCESS)


warnings.simplefilter("error")
app = app_on(URL)
app.backend.states_of(["warm"])
members = [threading.Thread(target=hand_on, args=(number,)) for number in range(1, GREENLETS + 1)]
for member in members:
    member.start()
while len(app.backend.looker.awaited()) < GREENLETS:
    threading.Event().wait(0.01)
app.backend.store_result("t-0", 0, states.SUCCESS)
print(app.AsyncResult(f"t-{GREENLETS}").get(timeout=PATIENCE))
