"""The least rights: enough for what a role is for, and each of them needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery, chord, group

from acceptance.shop import make_app
from acceptance.worker import PATIENCE, Worker, running, settings_for
from celery_sql_results import DatabaseBackend, SchemaError
from cli.run import Program
from cli.setting_up import PASSWORD, run, statements_of
from servers import Database
from servers.pool import on
from support import close

databases = on("postgresql", "mariadb")
#: Creates a role with the rights of a job and nothing else, and gives its URL.
Hire = Callable[[str], str]


@pytest.fixture
def hire(database: Database, results: Program) -> Iterator[Hire]:
    """`hire("reader")` is the URL of a role that may do what `grants` says, on tables that are there."""
    assert results("upgrade", "--yes").code == 0
    hired: list[str] = []

    def hire(purpose: str) -> str:
        name = f"the {purpose}"
        hired.append(name)
        quoted = f'"{name}"' if database.kind == "postgresql" else f"`{name}`"
        words = "LOGIN PASSWORD" if database.kind == "postgresql" else "IDENTIFIED BY"
        database.execute(f"CREATE {'ROLE' if database.kind == 'postgresql' else 'USER'} {quoted} {words} '{PASSWORD}'")
        run(database, statements_of(results("grants", name, "--for", purpose)))
        return database.server.url(database.name, user=name, password=PASSWORD)

    yield hire
    for name in hired:
        if database.kind == "postgresql":
            database.execute(f'DROP OWNED BY "{name}"')
            database.execute(f'DROP ROLE "{name}"')
        else:
            database.execute(f"DROP USER `{name}`")


def calls(app: Celery) -> None:
    """What a client does: it sends tasks, groups and chords, waits, saves, restores, forgets."""
    add, total, ask = (app.tasks[name] for name in ("add", "total", "ask"))
    result = add.delay(1, 2)
    assert result.get(timeout=PATIENCE) == 3
    result.forget()
    assert result.state == "PENDING"
    sums = group(add.s(number, 1) for number in range(3)).apply_async()
    sums.save()
    assert sums.get(timeout=PATIENCE) == [1, 2, 3]
    assert app.GroupResult.restore(sums.id, backend=app.backend) is not None
    sums.delete()
    assert chord([add.s(number, 1) for number in range(3)], total.s()).apply_async().get(timeout=PATIENCE) == 6
    assert ask.delay(3, 4).get(timeout=PATIENCE) == 7


@databases
def test_a_worker_and_a_client(database: Database, hire: Hire, tmp_path: Path) -> None:
    """A real worker, whose tasks wait for others, and a client: both have what they need, chords included."""
    worker = Worker(tmp_path, settings_for(tmp_path, f"sql+{hire('worker')}"), "--concurrency=2")
    app = make_app(settings_for(tmp_path, f"sql+{hire('client')}"))
    with running(worker):
        calls(app)
        uses_chords = app.backend.database.rows.chords is not None
        close(app.backend)

    assert uses_chords
    assert worker.complaints == []


@databases
def test_a_reader(database: Database, backend: DatabaseBackend, hire: Hire, results: Program) -> None:
    """It looks, and changes nothing."""
    reader = results.but(url=hire("reader"))
    backend.store_result("t", 1, "SUCCESS")
    ended = [reader(*each.split()) for each in ("list", "show t", "check --for reader", "info")]

    assert [(each.code, each.told) for each in ended] == [(0, "")] * len(ended)
    assert reader("forget", "t", "--yes").code == 2
    assert backend.get_state("t") == "SUCCESS"


@databases
def test_a_cleanup(database: Database, backend: DatabaseBackend, hire: Hire) -> None:
    """It deletes what has expired, chords included."""
    backend.store_result("t", 1, "SUCCESS")
    database.execute("UPDATE celery_taskmeta SET date_done = date_done - INTERVAL '9' DAY")
    app = make_app({"result_backend": f"sql+{hire('cleanup')}", "result_expires": timedelta(days=1)})
    app.backend.cleanup()
    close(app.backend)

    assert database.execute("SELECT count(*) FROM celery_taskmeta") == [(0,)]


@databases
@pytest.mark.parametrize("purpose", ["worker", "client", "cleanup"])
def test_each_right_that_is_missing_shows(database: Database, hire: Hire, results: Program, purpose: str) -> None:
    """Check tells of it, and of nothing else, until it is granted again."""
    program = results.but(url=hire(purpose))
    before = told(program, purpose)
    grants = statements_of(results("grants", f"the {purpose}", "--for", purpose))
    shown = {}
    for grant in grants[:3] if purpose == "worker" else grants[-3:]:
        revoke = re.sub(r" TO (?=\S)", " FROM ", grant.replace("GRANT", "REVOKE", 1))
        database.execute(revoke)
        shown[grant] = told(program, purpose) != before
        database.execute(grant)

    assert shown == dict.fromkeys(shown, True)
    assert told(program, purpose) == before


def told(program: Program, purpose: str) -> list[str]:
    """What check says of rights and of the version."""
    found = program("check", "--json", "--for", purpose).json
    return [each["found"] for each in found if each["about"] in ("rights", "schema", "server", "tables")]


@databases
def test_what_a_client_cannot_do_without(database: Database, hire: Hire, results: Program) -> None:
    """Each single right on results and groups: without it, something of what a client does fails."""
    url = hire("client")
    grants = [each for each in statements_of(results("grants", "the client", "--for", "client")) if "meta TO" in each]
    failed = {}
    for grant in (f"GRANT {right} ON {each.partition(' ON ')[2]}" for each in grants for right in rights_in(each)):
        database.execute(grant.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "))
        failed[grant] = not uses(url)
        database.execute(grant)

    assert failed == dict.fromkeys(failed, True)
    assert uses(url)


def rights_in(grant: str) -> list[str]:
    """The rights that one statement grants."""
    return grant.removeprefix("GRANT ").partition(" ON ")[0].split(", ")


def uses(url: str) -> bool:
    """Whether a client can look for a result, forget it, and save and delete a group."""
    app = make_app({"result_backend": f"sql+{url}", "broker_url": "memory://"})
    with suppress(sa.exc.DBAPIError, SchemaError):
        try:
            found = app.AsyncResult("t").state == "PENDING"
            app.AsyncResult("t").forget()
            saved = app.GroupResult("g", [app.AsyncResult("t")])
            for _ in range(2):
                saved.save()
            found = found and app.GroupResult.restore("g", backend=app.backend) is not None
            saved.delete()
            return found
        finally:
            close(app.backend)
    return False


def test_sqlite_has_no_roles(tmp_path: Path) -> None:
    """It says what counts there."""
    ended = Program("celery-sql-results", f"sqlite:///{tmp_path}/x.db")("grants", "somebody")

    assert (ended.code, ended.text, "whoever may read and write the file" in ended.told) == (2, "", True)


@pytest.mark.parametrize(
    ("arguments", "grantee"),
    [
        (("postgresql", "shop"), "shop"),
        (("postgresql", 'the "shop"'), '"the ""shop"""'),
        (("mysql", "shop"), "`shop`@`%`"),
        (("mariadb", "shop@10.0.%"), "`shop`@`10.0.%`"),
        (("mariadb", "sh`op@h"), "`sh``op`@`h`"),
    ],
)
def test_names_of_roles(arguments: tuple[str, str], grantee: str) -> None:
    """As the database writes them; nothing is connected."""
    dialect, name = arguments
    ended = Program("celery-sql-results", "")("grants", name, "--dialect", dialect, "--for", "reader")

    assert ended.lines[0] == f"GRANT SELECT ON celery_taskmeta TO {grantee};"
    assert {line.rpartition(" TO ")[2] for line in ended.lines} == {f"{grantee};"}
