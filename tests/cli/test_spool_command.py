"""`spool` shows what waits on a host, also while the database is away, and stores it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_sql_results import DatabaseBackend
from cli.run import Program
from servers import Database
from servers.pool import on
from support import app_on, close, request

pytestmark = on("postgresql", "mariadb", "sqlite")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory that nobody else may write to."""
    found = tmp_path / "spool"
    found.mkdir(mode=0o700)
    return found


def fill(backend: DatabaseBackend, *ids: str) -> list[str]:
    """Let entries wait in the spool of a backend, as an outage leaves them; return their names."""
    from celery_sql_results.writing.entry import TASK, Entry
    from celery_sql_results.writing.spool.files import dumps

    assert backend.spool
    for id_ in ids:
        row = backend._services.row(id_, {"of": id_}, "SUCCESS", None, None, request(id_, group=None))
        backend.spool.add(dumps(Entry(TASK, row)))
    return list(backend.spool.names())


@pytest.fixture
def spooling(database: Database, folder: Path) -> Iterator[DatabaseBackend]:
    """A backend with a spool."""
    found = app_on(database.url, database_spool_dir=str(folder)).backend
    yield found
    close(found)


@pytest.fixture
def operator(results: Program, folder: Path) -> Program:
    """The program of the same project."""
    return results.but(settings={"database_spool_dir": str(folder)})


def test_what_waits(operator: Program, spooling: DatabaseBackend, folder: Path) -> None:
    """For which database, how many, since when, and what was put aside, with the reason."""
    fill(spooling, "t-1", "t-2")
    assert spooling.spool
    (spooling.spool.path / "0-broken.json.rejected").write_text("{")

    [told] = operator("spool", "--json").json
    shown = operator("spool")

    assert (told["entries"], told["rejected"], told["siblings"]) == (2, 1, [])
    assert told["rejected_entries"][0]["reason"] == "it is not JSON (JSONDecodeError)"
    assert (told["database"], shown.code) == (spooling.as_uri(), 0)
    assert [line.split()[0] for line in shown.lines[:3]] == ["database", "tables", "directory"]


def test_siblings(operator: Program, spooling: DatabaseBackend, folder: Path) -> None:
    """Those of other databases in the same directory, also when they are young."""
    other = app_on("sqlite:////tmp/nowhere-at-all.db", database_spool_dir=str(folder)).backend
    fill(other, "t-1")
    close(other)

    [told] = operator("spool", "--json").json

    assert [(each["entries"], "nowhere-at-all" in each["owner"]) for each in told["siblings"]] == [(1, True)]


def test_an_entry(operator: Program, spooling: DatabaseBackend) -> None:
    """It is listed and shown, decoded."""
    [name] = fill(spooling, "t-1")

    assert operator("spool", "--list", "--json").json == [
        {"name": name, "kind": "task", "state": "SUCCESS", "id": "t-1"}
    ]
    [told] = operator("spool", "--show", name, "--json").json
    assert (told["task_id"], told["result"]) == ("t-1", {"of": "t-1"})
    assert operator("spool", "--show", "nothing").code == 4
    assert operator("spool", "--show", "../../etc/passwd").code == 4


def test_replay(operator: Program, spooling: DatabaseBackend) -> None:
    """What waits is stored; a dry run and a pipe without --yes store nothing."""
    fill(spooling, "t-1", "t-2", "t-3")

    assert operator("spool", "--replay", "--dry-run").lines == ["would store 3 entries"]
    assert operator("spool", "--replay").code == 2
    assert spooling.spooled == 3
    assert operator("spool", "--replay", "--yes").lines == ["stored 3 of 3 entries"]
    assert (spooling.spooled, spooling.get_result("t-2")) == (0, {"of": "t-2"})
    assert operator("spool", "--replay", "--yes").lines == ["nothing waits"]


def test_a_worker_is_at_it(operator: Program, spooling: DatabaseBackend) -> None:
    """Then it is left to that."""
    fill(spooling, "t-1")
    assert spooling.spool
    with spooling.spool.alone() as alone:
        assert alone
        ended = operator("spool", "--replay", "--yes")

    assert (ended.code, "a worker is storing them" in ended.told, spooling.spooled) == (2, True, 1)


def test_the_database_is_away(operator: Program, folder: Path) -> None:
    """Everything works but the replay, which fails with one line."""
    url = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    away = app_on(url, database_spool_dir=str(folder), database_create_tables_at_setup=False).backend
    [name] = fill(away, "t-1")
    close(away)

    program = operator.but(url=url)
    assert [program("spool", *words).code for words in ((), ("--list",), ("--show", name))] == [0, 0, 0]
    ended = program("spool", "--replay", "--yes")
    assert (ended.code, ended.told.splitlines()[-1].startswith("Error: "), "Traceback" in ended.told) == (
        2,
        True,
        False,
    )


def test_no_spool(results: Program, tmp_path: Path) -> None:
    """None is made by looking."""
    assert results("spool").code == 2
    assert results("spool", "--spool-dir", str(tmp_path / "none")).code == 2
    assert not (tmp_path / "none").exists()


def test_another_users(operator: Program, folder: Path) -> None:
    """A directory that others may write to is not used."""
    folder.chmod(0o777)
    ended = operator("spool")

    assert (ended.code, "Traceback" in ended.told) == (2, False)
    assert subprocess.run(["ls", str(folder)], capture_output=True, check=True).stdout == b""


@pytest.mark.parametrize("words", ["list", "stats", "show 44444444-eeee", "wait 44444444-eeee", "info", "chords"])
@pytest.mark.usefixtures("stored")
def test_looking_needs_no_spool(results: Program, folder: Path, words: str) -> None:
    """It may be that of another user, or wrong: check tells that, and what acts or shows it does not begin."""
    folder.chmod(0o777)
    program = results.but(settings={"database_spool_dir": str(folder)})

    assert program(*words.split()).code == 0
    assert "database_spool_dir" in program("check").text
    assert program("spool").code == 2
