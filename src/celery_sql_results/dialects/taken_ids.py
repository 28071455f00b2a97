"""A row that another is in the way of is put again: under the next id, or in place of the other.

Ids come from a sequence of the database, and one that was restored without its value, or made anew, is behind the ids
in its table. What is written belongs to the key of a task or a group, so no such row may be touched. On a database that
nobody wrote an impl for, it may also be that somebody else has just inserted the same key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from celery_sql_results.foreign import escaping

from .base import DefaultImpl
from .puts import Put, Row

__all__ = ["put_under_a_free_id"]

logger = escaping(logging.getLogger(__name__))

#: How often a row is put in all.
ATTEMPTS = 20


def put_under_a_free_id(
    impl: DefaultImpl,
    connection: Any,
    where: Put,
    row: Row,
    wake: sa.Executable | None = None,
    part: tuple[Put, Row] | None = None,
) -> bool:
    """Put a row as ``impl`` does, with a part of a chord if there is one; again while its new id is taken.

    Return whether somebody may wait for it, who was not woken yet.

    Raises:
        whatever the database raised last.
    """
    try:
        return impl.put(connection, where, row, wake) if part is None else impl.put_both(connection, where, row, *part)
    except exc.DBAPIError as error:
        if not impl.is_taken(error):
            raise
    put = partial(impl.put, connection, where, row, wake)
    put_both = None if part is None else partial(impl.put_both, connection, where, row, *part)
    return _put_again(put_both or put, impl, connection, where.table)


def _put_again(put: Callable[[], bool], impl: DefaultImpl, connection: Any, table: sa.Table) -> bool:
    """The next number may be free already; from then on, the sequence is moved each time."""
    for attempt in range(2, ATTEMPTS):
        impl.begin_again(connection)
        try:
            return put()
        except exc.DBAPIError as error:
            if not impl.is_taken(error):
                raise
        if "id" not in table.c:
            continue
        if attempt == 2 and impl.knows_taken_ids:
            logger.warning("new ids of %s are in use already: its sequence is behind, and is moved on", table)
        with suppress(exc.DBAPIError):  # this role may not, or it takes too long: each attempt draws one, too
            impl.move_on(connection, table)
    impl.begin_again(connection)
    return put()
