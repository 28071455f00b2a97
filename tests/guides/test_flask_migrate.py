"""Flask-Migrate beside the result tables, with the one line of the guide."""

from __future__ import annotations

import re
from pathlib import Path

from guides.environment import Environment
from guides.pages import copy
from servers import Database
from servers.pool import on
from support import app_on, close


def stored(database: Database) -> None:
    """A worker's backend makes the tables ready, and stores a result."""
    backend = app_on(database.url).backend
    backend.store_result("t", 3, "SUCCESS")
    close(backend)


@on("postgresql", "mariadb", "sqlite")
def test_migrate_is_kept_off(flask: Environment, database: Database, tmp_path: Path) -> None:
    """On a database that a worker has set up; and again when the shop's own tables are there."""
    copy("alembic", "shop.py", tmp_path)

    def db(*command: str) -> str:
        ended = flask.ended("-m", "flask", "--app", "shop", "db", *command, folder=tmp_path, DATABASE=database.url)
        return ended.stdout + ended.stderr

    stored(database)
    db("init")
    db("migrate")
    [first] = (tmp_path / "migrations" / "versions").glob("*.py")
    db("upgrade")
    again = db("check")
    (tmp_path / "shop.py").write_text((tmp_path / "shop.py").read_text().replace("include_name=", "comment="))
    without = db("check")

    upgrade = first.read_text().partition("def upgrade():")[2].partition("def downgrade():")[0]
    assert re.findall(r"op\.(\w+\('\w+')", upgrade) == ["create_table('order'"]
    assert "No new upgrade operations detected" in again
    assert "Detected removed table 'celery_taskmeta_chords'" in without
