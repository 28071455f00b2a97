"""An outcome finds a place in any table that somebody made, whatever it holds: the last stand-in is never refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import Pool, or_skip
from support import app_on, close, request

#: What databases say that their texts are.
ENCODINGS = [
    *(("mariadb", name) for name in ("latin1", "ascii", "utf8mb3", "utf8mb4")),
    *(("postgresql", name) for name in ("LATIN1", "SQL_ASCII", "UTF8")),
    ("sqlite", "UTF-8"),
]
#: Columns of Celery's table with their types, as it makes them.
CELERYS = {
    "task_id": "VARCHAR(155) UNIQUE",
    "status": "VARCHAR(50)",
    "result": "{blob}",
    "date_done": "{time}",
    "traceback": "TEXT",
    "name": "VARCHAR(155)",
    "args": "{blob}",
    "kwargs": "{blob}",
    "worker": "VARCHAR(155)",
    "retries": "INTEGER",
    "queue": "VARCHAR(155)",
}
SMALL, SHORT = 255, 64
#: What somebody made of them.
SHAPES: dict[str, dict[str, str]] = {
    "as Celery makes it": {},
    "small": {"result": "{small}", "traceback": f"VARCHAR({SHORT})"},
    "short names": {"name": "VARCHAR(10)", "worker": "VARCHAR(5)", "queue": "VARCHAR(5)"},
    "checked": {
        "result": f"{{blob}} CHECK (LENGTH(result) <= {SMALL})",
        "traceback": f"TEXT CHECK (LENGTH(traceback) <= {SHORT})",
    },
    "small arguments": {"args": "{small}", "kwargs": "{small}"},
}
TYPES = {
    "mariadb": {"blob": "BLOB", "small": "TINYBLOB", "time": "DATETIME"},
    "postgresql": {
        "blob": "BYTEA",
        "small": f"BYTEA CONSTRAINT {{column}}_small CHECK (octet_length({{column}}) <= {SMALL})",
        "time": "TIMESTAMP",
    },
    "sqlite": {"blob": "BLOB", "small": f"BLOB CHECK (length({{column}}) <= {SMALL})", "time": "DATETIME"},
}
KEYS = {
    "mariadb": ["CREATE SEQUENCE task_id_sequence", "INTEGER PRIMARY KEY"],
    "postgresql": ["CREATE SEQUENCE task_id_sequence", "INTEGER PRIMARY KEY"],
    "sqlite": ["SELECT 1", "INTEGER PRIMARY KEY AUTOINCREMENT"],
}
#: Bytes of one statement; on MariaDB, since the others take what their columns do.
PACKET = 64 * 1024

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=30)
#: Any text, and more of it than a column, a block of a file or a packet of the network takes.
LONG_TEXT = st.builds(lambda text, times: text * times, ANY_TEXT, st.sampled_from([1, 1, 10, 1_000, 20_000]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | LONG_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
)
OUTCOMES = st.tuples(st.just("SUCCESS"), VALUES) | st.tuples(
    st.sampled_from(["FAILURE", "REVOKED"]), st.builds(ValueError, LONG_TEXT, VALUES)
)
KNOWN = st.fixed_dictionaries(
    {"task": LONG_TEXT, "args": st.lists(VALUES, max_size=2), "kwargs": st.dictionaries(ANY_TEXT, VALUES, max_size=2)},
    optional={"hostname": LONG_TEXT, "delivery_info": st.fixed_dictionaries({"routing_key": LONG_TEXT})},
)
#: Few examples: there are many tables, and each run brings others.
few = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


def names(pair: tuple[str, str]) -> str:
    """The kind of database and the encoding."""
    return "-".join(pair)


@pytest.fixture(scope="module", params=ENCODINGS, ids=names)
def encoded(request: pytest.FixtureRequest, servers: Pool) -> Iterator[Database]:
    """A database in an encoding."""
    kind, encoding = request.param
    with or_skip(kind), servers.database(kind) as database:
        if kind == "mariadb":
            database.execute(f"ALTER DATABASE {database.name} CHARACTER SET {encoding}")
        if kind == "postgresql":
            database.server.drop_database(database.name)
            how = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            database.server.execute(f"CREATE DATABASE {database.name} {how}")
        # SQLAlchemy can only use a database without an encoding if the client has one.
        yield replace(database, url=f"{database.url}?client_encoding=utf8") if encoding == "SQL_ASCII" else database


@pytest.fixture(scope="module", params=SHAPES)
def backends(request: pytest.FixtureRequest, encoded: Database) -> Iterator[list[DatabaseBackend]]:
    """Backends on a table of some shape, one of which stores all that there is to store."""
    make_table(encoded, SHAPES[request.param])
    with small_packets(encoded):
        made = [app_on(encoded.url, result_extended=extended).backend for extended in (False, True)]
        yield made
        for backend in made:
            close(backend)


def make_table(database: Database, shape: dict[str, str]) -> None:
    """Somebody's table of tasks; what the package has added is gone."""
    before, key = KEYS[database.kind]
    drop_all(database)
    database.execute(before)
    types = TYPES[database.kind]
    columns = {
        column: type_.format(**{name: text.format(column=column) for name, text in types.items()})
        for column, type_ in {**CELERYS, **shape}.items()
    }
    listed = ", ".join(f"{column} {type_}" for column, type_ in columns.items())
    database.execute(f"CREATE TABLE celery_taskmeta (id {key}, {listed})")


def drop_all(database: Database) -> None:
    """Make the database empty."""
    if database.kind == "postgresql":
        database.execute("DROP SCHEMA public CASCADE")
        database.execute("CREATE SCHEMA public")
    elif database.kind == "mariadb":
        found = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = '{}'"
        for table, type_ in database.execute(found.format(database.name)):
            database.execute(f"DROP {'SEQUENCE' if type_ == 'SEQUENCE' else 'TABLE'} {table}")
    else:
        database.server.drop_database(database.name)


@contextmanager
def small_packets(database: Database) -> Iterator[None]:
    """MariaDB takes no long statements from connections that begin in the block."""
    if database.kind != "mariadb":
        yield
        return
    [(usual,)] = database.execute("SELECT @@global.max_allowed_packet")
    database.execute(f"SET GLOBAL max_allowed_packet = {PACKET}")
    try:
        yield
    finally:
        database.execute(f"SET GLOBAL max_allowed_packet = {usual}")


@few
@given(
    outcome=OUTCOMES, traceback=st.none() | LONG_TEXT, known=st.none() | KNOWN, children=st.lists(ANY_TEXT, max_size=2)
)
@example(("FAILURE", ValueError("zu wenig")), "Traceback: деление на ноль", None, [])
@example(("SUCCESS", "x" * 2 * PACKET), "…" * PACKET, {"task": "деление", "args": ["y" * PACKET]}, ["ö\ud800"])
@example(("FAILURE", ValueError("\x00")), None, {"task": "\ud800\x00" * 200}, [])
def test_an_outcome_is_never_lost(
    backends: list[DatabaseBackend],
    outcome: tuple[str, Any],
    traceback: str | None,
    known: dict[str, Any] | None,
    children: list[str],
) -> None:
    """It is stored without an error, and whoever asks finds a finished state; a failure stays what it is."""
    state, value = outcome
    for backend in backends:
        told = known and request("t", _children=[AsyncResult(child, app=backend.app) for child in children], **known)
        backend.forget("t")
        backend.store_result("t", value, state, traceback=traceback, request=told)
        found = AsyncResult("t", app=backend.app).state

        assert found in ({states.SUCCESS, states.FAILURE} if state == states.SUCCESS else {state})
