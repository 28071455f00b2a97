"""What waits on this host until the database takes it."""

from __future__ import annotations

from collections.abc import Iterator

from celery_sql_results.writing import Directory

from .finding import Finding, Level

__all__ = ["spools"]


def spools(directory: Directory) -> Iterator[Finding]:
    """One finding for the spool, and one for each of others' in the same place that nobody empties."""
    waiting = len(directory.names())
    found = f"{waiting or 'no'} result{' waits' if waiting == 1 else 's wait'} in the spool {directory.path}"
    to_do = "a worker on this host stores them when it runs, and when the database takes them"
    yield Finding("spool", found, Level.ADVICE, to_do=to_do) if waiting else Finding("spool", found)
    for sibling in directory.siblings():
        yield Finding(
            "spool",
            f"{sibling.entries} results wait in {sibling.path} for {sibling.owner} since "
            f"{sibling.since:%Y-%m-%d %H:%M} UTC, and nobody stores them",
            Level.WRONG,
            to_do="start a worker with that result_backend, or move the files to the spool of one",
        )
