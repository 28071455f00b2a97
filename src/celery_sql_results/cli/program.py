"""``celery-sql-results``: the same commands, for people who cannot or will not import their project."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import click

from .group import PREFIX, LazyGroup

__all__ = ["main"]

#: Where Celery looks for a broker before it looks at the settings.
BROKER_NAMES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


@click.group(cls=LazyGroup, name="celery-sql-results")
@click.option("--database-url", metavar="URL", help="The database, as result_backend has it: sql+postgresql://…")
@click.option("--task-table", metavar="NAME", help="As in database_table_names; celery_taskmeta by default.")
@click.option("--group-table", metavar="NAME", help="As in database_table_names; celery_tasksetmeta by default.")
@click.option("--schema", metavar="NAME", help="The schema of both tables, as in database_table_schemas.")
@click.option("--broker-url", metavar="URL", help="Where retry sends tasks.")
@click.option("--spool-dir", metavar="PATH", help="As in database_spool_dir.")
@click.version_option(package_name="celery-sql-results")
@click.pass_context
def program(ctx: click.Context, /, **given: str | None) -> None:
    """See and tend the results of Celery's tasks in a SQL database.

    Each option can come from the environment, as CELERY_RESULTS_DATABASE_URL or CELERY_RESULTS_LIST_LIMIT.

    Exit codes: 0 done; 1 what was asked for is not well (a task failed, or check found something); 2 a wrong call, or
    a refusal; 3 not ready; 4 unknown; 124 timed out; 130 stopped with Ctrl-C.
    """
    ctx.obj = SimpleNamespace(app=_App(given), no_color=False, quiet=False)


class _App:
    """Makes an app when a command needs it: help needs none."""

    def __init__(self, given: dict[str, str | None]) -> None:
        self._given = given

    def __call__(self) -> Any:
        from celery import Celery

        url, given = self._given["database_url"], self._given
        backend = url and f"sql+{url.removeprefix('sql+').removeprefix('db+')}"
        if backend:
            os.environ.pop("CELERY_RESULT_BACKEND", None)  # Celery would take that instead
        for name in BROKER_NAMES if given["broker_url"] else ():
            os.environ.pop(name, None)  # likewise
        app = Celery("celery-sql-results", set_as_current=False)
        app.conf.update(
            result_backend=backend,
            broker_url=given["broker_url"],
            result_expires=0,  # which only the project knows: nothing may expire by a default
            database_spool_dir=given["spool_dir"],
            database_table_names={"task": given["task_table"], "group": given["group_table"]},
            database_table_schemas={"task": given["schema"], "group": given["schema"]},
        )
        return app


def main() -> Any:
    """The entry point of the program."""
    return program(prog_name="celery-sql-results", auto_envvar_prefix=PREFIX)
