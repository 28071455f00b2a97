"""A server that accepts connections and says nothing: the time limit of a command holds all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import make_url

from celery_sql_results.cli.desk import Desk
from celery_sql_results.cli.output import Output
from celery_sql_results.cli.times import Clock
from cli.run import Ended, Program
from servers import Database
from servers.pool import on
from servers.proxy import Proxy

#: Seconds for a command: more than it needs, less than those after which a worker gives up a server that is silent.
SOON = 25


@pytest.fixture
def silent(database: Database, results: Program) -> Iterator[Program]:
    """The program behind a proxy that passes nothing on."""
    url = make_url(database.url)
    assert url.port is not None
    with Proxy(url.port) as proxy:
        proxy.silent = True
        yield results.but(url=url.set(host=proxy.host, port=proxy.port).render_as_string(hide_password=False))


def soon(program: Program, *words: str) -> Ended:
    """Run a command, which must end soon."""
    run = subprocess.run(
        program.command(*words), env=program.environment, capture_output=True, timeout=SOON, check=False
    )
    return Ended(run.returncode, run.stdout, run.stderr)


@on("postgresql", "mariadb")
@pytest.mark.parametrize("words", ["list", "tail", "stats", "show x", "tree x", "chords", "workers"])
def test_commands_that_look(silent: Program, words: str) -> None:
    """They end with a line, long before a worker would give the server up."""
    ended = soon(silent, *words.split(), "--time-limit", "1")

    assert (ended.code, ended.out, ended.told.count("\n")) == (2, b"", 1)


@on("postgresql", "mariadb")
@pytest.mark.parametrize(
    "words", ["wait x --timeout 1", "wait x --timeout 0", "wait x --any --timeout 1 --time-limit 1h"]
)
def test_wait(silent: Program, words: str) -> None:
    """The time is over, whatever the database says."""
    ended = soon(silent, *words.split())

    assert (ended.code, ended.out, ended.told.count("\n")) == (124, b"", 1)
    assert ended.told.startswith("not ready in time: ")


@on("postgresql")
def test_commands_that_act(silent: Program) -> None:
    """They are given up as well while they connect."""
    assert soon(silent, "forget", "x", "--yes", "--time-limit", "1").code == 2


@on("postgresql", "mariadb")
def test_refused(results: Program, database: Database) -> None:
    """That is no time-out, however short the time is."""
    away = results.but(url=make_url(database.url).set(host="127.0.0.1", port=1).render_as_string(hide_password=False))

    assert [away("wait", "x", "--timeout", limit).code for limit in ("0", "1")] == [2, 2]


@pytest.mark.parametrize(
    ("url", "own", "looks", "expected"),
    [
        ("postgresql+psycopg://h/d", {}, True, {"connect_timeout": 5}),
        ("postgresql+psycopg://h/d", {}, False, {"connect_timeout": 5}),
        ("postgresql+psycopg://h/d", {"connect_timeout": 70}, True, {"connect_timeout": 70}),
        ("postgresql+psycopg://h/d?connect_timeout=70", {}, True, {}),
        (
            "mysql+pymysql://h/d",
            {"charset": "utf8"},
            True,
            {"charset": "utf8", "connect_timeout": 5, "read_timeout": 6},
        ),
        ("mysql+pymysql://h/d", {}, False, {"connect_timeout": 5}),
        ("mysql+pymysql://h/d?read_timeout=70", {}, True, {"connect_timeout": 5}),
        ("sqlite:///d", {"timeout": 1}, True, {"timeout": 1}),
    ],
)
def test_what_drivers_are_given(url: str, own: dict[str, Any], looks: bool, expected: dict[str, Any]) -> None:
    """What the user has set stays; who changes something may take longer for it than a question may."""
    app = Celery(set_as_current=False)
    app.conf.update(result_backend=f"sql+{url}", database_engine_options={"connect_args": own})
    backend = Desk(app, Output("table", Clock(True), False), 4.2, looks, False).backend

    assert backend.engine_options["connect_args"] == expected
