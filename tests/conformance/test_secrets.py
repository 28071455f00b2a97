"""No password is shown anywhere, above all when the connection fails."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from celery import states
from celery.exceptions import BackendGetMetaError, BackendStoreError, ImproperlyConfigured
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from celery_sql_results import DatabaseBackend
from servers import Database
from servers.pool import on
from support import Backends, app_on

databases = on("postgresql", "mariadb")
PASSWORD = "p@ss:w/rd%7"
CARD = "4242"
QUICK = {"result_backend_max_retries": 1, "result_backend_base_sleep_between_retries_ms": 1}


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Everything that anybody has logged, tracebacks included."""
    caplog.set_level(logging.DEBUG)
    for name in ("celery", "celery_sql_results", "sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "kombu"):
        caplog.set_level(logging.DEBUG, name)
    return lambda: caplog.text


def url_of(database: Database, user: str, password: str = PASSWORD, port: int | None = None) -> str:
    """A URL with a password."""
    url = database.server.url(database.name, user=user, password=password)
    return url.replace(f":{database.server.port}/", f":{port}/") if port else url


def everything(backend: DatabaseBackend | None, error: BaseException | None, logged: str) -> str:
    """All that a user may come to see."""
    told = "".join(traceback.format_exception(error)) if error else ""
    shown = [repr(backend), str(backend), backend.as_uri(), repr(backend.app)] if backend else []
    return "\n".join([told, *shown, logged])


def secrets_in(text: str) -> list[str]:
    """The forms of the password that are found."""
    return [form for form in (PASSWORD, quote(PASSWORD, safe=""), "p@ss", "p%40ss") if form in text]


@databases
def test_a_wrong_password(database: Database, logged: Callable[[], str]) -> None:
    """The server says no: at start-up, or, where that may pass, at first use."""
    database.server.create_role("clerk", "right", database.name, ddl=True)
    app = app_on(url_of(database, "clerk"), **QUICK)
    backend = error = None
    try:
        backend = app.backend
        backend.store_result("t", 1, states.SUCCESS)
    except Exception as caught:  # noqa: BLE001 - whatever it is, it must not tell
        error = caught
    text = everything(backend, error, logged())

    assert error is not None
    assert "clerk" in text
    assert secrets_in(text) == []


@databases
def test_nobody_there(database: Database, logged: Callable[[], str]) -> None:
    """A wrong port: the backend is made with a warning, each use fails with Celery's own error."""
    backend = app_on(url_of(database, "clerk", port=1), **QUICK).backend
    with pytest.raises(BackendStoreError) as storing:
        backend.store_result("t", 1, states.SUCCESS)
    with pytest.raises(BackendGetMetaError) as reading:
        backend.get_task_meta("t")
    text = everything(backend, storing.value, logged()) + everything(backend, reading.value, "")

    assert "trouble with the result database sql+" in text
    assert secrets_in(text) == []


@databases
def test_everything_in_order(database: Database, logged: Callable[[], str]) -> None:
    """Also what is logged at the level of DEBUG while all goes well."""
    database.server.create_role("clerk", PASSWORD, database.name, ddl=True)
    url = url_of(database, "clerk")
    backend = app_on(url, database_engine_options={"echo": True, "echo_pool": "debug"}).backend
    backend.store_result("t", "a payload", states.SUCCESS)
    found = backend.get_result("t")
    options = backend.engine_options
    text = everything(backend, None, logged())
    backend.session_manager.invalidate(url, **options)

    assert (found, "INSERT INTO celery_taskmeta" in text) == ("a payload", True)
    assert secrets_in(text) == []
    assert "a payload" not in text.replace("store_result", "")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://u:{}@h/d", "sql+postgresql+psycopg://u:***@h/d"),
        ("postgresql+psycopg://u@h/d?password={}", "sql+postgresql+psycopg://u@h/d"),
        (
            "postgresql+psycopg://u:{}@/d?host=a:1&host=b:2&options=x",
            "sql+postgresql+psycopg://u:***@/d?host=a%3A1&host=b%3A2",
        ),
        ("mysql+pymysql://u:{}@h:3306/d?charset=utf8mb4", "sql+mysql+pymysql://u:***@h:3306/d"),
    ],
)
def test_as_uri(url: str, shown: str) -> None:
    """As `result_backend` is set; neither the password nor what of the query may hold one."""
    url = url.format(quote(PASSWORD, safe=""))
    backend = app_on(url, database_create_tables_at_setup=False).backend

    assert (backend.as_uri(), repr(backend)) == (shown, f"<DatabaseBackend {shown}>")
    assert make_url(backend.as_uri(include_password=True)) == make_url(f"sql+{url}")


@on("postgresql", "mariadb", "portable")
def test_an_id_forges_no_line(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it reach a terminal: not where a result waits for the database, nor where a chord does."""
    backend = app_on(url_of(database, "clerk", port=1), **QUICK).backend
    with pytest.raises((BackendStoreError, OperationalError)):
        backend.store_result("t\n2026-01-01 ERROR paid twice\x1b[2J", 1, states.SUCCESS)
    ours = [record for record in caplog.records if record.name.startswith("celery_sql_results")]

    assert [record.getMessage() for record in ours if not record.getMessage().isprintable()] == []
    assert any("paid twice" in record.getMessage() for record in ours)


@on("postgresql")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_row_that_the_server_quotes(database: Database, backends: Backends, driver: str) -> None:
    """In what it says beside its first words: DETAIL of a constraint, CONTEXT of a trigger."""
    backend = backends(database.server.url(database.name, driver=driver))
    backend.store_result("before", 1, states.SUCCESS)
    database.execute("ALTER TABLE celery_taskmeta ADD tenant text NOT NULL DEFAULT 'x'")
    database.execute("ALTER TABLE celery_taskmeta ALTER tenant DROP DEFAULT")
    with pytest.raises((IntegrityError, ProgrammingError)) as constrained:
        backend.store_result("t", f"card {CARD}", states.SUCCESS)
    database.execute("ALTER TABLE celery_taskmeta DROP tenant")
    database.execute("CREATE TABLE audit (number int)")
    database.execute(
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE "
        "format('INSERT INTO audit (word) VALUES (%L)', NEW.result); RETURN NEW; END $$"
    )
    database.execute("CREATE TRIGGER audit BEFORE INSERT ON celery_taskmeta FOR EACH ROW EXECUTE FUNCTION audit()")
    with pytest.raises(ProgrammingError) as triggered:
        backend.store_result("t", f"card {CARD}", states.SUCCESS)
    told = "".join(traceback.format_exception(constrained.value) + traceback.format_exception(triggered.value))

    assert ('null value in column "tenant"' in told, 'column "word" of relation "audit"' in told) == (True, True)
    assert (CARD in told, CARD.encode().hex() in told) == (False, False)


MISPLACED = f"postgresql+psycopg://shop:{quote(PASSWORD, safe='')}@host/db"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("database_spool_dir", MISPLACED),
        ("database_engine_callback", MISPLACED),
        ("database_redact", MISPLACED),
        ("database_retry_window", MISPLACED),
        ("result_compression", MISPLACED),
        ("result_compression", [MISPLACED]),
        ("result_accept_content", [MISPLACED]),
        ("database_table_names", {"tasks": MISPLACED}),
        ("database_table_names", MISPLACED),
    ],
)
def test_a_url_in_the_wrong_place(setting: str, value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match=setting) as told:
        app_on("sqlite://", **{setting: value}).backend  # noqa: B018 - reading it makes it

    assert secrets_in("".join(traceback.format_exception(told.value))) == []


@databases
def test_settings_that_are_shown(database: Database, backends: Backends) -> None:
    options = {"connect_args": {"password": PASSWORD}}
    database.server.create_role("clerk", PASSWORD, database.name, ddl=True)
    backend = backends(url_of(database, "clerk"), database_engine_options=options)
    shown = repr(backend.settings)

    assert ("retry=" in shown, secrets_in(shown)) == (True, [])


@pytest.mark.parametrize("url", [MISPLACED.encode(), [MISPLACED], MISPLACED.replace("host", "host:1,other:2")])
def test_a_url_that_is_none(url: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="result_backend") as told:
        DatabaseBackend(app=app_on("sqlite://"), url=url)

    assert secrets_in("".join(traceback.format_exception(told.value))) == []
