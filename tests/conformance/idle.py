"""Run as a program: stores, does something else, and reads. Arguments: gevent, eventlet or plain; the URL."""

import sys
import warnings

from greening import patch

HOW, URL = sys.argv[1:]
patch(HOW)

import select  # noqa: E402

from celery import states  # noqa: E402

from support import app_on  # noqa: E402

warnings.simplefilter("error")
backend = app_on(URL, database_idle_timeout=0.2).backend
backend.store_result("t", 1, states.SUCCESS)
print("stored", flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:  # greenlets and threads go on meanwhile
    pass
print(backend.get_result("t"))
