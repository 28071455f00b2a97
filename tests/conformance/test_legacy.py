"""Tables and rows of older releases of Celery: upgraded, read, and written on."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import sqlalchemy as sa
from celery import states
from kombu.exceptions import ContentDisallowed
from sqlalchemy.pool import NullPool

from celery_sql_results import DatabaseBackend
from legacy import RELEASES, expected, load
from servers import Database
from servers.pool import without
from support import SERIALIZERS, Backends, request

pytestmark = without("firebird", "Celery's own backend stores nothing there: its dialect cannot bind NULL to a BLOB")
releases = pytest.mark.parametrize("release", RELEASES)


@pytest.fixture
def old(database: Database, release: str) -> Database:
    """A database with the tables and rows of a release."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    load(release, engine, "postgresql" if database.kind == "portable" else None)
    engine.dispose()
    return database


def tasks(release: str, **wanted: Any) -> dict[str, dict[str, Any]]:
    """The tasks of a release that its own backend can read, by id: those with a `wanted` meaning."""
    readable = {task_id: said for task_id, said in expected(release)["tasks"].items() if "unreadable" not in said}
    return {
        task_id: said
        for task_id, said in readable.items()
        if all(said.get(name) == value for name, value in wanted.items())
    }


def reader(backends: Backends, serializer: str = "json", *accept: str) -> DatabaseBackend:
    """A backend that reads extended columns."""
    return backends(result_serializer=serializer, accept_content=[serializer, *accept], result_extended=True)


def described(meta: dict[str, Any], said: dict[str, Any]) -> Any:
    """The result of a row in the form in which the release describes it."""
    result = meta["result"]
    if "exception" in said:
        return {"exception": type(result).__name__}
    if "repr" in said:
        return {"repr": repr(result)}
    return {"value": result}


def told(said: dict[str, Any]) -> Any:
    """What the release says of the result, as `described` has it."""
    if "exception" in said:
        return {"exception": said["exception"]}
    return {name: said[name] for name in ("repr", "value") if name in said}


@releases
def test_upgrade(old: Database, backends: Backends) -> None:
    """Every column is there afterwards, and every row is still there."""
    before = old.execute("SELECT count(*) FROM celery_taskmeta")
    backend = backends()
    inspector = sa.inspect(backend.database.engine)
    columns = {column["name"] for column in inspector.get_columns("celery_taskmeta")}

    assert columns == set(backend.models.task.columns.keys())
    assert old.execute("SELECT count(*) FROM celery_taskmeta") == before


@releases
def test_plain_rows_are_read_with_the_defaults(old: Database, backends: Backends, release: str) -> None:
    """Results that were pickled, but name no class: no need to accept pickle."""
    backend = reader(backends)
    wanted = {
        task_id: said
        for plain in (True, None)
        for task_id, said in tasks(release, plain=plain, serializer="json").items()
        if "shop" not in said.get("args", "")  # Celery makes up a class of this name for whoever lacks the module
    }
    found = {task_id: backend.get_task_meta(task_id) for task_id in wanted}

    assert len(wanted) > 5
    assert {task_id: meta["status"] for task_id, meta in found.items()} == {
        task_id: said["state"] for task_id, said in wanted.items()
    }
    assert {task_id: described(meta, wanted[task_id]) for task_id, meta in found.items()} == {
        task_id: told(said) for task_id, said in wanted.items()
    }


@releases
def test_other_rows_are_refused(old: Database, backends: Backends, release: str) -> None:
    """Pickles that name classes, where pickle is not accepted: their states are read all the same."""
    backend = reader(backends)
    wanted = {task_id: (said["state"], ContentDisallowed) for task_id, said in tasks(release, plain=False).items()}
    found = {task_id: backend.get_task_meta(task_id) for task_id in wanted}

    assert wanted
    assert {task_id: (meta["status"], type(meta["result"])) for task_id, meta in found.items()} == wanted


@releases
def test_other_rows_are_read_where_pickle_is_accepted(old: Database, backends: Backends, release: str) -> None:
    """Except those whose classes this process does not have."""
    backend = reader(backends, "json", "pickle")
    wanted = {
        task_id: said
        for task_id, said in tasks(release, plain=False).items()
        if "shop" not in repr(said.get("repr")) and said.get("module") != "shop"
    }
    found = {task_id: described(backend.get_task_meta(task_id), said) for task_id, said in wanted.items()}

    assert wanted
    assert found == {task_id: told(said) for task_id, said in wanted.items()}


@releases
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_serializer(old: Database, backends: Backends, release: str, serializer: str) -> None:
    """Read by an app that is configured as the one that wrote them."""
    backend = reader(backends, serializer, "pickle")
    wanted = {task_id: said for task_id, said in tasks(release, serializer=serializer).items() if "value" in said}
    found = {task_id: backend.get_task_meta(task_id)["result"] for task_id in wanted}

    assert found == {task_id: said["value"] for task_id, said in wanted.items()}


@releases
def test_extended_columns(old: Database, backends: Backends, release: str) -> None:
    """Name, arguments, worker, retries, queue, stamps."""
    backend = reader(backends)
    wanted = {
        task_id: said["about"]
        for task_id, said in tasks(release, serializer="json", extended=True).items()
        if said["plain"] is not False
    }
    found = {}
    for task_id, about in wanted.items():
        meta = backend.get_task_meta(task_id)
        found[task_id] = {name: meta.get(name) for name in about}

    assert wanted
    assert _normal(found) == _normal(wanted)


def _normal(value: Any) -> Any:
    """Lists for tuples."""
    return ast.literal_eval(repr(value).replace("(", "[").replace(",)", "]").replace(")", "]"))


@releases
def test_groups(old: Database, backends: Backends, release: str) -> None:
    """Pickled ones (up to 5.6, all) where pickle is accepted; they do not bring the backend of old with them."""
    safe, trusting = reader(backends), reader(backends, "json", "pickle")
    groups = {
        id_: said for id_, said in expected(release)["groups"].items() if said["serializer"] in ("json", "pickle")
    }
    found = {
        id_: (trusting if said["plain"] is False else safe).restore_group(id_).as_tuple()
        for id_, said in groups.items()
    }

    assert {member.backend for member in trusting.restore_group("pickle-group")} == {trusting}
    assert _normal(found) == _normal({id_: said["tuple"] for id_, said in groups.items()})


@releases
def test_pickled_groups_are_refused(old: Database, backends: Backends, release: str) -> None:
    """Where pickle is not accepted."""
    backend = reader(backends)

    for id_, said in expected(release)["groups"].items():
        if said["plain"] is False:
            with pytest.raises(ContentDisallowed):
                backend.restore_group(id_)


@releases
def test_storing_goes_on(old: Database, backends: Backends, release: str) -> None:
    """On the same tables, with ids that do not collide, and rows that keep to the rule."""
    backend = backends(result_extended=True)
    [(last,)] = old.execute("SELECT max(id) FROM celery_taskmeta")
    for number in range(5):
        backend.store_result(f"new-{number}", number, states.SUCCESS, request=request())
    backend.store_result("json-int", "later", states.SUCCESS)
    ids = [id_ for (id_,) in old.execute("SELECT id FROM celery_taskmeta WHERE task_id LIKE 'new-%' ORDER BY id")]

    assert [backend.get_result(f"new-{number}") for number in range(5)] == [0, 1, 2, 3, 4]
    assert backend.get_result("json-int") == 42
    assert min(ids) > last
    assert len(set(ids)) == 5


@releases
def test_groups_are_saved_on(old: Database, backends: Backends, release: str) -> None:
    """Their ids do not collide either."""
    backend = backends()
    [(last,)] = old.execute("SELECT max(id) FROM celery_tasksetmeta")
    backend.app.GroupResult("new", [], backend=backend).save()
    [(id_,)] = old.execute("SELECT id FROM celery_tasksetmeta WHERE taskset_id = 'new'")

    assert id_ > last
