"""A Django project: its database by the alias, its settings, and its tests, with the code of the guide."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from guides.django_shop import Shop, entry_of
from guides.environment import Environment
from servers import Database
from servers.pool import on

databases = on("postgresql", "mariadb", "sqlite")

#: Tests that wait, and so listen where the database can: their connections must not be in the way.
WAITING = """
from celery.contrib.testing.worker import start_worker
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult
from django.db import connection
from django.test import TransactionTestCase
from orders.tasks import total
from shop.celery import app

class Stored(TransactionTestCase):
    def test_is_in_the_database_of_the_test(self):
        app.conf.task_always_eager = False
        app.backend.store_result("t", 3, "SUCCESS")
        with self.assertRaises(CeleryTimeout):
            AsyncResult("nobody's").get(timeout=0.1)
        if connection.vendor != "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("SELECT task_id FROM celery_taskmeta WHERE task_id = 't'")
                self.assertEqual(list(cursor.fetchall()), [("t",)])
"""
#: One with a worker, which takes some seconds to end.
OF_WORKER = """
class OfWorker(TransactionTestCase):
    def test_is_awaited(self):
        app.conf.task_always_eager = False
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
            results = [total.delay([each, 1]) for each in range(5)]
            self.assertEqual([each.get(timeout=60) for each in results], [1, 2, 3, 4, 5])
"""


@pytest.fixture
def shop(django: Environment, database: Database, tmp_path: Path) -> Shop:
    """The project of the guide."""
    return Shop(django, tmp_path, database)


def there(database: Database) -> list[str]:
    """The databases of the server whose names end like that of a database."""
    asked = {"postgresql": "SELECT datname FROM pg_database", "mariadb": "SHOW DATABASES"}
    if database.kind not in asked:
        return []
    return sorted(name for (name,) in database.execute(asked[database.kind]) if database.name in name)


@databases
@pytest.mark.parametrize("options", [(), ("--parallel", "2")], ids=["alone", "parallel"])
def test_tests_never_touch_the_real_database(shop: Shop, database: Database, options: tuple[str, ...]) -> None:
    """Nor does anything of theirs keep a test database from being dropped."""
    (shop.folder / "orders" / "test_waiting.py").write_text(WAITING + (OF_WORKER if options else ""))
    shop.set_up({"default": entry_of(database)}, more="CELERY_DATABASE_IDLE_TIMEOUT = 60")
    with nullcontext([]) if database.kind == "sqlite" else database.statements() as seen:
        said = shop.manage("test", "orders", "--noinput", *options)
    engine = sa.create_engine(database.url)
    tables = sa.inspect(engine).get_table_names()
    engine.dispose()

    assert f"Ran {3 if options else 2} tests" in said
    assert said.rstrip().splitlines()[-1].startswith(("OK", "Destroying"))
    assert (tables, seen) == ([], [])
    assert there(database) in ([database.name], [])


@databases
def test_results_are_in_the_database_of_the_alias(shop: Shop, database: Database) -> None:
    """Stored by the alias, and read by the usual URL; Django has no migration for the tables."""
    said = shop.script("from shop.celery import app\napp.backend.store_result('t', 3, 'SUCCESS')\nprint(app.backend)")
    migrations = shop.manage("makemigrations", "--check", "--dry-run", "contenttypes")
    shop.manage("migrate")

    assert [tuple(row) for row in database.execute("SELECT task_id FROM celery_taskmeta")] == [("t",)]
    assert "sql+" in said
    assert "No changes detected" in migrations


SETTINGS = """
CELERY_DATABASE_TABLE_NAMES = {"task": "results", "group": None}
CELERY_DATABASE_ENGINE_OPTIONS = {"pool_size": 2, "connect_args": {}}
CELERY_DATABASE_REDACT = ["card"]
CELERY_DATABASE_LISTEN = False
CELERY_DATABASE_SPOOL_DIR = None
CELERY_DATABASE_RETRY_WINDOW = 7
CELERY_RESULT_EXPIRES = 60
CELERY_RESULT_EXTENDED = True
"""
SHOWN = """
from shop.celery import app
found = app.backend.settings
print(found.names.task, found.engine_options["pool_size"], sorted(found.redact), found.listen, found.spool_dir,
      found.retry.writes.window, found.expires.total_seconds(), found.extended, found.unknown)
"""


@on("sqlite")
def test_settings_with_the_prefix(shop: Shop, database: Database) -> None:
    """Each kind of value: a dict, one with `None`, a list, a flag, a number."""
    shop.set_up({"default": entry_of(database)}, more=SETTINGS)

    assert shop.script(SHOWN).splitlines()[-1] == "results 2 ['card'] False None 7 60.0 True ()"


@databases
def test_options_reach_the_driver(shop: Shop, database: Database) -> None:
    """As Django hands them over; and the longest life of a connection."""
    options: dict[str, dict[str, Any]] = {
        "postgresql": {"application_name": "of-django", "assume_role": "postgres", "isolation_level": 4, "pool": True},
        "mariadb": {"init_command": "SET @told = 'of-django'", "isolation_level": "read committed"},
        "sqlite": {"timeout": 7, "transaction_mode": "IMMEDIATE"},
    }
    asked = {
        "postgresql": "SELECT current_setting('application_name')",
        "mariadb": "SELECT @told",
        "sqlite": "SELECT 1",
    }
    shop.set_up({"default": {**entry_of(database, **options[database.kind]), "CONN_MAX_AGE": 90}})
    said = shop.script(
        f"""
from sqlalchemy import text
from shop.celery import app
with app.backend.ResultSession() as session:
    print(session.execute(text({asked[database.kind]!r})).scalar(), app.backend.engine_options["pool_recycle"])
"""
    )

    assert said.splitlines()[-1] == ("1 90" if database.kind == "sqlite" else "of-django 90")


@on("sqlite")
def test_an_alias_that_is_not_there(shop: Shop, database: Database) -> None:
    """Whoever has misspelt it is told which there are."""
    shop.set_up({"default": entry_of(database)}, more="CELERY_RESULT_BACKEND = 'sql+django://results'")
    said = shop.script("from shop.celery import app\ntry: app.backend\nexcept Exception as error: print(error)")

    assert said.splitlines()[-1] == (
        "CELERY_RESULT_BACKEND is the alias 'results', but it must be one of DATABASES, which has 'default'"
    )
