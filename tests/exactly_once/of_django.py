"""Tasks that complete themselves on a connection of Django: a program, as Django is configured once in a process."""

from __future__ import annotations

import json
import sys
from typing import Any

import django
import sqlalchemy as sa
from celery import Task
from django.conf import settings

from celery_sql_results import complete
from exactly_once.stage import Stage
from servers import Database
from support import app_on

#: Django's names of its backends, by SQLAlchemy's of the databases.
ENGINES = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite3"}


def configure(url: sa.URL) -> None:
    """Let Django's default database be the one that the URL leads to."""
    engine = ENGINES[url.get_backend_name()]
    if engine == "mysql":
        import pymysql

        pymysql.install_as_MySQLdb()
    names = {"NAME": url.database, "USER": url.username, "HOST": url.host, "PORT": url.port, "PASSWORD": url.password}
    known = {name: value for name, value in names.items() if value is not None}
    settings.configure(DATABASES={"default": {"ENGINE": f"django.db.backends.{engine}", **known}}, USE_TZ=True)
    django.setup()


def main(url: str) -> dict[str, Any]:
    """Run the tasks, and tell what has become of each."""
    from django.db import connection, transaction

    def insert(task: Task) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO effects VALUES (%s)", [task.request.id])

    def in_atomic(task: Task) -> str:
        with transaction.atomic():
            insert(task)
            return complete(connection, "paid")

    def rolled_back(task: Task) -> str:
        with transaction.atomic():
            insert(task)
            complete(connection, "paid")
            transaction.set_rollback(True)
        return "paid"

    def in_no_transaction(task: Task) -> str:
        return complete(connection, "paid")

    stage = Stage(app_on(url), Database("", "", url, None))  # type: ignore[arg-type]
    for body in (in_atomic, in_atomic, rolled_back, in_no_transaction):
        stage.traced(body, body.__name__)
    found = {}
    for body in (in_atomic, rolled_back, in_no_transaction):
        state, result = stage.state(body.__name__)
        found[body.__name__] = [state, str(result), stage.effects(body.__name__)]
    connection.close()
    stage.close()
    return found


if __name__ == "__main__":
    configure(sa.make_url(sys.argv[1]))
    print(json.dumps(main(sys.argv[1])))
