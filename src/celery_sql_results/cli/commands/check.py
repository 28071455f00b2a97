"""``check``: is this database as it should be?"""

from __future__ import annotations

import logging

import click

from celery_sql_results.cli.checks import Checks
from celery_sql_results.cli.desk import DONE, UNWELL, Desk, verb
from celery_sql_results.health import Finding, Level
from celery_sql_results.schema import PURPOSES

__all__ = ["command"]

PURPOSE = click.Choice([*PURPOSES])


@verb("check", spools=True)
@click.option("--for", "purpose", type=PURPOSE, default="worker", show_default=True, help="Whose rights to check.")
def command(desk: Desk, purpose: str) -> int:
    """Look whether the database, the tables and this host are set up as they should be. Nothing is changed.

    One line for each thing: what was found, what is needed, and what to do. What is only advice is marked so, and does
    not count.

    Exit code: 0 if all is well, 1 if anything is wrong.
    """
    logging.getLogger("celery_sql_results").setLevel(logging.ERROR)  # what it warns of is a finding here
    wrong = 0
    for finding in Checks(desk, purpose).all():
        _print(desk, finding)
        wrong += finding.level is Level.WRONG
    desk.out.line(f"{wrong or 'no'} {'thing is' if wrong == 1 else 'things are'} wrong")
    return UNWELL if wrong else DONE


def _print(desk: Desk, finding: Finding) -> None:
    if desk.out.form == "json":
        desk.out.json(finding._asdict())
        return
    parts = [finding.found, finding.needed and f"needed: {finding.needed}", finding.to_do and f"to do: {finding.to_do}"]
    desk.out.line(f"{finding.level.value:<7} {finding.about:<13} {'; '.join(filter(None, parts))}")
