"""Walks through results page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

from celery_sql_results.rows import Row
from celery_sql_results.rows.queries import Asked, Filter, Page, Results

__all__ = ["limited", "pages"]

#: How many results a list shows, unless somebody says otherwise, and how many one query reads at most.
LIMIT, PAGE = 50, 1_000


def limited(told: str) -> Callable[..., Any]:
    """The option that says how much a list shows, as ``limit``, with its help."""
    return click.option("--limit", type=click.IntRange(1), metavar="N", default=LIMIT, show_default=True, help=told)


def pages(asked: Asked, which: Filter, limit: int | None) -> Iterator[Row]:
    """The results that a filter means, newest first, up to ``limit``."""
    results, cursor, left = Results(asked), None, limit
    while left is None or left > 0:
        page: Page = results.page(which, PAGE if left is None else min(left, PAGE), cursor)
        yield from page.rows
        cursor, left = page.next, None if left is None else left - len(page.rows)
        if cursor is None:
            return
