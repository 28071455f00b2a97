"""Who reads on a standby, or as a role that only reads: nothing is written for that."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import sqlalchemy as sa
from celery import states
from celery.exceptions import BackendGetMetaError
from celery.result import AsyncResult, GroupResult, ResultSet
from sqlalchemy.exc import DBAPIError

from celery_sql_results import DatabaseBackend
from faults.actors import LONG
from faults.conftest import Backends
from faults.load import until
from faults.trouble import as_role, read_only
from servers import PRIMARY, Database, PostgreSQL, Standby
from servers.pool import on, or_skip
from support import close

#: Tell the databases of these tests apart.
NUMBERS = count()


@pytest.fixture(scope="module")
def primary(postgresql_release: type[PostgreSQL]) -> Iterator[PostgreSQL]:
    """A server with a standby."""
    with or_skip("postgresql"), postgresql_release(PRIMARY) as server:
        yield server


@pytest.fixture
def name(primary: PostgreSQL) -> str:
    """A fresh database."""
    primary.ensure()
    name = f"results_{next(NUMBERS)}"
    primary.create_database(name)
    return name


@pytest.fixture
def standby(primary: PostgreSQL, name: str) -> Iterator[Standby]:
    """A standby that has the database."""
    with Standby(primary) as standby:
        yield standby


def reads(backend: DatabaseBackend) -> object:
    """What is found of a task and a group that were stored, by every way to ask."""
    result: AsyncResult = AsyncResult("t", app=backend.app)
    group = GroupResult.restore("g", backend=backend, app=backend.app)
    assert group is not None
    many = ResultSet([result], app=backend.app)
    return result.get(timeout=0), group.get(timeout=0), many.join(timeout=0), result.state, result.ready()


#: What :func:`reads` finds of what :func:`written` has written.
FOUND = (1, [1], [1], states.SUCCESS, True)


def written(backend: DatabaseBackend) -> DatabaseBackend:
    """A backend that has stored a task and a group."""
    backend.store_result("t", 1, states.SUCCESS)
    GroupResult("g", [AsyncResult("t", app=backend.app)], app=backend.app).save(backend=backend)
    return backend


def test_on_a_standby(
    primary: PostgreSQL, standby: Standby, name: str, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """All is found at once, what comes later by looking. The server is asked for nothing that it refuses."""
    writer = written(backends(primary.url(name)))
    standby.catch_up()
    reader = backends(standby.url(name))
    assert reads(reader) == FOUND
    writer.store_result("later", 2, states.SUCCESS)
    assert AsyncResult("later", app=reader.app).get(timeout=LONG) == 2

    assert standby.errors(name) == []
    assert caplog.messages == []
    for backend in (reader, writer):
        close(backend)


@pytest.mark.parametrize("delete", ["forget", "delete_group", "cleanup"])
def test_deleting_on_a_standby(
    primary: PostgreSQL, standby: Standby, name: str, backends: Backends, delete: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused at once, by who has found a standby as he began."""
    close(written(backends(primary.url(name))))
    standby.catch_up()
    reader = backends(standby.url(name), result_expires=3600)
    with pytest.raises(DBAPIError, match="read-only"):
        getattr(reader, delete)(*{"forget": ["t"], "delete_group": ["g"]}.get(delete, []))

    assert caplog.messages == []
    close(reader)


def test_before_there_are_tables(
    primary: PostgreSQL, standby: Standby, name: str, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody tries to create them there; the log says what is wrong, and when they are there, all is well."""
    standby.catch_up()
    reader = backends(standby.url(name), result_backend_max_retries=1)
    with pytest.raises(BackendGetMetaError):
        reader.get_state("t")
    writer = written(backends(primary.url(name)))
    standby.catch_up()

    assert reads(reader) == FOUND
    assert "this server only reads, as a standby does, and has no result tables yet" in caplog.text
    assert standby.errors(name) == []
    for backend in (reader, writer):
        close(backend)


def test_promoted_under_a_reader(primary: PostgreSQL, standby: Standby, name: str, backends: Backends) -> None:
    """It becomes a backend like any other, in a while."""
    close(written(backends(primary.url(name))))
    standby.catch_up()
    backend = backends(standby.url(name))
    assert reads(backend) == FOUND
    assert backend.database.rows.waiters is None
    standby.promote()
    backend.store_result("u", 2, states.SUCCESS)
    until(lambda: backend.database.rows.waiters is not None, "waiters are notified")
    backend.forget("u")

    assert backend.get_state("u") == states.PENDING
    close(backend)


@on("postgresql", "mariadb")
def test_a_role_that_may_only_read(database: Database, backends: Backends) -> None:
    writer = written(backends(database.url))
    database.server.create_role("guest", "secret", database.name, ddl=False, write=False)
    reader = backends(database.server.url(database.name, user="guest", password="secret"))

    assert reads(reader) == FOUND
    with pytest.raises(DBAPIError, match="denied"):
        reader.forget("t")
    assert writer.get_result("t") == 1


@on("postgresql")
def test_a_role_that_is_set_read_only(database: Database, backends: Backends) -> None:
    """With all rights: its transactions are read-only, as on a standby."""
    writer = written(backends(database.url))
    database.server.create_role("guest", "secret", database.name, ddl=True)
    database.execute("ALTER ROLE guest SET default_transaction_read_only = on")
    database.server.mark()
    reader = backends(database.server.url(database.name, user="guest", password="secret"))

    assert reads(reader) == FOUND
    assert database.errors() == []
    assert writer.get_result("t") == 1


@on("mariadb")
def test_a_server_that_is_set_read_only(database: Database, backends: Backends) -> None:
    """It is found at the start: nobody insists on what cannot be, and it is noticed when it takes writes again."""
    role = as_role(database)
    writer = written(backends(role.url))
    with read_only(database):
        reader = backends(role.url, database_idle_timeout=2.5)  # so it has an engine of its own
        found, denied = reads(reader), denials(reader)
    until(lambda: not reader.database.reads_only or reader.get_state("u") == "", "it is noticed")
    reader.forget("t")

    assert (found, denied < 5) == (FOUND, True)
    assert writer.get_state("t") == states.PENDING


def denials(backend: DatabaseBackend) -> int:
    """How many statements the server has refused before `forget` gave up."""
    refused = []
    sa.event.listen(backend.database.engine, "handle_error", refused.append)
    with pytest.raises(DBAPIError):
        backend.forget("t")
    return len(refused)
