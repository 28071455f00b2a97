"""Tables and rows as real releases of Celery's own ``db+`` backend left them; ``make.py`` made them.

    load("5.4.0", engine)
    expected("5.4.0")["tasks"]["json-nested"]  # {"state": "SUCCESS", "value": {...}, "plain": True, ...}

What ``expected`` says of a task comes from the release that wrote it: ``state``, ``serializer``, ``extended``, in
``about`` whatever else the row holds (``traceback children name args kwargs worker retries queue stamped_headers`` and
the stamps), and the result as one of

* ``value``: as JSON shows it exactly,
* ``repr``: of a value that JSON cannot show (a tuple, bytes, a datetime, …),
* ``exception``, ``module`` and ``args`` (their repr), where the state is one of an exception,
* ``unreadable``: the error that the release itself meets.

``plain`` tells of the stored result whether it is a pickle without any global (True), with globals (False) or no pickle
(None: NULL or another serializer's). Of a group it says ``serializer``, ``plain`` and ``tuple``, its ``as_tuple``.

Pickled groups hold the URL of the database they were saved in, with its password, which is always ``PASSWORD``.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

DATA = Path(__file__).parent / "data"
RELEASES = ("5.2.7", "5.4.0", "5.6.3", "5.7.0")
PASSWORD = "secret-of-legacy"
BINARY = frozenset({"result", "args", "kwargs", "children", "stamps"})
SEQUENCES = {"celery_taskmeta": "task_id_sequence", "celery_tasksetmeta": "taskset_id_sequence"}

Bind = sa.Engine | sa.Connection
Row = dict[str, Any]


def expected(release: str) -> dict[str, dict[str, Any]]:
    """What the rows of a release mean: ``tasks`` and ``groups``, each by id."""
    meaning: dict[str, dict[str, Any]] = document(release)["expected"]
    return meaning


def tables(release: str, bind: Bind, kind: str | None = None) -> None:
    """Create the empty tables of a release with the statements that it sent itself.

    ``kind`` is ``sqlite``, ``postgresql``, ``mariadb`` or ``mysql`` (no sequences), by default what ``bind`` leads to.
    """
    with connected(bind) as connection:
        for statement in document(release)["ddl"][kind or kind_of(connection)]:
            connection.exec_driver_sql(as_it_is_there(statement, connection))


def as_it_is_there(statement: str, connection: sa.Connection) -> str:
    """A statement of a release; in a Galera cluster, as whoever moves the tables there has to write it."""
    if statement.startswith("CREATE SEQUENCE") and is_galera(connection):
        return f"{statement} INCREMENT BY 0"
    return statement


def load(release: str, bind: Bind, kind: str | None = None) -> None:
    """Create the tables of a release and insert its rows; the next value of a sequence follows the last id."""
    with connected(bind) as connection:
        kind = kind or kind_of(connection)
        tables(release, connection, kind)
        for name in SEQUENCES:
            rows = rows_of(release, name, kind)
            connection.execute(table_for(name, rows).insert(), rows)
            advance(connection, kind, SEQUENCES[name], max(row["id"] for row in rows))


def rows_of(release: str, table: str, kind: str) -> list[Row]:
    """The rows of a table as that kind of database held them, in the order of their ids and with every column."""
    found = document(release)
    special = found["differs"].get("mariadb" if kind == "mysql" else kind, {}).get(table, [])
    by_id = {row["id"]: row for row in [*found["rows"][table], *special]}
    columns = sorted({column for row in by_id.values() for column in row})
    return [{column: revived(column, by_id[key].get(column)) for column in columns} for key in sorted(by_id)]


@cache
def document(release: str) -> dict[str, Any]:
    """The whole file of a release."""
    found: dict[str, Any] = json.loads((DATA / f"celery-{release}.json").read_text(encoding="utf-8"))
    return found


@contextmanager
def connected(bind: Bind) -> Iterator[sa.Connection]:
    """A connection in a transaction: an engine's own and then committed, or the one that is given."""
    if isinstance(bind, sa.Connection):
        yield bind
        return
    with bind.begin() as connection:
        yield connection


def kind_of(connection: sa.Connection) -> str:
    """The kind of database behind a connection; URLs of MariaDB say ``mysql`` as often as ``mariadb``."""
    return "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name


def is_galera(connection: sa.Connection) -> bool:
    """Whether the server is a node of a Galera cluster."""
    return kind_of(connection) == "mariadb" and connection.exec_driver_sql("SELECT @@wsrep_on").scalar() == 1


def revived(column: str, value: Any) -> Any:
    """The value of a column from its form in JSON."""
    if value is None:
        return None
    if column in BINARY:
        return base64.b64decode(value)
    return dt.datetime.fromisoformat(value) if column == "date_done" else value


def table_for(name: str, rows: list[Row]) -> sa.TableClause:
    """Just enough of a table to insert rows."""
    types: dict[str, Any] = dict.fromkeys(BINARY, sa.LargeBinary) | {"date_done": sa.DateTime}
    return sa.table(name, *(sa.column(column, types.get(column)) for column in rows[0]))


def advance(connection: sa.Connection, kind: str, sequence: str, last: int) -> None:
    """Let the next value of a sequence follow the last id; SQLite and MySQL count by themselves."""
    names = {"postgresql": repr(sequence), "mariadb": sequence}
    if kind in names:
        connection.exec_driver_sql(f"SELECT setval({names[kind]}, {last})")
