"""Make ``data/``: let real releases of Celery fill real databases, and write down what they left there.

    python tests/legacy/make.py [RELEASE ...]

It needs what ``scripts/test`` needs, as it starts PostgreSQL and MariaDB from ``tests/servers``, and pip, as it makes
an environment of its own for each release, in a temporary folder. A second run changes no byte. It takes two minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from legacy import DATA, PASSWORD, RELEASES  # noqa: E402  found by the line above
from servers import MariaDB, PostgreSQL, Server  # noqa: E402

COMMON = ["msgpack==1.2.4", "PyMySQL==1.2.4", "PyYAML==6.0.3", "time-machine==3.6.0"]

#: Each with companions of its own time. SQLAlchemy 1.4 knows no psycopg 3.
REQUIREMENTS = {
    "5.2.7": ["celery==5.2.7", "kombu==5.2.4", "SQLAlchemy==1.4.54", "psycopg2-binary==2.9.13"],
    "5.4.0": ["celery==5.4.0", "kombu==5.3.7", "SQLAlchemy==2.0.30", "psycopg[binary]==3.3.9"],
    "5.6.3": ["celery==5.6.3", "kombu==5.6.2", "SQLAlchemy==2.0.57", "psycopg[binary]==3.3.9"],
    "5.7.0": ["celery==5.7.0", "kombu==5.7.0", "SQLAlchemy==2.1.9", "psycopg[binary]==3.3.9"],
}

DATABASE = "legacy"
USER = "celery"


@dataclass(frozen=True)
class Target:
    """A database to fill. Pickled groups hold its URL, which therefore says nothing of this machine; the rest does."""

    kind: str
    url: str
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def environment_of(release: str, folder: Path) -> Path:
    """Make a virtual environment with a release; return its Python."""
    print(f"Celery {release}: installing", flush=True)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[release], *COMMON], folder)
    return python


def run(command: list[str], folder: Path, **environment: str) -> None:
    """Run a command to its end; show what it said only if it fails."""
    done = subprocess.run(
        command, check=False, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def fresh(server: Server) -> Iterator[None]:
    """An empty database on a server, with a user who may do everything in it."""
    server.create_database(DATABASE)
    server.create_role(USER, PASSWORD, DATABASE, ddl=True)
    yield
    server.drop_database(DATABASE)


def on_postgresql(server: Server, release: str) -> Target:
    """The target on PostgreSQL, found by the variables of libpq."""
    driver = "psycopg2" if release == "5.2.7" else "psycopg"
    where = {"PGHOST": server.host, "PGPORT": str(server.port), "PGTZ": "UTC"}
    return Target("postgresql", f"db+postgresql+{driver}://{USER}:{PASSWORD}@/{DATABASE}", where)


def on_mariadb(server: Server) -> Target:
    """The target on MariaDB, found by an option file."""
    options = f"[client]\nhost = {server.host}\nport = {server.port}\n"
    url = f"db+mysql+pymysql://{USER}:{PASSWORD}@/{DATABASE}?read_default_file=my.cnf"
    return Target("mariadb", url, files={"my.cnf": options})


def produce(python: Path, target: Target) -> dict[str, Any]:
    """Fill a database with a release; return the report of ``produce.py``."""
    print(f"  {target.kind}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in target.files.items():
            Path(folder, name).write_text(text)
        out = Path(folder, "out.json")
        command = [str(python), str(HERE / "produce.py"), target.url, str(out)]
        run(command, Path(folder), PYTHONHASHSEED="0", TZ="UTC", **target.environment)
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return report


def differences(rows: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The rows that one kind of database holds otherwise than SQLite, by table."""
    found = {table: [row for row in rows[table] if row not in base[table]] for table in base}
    return {table: different for table, different in found.items() if different}


def document(release: str, reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One file's content from the reports of all databases."""
    first, *others = reports.values()
    for report in others:
        if report["expected"] != first["expected"] or report["refused"] != first["refused"]:
            sys.exit(f"Celery {release} means different things on different databases; the file cannot say so.")
    return {
        "made_with": REQUIREMENTS[release],
        "ddl": {kind: report["ddl"] for kind, report in reports.items()} | {"mysql": first["ddl_of_mysql"]},
        "rows": first["rows"],
        "differs": {kind: differences(report["rows"], first["rows"]) for kind, report in reports.items()},
        "refused": first["refused"],
        "expected": first["expected"],
    }


def make(release: str, postgresql: Server, mariadb: Server) -> None:
    """Write the file of one release."""
    with tempfile.TemporaryDirectory() as folder, fresh(postgresql), fresh(mariadb):
        python = environment_of(release, Path(folder))
        targets = [
            Target("sqlite", "db+sqlite:///results.db"),
            on_postgresql(postgresql, release),
            on_mariadb(mariadb),
        ]
        found = document(release, {target.kind: produce(python, target) for target in targets})
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
    (DATA / f"celery-{release}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Make the files of the releases that are named, or of all."""
    DATA.mkdir(exist_ok=True)
    with ExitStack() as servers:
        postgresql, mariadb = (servers.enter_context(kind()) for kind in (PostgreSQL, MariaDB))
        for release in sys.argv[1:] or RELEASES:
            make(release, postgresql, mariadb)


if __name__ == "__main__":
    main()
