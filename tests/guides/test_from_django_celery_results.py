"""Results of django-celery-results, written by its own backend, are copied and read here value by value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guides.django_shop import Shop, entry_of
from guides.environment import Environment
from guides.pages import copy
from servers import Database
from servers.pool import on

#: Stores results of all kinds, and prints what is read of them; whichever backend the app has.
STORE = """
from celery import states
from celery.app.task import Context
from shop.celery import app
backend = app.backend
request = Context(id="", task="shop.pay", args=[1], kwargs={"a": 2}, argsrepr="(1,)", kwargsrepr="{'a': 2}",
                  hostname="w@1", periodic_task_name="nightly")
request.children.extend([app.AsyncResult("child")])
for number, (value, state) in enumerate([
    ({"total": 3, "name": "Größe 🐘"}, "SUCCESS"), (None, "SUCCESS"), ([1, [2, {"x": None}]], "SUCCESS"),
    (ValueError("no", 7), "FAILURE"), (KeyError("later"), "RETRY"), (None, "STARTED"), ({"done": 5}, "PROGRESS"),
]):
    value = backend.prepare_exception(value) if isinstance(value, Exception) else value
    told = "Traceback …" if state == "FAILURE" else None
    backend._store_result(f"t{number}", value, state, traceback=told, request=request)
app.GroupResult("g", [app.AsyncResult("t0"), app.AsyncResult("t1")]).save()
"""
READ = """
import json
from shop.celery import app
def of(id_):
    result = app.AsyncResult(id_)
    meta = app.backend.get_task_meta(id_)
    done, children = result.date_done, result.ready() and [each.id for each in result.children or ()]
    told = [result.name or meta.get("task_name"), result.worker, repr(result.args), repr(result.kwargs)]
    return [result.state, repr(result.result), result.traceback, *told, children, done and done.isoformat()[:19]]
print(json.dumps([*(of(f"t{number}") for number in range(7)), app.GroupResult.restore("g").join(timeout=10)]))
"""
NAIVE = "CELERY_RESULT_BACKEND, CELERY_RESULT_EXTENDED = 'django-db', True\n"


@pytest.fixture
def shop(django: Environment, database: Database, tmp_path: Path) -> Shop:
    """A project with the other backend, and results."""
    shop = Shop(django, tmp_path, database)
    copy("from-django-celery-results", "copy_results.py", tmp_path)
    shop.set_up({"default": entry_of(database)}, "django_celery_results", more=NAIVE)
    shop.manage("migrate")
    shop.script(STORE)
    return shop


@on("postgresql", "mariadb", "sqlite")
def test_what_is_copied_is_read_as_before(shop: Shop, database: Database) -> None:
    """With the script of the guide, twice: the second time, all is there."""
    before = json.loads(shop.script(READ))
    script = (shop.folder / "copy_results.py").read_text()
    first, second = shop.script(script), shop.script(script)
    shop.set_up({"default": entry_of(database)}, "django_celery_results", more="CELERY_RESULT_EXTENDED = True\n")
    after = json.loads(shop.script(READ))
    more = shop.script("from shop.celery import app\nprint(app.backend.get_task_meta('t0')['periodic_task_name'])")

    assert before[-1] == [{"total": 3, "name": "Größe 🐘"}, None]
    assert after == before
    assert first.splitlines()[-1] == "Moved(tasks=7, groups=1, there=0, refused=[], open_chords=0)"
    assert second.splitlines()[-1] == "Moved(tasks=0, groups=0, there=8, refused=[], open_chords=0)"
    assert more.split() == ["nightly"]


@on("sqlite")
def test_what_comes_meanwhile(shop: Shop, database: Database) -> None:
    """An unfinished result gets its outcome, one that has one here keeps it, and nothing is written to count."""
    copying = (
        "from celery_sql_results.moving import import_django_celery_results as copy\nfrom shop.celery import app\n"
    )
    to = "url='sql+django://default'"
    counted = shop.script(f"{copying}print(copy(app, {to}, dry_run=True, batch=2))")
    there = shop.script(
        f"{copying}seen = []\ncopy(app, {to}, batch=2, progress=lambda m: seen.append(m.tasks))\nprint(seen)"
    )
    shop.script(
        "from shop.celery import app\napp.backend.store_result('t5', 9, 'SUCCESS')\n"
        "app.backend.store_result('t0', 'other', 'FAILURE')\napp.backend.store_result('x' * 200, 1, 'SUCCESS')"
    )
    again = shop.script(f"{copying}moved = copy(app, {to})\nprint(moved.tasks, moved.there, len(moved.refused))")
    rows = database.execute(
        "SELECT task_id, status FROM celery_taskmeta WHERE task_id IN ('t0', 't5') ORDER BY task_id"
    )

    assert counted.splitlines()[-1] == "Moved(tasks=7, groups=1, there=0, refused=[], open_chords=0)"
    assert there.splitlines()[-1] == "[2, 4, 6, 7, 7]"
    assert again.split() == ["1", "7", "1"]
    assert [tuple(row) for row in rows] == [("t0", "SUCCESS"), ("t5", "SUCCESS")]
