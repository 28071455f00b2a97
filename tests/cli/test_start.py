"""The start of a command: what is not needed is not imported."""

from __future__ import annotations

import sys

import pytest

from cli.run import environment, in_pipe

#: What takes long to import.
HEAVY = ("sqlalchemy", "celery_sql_results.backend", "celery_sql_results.models", "rich", "alembic")
#: Runs a module as `python -m` does, and names what of a list was imported.
PROGRAM = """
import atexit, runpy, sys
heavy = {heavy!r}
atexit.register(lambda: print("imported", *(name for name in heavy if name in sys.modules), file=sys.stderr))
sys.argv = {argv!r}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def imported(*argv: str) -> list[str]:
    """What of the heavy things a call has imported."""
    ended = in_pipe([sys.executable, "-c", PROGRAM.format(heavy=HEAVY, argv=list(argv))], environment())
    assert ended.code == 0, ended
    return ended.told.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "argv",
    [
        ("celery", "--version"),
        ("celery", "--help"),
        ("celery", "results", "--help"),
        ("celery", "-A", "cli.shop", "results"),
        ("celery_sql_results", "--help"),
        ("celery_sql_results", "--version"),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(argv: tuple[str, ...]) -> None:
    """Each `celery` command imports our names of commands, and nothing else of ours."""
    if argv[-1] == "results":
        argv = (*argv, "--help")

    assert imported(*argv) == []


def test_a_question_needs_no_migrations() -> None:
    """To look at an empty database imports what asks it, and not what would change it."""
    ended = in_pipe(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY, argv=["celery_sql_results", "list"])],
        environment(CELERY_RESULTS_DATABASE_URL="sqlite://"),
    )

    assert (ended.code, ended.told.splitlines()) == (
        2,
        [
            "Error: sqlite:// has no result tables yet: run upgrade, or start a worker",
            "imported sqlalchemy celery_sql_results.backend celery_sql_results.models",
        ],
    )
