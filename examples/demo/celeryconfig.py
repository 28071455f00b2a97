"""The settings of the app, in the file where Celery's manual puts them."""

from __future__ import annotations

import os

from demo import broker

_folder = os.environ["DEMO_FOLDER"]

result_backend = os.environ["DEMO_RESULTS"]  # such as "sql+postgresql+psycopg://user@host/db"
result_extended = True  # a row also holds the task's arguments
result_cache_max = -1  # so that whatever is read here comes from the database

broker_url = broker.URL  # in real life "redis://…" or "amqp://…"
broker_transport_options = broker.options(_folder)
