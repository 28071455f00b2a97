"""`show`: all that is known of one result, whose id may be shortened."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import msgpack
import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.pool import NullPool

from celery_sql_results import DatabaseBackend
from cli.rows import put, row
from cli.run import Ended, Program, in_pipe
from legacy import RELEASES, expected, load
from servers import Database
from servers.pool import on


@pytest.mark.usefixtures("stored")
def test_a_failure(program: Program) -> None:
    """What it was, when and where it ran, the exception and the traceback; the exit code says that it failed."""
    ended = program("show", "33333333-dddd", "--utc")

    assert (ended.code, ended.told) == (1, "")
    assert ended.lines == [
        "id        33333333-dddd",
        "state     FAILURE",
        "task      mail.send",
        "worker    celery@shop-1",
        "queue     mail",
        "retries   3",
        "sent      2026-03-01 11:55:58Z",
        "began     2026-03-01 11:55:59Z",
        "ended     2026-03-01 11:56:00Z",
        "waited    1 s",
        "ran       1 s",
        "result:",
        '  {"exc_type": "shop.HttpError", "exc_message": ["503"], "exc_module": "builtins"}',
        "traceback:",
        "  Traceback (most recent call last):",
        '    File "shop.py", line 7, in pay',
        "      pay()",
        "  shop.HttpError: 503",
    ]


@pytest.mark.usefixtures("stored")
def test_exit_codes(results: Program) -> None:
    """What became of it, for scripts."""
    codes = {id_: results.here("show", id_).code for id_ in ("1111111", "2222", "5555", "6666", "7777", "8888")}

    assert codes == {"1111111": 0, "2222": 1, "5555": 1, "6666": 3, "7777": 3, "8888": 4}


@pytest.mark.usefixtures("stored")
def test_ids_that_mean_several_or_none(program: Program) -> None:
    """One line says which are meant, or that there is none. A pattern is no id."""
    several, none, pattern = program("show", "1111"), program.here("show", "99"), program.here("show", "2*")

    assert (several.code, several.out) == (2, b"")
    assert several.told == ("Error: several results have ids that begin with '1111': 11111111-aaaa, 11112222-bbbb, …\n")
    assert (none.code, none.told) == (
        4, "Error: no result has the id '99': the task has not been run, or its result has expired\n",
    )  # fmt: skip
    assert (pattern.code, pattern.out) == (4, b"")


def test_an_id_that_begins_another(results: Program, backend: DatabaseBackend) -> None:
    """A whole id means itself. Upper and lower case differ."""
    put(backend, row("task"), row("task-2"), row("TASK-3"))

    assert [results.here("show", id_, "--json").json[0]["task_id"] for id_ in ("task", "task-", "TA")] == [
        "task", "task-2", "TASK-3",
    ]  # fmt: skip


#: A value in each form that it may have been written in, and what is shown of it.
FORMS: dict[str, tuple[str, bytes, Any]] = {
    "json": ("application/json", b'{"total": 3}', {"total": 3}),
    "old": ("", b'{"total": 3}', {"total": 3}),
    "yaml": ("application/x-yaml", yaml.dump({"total": 3}).encode(), {"total": 3}),
    "msgpack": ("application/x-msgpack", msgpack.packb({"total": 3}), {"total": 3}),
    "plain pickle": ("application/x-python-serialize", pickle.dumps({"total": 3}), {"total": 3}),
}


@pytest.mark.parametrize("form", FORMS)
@on("sqlite", "postgresql")
def test_forms(results: Program, backend: DatabaseBackend, form: str) -> None:
    """Whatever the serializer was, the value is shown as JSON."""
    content_type, payload, value = FORMS[form]
    put(backend, row("t", result=payload, content_type=content_type or None))

    assert results.here("show", "t", "--json").json[0]["result"] == value


#: Payloads that nobody should read, and the end of what is shown instead.
BAD: dict[str, tuple[str, bytes]] = {
    "class": ("application/x-python-serialize", pickle.dumps(date(2026, 3, 1))),
    "broken pickle": ("application/x-python-serialize", b"\x80\x05broken"),
    "broken json": ("application/json", b'{"total": '),
    "broken msgpack": ("application/x-msgpack", b"\xc1"),
    "yaml object": ("application/x-yaml", b"!!python/object/apply:os.system ['touch ran']"),
    "unknown": ("application/x-unknown", b"\x00\x01"),
    "deep": ("application/json", b"[" * 100_000),
    "not text": ("application/json", b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("form", BAD)
@on("sqlite")
def test_what_cannot_be_shown(results: Program, backend: DatabaseBackend, form: str, tmp_path: Path) -> None:
    """It is said so, in a line; nothing of it is run, and all the rest of the result is there."""
    content_type, payload = BAD[form]
    put(backend, row("t", result=payload, content_type=content_type))

    [shown] = results.here("show", "t", "--json").json
    ended = results.here("show", "t")

    assert (shown["state"], shown["result"].startswith(f"{len(payload)} bytes that are not shown: ")) == (
        "SUCCESS", True,
    )  # fmt: skip
    assert (ended.code, "bytes that are not shown" in ended.text, ended.told) == (0, True, "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("compressed", [gzip.compress, zlib.compress])
@on("sqlite")
def test_a_bomb(results: Program, backend: DatabaseBackend, compressed: Any) -> None:
    """A payload that would fill the memory when it is unpacked is not."""
    bomb = compressed(b'"' + bytes(200_000_000) + b'"')
    put(backend, row("t", result=bomb, content_type="application/json+gzip"), row("u", result=b"1"))

    assert peak(results, "show", "t") < peak(results, "show", "u") + 60_000


def peak(program: Program, *arguments: str) -> int:
    """The most memory that a call had, in kilobytes."""
    ended = measured(program, *arguments)
    assert ended.code == 0, ended
    return int(ended.err.split()[-1])


#: Runs a command, and says at the end how much memory it had.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def measured(program: Program, *arguments: str) -> Ended:
    """Run a command and measure its memory."""
    return in_pipe([sys.executable, "-c", MEASURE, *program.command(*arguments)], program.environment)


LARGE = 100_000_000


@on("postgresql", "mariadb", "sqlite")
def test_a_large_result(results: Program, backend: DatabaseBackend, database: Database) -> None:
    """A list reads nothing of it, and `show` the beginning."""
    put(backend, row("small"))
    least = {command: peak(results, *command) for command in (("list",), ("show", "small"))}
    if database.kind == "mariadb":
        database.execute("SET GLOBAL max_allowed_packet = 1073741824")
    put(backend, row("large", result=b'"' + b"x" * 1000 + b'"', traceback="x"))
    grow(database)

    assert peak(results, "list") < least["list",] + 20_000
    assert peak(results, "show", "large") < least["show", "small"] + 20_000


def grow(database: Database) -> None:
    """Make the payload of `large` as large as its name says, at the server."""
    text = {
        "postgresql": f"convert_to(repeat('x', {LARGE}), 'UTF8')",
        "mariadb": f"repeat('x', {LARGE})",
        "sqlite": f"CAST(replace(hex(zeroblob({LARGE // 2})), '00', 'xx') AS BLOB)",
    }
    database.execute(f"UPDATE celery_taskmeta SET result = {text[database.kind]} WHERE task_id = 'large'")


@pytest.mark.usefixtures("stored")
@on("sqlite")
def test_long_values_are_cut(results: Program, stored: DatabaseBackend) -> None:
    """With their size, unless all is wanted."""
    put(stored, row("long", result=json.dumps("x" * 5000).encode()))

    cut, full = results.here("show", "long").text, results.here("show", "long", "--full").text

    assert (len(cut) < 2600, "5002 characters in all: --full shows them" in cut) == (True, True)
    assert "x" * 5000 in full


@pytest.fixture(params=RELEASES)
def old(request: pytest.FixtureRequest, database: Database) -> str:
    """A database as a release of Celery has left it."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    load(request.param, engine, "postgresql" if database.kind == "portable" else None)
    engine.dispose()
    return request.param


@on("postgresql", "mariadb", "sqlite")
def test_tables_of_celerys_own_backend(results: Program, database: Database, old: str) -> None:
    """Each row of an older release is shown, and nothing is added to its tables."""
    before = columns(database)
    states = {id_: said["state"] for id_, said in expected(old)["tasks"].items()}

    shown = {each["task_id"]: each["state"] for each in results.here("list", "--limit", "1000", "--json").json}
    one = results.here("show", next(iter(states)), "--json")

    assert shown == states
    assert (one.code in (0, 1, 3), one.told) == (True, "")
    assert columns(database) == before


def columns(database: Database) -> dict[str, list[str]]:
    """The tables of a database and their columns."""
    engine = sa.create_engine(database.url, poolclass=NullPool)
    inspector = sa.inspect(engine)
    return {table: [column["name"] for column in inspector.get_columns(table)] for table in inspector.get_table_names()}
