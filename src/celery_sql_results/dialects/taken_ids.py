"""A new id that another row has already: the row is put again, under the next one.

Ids come from a sequence of the database, and one that was restored without its value, or made anew, is behind the ids
in its table. What is written belongs to the key of a task or a group, so no such row may be touched.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from .base import DefaultImpl, Put, Row

__all__ = ["put_under_a_free_id"]

logger = logging.getLogger(__name__)

#: How often a row is put in all, and from which attempt on the sequence is moved: one number that is taken may be all.
ATTEMPTS, FIRST_MOVE = 20, 2


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
    for attempt in range(1, ATTEMPTS):
        try:
            return _put(impl, connection, where, row, wake, part)
        except exc.DBAPIError as error:
            if not impl.is_taken(error):
                raise
        if attempt == FIRST_MOVE:
            logger.warning("new ids of %s are in use already: its sequence is behind, and is moved on", where.table)
        if attempt >= FIRST_MOVE:
            with suppress(exc.DBAPIError):  # this role may not, or it takes too long: each attempt draws one, too
                impl.move_on(connection, where.table)
    return _put(impl, connection, where, row, wake, part)


def _put(
    impl: DefaultImpl,
    connection: Any,
    where: Put,
    row: Row,
    wake: sa.Executable | None,
    part: tuple[Put, Row] | None,
) -> bool:
    if part is None:
        return impl.put(connection, where, row, wake)
    return impl.put_both(connection, where, row, *part)
