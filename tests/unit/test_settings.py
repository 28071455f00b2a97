"""Each setting: what it takes, and the error over what it does not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy.engine import Engine

from celery_sql_results import SettingError
from celery_sql_results.aliases import Place
from celery_sql_results.models import TableNames
from celery_sql_results.settings import RetryPolicy, Settings
from celery_sql_results.writing.retry import Policy
from support import app_on

URL = "postgresql+psycopg://user:secret@host/db"
INF, NAN = float("inf"), float("nan")
#: The settings that take a number, and those of them that may be without an end.
TIMES = (
    *("result_expires", "result_chord_expires", "database_idle_timeout", "database_retry_window"),
    *("database_poll_min_interval", "database_poll_max_interval", "database_upkeep_interval"),
    *("database_lost_after",),
    *("result_backend_base_sleep_between_retries_ms", "result_backend_max_sleep_between_retries_ms"),
)
AMOUNTS = ("database_max_decompressed_bytes", "database_spool_max_bytes", "result_backend_max_retries")
ENDLESS = ("database_idle_timeout", "database_retry_window", "database_spool_max_bytes", "result_backend_max_retries")


def pauses(first: float, longest: float) -> RetryPolicy:
    """The default but for the pauses."""
    return RetryPolicy(Policy(INF, 240.0, first, longest), Policy(3, INF, first, longest))


def retries(number: float) -> RetryPolicy:
    """So many for both, without a window."""
    return RetryPolicy(Policy(number, INF, 0.01, 10.0), Policy(number, INF, 0.01, 10.0))


DEFAULT = pauses(0.01, 10.0)


def callback(engine: Engine) -> None:
    """Found by its dotted path."""


def read(given: dict[str, Any] | None = None, **conf: Any) -> Settings:
    """The settings of an app with `conf`, and what a caller gave."""
    app = Celery("tests", set_as_current=False)
    app.conf.update(conf)
    return Settings.read(app.conf, **{"database_url": URL, **(given or {})})


def test_defaults() -> None:
    """What an app gets that sets nothing but the URL."""
    expected = Settings(
        url=URL,
        place=Place(URL, URL, {}),
        origin="database_url",
        engine_options={"pool_pre_ping": True, "pool_recycle": 3600},
        engine_callback=None,
        short_lived_sessions=False,
        idle_timeout=3.0,
        names=TableNames("celery_taskmeta", "celery_tasksetmeta", None, None),
        create_tables_at_setup=True,
        extended=False,
        records=True,
        serializer="json",
        accept=("json",),
        expires=timedelta(days=1),
        compression=None,
        max_decompressed=None,
        redact=None,
        retry=DEFAULT,
        chord_expires=timedelta(days=1),
        native_chords=True,
        chord_secrets=(),
        takes_unsigned_chords=False,
        listen=True,
        listen_url=None,
        poll_min_interval=0.002,
        poll_max_interval=0.25,
        spool_dir=None,
        spool_max_bytes=2**30,
        upkeep_interval=3.0,
        lost_after=None,
    )

    assert read() == expected


@pytest.mark.parametrize("value", [URL, f"sql+{URL}", f"db+{URL}"])
def test_url(value: str) -> None:
    """With or without the word that chose the backend."""
    assert read({"database_url": value}).url == URL


GOOD = [
    ("database_short_lived_sessions", True, "short_lived_sessions", True),
    ("database_idle_timeout", 60, "idle_timeout", 60),
    ("database_idle_timeout", 0, "idle_timeout", 0),
    ("database_create_tables_at_setup", False, "create_tables_at_setup", False),
    ("result_extended", True, "extended", True),
    ("database_record_tasks", False, "records", False),
    ("database_native_chords", False, "native_chords", False),
    ("database_chord_secrets", "one", "chord_secrets", ("one",)),
    ("database_chord_secrets", ["new", "old"], "chord_secrets", ("new", "old")),
    ("database_accept_unsigned_chords", True, "takes_unsigned_chords", True),
    ("database_listen", False, "listen", False),
    ("database_listen_url", f"sql+{URL}", "listen_url", URL),
    ("database_poll_min_interval", 0.1, "poll_min_interval", 0.1),
    ("database_poll_max_interval", 2, "poll_max_interval", 2),
    ("database_engine_callback", callback, "engine_callback", callback),
    ("database_engine_callback", "math.sqrt", "engine_callback", __import__("math").sqrt),
    ("database_engine_callback", "math:sqrt", "engine_callback", __import__("math").sqrt),
    ("database_engine_options", None, "engine_options", {"pool_pre_ping": True, "pool_recycle": 3600}),
    (
        "database_engine_options",
        {"pool_size": 2, "pool_recycle": 60},
        "engine_options",
        {"pool_pre_ping": True, "pool_recycle": 60, "pool_size": 2},
    ),
    ("database_table_names", {"task": "t"}, "names", TableNames("t", "celery_tasksetmeta", None, None)),
    ("database_table_names", {"task": None, "group": "g"}, "names", TableNames("celery_taskmeta", "g", None, None)),
    ("database_table_names", {"task": "n" * 55}, "names", TableNames("n" * 55)),
    (
        "database_table_schemas",
        {"task": "one", "group": "two"},
        "names",
        TableNames("celery_taskmeta", "celery_tasksetmeta", "one", "two"),
    ),
    ("result_expires", 0, "expires", None),
    ("result_expires", None, "expires", None),
    ("result_expires", timedelta(0), "expires", None),
    ("result_expires", 60, "expires", timedelta(minutes=1)),
    ("result_expires", 0.5, "expires", timedelta(milliseconds=500)),
    ("result_expires", timedelta(hours=1), "expires", timedelta(hours=1)),
    ("result_expires", timedelta(days=36500), "expires", timedelta(days=36500)),
    ("result_expires", 60, "chord_expires", timedelta(minutes=1)),
    ("result_chord_expires", 60, "chord_expires", timedelta(minutes=1)),
    ("result_chord_expires", 0, "chord_expires", None),
    ("result_compression", "gzip", "compression", "gzip"),
    ("result_compression", None, "compression", None),
    ("database_max_decompressed_bytes", 1000, "max_decompressed", 1000),
    ("database_redact", ["password", "token"], "redact", frozenset({"password", "token"})),
    ("database_redact", (), "redact", frozenset()),
    ("database_redact", callback, "redact", callback),
    ("database_redact", "math.sqrt", "redact", __import__("math").sqrt),
    ("result_backend_max_retries", 5, "retry", retries(5)),
    ("result_backend_max_retries", 0, "retry", retries(0)),
    ("result_backend_max_retries", float("inf"), "retry", retries(INF)),
    ("result_backend_always_retry", False, "retry", retries(0)),
    ("result_backend_always_retry", True, "retry", DEFAULT),
    ("database_idle_timeout", INF, "idle_timeout", INF),
    ("database_spool_max_bytes", INF, "spool_max_bytes", INF),
    ("database_upkeep_interval", 36500 * 86400, "upkeep_interval", 36500 * 86400),
    ("database_retry_window", 5, "retry", RetryPolicy(Policy(INF, 5, 0.01, 10.0), DEFAULT.reads)),
    ("database_spool_dir", "/var/spool/shop", "spool_dir", "/var/spool/shop"),
    ("database_spool_dir", Path("/var/spool/shop"), "spool_dir", "/var/spool/shop"),
    ("database_spool_max_bytes", 0, "spool_max_bytes", 0),
    ("database_upkeep_interval", 0, "upkeep_interval", 0),
    ("database_lost_after", 60, "lost_after", timedelta(minutes=1)),
    ("result_backend_base_sleep_between_retries_ms", 50, "retry", pauses(0.05, 10.0)),
    ("result_backend_max_sleep_between_retries_ms", 500, "retry", pauses(0.01, 0.5)),
]


@pytest.mark.parametrize(("setting", "value", "field", "expected"), GOOD)
def test_good(setting: str, value: Any, field: str, expected: Any) -> None:
    """What a setting turns into."""
    assert getattr(read(**{setting: value}), field) == expected


WRONG = [
    ("database_url", "not a url"),
    ("database_url", 7),
    ("database_short_lived_sessions", "yes"),
    ("database_create_tables_at_setup", 2),
    ("database_max_decompressed_bytes", 0),
    ("database_redact", 7),
    ("database_redact", [7]),
    ("database_redact", "password"),
    ("result_extended", "on"),
    ("database_record_tasks", "on"),
    ("database_native_chords", "on"),
    ("database_chord_secrets", b"bytes"),
    ("database_chord_secrets", ["one", ""]),
    ("database_accept_unsigned_chords", "yes"),
    ("database_listen", "on"),
    ("database_listen_url", "not a url"),
    ("database_poll_min_interval", -1),
    ("database_poll_max_interval", "long"),
    ("database_engine_callback", 7),
    ("database_engine_callback", "no.such.module"),
    ("database_engine_callback", "math.no_such_name"),
    ("database_engine_options", "pool_size=5"),
    ("database_engine_options", {1: "one"}),
    ("database_table_names", ["t", "g"]),
    ("database_table_names", {"taskset": "g"}),
    ("database_table_names", {"task": ""}),
    ("database_table_names", {"task": 7}),
    ("database_table_names", {"task": "n" * 56}),
    ("database_table_schemas", {"tasks": "s"}),
    ("database_table_schemas", {"group": 7}),
    ("result_expires", -1),
    ("result_expires", "tomorrow"),
    ("result_expires", True),
    ("result_expires", timedelta(seconds=-1)),
    ("result_chord_expires", -1),
    ("result_compression", "rar"),
    ("result_serializer", "xml"),
    ("result_serializer", "application/json"),
    ("accept_content", "json"),
    ("accept_content", ["xml"]),
    ("result_accept_content", "pickle"),
    ("result_accept_content", ["application/xml"]),
    ("database_retry_window", -1),
    ("database_retry_window", "minutes"),
    ("database_spool_dir", 7),
    ("database_spool_dir", "relative/path"),
    ("database_spool_max_bytes", -1),
    ("database_upkeep_interval", -1),
    *(("database_lost_after", value) for value in (0, 59.9, -1, True, "1 h")),
    ("result_backend_max_retries", -1),
    ("result_backend_max_retries", "many"),
    ("result_backend_always_retry", "yes"),
    ("result_backend_base_sleep_between_retries_ms", -1),
    ("result_backend_max_sleep_between_retries_ms", "long"),
    ("result_expires", timedelta.max),
    ("result_serializer", [5]),
    ("result_serializer", {"json": 1}),
    ("database_spool_dir", "/"),
    ("database_spool_dir", "//"),
    *((setting, value) for setting in (*TIMES, *AMOUNTS) for value in (NAN, 10**400)),
    *((setting, value) for setting in TIMES for value in (1e20, 36500 * 86400 + 1)),
    *((setting, INF) for setting in (*TIMES, *AMOUNTS) if setting not in ENDLESS),
]


@pytest.mark.parametrize(("setting", "value"), WRONG)
def test_wrong(setting: str, value: Any) -> None:
    """The error names the setting, what it needs, and what was found."""
    conf = {} if setting == "database_url" else {setting: value}
    given = {"database_url": value} if setting == "database_url" else {}

    with pytest.raises(SettingError, match=rf"^{setting} is .*, but it must be "):
        read(given, **conf)


@pytest.mark.parametrize(("setting", "value"), [entry for entry in WRONG if entry[0] != "database_url"])
def test_wrong_settings_stop_the_start(setting: str, value: Any) -> None:
    """The backend is not made; a database is not asked."""
    app = app_on("sqlite://", **{setting: value})

    with pytest.raises(SettingError, match=f"^{setting} is "):
        _ = app.backend


def test_a_wrong_url_is_not_shown() -> None:
    """It may hold a password."""
    with pytest.raises(SettingError) as caught:
        read({"database_url": "secret nonsense"})

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "needed"),
    [
        ("nosuch://host/db", "knows"),
        ("postgresql+nosuch://host/db", "knows"),
        ("oracle+oracledb://host/db", "oracledb is not, and its documentation says which package brings it"),
    ],
)
def test_a_database_without_a_driver(url: str, needed: str) -> None:
    """The error says what to install."""
    with pytest.raises(SettingError, match=needed):
        _ = app_on(url).backend


@pytest.mark.parametrize(
    "drivername",
    ["postgresql+asyncpg", "postgresql+psycopg_async", "mysql+aiomysql", "mariadb+asyncmy", "sqlite+aiosqlite"],
)
@pytest.mark.parametrize("setting", ["database_url", "database_listen_url"])
def test_a_driver_for_asyncio(drivername: str, setting: str) -> None:
    """It is refused at once, installed or not, and without the password."""
    with pytest.raises(SettingError, match="not for asyncio") as caught:
        read({setting: f"sql+{drivername}://u:secret@host/db"})

    assert str(caught.value).startswith(f"{setting} is {drivername!r}")
    assert "secret" not in str(caught.value)


def test_an_unknown_engine_option_is_named() -> None:
    """SQLAlchemy says which one it is."""
    with pytest.raises(SettingError, match=r"database_engine_options .*no_such_option"):
        _ = app_on("sqlite://", database_engine_options={"no_such_option": 1}).backend


def test_what_a_caller_gives_overrides_the_setting() -> None:
    """Engine options are merged, all else is replaced."""
    given = {"database_engine_options": {"pool_size": 3}, "result_expires": timedelta(hours=2)}
    settings = read(given, database_engine_options={"pool_size": 1, "echo": False}, result_expires=60)
    expected = {"pool_pre_ping": True, "pool_recycle": 3600, "echo": False, "pool_size": 3}

    assert (settings.engine_options, settings.expires) == (expected, timedelta(hours=2))


@pytest.mark.parametrize("driver", ["", "+psycopg", "+psycopg2"])
@pytest.mark.parametrize(
    "place",
    ["u:secret@a:1,b:2/db", "u:secret@[::1]:1,b:2/db", "a:1,b/db", "u:secret@/db?host=a:1,b:2", "/?host=a%3A1,b"],
)
@pytest.mark.parametrize("setting", ["database_url", "database_listen_url"])
def test_hosts_in_one_list(driver: str, place: str, setting: str) -> None:
    """libpq's own URLs have them so; the error says how SQLAlchemy wants them, and shows no password."""
    with pytest.raises(SettingError) as caught:
        read({setting: f"sql+postgresql{driver}://{place}"})

    assert "…/db?host=a:1&host=b:2" in str(caught.value)
    assert setting in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:secret@/db?host=a:1&host=b:2&target_session_attrs=read-write",
        "postgresql+psycopg://u:secret@/db?host=a,b&port=1,2",
        "postgresql+psycopg://u:1,2@host:5432/db",
        "postgresql+psycopg://u:secret@host:5432/db?options=-c%20x=a:1,b:2",
        "sqlite:////srv/a:1,b/results.db",
    ],
)
def test_hosts_that_are_named_one_by_one(url: str) -> None:
    """And what only looks like a list of them."""
    assert read({"database_url": url}).url == url
